"""What made a node from which voxels: marks that are kept with the scene, to find results again."""

import contextlib
import json
import zlib
from dataclasses import asdict

import numpy as np
from vtk.util.numpy_support import vtk_to_numpy

from ..choices.parameters import Parameters
from ..choices.structures import selected, structures
from ..errors import SEBrainSegError
from ..networks import bundled, user_models
from ..translation import tr as _
from .volume_nodes import MOVED, is_left_handed, problem, refuse_unusable, right_handed

# The marks on our nodes: what it is, what made it from which voxels, and the reference to the volume.
KIND, CHOICE, VOXELS, GRID = (f"SEBrainSeg.{mark}" for mark in ("Kind", "Choice", "Voxels", "Grid"))


CONFIDENCES, REMARKS, VOLUME = "SEBrainSeg.Confidences", "SEBrainSeg.Remarks", "SEBrainSegVolume"


# What KIND says; of excitations, with their block behind it, as in "spatial decoder 1".
SEGMENTATION, CONSENSUS, CONFIDENCE, DISAGREEMENT = "segmentation", "consensus", "confidence", "disagreement"


COMPARISON, SPATIAL, CHANNELS = "comparison", "spatial", "channels"


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
