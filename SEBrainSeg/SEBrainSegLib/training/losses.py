"""Losses over logits ``(N, C, H, W)`` and classes ``(N, H, W)``; pixels of a class of C or more count nowhere.

The paper's (section IV-C) are ``"weighted"``, cross-entropy with median-frequency and edge weights, ``"dice"`` and
their sum, ``"both"``. The bundled networks had ``"plain"``: cross-entropy without weights, plus Dice.
"""

from collections.abc import Callable, Sequence
from typing import Optional, Union

import numpy as np
import torch
from torch.nn import functional

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of logits and classes


LOSSES = ("plain", "weighted", "dice", "both")


EDGE_WEIGHT = 2.0  # added to a pixel's class weight where classes meet, as in the authors' code


def dice_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return 1 - mean soft Dice over the classes present in the batch, background included."""
    return _dice_loss_of(functional.softmax(logits, dim=1), classes)


def _dice_loss_of(probabilities: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return :func:`dice_loss` of probabilities ``(N, C, H, W)``."""
    count = probabilities.shape[1]
    valid = classes < count
    pixels = probabilities.movedim(1, -1)[valid]
    target = classes[valid]
    overlap = pixels.new_zeros(count).index_add(0, target, pixels.gather(1, target[:, None])[:, 0])
    sizes = torch.bincount(target, minlength=count)
    dice = 2 * overlap / (pixels.sum(dim=0) + sizes + 1e-6)
    return 1 - dice[sizes > 0].mean() if len(target) else probabilities.sum() * 0


def _entropy_of(
    logarithms: torch.Tensor, classes: torch.Tensor, weights: Optional[torch.Tensor] = None
) -> torch.Tensor:
    """Return the mean cross-entropy.

    Args:
        logarithms: of probabilities, ``(N, C, H, W)``.
        weights: of the pixels, ``(N, H, W)``.
    """
    valid = classes < logarithms.shape[1]
    losses = functional.nll_loss(logarithms, classes.where(valid, -1), ignore_index=-1, reduction="none")
    losses = losses if weights is None else losses * weights
    return losses.sum() / valid.sum().clamp(min=1)


def combined_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy without weights, plus Dice."""
    logarithms = functional.log_softmax(logits.float(), dim=1)
    return _entropy_of(logarithms, classes) + _dice_loss_of(logarithms.exp(), classes)


def class_weights(counts: Union[np.ndarray, Sequence[int]]) -> torch.Tensor:
    """Return median-frequency weights of the classes: the median count over their own; 0 for a class without voxels.

    Args:
        counts: voxels of every class in the training data.
    """
    voxels = np.asarray(counts, dtype=float)
    present = voxels > 0
    weights = np.zeros(len(voxels))
    weights[present] = np.median(voxels[present]) / voxels[present]
    return torch.tensor(weights, dtype=torch.float32)


def edges(classes: torch.Tensor, count: int) -> torch.Tensor:
    """Return where classes below ``count`` meet within a slice, ``(N, H, W)``: on both sides of every border.

    Slices of a batch are no neighbours, and ignored pixels make no border.
    """
    found = torch.zeros_like(classes, dtype=torch.bool)
    for axis in (1, 2):
        one, other = (classes.narrow(axis, first, classes.shape[axis] - 1) for first in (0, 1))
        differ = (one != other) & (one < count) & (other < count)
        for first in (0, 1):
            found.narrow(axis, first, classes.shape[axis] - 1).logical_or_(differ)
    return found


class PaperLoss:
    """Cross-entropy with median-frequency and edge weights, with Dice or without.

    Args:
        counts: voxels of every class in the training data.
        dice: whether Dice is added.
    """

    def __init__(self, counts: Union[np.ndarray, Sequence[int]], dice: bool) -> None:
        self.weights, self.dice = class_weights(counts), dice

    def pixel_weights(self, classes: torch.Tensor) -> torch.Tensor:
        """Return the weights of pixels ``(N, H, W)``: of their classes, and more where these meet."""
        count = len(self.weights)
        weights = self.weights.to(classes.device)[classes.clamp(max=count - 1)]
        return weights + EDGE_WEIGHT * edges(classes, count)

    def __call__(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        logarithms = functional.log_softmax(logits.float(), dim=1)
        loss = _entropy_of(logarithms, classes, self.pixel_weights(classes))
        return loss + _dice_loss_of(logarithms.exp(), classes) if self.dice else loss


def loss_named(name: str, counts: Callable[[], Union[np.ndarray, Sequence[int]]]) -> Loss:
    """Return one of :data:`LOSSES` as a function of logits and classes.

    Args:
        name: which.
        counts: returns the voxels of every class in the training data; asked by those that need them.
    """
    if name == "plain":
        return combined_loss
    if name == "dice":
        return lambda logits, classes: dice_loss(logits.float(), classes)
    return PaperLoss(counts(), dice=name == "both")
