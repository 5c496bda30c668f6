"""The bridge to Slicer's scene: a volume node as an image, labels as a segmentation node.

With its neighbours of the same first word it is all of the library that needs Slicer; the core never imports them. What
they add they mark, and by these marks they find it again, in a saved scene, too. They change nothing else.
"""

import contextlib
import functools
import json
import os
import zlib
from dataclasses import asdict

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from . import bundled, user_models
from .errors import SEBrainSegError
from .lazy import sitk
from .orientation import doubt_of
from .parameters import Parameters
from .reading import quietly
from .structures import selected, structures
from .surfaces import box_of
from .translation import tr as _

# Slicer's world is RAS, SimpleITK's is LPS; the change is its own inverse.
RAS_TO_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))

# How far axes may be from right angles (dot products of unit vectors): rounding in headers, but no gantry tilt.
SKEW = 1e-3

# How far a voxel may seem to have moved (mm) by the rounding of a header that was written and read.
MOVED = 1e-2

BINARY = "Binary labelmap"

# The marks on our nodes: what it is, what made it from which voxels, and the reference to the volume.
KIND, CHOICE, VOXELS, GRID = (f"SEBrainSeg.{mark}" for mark in ("Kind", "Choice", "Voxels", "Grid"))
CONFIDENCES, REMARKS, VOLUME = "SEBrainSeg.Confidences", "SEBrainSeg.Remarks", "SEBrainSegVolume"

# The mark on our segments: the label of their structure.
LABEL = "SEBrainSeg.Label"

# What KIND says; of excitations, with their block behind it, as in "spatial decoder 1".
SEGMENTATION, CONSENSUS, CONFIDENCE, DISAGREEMENT = "segmentation", "consensus", "confidence", "disagreement"
COMPARISON, SPATIAL, CHANNELS = "comparison", "spatial", "channels"


def voxel_to_ras(volume):
    """Return the 4x4 matrix from the voxel indices of a volume node's array (i, j, k, from 0) to RAS, in mm.

    The parent transform is not part of it.
    """
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    matrix = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    # A cropped image may count its voxels from elsewhere than 0.
    start = volume.GetImageData().GetExtent()[::2]
    matrix[:3, 3] += matrix[:3, :3] @ start
    return matrix


