"""Randomly deformed slices: where, in a volume, every pixel of a training slice is taken from."""

import math
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
import torch
from torch.nn import functional

from ..choices.vocabulary import slice_axis


def smooth_noise(rng: np.random.Generator, channels: int, shape: tuple[int, int], cells: int) -> torch.Tensor:
    """Return smooth noise of unit variance at its nodes, ``(channels, *shape)``, from ``cells`` x ``cells`` nodes."""
    nodes = torch.from_numpy(rng.standard_normal((1, channels, cells, cells)).astype(np.float32))
    return functional.interpolate(nodes, size=shape, mode="bicubic", align_corners=True)[0]


def random_affine(rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Return a rotation (up to 12 degrees about each axis), scaling (up to 15 %) and shear, shape ``(3, 3)``."""
    matrix = np.eye(3)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = math.radians(rng.uniform(-12, 12) * strength)
        rotation = np.eye(3)
        rotation[[first, second], [first, second]] = math.cos(angle)
        rotation[first, second], rotation[second, first] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ rotation
    overall = 1 + rng.uniform(-0.1, 0.1) * strength
    scaling = np.diag(overall * (1 + rng.uniform(-0.07, 0.07, 3) * strength))
    shear = np.eye(3) + rng.uniform(-0.04, 0.04, (3, 3)) * (1 - np.eye(3)) * strength
    return (matrix @ scaling @ shear).astype(np.float32)


def slice_positions(
    rng: np.random.Generator,
    view: str,
    shape: tuple[int, int],
    centre: np.ndarray,
    offset: float,
    mirrored: bool,
    shift: Union[np.ndarray, tuple[float, float]] = (0.0, 0.0),
    stretch: Optional[Sequence[float]] = None,
    slices: int = 1,
) -> torch.Tensor:
    """Return the positions in a volume of the pixels of a deformed slice, and of its neighbours deformed likewise.

    Args:
        view: ``"coronal"``, ``"axial"`` or ``"sagittal"``.
        shape: rows and columns of the slice.
        centre: the voxel ``(S, A, R)`` that the slice's middle stands for.
        offset: distance of the slice from the centre along the view's normal, in pixels.
        mirrored: whether left and right are exchanged.
        shift: in-plane displacement of the slice's middle, in pixels.
        stretch: voxels a pixel along each axis of the volume, 1 along all if it is ``None``; 0 along the normal of a 2D
            image keeps to its only plane.
        slices: odd number of slices, a pixel apart along the normal; that of ``offset`` is in the middle.

    Returns:
        float32 tensor ``(3, slices, rows, columns)`` of fractional ``(S, A, R)`` indices.
    """
    normal = slice_axis(view)
    in_plane = [axis for axis in range(3) if axis != normal]
    positions = torch.zeros((3, slices, *shape))
    rows = torch.arange(shape[0], dtype=torch.float32) - (shape[0] - 1) / 2 + shift[0]
    columns = torch.arange(shape[1], dtype=torch.float32) - (shape[1] - 1) / 2 + shift[1]
    positions[in_plane[0]] = rows[:, None]
    positions[in_plane[1]] = columns[None, :]
    positions[normal] = float(offset) + (torch.arange(slices) - slices // 2)[:, None, None]
    positions = (torch.from_numpy(random_affine(rng)) @ positions.reshape(3, -1)).reshape(positions.shape)
    for cells, amplitude in ((5, 3.0), (10, 1.2)):
        positions += smooth_noise(rng, 3, shape, cells)[:, None] * float(rng.uniform(0, amplitude))
    if mirrored:
        positions[2] = -positions[2]
    if stretch is not None:
        positions *= torch.tensor(stretch, dtype=torch.float32)[:, None, None, None]
    return positions + torch.tensor(centre, dtype=torch.float32)[:, None, None, None]


def nearest(volume: torch.Tensor, positions: torch.Tensor, outside: int = 0) -> torch.Tensor:
    """Return the values of the voxels nearest to positions ``(3, ...)``, ``outside`` beyond the volume."""
    indices = positions.round().long()
    inside = torch.ones(positions.shape[1:], dtype=torch.bool)
    for axis, size in enumerate(volume.shape):
        inside &= (indices[axis] >= 0) & (indices[axis] < size)
        indices[axis].clamp_(0, size - 1)
    return volume[indices[0], indices[1], indices[2]].masked_fill_(~inside, outside)


def linear(volume: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return trilinearly interpolated values at positions ``(3, slices, H, W)``, 0 outside the volume; float32."""
    last = torch.tensor(volume.shape, dtype=torch.float32)[:, None, None, None] - 1
    # A 2D image has one plane, whose only position is 0.
    grid = (2 * positions / last.clamp(min=1) - 1).flip(0).movedim(0, -1)[None]
    return functional.grid_sample(volume[None, None], grid, mode="bilinear", align_corners=True)[0, 0]
