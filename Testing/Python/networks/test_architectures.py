"""The paper's networks: parameter counts, max-unpooling, and that their squeeze & excitation layers do something."""

import pytest
import torch

from SEBrainSegLib.choices.vocabulary import Aggregation, Architecture, values
from SEBrainSegLib.networks.architectures import Block, DenseNet, SDNet, UNet, network_class, parameters
from SEBrainSegLib.networks.squeeze_excitation import ChannelSE, SpatialSE

AGGREGATIONS = values(Aggregation)
# Concatenation doubles the channels, which max-unpooling cannot take.
CONFIGURATIONS = [
    (architecture, se, aggregation)
    for architecture in ("unet", "sdnet", "densenet")
    for se in ("none", "cse", "sse", "scse")
    for aggregation in (AGGREGATIONS[: 4 if architecture == "unet" else 3] if se == "scse" else ("max",))
]


def count_by_hand(
    width, kernel, classes, se="none", aggregation="max", reduction=2, bias=True, depth=4, architecture="unet"
):
    """Number of parameters by arithmetic: biases in every convolution, two numbers a channel in every batch norm."""
    squeezed = width // reduction
    cse = 2 * width * squeezed + (squeezed + width if bias else 0)
    sse = width + (1 if bias else 0)
    extra = {"none": 0, "cse": cse, "sse": sse, "scse": cse + sse}[se]
    out = 2 * width if (se, aggregation) == ("scse", "concatenation") else width

    def convolution(channels, side=kernel):
        return side**2 * channels * width + width

    def block(channels):
        if architecture == "unet":
            return convolution(channels) + 2 * width + convolution(width) + 2 * width
        if architecture == "sdnet":
            return convolution(channels) + 2 * width
        # Each layer of a dense block sees the block's input and all that came before it.
        seen = [channels, channels + width, channels + 2 * width]
        return 2 * sum(seen) + convolution(seen[0]) + convolution(seen[1]) + convolution(seen[2], side=1)

    encoders = block(1) + (depth - 1) * block(out) + depth * extra
    decoders = block(width + out) + (depth - 1) * block(out + out) + depth * extra
    return encoders + block(out) + decoders + out * classes + classes


def tiny(architecture="unet", se="scse", aggregation="max", seed=0, **arguments):
    torch.manual_seed(seed)
    network = network_class(architecture)(classes=3, width=4, kernel=3, se=se, aggregation=aggregation, **arguments)
    # Statistics and gates as a trained network has, so that no layer is idle by chance.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.bias, 0.2, 0.6)
        if isinstance(module, ChannelSE):
            torch.nn.init.uniform_(module.w1.bias, 0.5, 1.0)
    return network.double()


def slices(rows=32, columns=48, count=2):
    return torch.rand(count, 1, rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "network, kernel, count",
    [(UNet, 5, 2_157_276), (SDNet, 5, 1_233_948), (SDNet, 7, 2_415_132), (DenseNet, 5, 3_516_962)],
)
def test_parameters_at_the_settings_of_the_paper(network, kernel, count):
    assert parameters(network(classes=28, width=64, kernel=kernel, depth=4)) == count


@pytest.mark.parametrize("network, percent", [(UNet, 1.54), (SDNet, 2.70), (DenseNet, 0.95)])
def test_scse_without_biases_adds_what_the_paper_says(network, percent):
    plain = parameters(network(classes=28, width=64, se="none"))
    recalibrated = parameters(network(classes=28, width=64, se="scse", reduction=2, se_bias=False))
    assert recalibrated - plain == 33_280
    assert 100 * (recalibrated - plain) / plain == pytest.approx(percent, abs=0.005)


# 8 blocks of C = 32, r = 2: C^2 + C/2 + C for cSE, C + 1 for sSE.
@pytest.mark.parametrize("architecture", values(Architecture))
@pytest.mark.parametrize("se, increase", [("cse", 8 * 1072), ("sse", 8 * 33), ("scse", 8 * 1105)])
def test_increase_at_the_bundled_width(architecture, se, increase):
    network = network_class(architecture)
    plain = parameters(network(classes=32, width=32, kernel=5))
    assert plain == count_by_hand(32, 5, 32, architecture=architecture)
    assert parameters(network(classes=32, width=32, kernel=5, se=se)) - plain == increase


@pytest.mark.parametrize("architecture, se, aggregation", CONFIGURATIONS)
@pytest.mark.parametrize(
    "width, kernel, classes, depth, reduction", [(6, 3, 5, 4, 3), (4, 5, 2, 2, 2), (8, 1, 32, 3, 4)]
)
def test_parameters_of_other_settings(architecture, se, aggregation, width, kernel, classes, depth, reduction):
    network = network_class(architecture)(classes, width, kernel, depth, se, reduction, aggregation)
    by_hand = count_by_hand(width, kernel, classes, se, aggregation, reduction, True, depth, architecture)
    assert parameters(network) == by_hand


