"""Labels of the conformed grid on the grid of the input, smooth where that is finer."""

import itertools
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import SimpleITK as sitk

from .geometry import restore

# Where the input is finer by more than this share along an axis, nearest neighbours would be stairs.
_FINER = 0.99


# Standard deviation, in voxels of the conformed grid, of the Gaussian G of the kernel 2G - G*G. It takes the edges off
# the stairs, but has no second moment, so that curved surfaces hardly move; Gaussians alone shrink small structures.
_SIGMA = 0.6


# Weights are held in 16 bits.
_ONE = 8192


# Voxels of the input that are computed at a time, so that memory does not grow with it.
_SLAB = 1 << 23


# Labels whose volume changes by more than this share get weights that make up for it, in so many rounds.
_TOLERATED, _ROUNDS, _LARGEST_FACTOR = 0.01, 3, 3.0


# A label of which less than this share would be left keeps its nearest neighbours: nothing thin vanishes.
_LEAST_LEFT = 0.5


@dataclass(frozen=True)
class _Weights:
    """How much a label weighs around where it is on the conformed grid.

    Attributes:
        label: the label.
        image: int16, :data:`_ONE` within.
        low, high: the first voxels of the reference along its axes, and those after the last, that lie in it.
        surface: faces of the conformed grid's voxels between the label and others.
        factor: by which the weights were multiplied to keep the label's volume.
    """

    label: int
    image: sitk.Image
    low: np.ndarray
    high: np.ndarray
    surface: int
    factor: float = 1.0


def labels_on_grid_of(labels: sitk.Image, reference: sitk.Image) -> sitk.Image:
    """Bring labels of the conformed grid to the grid of ``reference``; 0 outside.

    On a grid that is nowhere finer, each voxel has the label of its nearest neighbour, which is exact on one of the
    same spacing along the same axes. On a finer one, each label's smoothed indicator is interpolated and the largest
    wins, so that surfaces are no stairs and labels that touch leave no gap. Small labels, which that would shrink,
    weigh more.

    Args:
        labels: uint8 or uint16 volume.
        reference: the input volume whose size, spacing, origin and direction the result has.

    Returns:
        the labels, of the same type; every label of ``labels`` within ``reference`` is there.
    """
    nearest = restore(labels, reference)
    weights = _weights_of_labels(labels, reference) if _is_finer(reference, labels) else []
    if not weights:
        return nearest
    stairs = sitk.GetArrayViewFromImage(nearest)
    found, counts = np.zeros_like(stairs), _counts(stairs)
    _fill(found, weights, reference, weights[0])
    smaller = float(np.prod(reference.GetSpacing()) / np.prod(labels.GetSpacing()))
    for _ in range(_ROUNDS):
        lacking = smaller * (counts - _counts(found, len(counts)))
        numbers = [
            number
            for number, each in enumerate(weights)
            if each.label and abs(lacking[each.label]) > max(1.0, _TOLERATED * smaller * counts[each.label])
        ]
        for number in numbers:
            weights[number] = _corrected(weights[number], lacking[weights[number].label])
        for number in numbers:
            _fill(found, weights, reference, weights[number])
    for label in np.flatnonzero(_counts(found, len(counts)) < _LEAST_LEFT * counts):
        found[stairs == label] = label
    image = sitk.GetImageFromArray(found)
    image.CopyInformation(reference)
    return image


def _is_finer(image: sitk.Image, other: sitk.Image) -> bool:
    """Whether the voxels of a volume are smaller along an axis than those of another along the nearest of its axes."""
    axes, other_axes = (np.array(each.GetDirection()).reshape(3, 3) for each in (image, other))
    nearest = np.abs(other_axes.T @ axes).argmax(axis=0)
    return any(side < _FINER * other.GetSpacing()[axis] for side, axis in zip(image.GetSpacing(), nearest))


def _weights_of_labels(labels: sitk.Image, reference: sitk.Image) -> list[_Weights]:
    """Return the weights of every label, those of 0 first, which surround the others; none if nothing is labelled."""
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(labels)
    taps = _taps()
    reach, sides = len(taps) // 2 + 1, np.array(labels.GetSize())
    boxes = {}
    for label in shapes.GetLabels():
        start, size = np.reshape(shapes.GetBoundingBox(label), (2, 3))
        boxes[label] = np.maximum(start - reach, 0), np.minimum(start + size + reach, sides)
    if not boxes:
        return []
    around = np.min([low for low, _ in boxes.values()], axis=0), np.max([high for _, high in boxes.values()], axis=0)
    found = []
    for label, (low, high) in {0: around, **boxes}.items():
        indicator = sitk.GetArrayViewFromImage(labels)[_box(low, high)] == label
        image = sitk.GetImageFromArray(np.rint(_ONE * _convolved(indicator, taps)).astype(np.int16))
        image.SetSpacing(labels.GetSpacing())
        image.SetDirection(labels.GetDirection())
        image.SetOrigin(labels.TransformIndexToPhysicalPoint([int(each) for each in low]))
        found.append(_Weights(label, image, *_extent_in(reference, image), _surface(indicator)))
    return found


