"""How bright each part of a structure is: patterns measured in labelled scans and given to label maps.

A structure is not one grey: the thalamus brightens towards the internal capsule, the brain stem towards its front. A
pattern is the mean intensity relative to the whole structure's in ``CELLS`` cells a side of the structure's bounding
box, the right side mirrored onto the left.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import SimpleITK as sitk
import torch
from torch.nn import functional

from ..networks.classes import class_of_label
from .scans import HeadLabels, LabelledScan
from .synthesis import LEFT_OF

CELLS = 8


FEWEST = 200  # voxels of a structure in a scan, or its pattern is noise


PRIOR = 5.0  # voxels of the mean intensity that every cell starts with


def add_patterns(heads: Sequence[HeadLabels], scans: Sequence[LabelledScan]) -> None:
    """Give every label map the patterns that labelled scans have within structures.

    Args:
        heads: list of :class:`~.scans.HeadLabels`; changed.
        scans: list of :class:`~.scans.LabelledScan`.
    """
    measured = measure_patterns(scans)
    for head in heads:
        head.pattern = pattern_volume(measured, head.tissues, head.tissue_ids)


def _in_box(positions: np.ndarray, mirrored: bool) -> np.ndarray:
    """Return a structure's voxels ``(n, 3)`` relative to its bounding box, from -1 to 1 along each axis."""
    # Not the very extremes, which a single voxel moves.
    low, high = np.percentile(positions, (1, 99), axis=0)
    inside = np.clip(2 * (positions - low) / np.maximum(high - low, 1) - 1, -1, 1)
    return inside * (1, 1, -1) if mirrored else inside


def _interior(tissues: np.ndarray) -> np.ndarray:
    """Return where all neighbours of a voxel are the same tissue, so that no other is mixed into it; boolean."""
    image = sitk.GetImageFromArray(tissues)
    return sitk.GetArrayFromImage(sitk.GrayscaleErode(image)) == sitk.GetArrayFromImage(sitk.GrayscaleDilate(image))


def measure_patterns(scans: Sequence[LabelledScan]) -> dict[int, np.ndarray]:
    """Measure the patterns of the structures in labelled scans.

    Args:
        scans: list of :class:`~.scans.LabelledScan`.

    Returns:
        array ``(CELLS, CELLS, CELLS)``, about 1, by FreeSurfer id of the left or unpaired structure.
    """
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, np.ndarray] = {}
    for scan in scans:
        tissues, image = scan.tissues.numpy(), scan.image.numpy()
        pure = _interior(tissues)
        for index, tissue in enumerate(int(each) for each in scan.tissue_ids):
            if tissue not in class_of_label():
                continue
            voxels = np.argwhere((tissues == index) & pure)
            if len(voxels) < FEWEST:
                continue
            values = image[tuple(voxels.T)]
            cells = np.round((_in_box(voxels, tissue in LEFT_OF) + 1) / 2 * (CELLS - 1)).astype(int)
            left = LEFT_OF.get(tissue, tissue)
            if left not in sums:
                sums[left], counts[left] = np.zeros((2, CELLS, CELLS, CELLS))
            np.add.at(sums[left], tuple(cells.T), values / values.mean())
            np.add.at(counts[left], tuple(cells.T), 1)
    return {left: _smoothed_means(sums[left], counts[left]) for left in sums}


def _smoothed_means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of every cell, shared with its neighbours, so that cells without voxels take theirs."""

    def spread(values, width):
        return sitk.GetArrayFromImage(sitk.DiscreteGaussian(sitk.GetImageFromArray(values), width**2))

    near, far = ([spread(values, width) for values in (sums, counts)] for width in (0.6, 1.5))
    # Where there is little nearby, what is farther away counts, and at last the structure's mean.
    return (near[0] + 0.05 * far[0] + PRIOR) / (near[1] + 0.05 * far[1] + PRIOR)


def pattern_volume(patterns: Mapping[int, np.ndarray], tissues: torch.Tensor, tissue_ids: np.ndarray) -> torch.Tensor:
    """Return the intensities that patterns give to the voxels of a label map.

    Args:
        patterns: what :func:`measure_patterns` returned.
        tissues, tissue_ids: as in :class:`~.scans.HeadLabels`.

    Returns:
        uint8 tensor, the shape of ``tissues``: intensities in percent of the structure's mean.
    """
    indices = tissues.numpy()
    percent = np.full(indices.shape, 100, np.uint8)
    for index, tissue in enumerate(int(each) for each in tissue_ids):
        pattern = patterns.get(LEFT_OF.get(tissue, tissue))
        if pattern is None:
            continue
        voxels = np.argwhere(indices == index)
        if not len(voxels):
            continue
        # grid_sample takes the last axis first.
        points = torch.from_numpy(_in_box(voxels, tissue in LEFT_OF)[:, ::-1].astype(np.float32))[None, None, None]
        volume = torch.from_numpy(pattern.astype(np.float32))[None, None]
        values = functional.grid_sample(volume, points, padding_mode="border", align_corners=True).flatten().numpy()
        percent[tuple(voxels.T)] = np.clip(np.round(100 * values), 0, 255)
    return torch.from_numpy(percent)
