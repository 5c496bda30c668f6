"""The bridge to Slicer's scene, fourth part: volumes over time, and their segmentations; see :mod:`.volume_nodes`."""

import slicer

from ..errors import SEBrainSegError
from ..translation import tr as _
from .provenance import in_steps, refuse_changed
from .segmentation_nodes import fill, shared_labelmap


def browser_of(volume):
    """Return the browser that plays a sequence through a volume node, or ``None``."""
    scene, kind = volume.GetScene(), "vtkMRMLSequenceBrowserNode"
    browsers = [scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind))]
    return next((browser for browser in browsers if browser.GetSequenceNode(volume) is not None), None)


def items(volume):
    """Return the volume nodes of the sequence that is played through a volume node, in order; none without one."""
    browser = browser_of(volume) if volume.GetScene() is not None else None
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
        sequence = step(add_sequence, volume, name)
        for index, segmentation in enumerate(segmentations):
            step(add_item, volume, sequence, index, segmentation, len(segmentations))
        step(browser_of(volume).AddSynchronizedSequenceNode, sequence)
    return sequence


def add_sequence(volume, name):
    """Add an empty sequence node with the index of the sequence that is played through a volume node."""
    scene, scans = volume.GetScene(), scans_of(volume)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", scene.GenerateUniqueName(name))
    for copy in ("IndexName", "IndexUnit", "IndexType"):
        getattr(sequence, f"Set{copy}")(getattr(scans, f"Get{copy}")())
    return sequence


def add_item(volume, sequence, index, segmentation, count):
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
    kept = sequence.SetDataNodeAtValue(node, scans_of(volume).GetNthIndexValue(index))
    kept.SetReferenceImageGeometryParameterFromVolumeNode(volumes[index])
    fill(kept.GetSegmentation(), segmentation.structures, shared_labelmap(volumes[index], segmentation.labels))


def scans_of(volume):
    """Return the sequence node that is played through a volume node.

    Raises:
        SEBrainSegError: there is none any more.
    """
    browser = browser_of(volume)
    if browser is None:
        raise SEBrainSegError(
            _("The sequence of '{name}' was changed meanwhile; segment it again.").format(name=volume.GetName())
        )
    return browser.GetSequenceNode(volume)
