"""Losses over logits ``(N, C, H, W)`` and classes ``(N, H, W)``; pixels of a class of C or more count nowhere.

The paper's (section IV-C) are ``"weighted"``, cross-entropy with median-frequency and edge weights, ``"dice"`` and
their sum, ``"both"``. The bundled networks had ``"plain"``: cross-entropy without weights, plus Dice.
"""

import numpy as np
import torch
from torch.nn import functional

LOSSES = ("plain", "weighted", "dice", "both")


EDGE_WEIGHT = 2.0  # added to a pixel's class weight where classes meet, as in the authors' code


def dice_loss(logits, classes):
    """1 - mean soft Dice over the classes present in the batch, background included."""
    return dice_loss_of(functional.softmax(logits, dim=1), classes)


def dice_loss_of(probabilities, classes):
    """:func:`dice_loss` of probabilities ``(N, C, H, W)``."""
    count = probabilities.shape[1]
    valid = classes < count
    pixels = probabilities.movedim(1, -1)[valid]
    target = classes[valid]
    overlap = pixels.new_zeros(count).index_add(0, target, pixels.gather(1, target[:, None])[:, 0])
    sizes = torch.bincount(target, minlength=count)
    dice = 2 * overlap / (pixels.sum(dim=0) + sizes + 1e-6)
    return 1 - dice[sizes > 0].mean() if len(target) else probabilities.sum() * 0


def entropy_of(logarithms, classes, weights=None):
    """Mean cross-entropy of logarithms of probabilities ``(N, C, H, W)``, its pixels weighted by ``(N, H, W)``."""
    valid = classes < logarithms.shape[1]
    losses = functional.nll_loss(logarithms, classes.where(valid, -1), ignore_index=-1, reduction="none")
    losses = losses if weights is None else losses * weights
    return losses.sum() / valid.sum().clamp(min=1)


def combined_loss(logits, classes):
    """Cross-entropy without weights, plus Dice."""
    logarithms = functional.log_softmax(logits.float(), dim=1)
    return entropy_of(logarithms, classes) + dice_loss_of(logarithms.exp(), classes)


def class_weights(counts):
    """Median-frequency weights of the classes: the median count over that of the class; 0 for a class without voxels.

    Args:
        counts: voxels of every class in the training data.
    """
    counts = np.asarray(counts, dtype=float)
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = np.median(counts[present]) / counts[present]
    return torch.tensor(weights, dtype=torch.float32)


def edges(classes, count):
    """Where classes below ``count`` meet within a slice, ``(N, H, W)``: on either side of a border, no matter which.

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

    def __init__(self, counts, dice):
        self.weights, self.dice = class_weights(counts), dice

    def pixel_weights(self, classes):
        """Weights of pixels ``(N, H, W)``: of their classes, and more where these meet."""
        count = len(self.weights)
        weights = self.weights.to(classes.device)[classes.clamp(max=count - 1)]
        return weights + EDGE_WEIGHT * edges(classes, count)

    def __call__(self, logits, classes):
        logarithms = functional.log_softmax(logits.float(), dim=1)
        loss = entropy_of(logarithms, classes, self.pixel_weights(classes))
        return loss + dice_loss_of(logarithms.exp(), classes) if self.dice else loss


def loss_named(name, counts):
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
