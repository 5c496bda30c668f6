"""Training batches, each one a function of its number, so that every variant of a network sees the same data."""

import numpy as np
import torch
from torch.utils.data import Dataset


class Batches(Dataset):
    """Batch number ``step`` of ``steps``: slices ``(N, slices, H, W)``, classes ``(N, H, W)``, protocols ``(N,)``.

    Two batches of three are crops until the last fifth, which has full slices only, as inference does.

    Args:
        recipe: draws slices, see :mod:`.brain_recipe`.
        steps: number of batches.
        seed: the same seed gives the same batches.
    """

    def __init__(self, recipe, steps, seed=0):
        self.recipe, self.steps, self.seed = recipe, steps, seed

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        rng = np.random.default_rng((self.seed, step))
        cropped = step % 3 != 2 and step < 0.8 * self.steps
        shape, count = self.recipe.crop if cropped else self.recipe.full
        images, classes, protocols = zip(*[self.recipe.draw(rng, shape, cropped) for _ in range(count)])
        return torch.stack(images), torch.stack(classes).long(), torch.tensor(protocols)
