"""Where the head and the brain are, so that networks compute nothing else."""

from typing import Callable, Optional

import numpy as np
import SimpleITK as sitk
import torch

from ..choices.vocabulary import slice_axis
from ..networks.model_file import Model
from .geometry import BRAIN_SPACING
from .head_region import Box
from .slices import MULTIPLE, Array, largest_probability, logits_of_slices, padded_size, slices_of

# One slice in 16 mm shows where the brain is: all pieces of at least 200 mm2, with 8 mm around them.
_SLICE_DISTANCE, _SMALLEST_AREA, _MARGIN = 16.0, 200.0, 8.0


class MeanConfidence:
    """The mean probability that a network gives to what it labels, over the slices that are added."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, logits: torch.Tensor, labelled: torch.Tensor) -> None:
        """Add slices: logits ``(n, classes, H, W)``, and where they are labelled, ``(n, H, W)``."""
        # Of these pixels only, which are few: a softmax of all would cost as much as a tenth of the network.
        some = logits.movedim(1, -1)[labelled].float()
        self._sum += float(largest_probability(some).sum())
        self._count += len(some)

    @property
    def value(self) -> Optional[float]:
        """In [0, 1]; ``None`` if nothing was labelled."""
        return self._sum / self._count if self._count else None


def brain_box(
    model: Model,
    array: Array,
    device: torch.device,
    batch_done: Callable[[], None],
    confidence: Optional[MeanConfidence] = None,
) -> Box:
    """Return the box ``[S, A, R]`` of a conformed array that holds the brain; all of it if none is found.

    Face and neck take time and show nothing.

    Args:
        model: the network that labels some of the slices.
        array: array or tensor ``[S, A, R]`` on the model's grid.
        device: where to compute.
        batch_done: called after every batch.
        confidence: the slices that are labelled are added to it.
    """
    axis, slices = slice_axis(model.view), slices_of(array, model.view)
    spacing = [(model.spacing or BRAIN_SPACING)[each] for each in _axes_of_slices(axis)]
    distance = max(1, round(_SLICE_DISTANCE / spacing[0]))
    row_margin, column_margin = (int(np.ceil(_MARGIN / each)) for each in spacing[1:])
    low, high = np.array(slices.shape), np.zeros(3, int)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    numbers = range(0, len(slices), distance)
    for first, logits in logits_of_slices(model.network, slices, device, model.smoothing, numbers):
        mask = logits.argmax(dim=1) > 0
        if confidence is not None:
            confidence.add(logits, mask)
        for number, labelled in enumerate(mask.to(torch.uint8).cpu().numpy(), start=first):
            shapes.Execute(sitk.ConnectedComponent(sitk.GetImageFromArray(labelled)))
            for piece in shapes.GetLabels():
                if shapes.GetNumberOfPixels(piece) * spacing[1] * spacing[2] >= _SMALLEST_AREA:
                    column, row, columns, rows = shapes.GetBoundingBox(piece)
                    start = distance * (number - 1), row - row_margin, column - column_margin
                    stop = distance * (number + 1), row + rows + row_margin, column + columns + column_margin
                    low, high = np.minimum(low, start), np.maximum(high, stop)
        batch_done()
    if (low >= high).any():
        return tuple(slice(0, side) for side in array.shape)
    box: list[slice] = []
    for start, stop, side in zip(low, high, slices.shape):
        start, stop = max(0, start), min(stop, side)
        if box:
            # From a multiple of 16, so that poolings meet the same pixels as without a box, and filled up with what is
            # there to what a slice would be padded to with zeros.
            start -= start % MULTIPLE
            stop = min(start + padded_size((stop - start,))[0], side)
        box.append(slice(int(start), int(stop)))
    box.insert(axis, box.pop(0))
    return tuple(box)


def box_within(box: Box, part: Box) -> Box:
    """Return the box of the whole array that ``part`` of what lies within ``box`` is."""
    return tuple(slice(outer.start + inner.start, outer.start + inner.stop) for outer, inner in zip(box, part))


def _axes_of_slices(axis: int) -> tuple[int, ...]:
    """Return the array axes of slices stacked along an axis: that one, then rows and columns."""
    return (axis, *(each for each in range(3) if each != axis))
