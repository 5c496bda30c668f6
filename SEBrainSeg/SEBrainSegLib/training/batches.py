"""Training batches, each one a function of its number, so that every variant of a network sees the same data."""

from collections.abc import Iterator, Sequence
from typing import Any, Optional, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from ..choices.structures import Structure

# Slices of a scan ``(N, H, W)``, the numbers of those to validate with, their classes ``(n, H, W)``, their protocol.
ValidationSlices = tuple[torch.Tensor, range, torch.Tensor, int]

# One slice's pixels ``(slices, H, W)``, with its neighbours', its classes ``(H, W)`` and its protocol.
Sample = tuple[torch.Tensor, torch.Tensor, int]


class Recipe(Protocol):
    """What a network is trained on: :class:`.brain_recipe.BrainRecipe` or :class:`.general_recipe.GeneralRecipe`.

    Attributes:
        protocols: names of the conventions of drawing that the network gets classes for; none: one without a name.
        slices: odd number of neighbouring slices that the network is given together.
        held_out: the scans to validate with.
        view: the direction of slicing.
        table: what the classes are, from class 1.
        spacing: mm of the grid along ``[S, A, R]``; ``None`` of 2D images.
        window: the intensities that become 0 and 1; ``None``: scaled scan by scan.
        crop, full: rows and columns of a crop and of a full slice, each with the number of slices in a batch.
    """

    protocols: tuple[str, ...]
    slices: int
    held_out: Sequence[Any]
    view: str
    table: tuple[Structure, ...]
    spacing: Optional[tuple[float, float, float]]
    window: Optional[tuple[float, float]]
    crop: tuple[tuple[int, int], int]
    full: tuple[tuple[int, int], int]

    def description(self) -> dict[str, Any]:
        """Return what tells this recipe from others, in plain values."""

    def class_counts(self) -> np.ndarray:
        """Return the voxels of every class in the scans to train on."""

    def sample(self, rng: np.random.Generator, shape: tuple[int, int], cropped: bool) -> Sample:
        """Return one random slice."""

    def validation(self) -> Iterator[ValidationSlices]:
        """Yield slices of every scan held out."""


class Batches(Dataset):
    """Batch number ``step`` of ``steps``: slices ``(N, slices, H, W)``, classes ``(N, H, W)``, protocols ``(N,)``.

    Two batches of three are crops until the last fifth, which has full slices only, as inference does.

    Args:
        recipe: samples slices.
        steps: number of batches.
        seed: the same seed gives the same batches.
    """

    def __init__(self, recipe: Recipe, steps: int, seed: int = 0) -> None:
        self.recipe, self.steps, self.seed = recipe, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng((self.seed, step))
        cropped = step % 3 != 2 and step < 0.8 * self.steps
        shape, count = self.recipe.crop if cropped else self.recipe.full
        images, classes, protocols = zip(*[self.recipe.sample(rng, shape, cropped) for _ in range(count)])
        return torch.stack(images), torch.stack(classes).long(), torch.tensor(protocols)
