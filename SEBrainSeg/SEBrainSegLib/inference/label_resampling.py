"""Labels of the conformed grid on the grid of the input, smooth where that is finer."""

import itertools
from dataclasses import dataclass

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


# A structure of which less than this share would be left keeps its nearest neighbours: nothing thin vanishes.
_LEAST_LEFT = 0.5


@dataclass(frozen=True)
class _Weights:
    """How much a label weighs around where it is on the conformed grid.

    Attributes:
        label: the label.
        image: int16, :data:`_ONE` within.
        low, high: the first voxels of the reference along its axes, and those after the last, that lie in it.
    """

    label: int
    image: sitk.Image
    low: np.ndarray
    high: np.ndarray


def labels_on_grid_of(labels: sitk.Image, reference: sitk.Image) -> sitk.Image:
    """Bring labels of the conformed grid to the grid of ``reference``; 0 outside.

    On a grid that is nowhere finer, each voxel has the label of its nearest neighbour, which is exact on one of the
    same spacing along the same axes. On a finer one, each label's smoothed indicator is interpolated and the largest
    wins, so that surfaces are no stairs and labels that touch leave no gap.

    Args:
        labels: uint8 or uint16 volume.
        reference: the input volume whose size, spacing, origin and direction the result has.

    Returns:
        the labels, of the same type; every label of ``labels`` within ``reference`` is there.
    """
    if not _is_finer(reference, labels):
        return restore(labels, reference)
    voxels = sitk.GetArrayViewFromImage(labels)
    found = np.zeros(reference.GetSize()[::-1], voxels.dtype)
    weights = _weights_of_labels(labels, reference)
    if weights:
        low, high = weights[0].low, weights[0].high
        planes = max(1, _SLAB // int(np.prod((high - low)[:2])))
        for first in range(low[2], high[2], planes):
            slab_low, slab_high = low.copy(), high.copy()
            slab_low[2], slab_high[2] = first, min(first + planes, high[2])
            found[_box(slab_low, slab_high)] = _heaviest(weights, reference, slab_low, slab_high, voxels.dtype)
    image = sitk.GetImageFromArray(_with_thin_structures(found, labels, reference))
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
        found.append(_Weights(label, image, *_extent_in(reference, image)))
    return found


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
        found = np.moveaxis(total, 0, axis)
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


def _with_thin_structures(found: np.ndarray, labels: sitk.Image, reference: sitk.Image) -> np.ndarray:
    """Return the labels found, with nearest neighbours where most of a structure went."""
    before = np.bincount(sitk.GetArrayViewFromImage(labels).ravel())
    # Plane by plane: counting makes numbers of 8 bytes of all.
    after = sum(np.bincount(plane.ravel(), minlength=len(before)) for plane in found)
    smaller = abs(np.prod(labels.GetSpacing()) / np.prod(reference.GetSpacing()))
    lost = np.flatnonzero((before > 0) & (after < _LEAST_LEFT * smaller * before))
    lost = lost[lost > 0]
    if len(lost):
        nearest = sitk.GetArrayFromImage(restore(labels, reference))
        for label in lost:
            found[nearest == label] = label
    return found


def _box(low: np.ndarray, high: np.ndarray) -> tuple[slice, ...]:
    """Return the slices of an array ``[z, y, x]`` from the first to before the last voxel ``(x, y, z)``."""
    return tuple(slice(int(first), int(last)) for first, last in zip(low[::-1], high[::-1]))
