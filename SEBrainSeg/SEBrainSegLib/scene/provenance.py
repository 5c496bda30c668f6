"""What made a node from which voxels: marks that are kept with the scene, to find results again."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import slicer

from ..choices.parameters import Parameters
from ..choices.structures import selected, structures
from ..errors import SEBrainSegError
from ..lazy import sitk
from ..networks import bundled, user_models
from ..translation import tr as _
from .volume_nodes import MOVED, array_of_image, is_left_handed, problem, refuse_unusable, right_handed

# The marks on our nodes: what it is, what made it from which voxels, and the reference to the volume.
KIND, CHOICE, VOXELS, GRID = (f"SEBrainSeg.{mark}" for mark in ("Kind", "Choice", "Voxels", "Grid"))


CONFIDENCES, REMARKS, VOLUME = "SEBrainSeg.Confidences", "SEBrainSeg.Remarks", "SEBrainSegVolume"


# What KIND says; of excitations, with their block behind it, as in "spatial decoder 1".
SEGMENTATION, CONSENSUS, CONFIDENCE, DISAGREEMENT = "segmentation", "consensus", "confidence", "disagreement"


COMPARISON, SPATIAL, CHANNELS = "comparison", "spatial", "channels"


# The texts of Content for the images that were looked at last, as of a sequence that is played; the oldest go first.
_known_voxels: dict[tuple, str] = {}


_REMEMBERED = 1000


class Content(NamedTuple):
    """What a volume node held at a time: by this it is told whether it has changed since.

    Attributes:
        voxels: their size, type and checksum.
        grid: the 16 numbers of its matrix from voxel indices to RAS, row by row.
    """

    voxels: str
    grid: tuple[float, ...]

    def fits(self, other: Content) -> bool:
        """Whether these are the same voxels in the same place, but for the rounding of a header."""
        return self.voxels == other.voxels and np.allclose(self.grid, other.grid, atol=MOVED)


def content_of(volume: slicer.vtkMRMLVolumeNode) -> Content:
    """Return the :class:`Content` of a volume node as it is now.

    It is that of the volume as Slicer would read it from a file: see :func:`right_handed`. The parent transform is not
    part of it.

    Raises:
        SEBrainSegError: see :func:`problem`.
    """
    refuse_unusable(volume)
    data = volume.GetImageData()
    voxels = array_of_image(data)
    if is_left_handed(volume):
        voxels = voxels[::-1]
    text = str((data.GetDimensions(), str(voxels.dtype), zlib.crc32(np.ascontiguousarray(voxels))))
    while len(_known_voxels) >= _REMEMBERED:
        _known_voxels.pop(next(iter(_known_voxels)))
    _known_voxels[_state_of_voxels(volume)] = text
    return Content(text, _grid_of(volume))


def _remembered_content(volume: slicer.vtkMRMLVolumeNode) -> Content:
    """Return :func:`content_of` a volume node, its voxels only read if VTK was told of a modification since."""
    known = _known_voxels.get(_state_of_voxels(volume))
    return content_of(volume) if known is None else Content(known, _grid_of(volume))


def _state_of_voxels(volume: slicer.vtkMRMLVolumeNode) -> tuple:
    """Return what is another once voxels have changed and ``Modified()`` was called on them, their image or its data.

    VTK numbers all modifications there are, so that another image at the same address has another number.
    """
    data = volume.GetImageData()
    return data.GetAddressAsString("vtkImageData"), data.GetMTime(), data.GetDimensions(), is_left_handed(volume)


def _grid_of(volume: slicer.vtkMRMLVolumeNode) -> tuple[float, ...]:
    return tuple(right_handed(volume).round(6).ravel().tolist())


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


def record_origin(
    node: slicer.vtkMRMLNode,
    volume: slicer.vtkMRMLVolumeNode,
    kind: str,
    parameters: Parameters,
    content: Content | None = None,
) -> None:
    """Record on a node what it is and what made it of which volume node.

    Args:
        node: the node.
        volume: the volume node.
        kind: as :data:`KIND` has it.
        parameters: what made it.
        content: the :func:`content_of` the volume when it was segmented; by default as it is now.
    """
    node.SetAttribute(KIND, kind)
    node.SetAttribute(CHOICE, choice_of(parameters))
    content = content or content_of(volume)
    node.SetAttribute(VOXELS, content.voxels)
    node.SetAttribute(GRID, json.dumps(content.grid))
    node.SetNodeReferenceID(VOLUME, volume.GetID())


def results_of(volume: slicer.vtkMRMLVolumeNode, kinds: Iterable[str]) -> list[slicer.vtkMRMLNode]:
    """Return the nodes of these kinds that were made of a volume node, latest first, whatever has become of it."""
    scene = volume.GetScene()
    nodes = [] if scene is None else nodes_of(scene)
    ours = (node for node in nodes if node.GetAttribute(KIND) in kinds)
    return [node for node in ours if node.GetNodeReferenceID(VOLUME) == volume.GetID()][::-1]


def find_result(
    volume: slicer.vtkMRMLVolumeNode | None, kind: str, parameters: Parameters
) -> slicer.vtkMRMLNode | None:
    """Return the latest node of a kind that was made with these parameters of a volume as it is now, or ``None``."""
    if volume is None:
        return None
    # Most often there is none at all, and the checksum of the voxels takes a while.
    nodes = results_of(volume, (kind,))
    choice = choice_of(parameters) if nodes else ""
    nodes = [node for node in nodes if node.GetAttribute(CHOICE) == choice]
    if not nodes or problem(volume, bundled=False):
        return None
    content = _remembered_content(volume)
    return next((node for node in nodes if _content_recorded(node).fits(content)), None)


def _content_recorded(node: slicer.vtkMRMLNode) -> Content:
    """Return the content of its volume that a node of ours was made of."""
    return Content(node.GetAttribute(VOXELS), tuple(json.loads(node.GetAttribute(GRID))))


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
        _remove_nodes(scene, [node for node in nodes_of(scene) if node not in before])
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
            _remove_nodes(there[0].GetScene(), there)
        raise


def nodes_of(scene: slicer.vtkMRMLScene, kind: str = "vtkMRMLNode") -> list[slicer.vtkMRMLNode]:
    """Return the nodes of a scene that are of a class or one derived from it, in the scene's order."""
    return [scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind))]


def _remove_nodes(scene, nodes):
    """Remove nodes that were added, the last of them first."""
    for node in reversed(nodes):
        # The subject hierarchy comes by itself with the first node that has a place in it. Others may go with one.
        if node.GetScene() is scene and not node.IsA("vtkMRMLSubjectHierarchyNode"):
            scene.RemoveNode(node)


def refuse_changed(volume: slicer.vtkMRMLVolumeNode, image: sitk.Image, content: Content | None = None) -> None:
    """Refuse a volume node to which an image that was made of it no longer fits.

    Args:
        volume: the volume node.
        image: its result, voxel by voxel.
        content: the :func:`content_of` the volume when it was segmented.

    Raises:
        SEBrainSegError: its voxels, or where they lie, have changed since.
    """
    data = volume.GetImageData()
    fits = data is not None and data.GetDimensions() == image.GetSize() and not problem(volume, bundled=False)
    if not fits or content is not None and not content.fits(content_of(volume)):
        raise SEBrainSegError(
            _("The volume '{name}' was changed during the segmentation; segment it again.").format(
                name=volume.GetName()
            )
        )
