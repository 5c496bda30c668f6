"""Where the head and the brain are, so that networks look at nothing else."""

import numpy as np
import SimpleITK as sitk
import torch

from ..choices.vocabulary import View
from .slices import MULTIPLE, logits_of_slices, padded, slices_of

# Where the brain is, every 16th slice tells: its pieces of at least 200 mm2, with 8 mm around them.
APART, LEAST, MARGIN = 16, 200, 8


class Sureness:
    """The mean probability that a network gives to what it labels, of those of its slices that are taken."""

    def __init__(self):
        self.total, self.count = 0.0, 0

    def take(self, logits, labelled):
        """Add slices: logits ``(n, classes, H, W)``, and where they are labelled, ``(n, H, W)``."""
        # Of these pixels only, which are few: a softmax of all would cost as much as a tenth of the network.
        some = logits.movedim(1, -1)[labelled].float()
        self.total += float((some.amax(dim=1) - some.logsumexp(dim=1)).exp().sum())
        self.count += len(some)

    @property
    def mean(self):
        """In [0, 1]; ``None`` if nothing was labelled."""
        return self.total / self.count if self.count else None


def brain_box(model, array, device, batch_done, sureness=None):
    """Return the box ``[S, A, R]`` of a conformed array that holds the brain; all of it if none is seen.

    The networks look at nothing else: face and neck take time and tell nothing.

    Args:
        model: the :class:`~.model_file.Model` that is asked.
        batch_done: called after every batch.
        sureness: a :class:`Sureness` that takes the slices that are looked at.
    """
    axis, slices = View(model.view).axis, slices_of(array, model.view)
    low, high = np.array(slices.shape), np.zeros(3, int)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    probed = range(0, len(slices), APART)
    for first, logits in logits_of_slices(model.network, slices, device, model.smoothing, probed):
        mask = logits.argmax(dim=1) > 0
        if sureness is not None:
            sureness.take(logits, mask)
        for number, labelled in enumerate(mask.to(torch.uint8).cpu().numpy(), start=first):
            shapes.Execute(sitk.ConnectedComponent(sitk.GetImageFromArray(labelled)))
            for piece in shapes.GetLabels():
                if shapes.GetNumberOfPixels(piece) >= LEAST:
                    column, row, columns, rows = shapes.GetBoundingBox(piece)
                    low = np.minimum(low, (APART * (number - 1), row - MARGIN, column - MARGIN))
                    high = np.maximum(high, (APART * (number + 1), row + rows + MARGIN, column + columns + MARGIN))
        batch_done()
    if (low >= high).any():
        return tuple(slice(0, side) for side in array.shape)
    box = []
    for start, stop, side in zip(low, high, slices.shape):
        start, stop = max(0, start), min(stop, side)
        if box:
            # From a multiple of 16, so that poolings meet the same pixels as without a box, and filled up with what is
            # there to what a slice would be padded to with zeros.
            start -= start % MULTIPLE
            stop = min(start + padded((stop - start,))[0], side)
        box.append(slice(int(start), int(stop)))
    box.insert(axis, box.pop(0))
    return tuple(box)


def inside(box, other):
    """Return the box that ``other`` within ``box`` is."""
    return tuple(slice(outer.start + inner.start, outer.start + inner.stop) for outer, inner in zip(box, other))


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