@pytest.mark.parametrize("placement, blocks", [("encoder", 4), ("decoder", 4), ("both", 8), ("all", 9)])
def test_se_blocks_are_where_they_are_placed(placement, blocks):
    network = UNet(width=4, kernel=3, se="cse", placement=placement)
    places = [name for name, module in network.named_modules() if isinstance(module, ChannelSE)]
    assert len(places) == blocks
    allowed = {"encoder": ("encoders",), "decoder": ("decoders",)}.get(
        placement, ("encoders", "decoders", "bottleneck")
    )
    assert all(place.startswith(allowed) for place in places)
    assert any(place.startswith("bottleneck") for place in places) == (placement == "all")


@pytest.mark.parametrize("architecture", ["sdnet", "densenet"])
def test_unpooling_puts_values_where_the_encoder_had_its_maxima(architecture):
    network = network_class(architecture)(width=2, kernel=3)
    skip = torch.rand(1, 2, 5, 7, generator=torch.Generator().manual_seed(3))  # odd: the last row and column are lost
    pooled, indices = network.pool(skip)
    values = torch.arange(1.0, 13).reshape(1, 2, 2, 3)
    found = network.upsample(values, skip, indices)
    expected = torch.zeros_like(skip)
    for channel in range(2):
        for row in range(2):
            for column in range(3):
                window = skip[0, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                assert pooled[0, channel, row, column] == window.max()
                place = int(window.argmax())
                expected[0, channel, 2 * row + place // 2, 2 * column + place % 2] = values[0, channel, row, column]
    assert torch.equal(found, expected)


def test_a_dense_block_keeps_its_input():
    # Every layer sees the input itself, so it reaches the last one untouched.
    torch.manual_seed(0)
    layers = DenseNet(width=4, kernel=3).encoders[1].convolutions.eval()
    seen = []
    layers.last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.rand(1, 4, 8, 8)
    with torch.no_grad():
        layers(x)
        assert seen[0].shape == (1, 12, 8, 8)
        assert torch.equal(seen[0][:, :4], x)
        assert torch.equal(seen[0][:, 4:8], layers.first(x))
        assert torch.equal(seen[0][:, 8:], layers.second(seen[0][:, :8]))


@pytest.mark.parametrize("architecture", ["sdnet", "densenet"])
def test_concatenation_is_refused_where_it_cannot_be_unpooled(architecture):
    with pytest.raises(ValueError, match="[Cc]oncatenation"):
        network_class(architecture)(width=4, se="scse", aggregation="concatenation")


def test_unknown_placements_are_refused():
    with pytest.raises(ValueError, match="middle"):
        UNet(width=4, se="scse", placement="middle")


@pytest.mark.parametrize("architecture, se, aggregation", CONFIGURATIONS)
def test_every_se_layer_built_is_called(architecture, se, aggregation):
    network, calls = tiny(architecture, se, aggregation).eval(), {}

    def count(module, *_):
        calls[module] = calls.get(module, 0) + 1

    # One block after each of 4 encoders and 4 decoders.
    layers = [module.se for module in network.modules() if isinstance(module, Block) and module.se is not None]
    assert len(layers) == (0 if se == "none" else 8)
    inner = {part for layer in layers for part in layer.modules() if any(True for _ in part.parameters(recurse=False))}
    assert len(inner) == 8 * {"none": 0, "cse": 2, "sse": 1, "scse": 3}[se]
    for module in {*layers, *inner}:
        module.register_forward_hook(count)
    network(slices(count=1))
    assert calls == dict.fromkeys([*layers, *inner], 1)


@pytest.mark.parametrize("architecture, se, aggregation", [each for each in CONFIGURATIONS if each[1] != "none"])
def test_changing_any_se_weight_changes_the_output(architecture, se, aggregation):
    network, x = tiny(architecture, se, aggregation).eval(), slices()
    with torch.no_grad():
        before, tried = network(x), 0
        for layer in network.modules():
            if not isinstance(layer, (ChannelSE, SpatialSE)):
                continue
            for weight in layer.parameters():
                kept, moved = weight.clone(), []
                # With max, one branch may win everywhere until the other is lifted.
                for amount in (0.7, -0.7, 10.0, -10.0):
                    weight.add_(amount)
                    moved.append((network(x) - before).abs().max())
                    weight.copy_(kept)
                assert max(moved) > 1e-10  # rounding is 1e-15
                tried += 1
        assert tried == 8 * {"cse": 4, "sse": 2, "scse": 6}[se]
        assert torch.equal(network(x), before)


@pytest.mark.parametrize("architecture, se, aggregation", CONFIGURATIONS)
def test_every_parameter_gets_a_gradient(architecture, se, aggregation):
    idle = set(dict(tiny(architecture, se, aggregation).named_parameters()))
    # With max, one branch may win everywhere in a network drawn by chance, but not in each of three.
    for seed in (2, 3, 4):
        # In evaluation mode, as batch norm in training mode takes out the biases of the convolutions before it.
        network = tiny(architecture, se, aggregation, seed).eval()
        output = network(slices())
        noise = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        (output * noise).sum().backward()
        gradients = {name: value.grad for name, value in network.named_parameters()}
        idle &= {name for name, value in gradients.items() if value is None or not value.abs().max() > 0}
    assert idle == set()


@pytest.mark.parametrize("architecture, se, aggregation", CONFIGURATIONS)
def test_slices_of_any_size_keep_it(architecture, se, aggregation):
    network = tiny(architecture, se, aggregation).eval()
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
