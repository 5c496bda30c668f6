"""Where the head is, told by its brightness alone; without torch, as pictures need it, too."""

import numpy as np


def head_box(array, threshold=0.1, margin=8):
    """Return slices around what is brighter than air, so that the empty surround costs nothing.

    Args:
        array: normalised, ``[S, A, R]``.
        threshold: what counts as brighter than air.
        margin: mm kept around.
    """
    bright = array > threshold
    box = []
    for axis in range(3):
        # A plane counts once 3 in 10,000 of it are bright: a hot voxel is no head.
        share = bright.mean(axis=tuple(other for other in range(3) if other != axis))
        planes = np.flatnonzero(share > 3e-4)
        first, last = (planes[0], planes[-1]) if planes.size else (0, array.shape[axis] - 1)
        box.append(slice(max(0, first - margin), last + 1 + margin))
    return tuple(box)
