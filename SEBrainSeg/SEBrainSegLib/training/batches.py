"""Training batches, each one a function of its number, so that every variant of a network sees the same data."""

import numpy as np
import torch
from torch.utils.data import Dataset

from ..structures import mirrored_classes
from ..volume import VIEWS
from .deformation import linear, nearest, slice_positions
from .synthesis import paint_skull, scanner_effects, synthesise

# Rows and columns in mm, slices a batch. Central crops hold the deep structures and cost a third of a full slice.
FULL = ((192, 160), 6)
CROP = ((96, 112), 10)
CROP_SPREAD = 22.0


class Batches(Dataset):
    """Batch number ``step`` of ``steps``: slices ``(N, 1, H, W)`` and classes ``(N, H, W)``.

    Two batches of three are central crops until the last fifth, which has full slices only, as inference does. Half of
    a batch is cut from real scans (every other one with a painted skull), half is synthesised from label maps.

    Args:
        scans: list of :class:`~.scans.LabelledScan`.
        heads: list of :class:`~.scans.HeadLabels`.
        view: ``"coronal"``, ``"axial"`` or ``"sagittal"``.
        steps: number of batches.
        seed: the same seed gives the same batches.
    """

    def __init__(self, scans, heads, view, steps, seed=0):
        self.scans, self.heads, self.view, self.steps, self.seed = scans, heads, view, steps, seed
        self.mirror = torch.from_numpy(mirrored_classes())

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        rng = np.random.default_rng((self.seed, step))
        cropped = step % 3 != 2 and step < 0.8 * self.steps
        shape, count = CROP if cropped else FULL
        pairs = [self.draw(rng, shape, cropped, real=number % 2 == 0) for number in range(count)]
        images, classes = zip(*pairs)
        return torch.stack(images)[:, None], torch.stack(classes).long()

    def draw(self, rng, shape, cropped, real):
        """One deformed slice and its classes, each ``(H, W)``."""
        source = (self.scans if real else self.heads)[rng.integers(len(self.scans if real else self.heads))]
        normal = VIEWS[self.view]
        if cropped:
            offset, shift = rng.normal(0, CROP_SPREAD), rng.normal(0, 6, 2)
        else:
            first, last = source.extent[normal] - source.centre[normal]
            offset, shift = rng.uniform(first - 8, last + 8), rng.normal(0, (20, 12))
        mirrored = rng.random() < 0.5
        positions = slice_positions(rng, self.view, shape, source.centre, offset, mirrored, shift)
        classes = nearest(source.classes, positions)
        if mirrored:
            classes = self.mirror[classes.long()]
        if real:
            image = linear(source.image, positions)
            if rng.random() < 0.5:
                image = paint_skull(rng, image, linear(source.distance, positions))
        else:
            image = synthesise(rng, source, positions, normal)
        return scanner_effects(rng, image), classes
