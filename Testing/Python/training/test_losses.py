"""The losses against values by hand, and the traps of other implementations; ignored pixels count nowhere."""

import math

import numpy as np
import pytest
import torch

from SEBrainSegLib.choices.vocabulary import Architecture, values
from SEBrainSegLib.networks.architectures import network_class
from SEBrainSegLib.training.losses import LOSSES, PaperLoss, class_weights, combined_loss, dice_loss, edges, loss_named

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


# Median-frequency and edge weights

# 33 classes as uneven as those of a brain: the 16 above the median must not get a weight of 0.
COUNTS = [10**6, *(1000 + 50 * n for n in range(32))]


def test_class_weights_are_the_median_count_over_the_own():
    np.testing.assert_allclose(class_weights([800, 100, 50]).numpy(), [0.125, 1, 2])
    # An even number of classes: the median lies between the middle two.
    np.testing.assert_allclose(class_weights([10, 20, 40, 80]).numpy(), [3, 1.5, 0.75, 0.375])


def test_no_class_has_a_weight_of_0():
    weights = class_weights(np.array(COUNTS))
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.numpy() * COUNTS, np.median(COUNTS), rtol=1e-5)
    # That is what the division of whole numbers makes of them.
    assert sum(int(np.median(COUNTS)) // count == 0 for count in COUNTS) == 16
    # A class that does not occur has no say in the median.
    np.testing.assert_allclose(class_weights([800, 0, 100, 50]).numpy(), [0.125, 0, 1, 2])


def test_edges_are_where_classes_meet_in_a_slice():
    classes = torch.zeros(2, 5, 6, dtype=torch.long)
    classes[0, :, 3:] = 1
    expected = torch.zeros(2, 5, 6, dtype=torch.bool)
    expected[0, :, 2:4] = True
    assert torch.equal(edges(classes, 2), expected)
    assert torch.equal(edges(classes.transpose(1, 2), 2), expected.transpose(1, 2))


def test_slices_of_a_batch_are_no_neighbours():
    # Each of one class only, another than the next: along the batch all differs, in the slices nothing.
    classes = torch.arange(3)[:, None, None].expand(3, 4, 5)
    assert not edges(classes, 3).any()


def test_ignored_pixels_make_no_edge():
    classes = torch.zeros(1, 4, 6, dtype=torch.long)
    classes[:, :, 3:] = IGNORED
    assert not edges(classes, 2).any()


def paper_loss_by_hand(logits, truth, counts):
    """Weighted cross-entropy, pixel by pixel."""
    total, number = 0.0, 0
    _, rows, columns = truth.shape
    for n, row, column in np.ndindex(*truth.shape):
        label = int(truth[n, row, column])
        if label == IGNORED:
            continue
        weight = np.median(counts) / counts[label]
        beside = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        inside = [int(truth[n, r, c]) for r, c in beside if 0 <= r < rows and 0 <= c < columns]
        weight += 2.0 * any(other not in (label, IGNORED) for other in inside)
        values = logits[n, :, row, column].numpy()
        total -= weight * (values[label] - math.log(np.exp(values).sum()))
        number += 1
    return total / number


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_the_papers_losses_against_numpy(ignored):
    logits, truth = random_case(ignored=ignored)
    counts = [900, 40, 70, 300, 5]
    weighted = paper_loss_by_hand(logits, truth, counts)
    dice, _ = by_hand(logits, truth)
    found = {name: float(loss_named(name, lambda: counts)(logits, truth)) for name in LOSSES}
    assert found["weighted"] == pytest.approx(weighted, rel=1e-5)
    assert found["dice"] == pytest.approx(dice, rel=1e-5)
    assert found["both"] == pytest.approx(weighted + dice, rel=1e-5)
    assert found["plain"] == pytest.approx(float(combined_loss(logits, truth)), rel=1e-6)


def test_in_the_sum_softmax_is_applied_once():
    # As above, with class weights of 1 and no edges: cross-entropy -log 3/4, Dice loss 1/7.
    logits = torch.tensor([math.log(3), 0.0]).reshape(1, 2, 1, 1)
    loss = PaperLoss([5, 5], dice=True)(logits, torch.zeros(1, 1, 1, dtype=torch.long))
    assert float(loss) == pytest.approx(1 / 7 - math.log(0.75), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_finite_and_blind_to_ignored_pixels(name):
    loss = loss_named(name, lambda: [9, 5, 3, 2, 1])
    logits, truth = random_case(ignored=0.3, seed=2)
    logits.requires_grad_()
    loss(logits, truth).backward()
    ignored = (truth == IGNORED)[:, None].expand_as(logits)
    assert (logits.grad[ignored] == 0).all() and (logits.grad[~ignored] != 0).any()
    nothing = loss(logits, torch.full_like(truth, IGNORED))
    assert math.isfinite(float(nothing.detach()))


@pytest.mark.parametrize("se", ["cse", "sse", "scse"])
@pytest.mark.parametrize("architecture", values(Architecture))
def test_every_layer_of_every_se_block_learns(architecture, se):
    torch.manual_seed(0)
    network = network_class(architecture)(classes=3, width=4, kernel=3, depth=2, se=se)
    logits = network(torch.rand(2, 1, 16, 20))
    loss_named("both", lambda: [5, 3, 2])(logits, torch.randint(0, 3, (2, 16, 20))).backward()
    layers = {name: value.grad for name, value in network.named_parameters() if ".se." in name}
    # 4 blocks; 2 layers for cSE and 1 for sSE, each with weight and bias.
    assert len(layers) == 4 * {"cse": 4, "sse": 2, "scse": 6}[se]
    for name, gradient in layers.items():
        # A ReLU between the layers of cSE may be shut for all of a small batch, but not in every block.
        assert gradient is not None, name
    for layer in {name.split(".se.")[1] for name in layers}:
        assert any((gradient != 0).any() for name, gradient in layers.items() if name.endswith(f".se.{layer}")), layer
