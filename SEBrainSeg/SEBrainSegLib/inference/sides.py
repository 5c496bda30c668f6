"""Left and right of structures that a sagittal network labelled, by the plane between the hemispheres.

Sagittal slices look alike on both sides, but the brain has a middle.
"""

from collections.abc import Sequence

import numpy as np

from ..choices.structures import structures
from ..networks.classes import mirrored_classes, unsided_classes
from .geometry import BRAIN_SPACING

_NARROWEST = 40.0  # mm from left to right below which the middle of a row of brain is not that of the head


_NEAR = 8.0  # mm beside the plane in which the fissure between the hemispheres is sought


_FEWEST_ROWS = 40  # that show the fissure


_ROUNDS = 20  # of reweighting, by which rows that are not symmetric lose their weight


def part_sides(classes: np.ndarray, spacing: Sequence[float] = BRAIN_SPACING) -> np.ndarray:
    """Assign sided structures to the left or the right by the plane between the hemispheres.

    Args:
        classes: class indices of a conformed array ``[S, A, R]``, uint8; their sides are ignored.
        spacing: mm along ``[S, A, R]``.

    Returns:
        class indices, same shape.
    """
    unsided = unsided_classes()[classes]
    plane = midsagittal_plane(unsided, spacing)
    rows = np.indices(classes.shape[:2])
    middle = plane[0] + plane[1] * rows[0] + plane[2] * rows[1]
    return np.where(np.arange(classes.shape[2]) > middle[..., None], _mirrored_of_left()[unsided], unsided)


def midsagittal_plane(unsided: np.ndarray, spacing: Sequence[float] = BRAIN_SPACING) -> np.ndarray:
    """Return ``(c, s, a)`` of the plane ``R = c + s S + a A`` between the hemispheres, in voxels.

    First from the middles of the brain's rows from left to right, then, as hemispheres are not of one width, from what
    lies between them near that plane: fissure, third ventricle, brain stem.

    Args:
        unsided: class indices ``[S, A, R]``, all sided ones of the left.
        spacing: mm along ``[S, A, R]``.
    """
    narrowest, near = _NARROWEST / spacing[2], max(1, round(_NEAR / spacing[2]))
    sided = np.isin(unsided, _left_classes())
    width = sided.shape[2]
    first, last = sided.argmax(axis=2), width - 1 - sided[..., ::-1].argmax(axis=2)
    wide = sided.any(axis=2) & (last - first >= narrowest)
    if wide.sum() < 3:
        return np.array([(width - 1) / 2, 0.0, 0.0])
    plane = _fitted(np.argwhere(wide), (first + last)[wide] / 2)
    for _ in range(2):
        rows = np.argwhere(wide)
        middle = plane[0] + rows @ plane[1:]
        across = np.rint(middle)[:, None].astype(int) + np.arange(-near, near + 1)
        there = (across >= 0) & (across < width)
        between = there & ~sided[rows[:, :1], rows[:, 1:], across.clip(0, width - 1)]
        counts = between.sum(axis=1)
        # A row that is not closed on both sides is one of background.
        split = (counts > 0) & ~between[:, 0] & ~between[:, -1]
        if split.sum() < _FEWEST_ROWS:
            break
        plane = _fitted(rows[split], (across * between).sum(axis=1)[split] / counts[split])
    return plane


def _fitted(rows: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Return the plane through the middles of rows ``(n, 2)`` by least absolute deviations."""
    design = np.column_stack([np.ones(len(rows)), rows])
    weights = np.ones(len(rows))
    for _ in range(_ROUNDS):
        plane = np.linalg.lstsq(design * weights[:, None], middles * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(middles - design @ plane), 0.5))
    return plane


def _left_classes() -> list[int]:
    """Return the class indices of structures of the left."""
    return [index for index, structure in enumerate(structures(), start=1) if structure.side == "left"]


def _mirrored_of_left() -> np.ndarray:
    """For each of 256 class indices, that of its right counterpart if it is of the left, uint8; else itself."""
    table, mirrored = np.arange(256, dtype=np.uint8), mirrored_classes()
    table[_left_classes()] = mirrored[_left_classes()]
    return table
