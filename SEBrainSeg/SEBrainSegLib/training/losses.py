"""Losses over logits ``(N, C, H, W)`` and classes ``(N, H, W)``; pixels of the ignored label count nowhere."""

import torch
from torch.nn import functional

from ..structures import IGNORED


def dice_loss(logits, classes):
    """1 - mean soft Dice over the classes present in the batch, background included."""
    return dice_loss_of(functional.softmax(logits, dim=1), classes)


def dice_loss_of(probabilities, classes):
    """:func:`dice_loss` of probabilities ``(N, C, H, W)``."""
    count = probabilities.shape[1]
    valid = classes != IGNORED
    pixels = probabilities.movedim(1, -1)[valid]
    target = classes[valid]
    overlap = pixels.new_zeros(count).index_add(0, target, pixels.gather(1, target[:, None])[:, 0])
    sizes = torch.bincount(target, minlength=count)
    dice = 2 * overlap / (pixels.sum(dim=0) + sizes + 1e-6)
    return 1 - dice[sizes > 0].mean() if len(target) else probabilities.sum() * 0


def combined_loss(logits, classes):
    """Cross-entropy plus Dice (section IV-C of the paper, without its class and edge weights)."""
    logarithms = functional.log_softmax(logits.float(), dim=1)
    entropy = functional.nll_loss(logarithms, classes, ignore_index=IGNORED, reduction="sum")
    return entropy / (classes != IGNORED).sum().clamp(min=1) + dice_loss_of(logarithms.exp(), classes)
