"""Scans in which no brain was found: which kind of thing they are instead, in words."""

import numpy as np
import SimpleITK as sitk

from .expectations import out_of_proportion
from .volume import finite, without_fill

SMALLEST_HEAD = 80.0  # mm; a brain is longer in every direction
AIR_IN_CT = -500.0  # Hounsfield units, far above air's -1000 and below any tissue
NOISE = 0.5  # correlation of neighbouring voxels below which nothing but noise is seen; in a head it is over 0.9
MOST_OUT_OF_PROPORTION = 10  # of 31 structures; hydrocephalus, for one, concerns six


def why_none(image, array):
    """Return the end of a sentence that says why little brain was found, and what to do.

    Args:
        image: the volume, ``SimpleITK.Image``.
        array: its conformed voxels, ``[S, A, R]``.
    """
    sides = np.array(image.GetSize()) * image.GetSpacing()
    if sides.min() < SMALLEST_HEAD:
        size = " x ".join(f"{side:.0f}" for side in sides)
        return f"the image is {size} mm, too small for a head; choose a scan of a whole one and check its voxel spacing"
    image = without_fill(finite(image))
    if np.percentile(sitk.GetArrayViewFromImage(image)[::2, ::2, ::2], 1) < AIR_IN_CT:
        return "its intensities look like those of a CT; choose a T1-weighted MR scan"
    if np.corrcoef(array[1:].ravel(), array[:-1].ravel())[0, 1] < NOISE:
        return "it looks like noise; choose a T1-weighted scan of a whole head"
    return "choose a T1-weighted scan of a whole head and check that its orientation and voxel spacing are right"


def why_unlike(volumes, protocol):
    """Return a sentence if what was found is unlike any brain, as in a head upside down; ``""`` if it may be one.

    Parts that a scan does not show count for nothing.

    Args:
        volumes: ml by label.
        protocol: the convention of drawing.
    """
    count = len(out_of_proportion(volumes, protocol))
    if count <= MOST_OUT_OF_PROPORTION:
        return ""
    return (
        f"What was found is unlike any brain ({count} structures are far too small or large for the others); "
        "check that the scan is T1-weighted and that its header does not turn the head upside down or on its side."
    )
