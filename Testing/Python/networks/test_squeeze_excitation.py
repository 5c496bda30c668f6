"""cSE, sSE and scSE against the paper's formulas, computed by hand in NumPy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from SEBrainSegLib.networks.squeeze_excitation import (
    ChannelSE,
    ChannelSpatialSE,
    SpatialSE,
    from_authors_layout,
    recalibration,
)

# Channels and reduction ratio: the paper's, odd channels, r that does not divide C, r beyond C, r = 1, one channel.
SIZES = [(64, 2), (7, 2), (10, 4), (3, 16), (5, 1), (1, 2)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def random_weights(channels, reduction, bias=True, seed=0):
    """Weights of both branches, named as in the formulas; W1 leads to floor(C / r) channels, at least one."""
    rng = np.random.default_rng(seed)
    squeezed = max(1, channels // reduction)
    weights = {
        "w1.weight": rng.normal(size=(squeezed, channels)),
        "w2.weight": rng.normal(size=(channels, squeezed)),
        "w.weight": rng.normal(size=(1, channels, 1, 1)),
    }
    if bias:
        weights["w1.bias"] = rng.normal(size=squeezed)
        weights["w2.bias"] = rng.normal(size=channels)
        weights["w.bias"] = rng.normal(size=1)
    return weights


def random_input(channels, seed=1):
    return np.random.default_rng(seed).normal(size=(2, channels, 4, 5))


def cse_by_hand(u, weights):
    out = np.empty_like(u)
    for n in range(u.shape[0]):
        z = [u[n, c].sum() / u[n, c].size for c in range(u.shape[1])]
        hidden = weights["w1.weight"] @ z + weights.get("w1.bias", 0)
        hidden = np.where(hidden > 0, hidden, 0)
        gates = sigmoid(weights["w2.weight"] @ hidden + weights.get("w2.bias", 0))
        for c, gate in enumerate(gates):
            out[n, c] = u[n, c] * gate
    return out


def sse_by_hand(u, weights):
    out = np.empty_like(u)
    kernel, bias = weights["w.weight"].reshape(-1), weights.get("w.bias", np.zeros(1))[0]
    for n, row, column in np.ndindex(u.shape[0], *u.shape[2:]):
        pixel = u[n, :, row, column]
        out[n, :, row, column] = pixel * sigmoid(kernel @ pixel + bias)
    return out


JOINED_BY_HAND = {
    "max": lambda a, b: np.where(a > b, a, b),
    "addition": lambda a, b: a + b,
    "multiplication": lambda a, b: a * b,
    "concatenation": lambda a, b: np.concatenate((a, b), axis=1),
}


def tensors(weights):
    return {name: torch.from_numpy(value) for name, value in weights.items()}


def cse(weights, channels, reduction):
    block = ChannelSE(channels, reduction, bias="w1.bias" in weights).double()
    block.load_state_dict(tensors({name: value for name, value in weights.items() if not name.startswith("w.")}))
    return block


def sse(weights, channels):
    block = SpatialSE(channels, bias="w.bias" in weights).double()
    block.load_state_dict(tensors({name: value for name, value in weights.items() if name.startswith("w.")}))
    return block


def scse(weights, channels, reduction, **arguments):
    block = ChannelSpatialSE(channels, reduction, bias="w.bias" in weights, **arguments).double()
    branches = {("spatial." if name.startswith("w.") else "channel.") + name: value for name, value in weights.items()}
    block.load_state_dict(tensors(branches))
    return block


def applied(block, u):
    with torch.no_grad():
        return block(torch.from_numpy(u)).numpy()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels, reduction", SIZES)
def test_channel_se_is_the_formula(channels, reduction, bias):
    weights, u = random_weights(channels, reduction, bias), random_input(channels)
    np.testing.assert_allclose(applied(cse(weights, channels, reduction), u), cse_by_hand(u, weights), rtol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [1, 7, 64])
def test_spatial_se_is_the_formula(channels, bias):
    weights, u = random_weights(channels, 2, bias), random_input(channels)
    np.testing.assert_allclose(applied(sse(weights, channels), u), sse_by_hand(u, weights), rtol=1e-10)


@pytest.mark.parametrize("aggregation", sorted(JOINED_BY_HAND))
@pytest.mark.parametrize("channels, reduction", SIZES)
def test_channel_and_spatial_se_is_the_formula(channels, reduction, aggregation):
    weights, u = random_weights(channels, reduction), random_input(channels)
    expected = JOINED_BY_HAND[aggregation](cse_by_hand(u, weights), sse_by_hand(u, weights))
    found = applied(scse(weights, channels, reduction, aggregation=aggregation), u)
    assert found.shape == (2, channels * (2 if aggregation == "concatenation" else 1), 4, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_default_aggregation_is_max():
    weights, u = random_weights(6, 2), random_input(6)
    expected = np.maximum(cse_by_hand(u, weights), sse_by_hand(u, weights))
    np.testing.assert_allclose(applied(scse(weights, 6, 2), u), expected, rtol=1e-10)


def test_max_is_of_tensors_for_a_negative_activation():
    # Gates 1/2 and 3/4 of an activation of -2: the larger tensor is -1, the larger gate would give -1.5.
    weights = {
        "w1.weight": np.zeros((1, 1)),
        "w2.weight": np.zeros((1, 1)),
        "w1.bias": np.zeros(1),
        "w2.bias": np.zeros(1),
        "w.weight": np.full((1, 1, 1, 1), -math.log(3) / 2),
        "w.bias": np.zeros(1),
    }
    u = np.full((1, 1, 2, 2), -2.0)
    np.testing.assert_allclose(applied(scse(weights, 1, 2), u), np.full((1, 1, 2, 2), -1.0), rtol=1e-12)


def test_max_of_tensors_differs_from_max_of_gates_exactly_where_activations_are_negative():
    weights, u = random_weights(8, 2), random_input(8)
    found = applied(scse(weights, 8, 2), u)
    gates = np.maximum(cse_by_hand(u, weights) / u, sse_by_hand(u, weights) / u)
    differs = ~np.isclose(found, u * gates, rtol=1e-9, atol=0)
    assert (u < 0).any()
    np.testing.assert_array_equal(differs, u < 0)


@pytest.mark.parametrize(
    "block",
    [
        ChannelSE(5, 2),
        ChannelSE(3, 8, bias=False),
        SpatialSE(3),
        *(ChannelSpatialSE(3, 2, aggregation) for aggregation in sorted(JOINED_BY_HAND)),
    ],
    ids=["cse", "cse-r-beyond-c", "sse", "scse-addition", "scse-concatenation", "scse-max", "scse-multiplication"],
)
def test_gradients_of_input_and_weights(block):
    generator = torch.Generator().manual_seed(3)
    names = [name for name, _ in block.named_parameters()]
    channels = 5 if names[0] == "w1.weight" and len(names) == 4 else 3

    def draw(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    weights = [draw(value.shape) for value in block.parameters()]

    def forward(u, *values):
        return torch.func.functional_call(block, dict(zip(names, values)), (u,))

    assert torch.autograd.gradcheck(forward, (draw((2, channels, 2, 3)), *weights))


@pytest.mark.parametrize(
    "variant, without, with_bias", [("cse", 4096, 4192), ("sse", 64, 65), ("scse", 4160, 4257), ("none", 0, 0)]
)
def test_parameter_counts_of_the_paper(variant, without, with_bias):
    for bias, expected in ((False, without), (True, with_bias)):
        block, out_channels = recalibration(variant, 64, reduction=2, bias=bias)
        found = 0 if block is None else sum(value.numel() for value in block.parameters())
        assert (found, out_channels) == (expected, 64)


def test_biases_and_a_reduction_of_2_are_the_default():
    block, _ = recalibration("scse", 64)
    assert sum(value.numel() for value in block.parameters()) == 4257


@pytest.mark.parametrize("channels, reduction, squeezed", [(7, 2, 3), (10, 4, 2), (3, 16, 1), (64, 64, 1)])
def test_parameter_counts_where_r_does_not_divide_c(channels, reduction, squeezed):
    block = ChannelSE(channels, reduction, bias=True)
    assert sum(value.numel() for value in block.parameters()) == 2 * channels * squeezed + squeezed + channels


def test_only_concatenation_doubles_the_channels():
    for aggregation, expected in (("max", 6), ("addition", 6), ("multiplication", 6), ("concatenation", 12)):
        block, out_channels = recalibration("scse", 6, aggregation=aggregation)
        assert out_channels == expected
        assert block(torch.zeros(1, 6, 2, 2)).shape == (1, expected, 2, 2)
    # Aggregation joins two branches: it does not touch blocks that have one.
    assert recalibration("cse", 6, aggregation="concatenation")[1] == 6
    assert recalibration("sse", 6, aggregation="concatenation")[1] == 6


# Stand-ins with the layer names of the authors' package, github.com/ai-med/squeeze_and_excitation.


class AuthorsChannelSE(nn.Module):
    def __init__(self, channels, reduction):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction)
        self.fc2 = nn.Linear(channels // reduction, channels)


class AuthorsSpatialSE(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1)


class AuthorsChannelSpatialSE(nn.Module):
    def __init__(self, channels, reduction):
        super().__init__()
        self.cSE = AuthorsChannelSE(channels, reduction)
        self.sSE = AuthorsSpatialSE(channels)


def by_formula_name(authors):
    """Entries of an authors' state dict as NumPy arrays under the names of the formulas."""
    formula = {"fc1": "w1", "fc2": "w2", "conv": "w"}
    parts = ((name.split(".")[-2:], value) for name, value in authors.state_dict().items())
    return {f"{formula[layer]}.{kind}": value.numpy() for (layer, kind), value in parts}


