"""Losses over logits ``(N, C, H, W)`` and classes ``(N, H, W)``; pixels of the ignored label count nowhere."""

import torch
from torch.nn import functional

from ..structures import IGNORED


def dice_loss(logits, classes):
    """1 - mean soft Dice over the classes present in the batch, background included."""
    valid = classes != IGNORED
    probabilities = functional.softmax(logits, dim=1) * valid[:, None]
    target = functional.one_hot(classes * valid, logits.shape[1]).movedim(-1, 1).to(logits.dtype) * valid[:, None]
    overlap = (probabilities * target).sum(dim=(0, 2, 3))
    volumes = probabilities.sum(dim=(0, 2, 3)) + target.sum(dim=(0, 2, 3))
    present = target.sum(dim=(0, 2, 3)) > 0
    return 1 - (2 * overlap / (volumes + 1e-6))[present].mean() if present.any() else logits.sum() * 0


def combined_loss(logits, classes):
    """Cross-entropy plus Dice (section IV-C of the paper, without its class and edge weights)."""
    logits = torch.as_tensor(logits, dtype=torch.float32)
    entropy = functional.cross_entropy(logits, classes, ignore_index=IGNORED, reduction="sum")
    return entropy / (classes != IGNORED).sum().clamp(min=1) + dice_loss(logits, classes)
