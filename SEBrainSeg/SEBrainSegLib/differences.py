"""How segmentations of one volume differ: volumes, overlap, and where they disagree."""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import SimpleITK as sitk

from .errors import SEBrainSegError
from .segmentation import Segmentation
from .structures import Structure
from .volumes import volumes_of


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
    """

    segmentations: tuple[Segmentation, ...]
    structures: tuple[Structure, ...]
    volumes: np.ndarray
    pairs: tuple[tuple[int, int], ...]
    dice: np.ndarray
    disagreement: sitk.Image
    commonest: sitk.Image

    @property
    def titles(self):
        """What made each, as in ``"U-Net scSE"``."""
        return tuple(each.parameters.title for each in self.segmentations)

    @property
    def largest(self):
        """The largest difference between any two of them, ml, shape ``(structures,)``."""
        return np.ptp(self.volumes, axis=1)

    def consensus(self):
        """Return a :class:`~.segmentation.Segmentation` of what most of them say."""
        first = self.segmentations[0]
        return replace(
            first,
            labels=self.commonest,
            volumes=volumes_of(self.commonest, self.structures),
            seconds=sum(each.seconds for each in self.segmentations),
            confidences={},
            confidence=None,
            excitation=None,
        )


def compare(segmentations):
    """Compare segmentations of one volume.

    Args:
        segmentations: two or more :class:`~.segmentation.Segmentation` on one grid, of the same structures.

    Returns:
        :class:`Differences`.

    Raises:
        SEBrainSegError: they are fewer than two, or not of one volume and the same structures.
    """
    segmentations = tuple(segmentations)
    if len(segmentations) < 2:
        raise SEBrainSegError("There is nothing to compare; choose two or more variants.")
    first = segmentations[0]
    alike = (
        each.structures == first.structures and each.labels.GetSize() == first.labels.GetSize()
        for each in segmentations
    )
    if not all(alike):
        raise SEBrainSegError("These segmentations are not of one volume and the same structures; choose others.")
    arrays = np.stack([sitk.GetArrayViewFromImage(each.labels) for each in segmentations])
    # Most voxels are background to all: what follows is about the others.
    disputed = np.zeros(arrays[0].shape, bool)
    for other in arrays[1:]:
        disputed |= other != arrays[0]
    given = arrays[:, disputed]
    # How many gave the voxel the label that each of them gave; the first of the largest wins.
    votes = np.stack([(given == one).sum(axis=0, dtype=np.uint8) for one in given])
    commonest, disagreement = arrays[0].copy(), np.zeros(disputed.shape, np.uint8)
    commonest[disputed] = np.take_along_axis(given, votes.argmax(axis=0)[None], axis=0)[0]
    disagreement[disputed] = len(arrays) - votes.max(axis=0)
    pairs = tuple(combinations(range(len(segmentations)), 2))
    agreed = np.bincount(arrays[0][~disputed], minlength=65536)
    counts = [agreed + np.bincount(one, minlength=65536) for one in given]
    dice = np.full((len(first.structures), len(pairs)), np.nan)
    for column, (one, other) in enumerate(pairs):
        common = agreed + np.bincount(given[one][given[one] == given[other]], minlength=65536)
        for row, structure in enumerate(first.structures):
            both = counts[one][structure.label] + counts[other][structure.label]
            if both:
                dice[row, column] = 2 * common[structure.label] / both

    def image_of(array):
        image = sitk.GetImageFromArray(array)
        image.CopyInformation(first.labels)
        return image

    return Differences(
        segmentations,
        first.structures,
        np.array([[each.volumes[structure.label] for each in segmentations] for structure in first.structures]),
        pairs,
        dice,
        image_of(disagreement),
        image_of(commonest),
    )