def test_state_dicts_of_the_authors_package_load():
    torch.manual_seed(5)
    channels, reduction = 6, 2
    u = random_input(channels)
    cases = (
        (AuthorsChannelSE(channels, reduction), ChannelSE(channels, reduction), lambda u, w: cse_by_hand(u, w)),
        (AuthorsSpatialSE(channels), SpatialSE(channels), lambda u, w: sse_by_hand(u, w)),
        (
            AuthorsChannelSpatialSE(channels, reduction),
            ChannelSpatialSE(channels, reduction),
            lambda u, w: np.maximum(cse_by_hand(u, w), sse_by_hand(u, w)),
        ),
    )
    for authors, block, by_hand in cases:
        authors, block = authors.double(), block.double()
        block.load_state_dict(from_authors_layout(authors.state_dict()))
        np.testing.assert_allclose(applied(block, u), by_hand(u, by_formula_name(authors)), rtol=1e-10)


@pytest.mark.parametrize("name", ["fc3.weight", "weight", "cSE.fc1.conv2.weight", "encoder.fc1.weight"])
def test_foreign_entries_are_refused_by_name(name):
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        from_authors_layout({"cSE.fc1.bias": torch.zeros(1), name: torch.zeros(1)})


def test_unknown_choices_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="none, cse, sse, scse"):
        recalibration("csse", 4)
    with pytest.raises(ValueError, match="max, addition, multiplication, concatenation"):
        ChannelSpatialSE(4, aggregation="mean")
    with pytest.raises(ValueError, match="mean"):
        recalibration("scse", 4, aggregation="mean")
    for reduction in (0, -2):
        with pytest.raises(ValueError, match="reduction"):
            recalibration("cse", 4, reduction=reduction)
