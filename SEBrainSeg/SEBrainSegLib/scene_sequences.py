"""The bridge to Slicer's scene, fourth part: volumes over time, and their segmentations; see :mod:`.scene`."""

import slicer

from .errors import SEBrainSegError
from .scene import all_or_nothing, fill, refuse_changed, shared_labelmap
from .translation import tr as _


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


def add_segmentations(volume, segmentations):
    """Add a sequence node of segmentations, which is played with the sequence that they are of.

    Args:
        volume: the volume node through which that sequence is played.
        segmentations: a :class:`~.segmentation.Segmentation` for each of its :func:`items`.

    Returns:
        the ``vtkMRMLSequenceNode``.

    Raises:
        SEBrainSegError: the sequence has changed since or has gone; nothing is added.
    """
    with all_or_nothing(volume) as scene:
        volumes = items(volume)
        if len(volumes) != len(segmentations):
            raise SEBrainSegError(
                _("The sequence of '{name}' was changed meanwhile; segment it again.").format(name=volume.GetName())
            )
        browser = browser_of(volume)
        scans, title = browser.GetSequenceNode(volume), segmentations[0].parameters.title
        name = scene.GenerateUniqueName(f"{volume.GetName()} structures ({title})")
        sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
        for copy in ("IndexName", "IndexUnit", "IndexType"):
            getattr(sequence, f"Set{copy}")(getattr(scans, f"Get{copy}")())
        for index, (each, segmentation) in enumerate(zip(volumes, segmentations)):
            refuse_changed(each, segmentation.labels)
            node = slicer.vtkMRMLSegmentationNode()
            node.SetName(name)
            node.SetReferenceImageGeometryParameterFromVolumeNode(each)
            fill(node.GetSegmentation(), segmentation.structures, shared_labelmap(each, segmentation.labels))
            sequence.SetDataNodeAtValue(node, scans.GetNthIndexValue(index))
        browser.AddSynchronizedSequenceNode(sequence)
    return sequence