def _surface(indicator: np.ndarray) -> int:
    """Return how many faces of voxels are between true and false."""
    return sum(int(np.count_nonzero(np.diff(indicator, axis=axis))) for axis in range(3))


def _corrected(weights: _Weights, lacking: float) -> _Weights:
    """Return weights by which a label comes closer to the volume that it had, by one step of Newton's.

    Args:
        weights: of the label.
        lacking: voxels of the conformed grid by which its volume is too small.
    """
    # Stairs have 1.5 times the surface of what they stand for. Across it, weights fall by 0.75 of what they are within
    # in a voxel; multiplied by 1 + g, the surface is where they were less by g / 4.
    gain = 4 * 0.75 * 1.5 * lacking / max(1, weights.surface)
    factor = float(np.clip(weights.factor * (1 + np.clip(gain, -0.5, 1.0)), 1 / _LARGEST_FACTOR, _LARGEST_FACTOR))
    image = sitk.Cast(
        sitk.Round(sitk.Cast(weights.image, sitk.sitkFloat32) * (factor / weights.factor)), sitk.sitkInt16
    )
    return replace(weights, image=image, factor=factor)


def _counts(labels: np.ndarray, length: int = 0) -> np.ndarray:
    """Return how many voxels every label has, up to the largest or of at least some number of labels."""
    length = max(length, int(labels.max()) + 1)
    # Plane by plane: counting makes numbers of 8 bytes of all.
    return sum((np.bincount(plane.ravel(), minlength=length) for plane in labels), np.zeros(length, np.intp))


def _taps() -> np.ndarray:
    """Return the kernel along one axis."""
    places = np.arange(-3, 4)
    gaussian = np.exp(-0.5 * (places / _SIGMA) ** 2)
    gaussian /= gaussian.sum()
    twice = np.convolve(gaussian, gaussian)
    taps = 2 * np.pad(gaussian, 3) - twice
    # Its tails are below what 16 bits hold.
    return taps[2:-2] / taps[2:-2].sum()


def _convolved(indicator: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Return an array convolved with taps along every axis, float32; borders go on beyond."""
    found, reach = indicator.astype(np.float32), len(taps) // 2
    for axis in range(3):
        widths = [(reach, reach) if each == axis else (0, 0) for each in range(3)]
        padded = np.moveaxis(np.pad(found, widths, mode="edge"), axis, 0)
        count = found.shape[axis]
        total = sum(np.float32(tap) * padded[place : place + count] for place, tap in enumerate(taps))
        found = np.moveaxis(cast(np.ndarray, total), 0, axis)
    return found


def _extent_in(reference: sitk.Image, image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the first voxels of a volume along its axes, and those after the last, that lie in an image."""
    ends = [(-0.5, side - 0.5) for side in image.GetSize()]
    points = [image.TransformContinuousIndexToPhysicalPoint(corner) for corner in itertools.product(*ends)]
    places = np.array([reference.TransformPhysicalPointToContinuousIndex(point) for point in points])
    sides = reference.GetSize()
    return (
        np.clip(np.floor(places.min(axis=0)).astype(int), 0, sides),
        np.clip(np.ceil(places.max(axis=0)).astype(int) + 1, 0, sides),
    )


def _fill(found: np.ndarray, weights: list[_Weights], reference: sitk.Image, extent: _Weights) -> None:
    """Set the labels of the part of the reference where those of ``extent`` weigh, slab by slab."""
    planes = max(1, _SLAB // max(1, int(np.prod((extent.high - extent.low)[:2]))))
    for first in range(extent.low[2], extent.high[2], planes):
        low, high = extent.low.copy(), extent.high.copy()
        low[2], high[2] = first, min(first + planes, extent.high[2])
        found[_box(low, high)] = _heaviest(weights, reference, low, high, found.dtype)


def _heaviest(
    weights: list[_Weights], reference: sitk.Image, low: np.ndarray, high: np.ndarray, dtype: np.dtype
) -> np.ndarray:
    """Return the label that weighs most in every voxel of a box of the reference; of those alike, the first."""
    shape = tuple((high - low)[::-1])
    found, largest = np.zeros(shape, dtype), np.zeros(shape, np.int16)
    for each in weights:
        first, last = np.maximum(low, each.low), np.minimum(high, each.high)
        if (first >= last).any():
            continue
        box = _box(first - low, last - low)
        # Beyond the conformed volume, which covers the input, is background.
        resampled = sitk.Resample(
            each.image,
            [int(side) for side in last - first],
            sitk.Transform(3, sitk.sitkIdentity),
            sitk.sitkLinear,
            reference.TransformIndexToPhysicalPoint([int(place) for place in first]),
            reference.GetSpacing(),
            reference.GetDirection(),
            0 if each.label else _ONE,
        )
        weight = sitk.GetArrayViewFromImage(resampled)
        heavier = weight > largest[box]
        np.copyto(largest[box], weight, where=heavier)
        found[box][heavier] = each.label
    return found


def _box(low: np.ndarray, high: np.ndarray) -> tuple[slice, ...]:
    """Return the slices of an array ``[z, y, x]`` from the first to before the last voxel ``(x, y, z)``."""
    return tuple(slice(int(first), int(last)) for first, last in zip(low[::-1], high[::-1]))
