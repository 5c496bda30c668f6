"""Sequences: volumes over time, and their segmentations."""

import slicer

from ..errors import SEBrainSegError
from ..translation import tr as _
from .provenance import in_steps, nodes_of, refuse_changed
from .segmentation_nodes import add_segments, shared_labelmap


def _browser_of(volume):
    """Return the browser that plays a sequence through a volume node, or ``None``."""
    browsers = nodes_of(volume.GetScene(), "vtkMRMLSequenceBrowserNode")
    return next((browser for browser in browsers if browser.GetSequenceNode(volume) is not None), None)


def items(volume):
    """Return the volume nodes of the sequence that is played through a volume node, in order; none without one."""
    browser = _browser_of(volume) if volume.GetScene() is not None else None
    if browser is None:
        return ()
    sequence = browser.GetSequenceNode(volume)
    return tuple(sequence.GetNthDataNode(index) for index in range(sequence.GetNumberOfDataNodes()))


def add_segmentations(volume, segmentations, pause=None):
    """Add a sequence node of segmentations, which is played with the sequence that they are of.

    Args:
        volume: the volume node through which that sequence is played.
        segmentations: a :class:`~.result.Segmentation` for each of its :func:`items`.
        pause: as for :func:`~.provenance.in_steps`.

    Returns:
        the ``vtkMRMLSequenceNode``.

    Raises:
        SEBrainSegError: the sequence has changed since or has gone; nothing is added.
    """
    with in_steps(volume, pause) as step:
        name = f"{volume.GetName()} structures ({segmentations[0].parameters.title})"
        sequence = step(_add_sequence_node, volume, name)
        for index, segmentation in enumerate(segmentations):
            step(_add_frame, volume, sequence, index, segmentation, len(segmentations))
        step(_browser_of(volume).AddSynchronizedSequenceNode, sequence)
    return sequence


def _add_sequence_node(volume, name):
    """Add an empty sequence node with the index of the sequence that is played through a volume node."""
    scene, scans = volume.GetScene(), _sequence_of(volume)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", scene.GenerateUniqueName(name))
    for copy in ("IndexName", "IndexUnit", "IndexType"):
        getattr(sequence, f"Set{copy}")(getattr(scans, f"Get{copy}")())
    return sequence


def _add_frame(volume, sequence, index, segmentation, count):
    """Add one segmentation of ``count`` to a sequence node."""
    volumes = items(volume)
    if len(volumes) != count:
        raise SEBrainSegError(
            _("The sequence of '{name}' was changed meanwhile; segment it again.").format(name=volume.GetName())
        )
    refuse_changed(volumes[index], segmentation.labels)
    node = slicer.vtkMRMLSegmentationNode()
    node.SetName(sequence.GetName())
    # The sequence keeps a copy: of an empty node, which is filled there.
    kept = sequence.SetDataNodeAtValue(node, _sequence_of(volume).GetNthIndexValue(index))
    kept.SetReferenceImageGeometryParameterFromVolumeNode(volumes[index])
    add_segments(kept.GetSegmentation(), segmentation.structures, shared_labelmap(volumes[index], segmentation.labels))


def _sequence_of(volume):
    """Return the sequence node that is played through a volume node.

    Raises:
        SEBrainSegError: there is none any more.
    """
    browser = _browser_of(volume)
    if browser is None:
        raise SEBrainSegError(
            _("The sequence of '{name}' was changed meanwhile; segment it again.").format(name=volume.GetName())
        )
    return browser.GetSequenceNode(volume)