def problem(volume, bundled=True):
    """Return one sentence on why a volume node cannot be segmented, or ``""`` if it can.

    Args:
        volume: the volume node, or ``None``.
        bundled: whether a bundled network is to segment it, which needs a head; user-trained ones take slices, too.
    """
    if volume is None:
        return _("Choose a T1-weighted MR volume of a head.") if bundled else _("Choose a volume.")
    image, name = volume.GetImageData(), volume.GetName()
    if image is None or image.GetPointData().GetScalars() is None:
        return _("The volume '{name}' has no voxels; choose another.").format(name=name)
    if bundled and min(image.GetDimensions()) < 2:
        return _("The volume '{name}' is a single slice; choose a volume of a whole head.").format(name=name)
    if image.GetNumberOfScalarComponents() != 1:
        return _("The volume '{name}' has several values per voxel; choose a scalar volume.").format(name=name)
    axes = voxel_to_ras(volume)[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or spacing.min() <= 0:
        return _("The volume '{name}' has no valid voxel spacing; repair its header.").format(name=name)
    directions = axes / spacing
    if np.abs(directions.T @ directions - np.eye(3)).max() > SKEW:
        return _(
            "The axes of the volume '{name}' are not at right angles (such as after a gantry tilt); "
            "resample it with the module Resample Scalar/Vector/DWI Volume first."
        ).format(name=name)
    return ""


def doubt(volume):
    """Return one sentence if the file of a volume node leaves open which way the head lies, or ``""``.

    Nothing is said of a node whose axes are no longer those of its file, since somebody has set them.

    Args:
        volume: the volume node, or ``None``.
    """
    storage = None if volume is None or volume.GetImageData() is None else volume.GetStorageNode()
    path = storage.GetFullNameFromFileName() if storage is not None else ""
    try:
        why, affine = doubt_of_file(path, os.stat(path).st_mtime_ns) if path else ("", None)
    except (OSError, RuntimeError):
        return ""
    if not why:
        return ""
    axes = affine[:3, :3].copy()
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1
    if not np.allclose(right_handed(volume)[:3, :3], axes, atol=MOVED):
        return ""
    return _(
        "Its file does not say for certain which way the head lies: left and right may be exchanged. "
        "If you know better, turn it with the module Transforms and harden that."
    )


@functools.lru_cache(maxsize=32)
def doubt_of_file(path, time):
    """Return :func:`.orientation.doubt_of` a file that was last changed then."""
    with quietly():
        return doubt_of(path)


def refuse_unusable(volume, bundled=False):
    """Raise SEBrainSegError for a volume node with a :func:`problem`; any that is an image will do by default."""
    reason = problem(volume, bundled)
    if reason:
        raise SEBrainSegError(reason)


def voxels_of(volume):
    """Return what tells the voxels of a volume node from others: size, type and checksum.

    Not the time of their modification, which also moves when nothing has changed. They are those of the volume as
    Slicer would read it from a file: see :func:`right_handed`.

    Raises:
        SEBrainSegError: see :func:`problem`.
    """
    refuse_unusable(volume)
    data = volume.GetImageData()
    voxels = vtk_to_numpy(data.GetPointData().GetScalars()).reshape(data.GetDimensions()[::-1])
    if is_left_handed(volume):
        voxels = voxels[::-1]
    return data.GetDimensions(), str(voxels.dtype), zlib.crc32(np.ascontiguousarray(voxels))


def is_left_handed(volume):
    """Whether the axes of a volume node are left-handed."""
    return np.linalg.det(voxel_to_ras(volume)[:3, :3]) < 0


def right_handed(volume):
    """Return :func:`voxel_to_ras` as it will be once the volume was saved and read again, 4x4.

    Slicer turns the last axis of a left-handed volume, and its voxels with it.
    """
    matrix = voxel_to_ras(volume)
    if is_left_handed(volume):
        matrix[:3, 3] += matrix[:3, 2] * (volume.GetImageData().GetDimensions()[2] - 1)
        matrix[:3, 2] *= -1
    return matrix


def image_of(volume):
    """Copy a volume node to a ``SimpleITK.Image``.

    Voxels, spacing, origin and directions are the node's own; its parent transform is left out, as the result will
    follow the same transform.

    Raises:
        SEBrainSegError: see :func:`problem`.
    """
    refuse_unusable(volume)
    data = volume.GetImageData()
    voxels = vtk_to_numpy(data.GetPointData().GetScalars()).reshape(data.GetDimensions()[::-1])
    image = sitk.GetImageFromArray(voxels)
    matrix = RAS_TO_LPS @ voxel_to_ras(volume)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    return image


def choice_of(parameters):
    """Return :class:`~.parameters.Parameters` as JSON: equal texts, equal results.

    The device is no part of it, the weights are: a network that was trained anew is another.
    """
    fields = {name: value for name, value in asdict(parameters).items() if name != "device"}
    if parameters.model:
        with contextlib.suppress(SEBrainSegError, OSError):
            file = user_models.path_of(parameters.model).stat()
            fields["weights"] = [file.st_size, file.st_mtime_ns]
    else:
        with contextlib.suppress(SEBrainSegError):
            chosen = selected(parameters.structures)
            fields["structures"] = "" if chosen == structures() else ", ".join(each.name for each in chosen)
        known = bundled.checksums()
        fields["weights"] = [known.get(f"{name}.pt", "")[:12] for name in parameters.networks]
    return json.dumps(fields, sort_keys=True)


def parameters_of(node):
    """Return the :class:`~.parameters.Parameters` that made a node."""
    fields = json.loads(node.GetAttribute(CHOICE))
    return Parameters(**{name: value for name, value in fields.items() if name != "weights"})


def mark(node, volume, kind, parameters, voxels=None):
    """Mark a node as made by us of a volume node; ``voxels`` as :func:`voxels_of` gave them."""
    node.SetAttribute(KIND, kind)
    node.SetAttribute(CHOICE, choice_of(parameters))
    node.SetAttribute(VOXELS, str(voxels or voxels_of(volume)))
    node.SetAttribute(GRID, json.dumps(right_handed(volume).round(6).ravel().tolist()))
    node.SetNodeReferenceID(VOLUME, volume.GetID())


def made(volume, kinds):
    """Return the nodes of these kinds that were made of a volume node, latest first, whatever has become of it."""
    scene = volume.GetScene()
    nodes = [] if scene is None else nodes_of(scene)
    ours = (node for node in nodes if node.GetAttribute(KIND) in kinds)
    return [node for node in ours if node.GetNodeReferenceID(VOLUME) == volume.GetID()][::-1]


def find(volume, kind, parameters):
    """Return the latest node of a kind that was made with these parameters of the voxels as they are, or ``None``."""
    if volume is None:
        return None
    # Most often there is none at all, and the checksum of the voxels takes a while.
    nodes = made(volume, (kind,))
    choice = choice_of(parameters) if nodes else ""
    nodes = [node for node in nodes if node.GetAttribute(CHOICE) == choice]
    if not nodes or problem(volume, bundled=False):
        return None
    voxels, grid = str(voxels_of(volume)), right_handed(volume).ravel()

    def fits(node):
        return node.GetAttribute(VOXELS) == voxels and np.allclose(
            json.loads(node.GetAttribute(GRID)), grid, atol=MOVED
        )

    return next(filter(fits, nodes), None)


def is_there(node):
    """Whether a node is in a scene."""
    return node is not None and node.GetScene() is not None


def remove(node):
    """Remove a node from its scene."""
    node.GetScene().RemoveNode(node)


@contextlib.contextmanager
def all_or_nothing(node):
    """Give the scene of a node and remove, on an error, whatever was added to it meanwhile.

    Raises:
        SEBrainSegError: the node is in no scene any more.
    """
    scene = node.GetScene()
    if scene is None:
        raise SEBrainSegError(_("The volume '{name}' was removed during the segmentation.").format(name=node.GetName()))
    before = set(nodes_of(scene))
    try:
        yield scene
    except BaseException:
        take_back(scene, [node for node in nodes_of(scene) if node not in before])
        raise


@contextlib.contextmanager
def in_steps(node, pause=None):
    """Give a function with which to add nodes to the scene of a node in steps: ``step(add, *arguments)``.

    On an error, all that was added in these steps goes, and nothing else that came meanwhile.

    Args:
        node: the volume node that they are of.
        pause: called between two steps, to let the application handle its events; what it raises ends them.

    Raises:
        SEBrainSegError: the node has gone.
    """
    added, steps = [], 0

    def step(add, *arguments, **named):
        nonlocal steps
        if pause is not None and steps:
            pause()
        steps += 1
        with all_or_nothing(node) as scene:
            before = set(nodes_of(scene))
            result = add(*arguments, **named)
            added.extend(each for each in nodes_of(scene) if each not in before)
        return result

    try:
        yield step
    except BaseException:
        there = [each for each in added if each.GetScene() is not None]
        if there:
            take_back(there[0].GetScene(), there)
        raise


def nodes_of(scene):
    """Return all nodes of a scene, in its order."""
    return [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]


def take_back(scene, nodes):
    """Remove nodes that were added, the last of them first."""
    for node in reversed(nodes):
        # The subject hierarchy comes by itself with the first node that has a place in it. Others may go with one.
        if node.GetScene() is scene and not node.IsA("vtkMRMLSubjectHierarchyNode"):
            scene.RemoveNode(node)


def refuse_changed(volume, image, voxels=None):
    """Raise SEBrainSegError if an image made of a volume node, or its :func:`voxels_of` then, no longer fits to it."""
    data = volume.GetImageData()
    fits = data is not None and data.GetDimensions() == image.GetSize() and not problem(volume, bundled=False)
    if not fits or voxels not in (None, voxels_of(volume)):
        raise SEBrainSegError(
            _("The volume '{name}' was changed during the segmentation; segment it again.").format(
                name=volume.GetName()
            )
        )


def add_segmentation(volume, segmentation, voxels=None, kind=SEGMENTATION, title="", visible=True):
    """Add a segmentation node for a volume node: segments that share one labelmap.

    Every structure has its segment, an empty one where it was not found. The node follows the volume's parent transform
    and stands beside it in the subject hierarchy. Nothing else in the scene changes, and nothing at all on an error.

    Args:
        volume: the volume node that was segmented.
        segmentation: a :class:`~.segmentation.Segmentation` of it, voxel by voxel.
        voxels: what :func:`voxels_of` gave for the volume that was segmented, to see that it has not changed since.
        kind: ``SEGMENTATION`` or ``CONSENSUS``.
        title: what segmented it, part of the node's name; by default its parameters' title.
        visible: whether the views show it from the beginning.

    Returns:
        the ``vtkMRMLSegmentationNode``.

    Raises:
        SEBrainSegError: the volume has changed since or has gone, so that the labels no longer fit.
    """
    with all_or_nothing(volume) as scene:
        refuse_changed(volume, segmentation.labels, voxels)
        title = title or segmentation.parameters.title
        node = scene.AddNewNodeByClass(
            "vtkMRMLSegmentationNode", scene.GenerateUniqueName(f"{volume.GetName()} structures ({title})")
        )
        modified = node.StartModify()
        try:
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetVisibility(visible)
            node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
            fill(node.GetSegmentation(), segmentation.structures, shared_labelmap(volume, segmentation.labels))
            mark(node, volume, kind, segmentation.parameters, voxels)
            remember_confidences(node, segmentation)
            if segmentation.doubt or segmentation.cut_off:
                node.SetAttribute(REMARKS, json.dumps([segmentation.doubt, segmentation.cut_off]))
            follow(volume, node)
        finally:
            node.EndModify(modified)
    return node


def remember_confidences(node, segmentation):
    """Keep with a segmentation node how sure the network was of each structure, if that is known."""
    if segmentation.confidences:
        node.SetAttribute(CONFIDENCES, json.dumps(segmentation.confidences))


def shared_labelmap(volume, labels):
    """Return the labels as a ``vtkOrientedImageData`` on the grid of the volume node, no larger than what is labelled.

    Slicer goes through all of its voxels for every segment, whatever it does.
    """
    voxels = sitk.GetArrayViewFromImage(labels)
    box = box_of(voxels > 0) or tuple(slice(0, side) for side in voxels.shape)
    scalars = numpy_to_vtk(np.ascontiguousarray(voxels[box]).ravel(), deep=True)
    scalars.SetName("ImageScalars")
    labelmap, start = slicer.vtkOrientedImageData(), volume.GetImageData().GetExtent()[::2]
    limits = ((first + axis.start, first + axis.stop - 1) for first, axis in zip(start, box[::-1]))
    labelmap.SetExtent(*(limit for pair in limits for limit in pair))
    labelmap.GetPointData().SetScalars(scalars)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    labelmap.SetImageToWorldMatrix(matrix)
    return labelmap


def fill(segmentation, structures, labelmap):
    """Add a segment for every structure, in the order of the table, to an empty ``vtkSegmentation``."""
    for structure in structures:
        segment = slicer.vtkSegment()
        segment.SetName(structure.name)
        segment.SetColor(*(channel / 255 for channel in structure.color))
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), structure.terminology)
        # Name and colour stay the table's when a user picks another term.
        segment.SetNameAutoGenerated(False)
        segment.SetColorAutoGenerated(False)
        segment.SetLabelValue(structure.label)
        segment.SetTag(LABEL, str(structure.label))
        segment.AddRepresentation(BINARY, labelmap)
        segmentation.AddSegment(segment, structure.segment_id)


def follow(volume, node):
    """Give ``node`` the parent transform of ``volume`` and a place beside it in the subject hierarchy."""
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    stand_beside(volume, node)


def stand_under(parent, node):
    """Make ``node`` a child of another in the subject hierarchy, in which it is deleted with that."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(parent.GetScene())
    if hierarchy is None:
        return
    of_parent, of_node = hierarchy.GetItemByDataNode(parent), hierarchy.GetItemByDataNode(node)
    if of_parent and of_node:
        hierarchy.SetItemParent(of_node, of_parent)


def stand_beside(volume, node):
    """Give ``node`` the subject-hierarchy parent of ``volume``, where there is a hierarchy of items."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    if hierarchy is None:
        return
    of_volume, of_node = hierarchy.GetItemByDataNode(volume), hierarchy.GetItemByDataNode(node)
    if of_volume and of_node:
        hierarchy.SetItemParent(of_node, hierarchy.GetItemParent(of_volume))
