"""From an image to the conformed array that a network takes."""

from collections.abc import Sequence
from typing import Optional

import numpy as np
import SimpleITK as sitk

from ..errors import SEBrainSegError
from .geometry import BRAIN_SPACING, check_scalar, conform
from .intensities import finite, normalise


def stack(image: sitk.Image) -> sitk.Image:
    """Return a 2D image, or a volume whose slices are 2D images of their own, as a volume of float32, as it is.

    Raises:
        SEBrainSegError: it is neither, or not scalar.
    """
    if image.GetDimension() not in (2, 3):
        raise SEBrainSegError(f"The image has {image.GetDimension()} dimensions; choose a 2D image or a stack of them.")
    check_scalar(image)
    image = sitk.JoinSeries(image) if image.GetDimension() == 2 else image
    return finite(image)


def prepare(
    image: sitk.Image,
    spacing: Optional[Sequence[float]] = BRAIN_SPACING,
    window: Optional[Sequence[float]] = None,
) -> tuple[sitk.Image, np.ndarray]:
    """Bring an image to the grid and the intensities that a network takes.

    Args:
        image: scalar volume; 2D image or stack of them if ``spacing`` is ``None``.
        spacing: mm along ``[S, A, R]``; ``None``: 2D images, used as they are.
        window: the intensities that become 0 and 1, beyond which all is clipped; ``None``: see :func:`normalise`.

    Returns:
        ``(grid, array)``: a volume whose grid that is, and its intensities as a float32 array ``[S, A, R]``.

    Raises:
        SEBrainSegError: not a usable image.
    """
    if spacing is None:
        grid = stack(image)
    else:
        grid = conform(image, spacing, window[0] if window else None)
    array = sitk.GetArrayFromImage(grid)
    if window is not None:
        low, high = window
        return grid, np.clip((array - low) / (high - low), 0.0, 1.0).astype(np.float32)
    if spacing is None and len(array) > 1:
        # Each by itself, as in training; an empty one in a stack stays black.
        return grid, np.stack([normalise(each[None])[0] if np.ptp(each) else np.zeros_like(each) for each in array])
    return grid, normalise(array)
