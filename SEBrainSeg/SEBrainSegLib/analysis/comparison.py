"""How segmentations of one volume differ: volumes, overlap, and where they disagree."""

# SimpleITK is not to be imported for a type.
from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ..choices.structures import Structure
from ..errors import SEBrainSegError
from ..inference.result import Segmentation
from ..lazy import sitk
from .volume_table import volumes_of

# Voxels that are compared at a time, in some hundredths of a second.
SLAB = 1 << 20


@dataclass(frozen=True)
class Differences:
    """How segmentations of one volume differ.

    Attributes:
        segmentations: those that were compared.
        structures: what their labels are.
        volumes: ml, shape ``(structures, segmentations)``.
        pairs: the indices of every two segmentations.
        dice: overlap of every pair in [0, 1], ``(structures, pairs)``; not a number where neither found the structure.
        disagreement: uint8 image: how many segmentations gave the voxel another label than most did.
        commonest: image of the label that most gave; of the first one's among equals.
        common_volumes: ml by label of ``commonest``.
    """

    segmentations: tuple[Segmentation, ...]
    structures: tuple[Structure, ...]
    volumes: np.ndarray
    pairs: tuple[tuple[int, int], ...]
    dice: np.ndarray
    disagreement: sitk.Image
    commonest: sitk.Image
    common_volumes: dict[int, float]

    @property
    def titles(self):
        """What made each, as in ``"U-Net scSE"``."""
        return tuple(each.parameters.title for each in self.segmentations)

    @property
    def largest(self):
        """The largest difference between any two of them, ml, shape ``(structures,)``."""
        return np.ptp(self.volumes, axis=1)

    def consensus(self):
        """Return a :class:`~.result.Segmentation` of what most of them say."""
        first = self.segmentations[0]
        return replace(
            first,
            labels=self.commonest,
            volumes=self.common_volumes,
            seconds=sum(each.seconds for each in self.segmentations),
            confidences={},
            confidence=None,
            excitation=None,
        )


def compare(segmentations, progress=None):
    """Compare segmentations of one volume.

    Args:
        segmentations: two or more :class:`~.result.Segmentation` on one grid, of the same structures.
        progress: called with a fraction in [0, 1] after every few slices; what it raises ends the comparison.

    Returns:
        :class:`Differences`.

    Raises:
        SEBrainSegError: they are fewer than two, or not of one volume and the same structures.
    """
    segmentations, progress = tuple(segmentations), progress or (lambda fraction: None)
    if len(segmentations) < 2:
        raise SEBrainSegError("There is nothing to compare; choose two or more variants.")
    first = segmentations[0]
    alike = (
        each.structures == first.structures and each.labels.GetSize() == first.labels.GetSize()
        for each in segmentations
    )
    if not all(alike):
        raise SEBrainSegError("These segmentations are not of one volume and the same structures; choose others.")
    arrays = [sitk.GetArrayViewFromImage(each.labels) for each in segmentations]
    pairs = tuple(combinations(range(len(segmentations)), 2))
    size = 1 + max(structure.label for structure in first.structures)
    counts, common = (np.zeros((len(columns), size), np.int64) for columns in (segmentations, pairs))
    commonest, disagreement = arrays[0].copy(), np.zeros(arrays[0].shape, np.uint8)
    step = max(1, SLAB * len(commonest) // commonest.size)
    for start in range(0, len(commonest), step):
        slab = slice(start, start + step)
        disputed = np.zeros(commonest[slab].shape, bool)
        for array in arrays[1:]:
            disputed |= array[slab] != arrays[0][slab]
        agreed = np.bincount(commonest[slab][~disputed], minlength=size)[:size]
        given = [array[slab][disputed] for array in arrays]
        counts += agreed + [np.bincount(one, minlength=size)[:size] for one in given]
        common += agreed
        votes = [np.ones(len(one), np.uint8) for one in given]
        for column, (one, other) in enumerate(pairs):
            same = given[one] == given[other]
            common[column] += np.bincount(given[one][same], minlength=size)[:size]
            votes[one] += same
            votes[other] += same
        # The first of those with the most votes wins.
        won, most = given[0], votes[0]
        for label, count in zip(given[1:], votes[1:]):
            more = count > most
            won, most = np.where(more, label, won), np.maximum(count, most)
        commonest[slab][disputed] = won
        disagreement[slab][disputed] = len(arrays) - most
        progress(min(1.0, (start + step) / len(commonest)))
    dice = np.full((len(first.structures), len(pairs)), np.nan)
    for column, (one, other) in enumerate(pairs):
        for row, structure in enumerate(first.structures):
            both = counts[one][structure.label] + counts[other][structure.label]
            if both:
                dice[row, column] = 2 * common[column][structure.label] / both

    def image_of(array):
        image = sitk.GetImageFromArray(array)
        image.CopyInformation(first.labels)
        return image

    commonest = image_of(commonest)
    return Differences(
        segmentations,
        first.structures,
        np.array([[each.volumes[structure.label] for each in segmentations] for structure in first.structures]),
        pairs,
        dice,
        image_of(disagreement),
        commonest,
        volumes_of(commonest, first.structures),
    )
