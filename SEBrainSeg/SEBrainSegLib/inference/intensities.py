"""Intensities as networks take them, whatever the scanner wrote."""

from __future__ import annotations

import numpy as np

from ..errors import SEBrainSegError
from ..lazy import sitk

# Beyond this, an intensity is none, as infinity is none; float32 could not hold the differences of larger ones.
LARGEST_INTENSITY = 1e36


# What is as many times farther from the other intensities as they are from each other is a hot voxel.
_HOT = 10.0


# Where a scan that was turned has nothing, programs write one number far from all others, such as -1000 or -32768: at
# most this, in a thousandth of the voxels at least.
_FILLED, _FILLED_SHARE, _MOST_FILLS = -100.0, 1e-3, 3


def without_hot_voxels(image: sitk.Image) -> sitk.Image:
    """Clip a few voxels far brighter or darker than all others, so that smoothing does not spread them."""
    voxels = sitk.GetArrayViewFromImage(image)
    low, high = (float(limit) for limit in np.percentile(voxels[::2, ::2, ::2], (0.05, 99.95)))
    reach = _HOT * (high - low)
    if not reach or voxels.min() >= low - reach and voxels.max() <= high + reach:
        return image
    return sitk.Clamp(image, sitk.sitkFloat32, low - reach, high + reach)


def air(image: sitk.Image) -> float:
    """Return the intensity to assume outside of an image: 0, or a dark one if intensities lie below 0."""
    dark = float(np.percentile(sitk.GetArrayViewFromImage(image)[::2, ::2, ::2], 1))
    return min(0.0, dark) if dark >= -LARGEST_INTENSITY else 0.0


def finite(image: sitk.Image) -> sitk.Image:
    """Return a float32 image in which 0 replaces values that are not finite or beyond :data:`LARGEST_INTENSITY`."""
    image = sitk.Cast(image, sitk.sitkFloat32)
    voxels = sitk.GetArrayViewFromImage(image)
    # Of not-a-number, neither is true.
    if voxels.max() <= LARGEST_INTENSITY and voxels.min() >= -LARGEST_INTENSITY:
        return image
    repaired = sitk.GetImageFromArray(np.where(np.abs(voxels) <= LARGEST_INTENSITY, voxels, np.float32(0)))
    repaired.CopyInformation(image)
    return repaired


def without_fill(image: sitk.Image) -> sitk.Image:
    """Return an image with 0 where a program filled what is outside of the field of view with one number.

    Of magnitudes, which are not negative, a negative number far below all others is none; nor is one far above them
    that many voxels share, such as 65535. Hounsfield units are negative besides, and keep theirs.

    Args:
        image: float32.
    """
    for _ in range(_MOST_FILLS):
        limits = _limits_of_content(sitk.GetArrayViewFromImage(image))
        if limits is None:
            break
        image = sitk.Threshold(image, limits[0], limits[1], 0.0)
    return image


def _limits_of_content(voxels: np.ndarray) -> tuple[float, float] | None:
    """Return the least and the greatest intensity that is none with which an array was filled; ``None`` if all are."""
    sample, low, high = voxels[::2, ::2, ::2], float(voxels.min()), float(voxels.max())
    if low <= _FILLED and (sample == low).mean() > _FILLED_SHARE and low < high:
        dark, bright = (float(limit) for limit in np.percentile(sample[sample > low], (5, 99.5)))
        if dark >= -0.05 * (bright - dark) and dark - low > 0.1 * (bright - dark):
            # Nor is what was mixed with it at its border.
            return min(0.0, dark) - 0.05 * (bright - dark), high
    if (sample == high).mean() > _FILLED_SHARE and low < high:
        dark, bright = (float(limit) for limit in np.percentile(sample[sample < high], (5, 99.9)))
        if dark < bright < high - _HOT * (bright - dark):
            return low, (bright + high) / 2
    return None


def normalise(array: np.ndarray) -> np.ndarray:
    """Scale intensities so that air is about 0 and bright tissue about 1, clipped to [0, 2].

    Bright tissue is the 98th percentile of the voxels above the mean of those that are not 0; a few hot voxels do not
    move it.

    Raises:
        SEBrainSegError: the volume is constant.
    """
    array = np.asarray(array, dtype=np.float32)
    floor, ceiling = (float(limit) for limit in np.percentile(array[::2, ::2, ::2], (1, 99.95)))
    if not ceiling > floor:
        raise SEBrainSegError("All voxels of the image have the same value; choose a scan.")
    array = array - floor
    # Up to the ceiling, so that hot voxels do not lift the mean.
    inside = np.minimum(array[array > 1e-6 * (ceiling - floor)], ceiling - floor)
    # In float64: a float32 mean of equal values can lie above all of them.
    bright = float(np.percentile(inside[inside >= inside.mean(dtype=np.float64) * (1 - 1e-6)], 98))
    return np.clip(array / bright, 0.0, 2.0)
