"""Dice and cross-entropy against values by hand; ignored pixels count nowhere."""

import math

import numpy as np
import pytest
import torch

from SEBrainSegLib.training.losses import combined_loss, dice_loss

IGNORED = 255


def random_case(classes=5, present=(0, 1, 3), shape=(2, 6, 7), ignored=0.2, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (shape[0], classes, *shape[1:]))
    truth = rng.choice(present, shape)
    truth[rng.random(shape) < ignored] = IGNORED
    return torch.from_numpy(logits), torch.from_numpy(truth)


def by_hand(logits, truth):
    """Dice loss and cross-entropy over a plain list of the pixels that count."""
    pixels = [
        (logits[n, :, row, column].numpy(), int(truth[n, row, column]))
        for n, row, column in np.ndindex(*truth.shape)
        if truth[n, row, column] != IGNORED
    ]
    probabilities = np.array([np.exp(values) / np.exp(values).sum() for values, _ in pixels])
    labels = np.array([label for _, label in pixels])
    entropy = -np.mean([math.log(row[label]) for row, label in zip(probabilities, labels)])
    dice = []
    for label in np.unique(labels):
        overlap = probabilities[labels == label, label].sum()
        dice.append(2 * overlap / (probabilities[:, label].sum() + (labels == label).sum()))
    return 1 - np.mean(dice), entropy


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_values_against_numpy(ignored):
    logits, truth = random_case(ignored=ignored)
    dice, entropy = by_hand(logits, truth)
    assert float(dice_loss(logits, truth)) == pytest.approx(dice, rel=1e-5)
    assert float(combined_loss(logits, truth)) == pytest.approx(dice + entropy, rel=1e-5)


def test_softmax_is_applied_once():
    # One pixel of class 0 with probabilities 3/4 and 1/4: Dice 2 * 3/4 / (3/4 + 1) = 6/7. Twice would give 0.767.
    logits = torch.tensor([math.log(3), 0.0]).reshape(1, 2, 1, 1)
    truth = torch.zeros(1, 1, 1, dtype=torch.long)
    assert float(dice_loss(logits, truth)) == pytest.approx(1 / 7, abs=1e-5)
    assert float(combined_loss(logits, truth)) == pytest.approx(1 / 7 - math.log(0.75), abs=1e-5)


def test_absent_classes_do_not_count():
    # Classes 1 and 2 are absent; what they get is taken from class 0, whose Dice is 2 * 1/2 / (1/2 + 1) = 2/3.
    logits = torch.tensor([math.log(2), 0.0, 0.0]).reshape(1, 3, 1, 1)
    truth = torch.zeros(1, 1, 1, dtype=torch.long)
    assert float(dice_loss(logits, truth)) == pytest.approx(1 / 3, abs=1e-5)
    # A class that is nowhere likely or present changes nothing.
    more = torch.cat((logits, torch.full((1, 1, 1, 1), -100.0)), dim=1)
    assert float(dice_loss(more, truth)) == pytest.approx(1 / 3, abs=1e-5)


def test_right_answers_cost_nothing_and_wrong_ones_most():
    truth = torch.tensor([[[0, 1], [2, 1]]])
    right = torch.nn.functional.one_hot(truth, 3).movedim(-1, 1) * 40.0
    assert float(combined_loss(right, truth)) == pytest.approx(0, abs=1e-4)
    assert float(dice_loss(right.roll(1, dims=1), truth)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("loss", [dice_loss, combined_loss])
def test_ignored_pixels_change_neither_value_nor_gradient(loss):
    logits, truth = random_case(ignored=0.3, seed=2)
    ignored = (truth == IGNORED)[:, None].expand_as(logits)
    changed = torch.where(ignored, 30 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)), logits)
    values, gradients = [], []
    for version in (logits, changed):
        version = version.clone().requires_grad_()
        value = loss(version, truth)
        value.backward()
        values.append(float(value.detach()))
        gradients.append(version.grad)
    assert not torch.equal(logits, changed)
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert (gradients[0][ignored] == 0).all()
    assert (gradients[0][~ignored] != 0).any()


def test_a_batch_with_nothing_but_ignored_pixels_is_finite():
    for loss in (dice_loss, combined_loss):
        logits = torch.randn(2, 4, 3, 3, requires_grad=True)
        value = loss(logits, torch.full((2, 3, 3), IGNORED))
        value.backward()
        assert math.isfinite(float(value.detach())), loss.__name__
        assert torch.isfinite(logits.grad).all(), loss.__name__


def test_half_precision_logits_are_summed_in_single_precision():
    # 65,536 pixels of one class: a sum in bfloat16 would be wrong by percents.
    logits = torch.zeros(1, 2, 256, 256, dtype=torch.bfloat16, requires_grad=True)
    truth = torch.zeros(1, 256, 256, dtype=torch.long)
    value = combined_loss(logits, truth)
    value.backward()
    assert value.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(1 / 3 + math.log(2), rel=1e-5)
    assert logits.grad.dtype == torch.bfloat16 and (logits.grad != 0).any()
