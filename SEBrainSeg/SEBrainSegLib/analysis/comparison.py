"""How segmentations of one volume differ: volumes, overlap, and where they disagree."""

# SimpleITK is not to be imported for a type.
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Callable, NamedTuple

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
    def titles(self) -> tuple[str, ...]:
        """What made each, as in ``"U-Net scSE"``."""
        return tuple(each.parameters.title for each in self.segmentations)

    @property
    def largest(self) -> np.ndarray:
        """The largest difference between any two of them, ml, shape ``(structures,)``."""
        return np.ptp(self.volumes, axis=1)

    def consensus(self) -> Segmentation:
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


def compare(segmentations: Iterable[Segmentation], progress: Callable[[float], None] | None = None) -> Differences:
    """Compare segmentations of one volume.

    Args:
        segmentations: two or more :class:`~.result.Segmentation` on one grid, of the same structures.
        progress: called with a fraction in [0, 1] after every few slices; what it raises ends the comparison.

    Returns:
        :class:`Differences`.

    Raises:
        SEBrainSegError: they are fewer than two, or not of one volume and the same structures.
    """
    segmentations = tuple(segmentations)
    _refuse_incomparable(segmentations)
    first, pairs = segmentations[0], tuple(combinations(range(len(segmentations)), 2))
    arrays = [sitk.GetArrayViewFromImage(each.labels) for each in segmentations]
    size = 1 + max(structure.label for structure in first.structures)
    counts, common = (np.zeros((len(rows), size), np.int64) for rows in (segmentations, pairs))
    commonest, disagreement = np.empty_like(arrays[0]), np.empty(arrays[0].shape, np.uint8)
    for slab in _slabs(commonest):
        part = _compare_voxels([array[slab] for array in arrays], pairs, size)
        counts += part.counts
        common += part.common
        commonest[slab], disagreement[slab] = part.commonest, part.disagreement
        if progress is not None:
            progress(slab.stop / len(commonest))
    agreed = _image_like(first.labels, commonest)
    return Differences(
        segmentations,
        first.structures,
        np.array([[each.volumes[structure.label] for each in segmentations] for structure in first.structures]),
        pairs,
        _dice(counts, common, pairs, [structure.label for structure in first.structures]),
        _image_like(first.labels, disagreement),
        agreed,
        volumes_of(agreed, first.structures),
    )


def _refuse_incomparable(segmentations: tuple[Segmentation, ...]) -> None:
    """Raise SEBrainSegError for segmentations that are fewer than two or of different volumes or structures."""
    if len(segmentations) < 2:
        raise SEBrainSegError("There is nothing to compare; choose two or more variants.")
    if len({(each.structures, each.labels.GetSize()) for each in segmentations}) > 1:
        raise SEBrainSegError("These segmentations are not of one volume and the same structures; choose others.")


def _slabs(array: np.ndarray) -> Iterator[slice]:
    """Yield slices of the first axis, of about :data:`SLAB` voxels each, that cover an array."""
    step = max(1, SLAB * len(array) // array.size)
    for start in range(0, len(array), step):
        yield slice(start, min(start + step, len(array)))


class _Part(NamedTuple):
    """What a part of a volume adds to :class:`Differences`.

    counts: voxels by label of each segmentation, ``(segmentations, labels)``.
    common: voxels by label in which the two of each pair agree, ``(pairs, labels)``.
    commonest, disagreement: arrays of that part, as the images of :class:`Differences`.
    """

    counts: np.ndarray
    common: np.ndarray
    commonest: np.ndarray
    disagreement: np.ndarray


def _compare_voxels(arrays: list[np.ndarray], pairs: tuple[tuple[int, int], ...], size: int) -> _Part:
    """Compare arrays of labels, each below ``size``, in a part of a volume.

    Nearly everywhere they agree: only where they do not is each of them looked at.
    """
    is_disputed = np.zeros(arrays[0].shape, bool)
    for other in arrays[1:]:
        is_disputed |= other != arrays[0]
    agreed = np.bincount(arrays[0][~is_disputed], minlength=size)
    disputed = np.stack([array[is_disputed] for array in arrays])
    counts = agreed + [np.bincount(labels, minlength=size) for labels in disputed]
    same = [disputed[one] == disputed[other] for one, other in pairs]
    common = agreed + [np.bincount(disputed[one][each], minlength=size) for (one, _), each in zip(pairs, same)]
    # How many gave the voxel the label that each of them did.
    votes = np.ones(disputed.shape, np.uint8)
    for pair, each in zip(pairs, same):
        votes[list(pair)] += each
    commonest, disagreement = arrays[0].copy(), np.zeros(arrays[0].shape, np.uint8)
    # The first of those with the most votes.
    commonest[is_disputed] = np.take_along_axis(disputed, votes.argmax(axis=0)[None], axis=0)[0]
    disagreement[is_disputed] = len(arrays) - votes.max(axis=0)
    return _Part(counts, common, commonest, disagreement)


def _dice(counts: np.ndarray, common: np.ndarray, pairs: tuple[tuple[int, int], ...], labels: list[int]) -> np.ndarray:
    """Return the overlap of every pair, ``(labels, pairs)``; not a number where neither has the label.

    Args:
        counts, common: as of :class:`_Part`, of the whole volume.
        pairs: the indices of every two segmentations.
        labels: of the structures.
    """
    both = np.array([counts[one][labels] + counts[other][labels] for one, other in pairs]).T
    return np.divide(2 * common[:, labels].T, both, out=np.full(both.shape, np.nan), where=both > 0)


def _image_like(image: sitk.Image, array: np.ndarray) -> sitk.Image:
    """Return an array as an image on the grid of another."""
    made = sitk.GetImageFromArray(array)
    made.CopyInformation(image)
    return made
