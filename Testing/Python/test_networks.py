"""The paper's U-Net: parameter counts, and that its squeeze & excitation layers do something."""

import pytest
import torch

from SEBrainSegLib.networks import UNet, parameters
from SEBrainSegLib.recalibration import ChannelSE, ChannelSpatialSE, SpatialSE

CONFIGURATIONS = [("none", "max"), ("cse", "max"), ("sse", "max")] + [
    ("scse", aggregation) for aggregation in ("max", "addition", "multiplication", "concatenation")
]
SE_LAYERS = (ChannelSE, SpatialSE, ChannelSpatialSE)


def count_by_hand(width, kernel, classes, se="none", aggregation="max", reduction=2, bias=True, depth=4):
    """Number of parameters by arithmetic: two convolutions with biases and affine batch norms a block."""
    squeezed = width // reduction
    cse = 2 * width * squeezed + (squeezed + width if bias else 0)
    sse = width + (1 if bias else 0)
    extra = {"none": 0, "cse": cse, "sse": sse, "scse": cse + sse}[se]
    out = 2 * width if (se, aggregation) == ("scse", "concatenation") else width

    def block(channels):
        first = kernel**2 * channels * width + width + 2 * width
        return first + kernel**2 * width * width + width + 2 * width

    encoders = block(1) + (depth - 1) * block(out) + depth * extra
    decoders = block(width + out) + (depth - 1) * block(out + out) + depth * extra
    return encoders + block(out) + decoders + out * classes + classes


def tiny(se="scse", aggregation="max", seed=0, **arguments):
    torch.manual_seed(seed)
    network = UNet(classes=3, width=4, kernel=3, se=se, aggregation=aggregation, **arguments)
    # Statistics and gates as a trained network has, so that no layer is idle by chance.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.bias, 0.2, 0.6)
        if isinstance(module, ChannelSE):
            torch.nn.init.uniform_(module.w1.bias, 0.5, 1.0)
    return network.double()


def slices(rows=32, columns=48, count=2):
    return torch.rand(count, 1, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_parameters_at_the_settings_of_the_paper():
    assert parameters(UNet(classes=28, width=64, kernel=5, depth=4)) == 2_157_276


def test_scse_without_biases_adds_what_the_paper_says():
    plain = parameters(UNet(classes=28, width=64, kernel=5, depth=4, se="none"))
    recalibrated = parameters(UNet(classes=28, width=64, kernel=5, depth=4, se="scse", reduction=2, se_bias=False))
    assert recalibrated - plain == 33_280
    assert 0.015 < (recalibrated - plain) / plain < 0.016


# 8 blocks of C = 32, r = 2: C^2 + C/2 + C for cSE, C + 1 for sSE.
@pytest.mark.parametrize("se, increase", [("cse", 8 * 1072), ("sse", 8 * 33), ("scse", 8 * 1105)])
def test_increase_at_the_bundled_width(se, increase):
    plain = parameters(UNet(classes=32, width=32, kernel=5))
    assert plain == count_by_hand(32, 5, 32)
    assert parameters(UNet(classes=32, width=32, kernel=5, se=se)) - plain == increase


@pytest.mark.parametrize("se, aggregation", CONFIGURATIONS)
@pytest.mark.parametrize(
    "width, kernel, classes, depth, reduction", [(6, 3, 5, 4, 3), (4, 5, 2, 2, 2), (8, 1, 32, 3, 4)]
)
def test_parameters_of_other_settings(se, aggregation, width, kernel, classes, depth, reduction):
    network = UNet(classes, width, kernel, depth, se, reduction, aggregation)
    assert parameters(network) == count_by_hand(width, kernel, classes, se, aggregation, reduction, depth=depth)


@pytest.mark.parametrize("se, aggregation", CONFIGURATIONS)
def test_every_se_layer_built_is_called(se, aggregation):
    network, calls = tiny(se, aggregation).eval(), {}

    def count(module, *_):
        calls[module] = calls.get(module, 0) + 1

    layers = [module for module in network.modules() if isinstance(module, SE_LAYERS)]
    # One block after each of 4 encoders and 4 decoders; scSE holds the two others.
    kinds = {"none": 0, "cse": 1, "sse": 1, "scse": 3}[se]
    assert len(layers) == 8 * kinds
    inner = {part for layer in layers for part in layer.modules() if any(True for _ in part.parameters(recurse=False))}
    assert len(inner) == 8 * {"none": 0, "cse": 2, "sse": 1, "scse": 3}[se]
    for module in {*layers, *inner}:
        module.register_forward_hook(count)
    network(slices(count=1))
    assert calls == dict.fromkeys([*layers, *inner], 1)


@pytest.mark.parametrize("se, aggregation", CONFIGURATIONS[1:])
def test_changing_any_se_weight_changes_the_output(se, aggregation):
    network, x = tiny(se, aggregation).eval(), slices()
    with torch.no_grad():
        before, tried = network(x), 0
        for layer in network.modules():
            if not isinstance(layer, (ChannelSE, SpatialSE)):
                continue
            for weight in layer.parameters():
                kept = weight.clone()
                weight.add_(0.7)
                assert (network(x) - before).abs().max() > 1e-10  # rounding is 1e-15
                weight.copy_(kept)
                tried += 1
        assert tried == 8 * {"cse": 4, "sse": 2, "scse": 6}[se]
        assert torch.equal(network(x), before)


@pytest.mark.parametrize("se, aggregation", CONFIGURATIONS)
def test_every_parameter_gets_a_gradient(se, aggregation):
    # In evaluation mode, as batch norm in training mode takes out the biases of the convolutions before it.
    network = tiny(se, aggregation, seed=2).eval()
    output = network(slices())
    (
        output * torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    ).sum().backward()
    idle = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().max() > 0]
    assert idle == []


@pytest.mark.parametrize("se, aggregation", CONFIGURATIONS)
def test_slices_of_any_size_keep_it(se, aggregation):
    network = tiny(se, aggregation).eval()
    for rows, columns in ((16, 16), (17, 23), (33, 16), (31, 47)):
        with torch.no_grad():
            output = network(slices(rows, columns, count=1))
        assert output.shape == (1, 3, rows, columns)
        assert torch.isfinite(output).all()


def test_slices_of_a_batch_do_not_mix():
    network, x = tiny().eval(), slices(count=3)
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("kernel", [0, 2, 4])
def test_even_kernels_are_refused(kernel):
    with pytest.raises(ValueError, match=f"odd.*{kernel}"):
        UNet(width=4, kernel=kernel)


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="csse"):
        UNet(width=4, se="csse")


@pytest.mark.parametrize("se", ["none", "cse", "sse", "scse"])
def test_unknown_aggregations_are_refused(se):
    with pytest.raises(ValueError, match="mean"):
        UNet(width=4, se=se, aggregation="mean")
