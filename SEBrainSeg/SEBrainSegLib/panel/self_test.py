"""Whether a segmentation of the bundled scan is as it should be, for the module's self-test."""

from typing import TYPE_CHECKING

from ..choices.structures import structures
from ..lazy import sitk
from ..translation import tr as _

if TYPE_CHECKING:
    from ..inference.result import Segmentation

STRUCTURES = len(structures())
# A hippocampus, in ml.
SMALLEST, LARGEST = 2, 6


def problem(segmentation: "Segmentation") -> str:
    """Return one sentence on what is wrong with a segmentation of the bundled scan, or ``""``."""
    count = len(segmentation.structures)
    if count != STRUCTURES:
        return _("{count} structures were found in the bundled scan, not {expected}.").format(
            count=count, expected=STRUCTURES
        )
    if segmentation.labels is None:
        return _("The segmentation does not lie on the grid of the bundled scan.")
    labels = {structure.name: structure.label for structure in segmentation.structures}
    towards_left = {}
    for name in ("Left Hippocampus", "Right Hippocampus"):
        ml = segmentation.volumes[labels[name]]
        if not SMALLEST < ml < LARGEST:
            return _("'{name}' has {ml:.1f} ml in the bundled scan, not {smallest} to {largest} ml.").format(
                name=name, ml=ml, smallest=SMALLEST, largest=LARGEST
            )
        towards_left[name] = _place_towards_left(segmentation, labels[name])
    if towards_left["Left Hippocampus"] <= towards_left["Right Hippocampus"]:
        return _("Left and right are exchanged in the bundled scan.")
    return ""


def _place_towards_left(segmentation, label):
    """Return where the centre of gravity of a label lies from right to left, in mm."""
    planes = sitk.GetArrayViewFromImage(segmentation.labels) == label
    centre = [float(axis.mean()) for axis in planes.nonzero()][::-1]
    return segmentation.labels.TransformContinuousIndexToPhysicalPoint(centre)[0]
