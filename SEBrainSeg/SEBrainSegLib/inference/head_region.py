"""Where the head is, told by its brightness alone; without torch, as pictures need it, too."""

from collections.abc import Sequence

import numpy as np

from .geometry import BRAIN_SPACING

Box = tuple[slice, ...]  # along S, A and R


def head_box(
    array: np.ndarray, threshold: float = 0.1, margin: float = 8.0, spacing: Sequence[float] = BRAIN_SPACING
) -> Box:
    """Return the box around what is brighter than air, so that the empty surround costs nothing.

    Args:
        array: normalised, ``[S, A, R]``.
        threshold: what counts as brighter than air.
        margin: mm kept around.
        spacing: mm along ``[S, A, R]``.
    """
    bright = array > threshold
    box = []
    for axis in range(3):
        # A plane counts once 3 in 10,000 of it are bright: a hot voxel is no head.
        share = bright.mean(axis=tuple(other for other in range(3) if other != axis))
        planes = np.flatnonzero(share > 3e-4)
        first, last = (planes[0], planes[-1]) if planes.size else (0, array.shape[axis] - 1)
        around = int(np.ceil(margin / spacing[axis]))
        box.append(slice(max(0, first - around), last + 1 + around))
    return tuple(box)
