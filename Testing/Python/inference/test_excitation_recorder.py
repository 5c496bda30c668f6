"""Recalibration maps and confidences against NumPy written out by hand, on small random networks."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from phantoms import GRIDS, centred, phantom
from SEBrainSegLib import SEBrainSegError, segment
from SEBrainSegLib.choices.job import excitation_blocks
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.inference import devices
from SEBrainSegLib.inference import run as inference_run
from SEBrainSegLib.inference.excitation_recorder import block_named
from SEBrainSegLib.inference.head_region import head_box
from SEBrainSegLib.inference.preparation import prepare
from SEBrainSegLib.inference.slices import classify_volume
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.networks.architectures import network_class
from SEBrainSegLib.networks.classes import unsided_classes
from SEBrainSegLib.networks.model_file import Model

CPU = torch.device("cpu")
# Neither side of a slice is a multiple of 16, and the slices are no multiple of a batch.
SHAPE = (37, 9, 45)


def network(se, architecture="unet", seed=0):
    torch.manual_seed(seed)
    network = network_class(architecture)(classes=32, width=6, kernel=3, se=se).eval()
    for name, value in network.named_parameters():
        if ".se." in name:  # so that gates differ from slice to slice
            torch.nn.init.normal_(value, std=3.0)
    return network


def model(se, view="coronal", seed=0):
    return Model(network(se, seed=seed), view, structures())


@pytest.fixture(autouse=True)
def single_precision(monkeypatch):
    """What is written out by hand is in float32."""
    monkeypatch.setattr(devices, "precision", lambda device: torch.float32)


@pytest.fixture
def array():
    return np.random.default_rng(1).random(SHAPE, dtype=np.float32)


def feature_maps(network, block, array):
    """What goes into an SE block for every coronal slice, ``(slices, C, h, w)``, each slice by itself."""
    kept = []
    handle = block.convolutions.register_forward_hook(lambda module, inputs, output: kept.append(output.numpy()))
    padded = np.pad(np.moveaxis(array, 1, 0), [(0, 0), (0, 48 - 37), (0, 48 - 45)])
    with torch.inference_mode():
        for one in padded:
            network(torch.from_numpy(one)[None, None])
    handle.remove()
    return np.concatenate(kept)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("name, scale", [("decoder 4", 1), ("encoder 1", 1), ("encoder 3", 4), ("decoder 1", 8)])
def test_spatial_excitation_is_that_of_the_paper(array, name, scale):
    toy = model("scse")
    part, number = name.split()
    block = getattr(toy.network, f"{part}s")[int(number) - 1]
    u = feature_maps(toy.network, block, array)
    weight, bias = block.se.spatial.w.weight.detach().numpy(), block.se.spatial.w.bias.detach().numpy()
    expected = sigmoid(np.einsum("c,nchw->nhw", weight[0, :, 0, 0], u) + bias)
    expected = np.kron(expected, np.ones((1, scale, scale)))[:, :37, :45]
    found = classify_volume([toy], array, CPU, lambda fraction: None, excitation=name).spatial
    np.testing.assert_allclose(np.moveaxis(found, 1, 0), expected, atol=1e-6)
    assert np.ptp(found) > 1e-4


def test_channel_excitation_is_that_of_the_paper(array):
    toy = model("cse")
    block = toy.network.encoders[1]
    z = feature_maps(toy.network, block, array).mean(axis=(2, 3))
    w1, b1, w2, b2 = (value.detach().numpy() for value in block.se.parameters())
    expected = sigmoid(np.maximum(z @ w1.T + b1, 0) @ w2.T + b2)
    found = classify_volume([toy], array, CPU, lambda fraction: None, excitation="encoder 2")
    assert found.spatial is None
    np.testing.assert_allclose(found.channels, expected, atol=1e-6)
    assert np.ptp(found.channels, axis=0).max() > 0.001


def test_the_maps_of_a_segmentation_are_those_of_the_paper(monkeypatch, any_result):
    toy = model("scse")
    monkeypatch.setattr(bundled, "load", lambda architecture, se, view, protocol: toy)
    monkeypatch.setattr(inference_run, "SMALLEST_BRAIN", -1.0)
    size = (77, 90, 71)
    image = phantom(centred(np.eye(3), size), size)
    found = segment(image, device="cpu", excitation="encoder 2").excitation
    array = prepare(image)[1]
    box = head_box(array)
    rows, columns = array[box].shape[0], array[box].shape[2]
    assert rows % 16 and columns % 16
    kept = []
    block = toy.network.encoders[1]
    handle = block.convolutions.register_forward_hook(lambda module, inputs, output: kept.append(output.numpy()))
    padded = np.pad(np.moveaxis(array[box], 1, 0), [(0, 0), (0, -rows % 16), (0, -columns % 16)])
    with torch.inference_mode():
        toy.network(torch.from_numpy(padded)[:, None])
    handle.remove()
    weights = {name: value.detach().numpy() for name, value in block.se.named_parameters()}
    spatial = sigmoid(
        np.einsum("c,nchw->nhw", weights["spatial.w.weight"][0, :, 0, 0], kept[0]) + weights["spatial.w.bias"]
    )
    expected = np.zeros(array.shape)
    expected[box] = np.moveaxis(np.kron(spatial, np.ones((1, 2, 2)))[:, :rows, :columns], 0, 1)
    np.testing.assert_allclose(sitk.GetArrayFromImage(found.spatial), expected, atol=1e-6)
    hidden = np.maximum(kept[0].mean(axis=(2, 3)) @ weights["channel.w1.weight"].T + weights["channel.w1.bias"], 0)
    channels = sigmoid(hidden @ weights["channel.w2.weight"].T + weights["channel.w2.bias"])
    np.testing.assert_allclose(found.mean, channels.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.spread, np.sqrt(((channels - channels.mean(axis=0)) ** 2).mean(axis=0)), atol=1e-6)
    assert found.block == "encoder 2" and max(found.spread) > 0.001


def test_a_pass_that_ran_out_of_memory_leaves_no_trace(array):
    toy, passes = model("scse"), []
    plain = classify_volume([toy], array, CPU, lambda fraction: None, confidence=True, excitation="decoder 4")

    def too_much(module, inputs, output):
        passes.append(len(output))
        if len(output) > 1:
            raise torch.cuda.OutOfMemoryError("injected")

    # After the gates were recorded.
    toy.network.classifier.register_forward_hook(too_much)
    found = classify_volume([toy], array, CPU, lambda fraction: None, confidence=True, excitation="decoder 4")
    assert passes[:3] == [4, 2, 1] and len(passes) == 2 + array.shape[1]
    for here, there in ((found.spatial, plain.spatial), (found.channels, plain.channels)):
        np.testing.assert_allclose(here, there, atol=1e-6)


def test_the_blocks_on_offer_are_those_of_the_bundled_networks():
    for name in bundled.names():
        chosen = Parameters(*name.split("-"))
        there, blocks = excitation_blocks(chosen), bundled.load(*name.split("-")).network
        assert there == tuple(each for each in (*excitation_blocks(Parameters()), "bottleneck") if has(blocks, each))


def has(network, name):
    try:
        return block_named(network, name) is not None
    except SEBrainSegError:
        return False


def test_to_look_changes_nothing_and_costs_no_pass(array):
    passes = []
    for se in ("cse", "sse", "scse"):
        toy = model(se)
        passes.clear()
        handle = toy.network.register_forward_hook(lambda *_: passes.append(1))
        plain = classify_volume([toy], array, CPU, lambda fraction: None)
        alone = len(passes)
        seen = classify_volume([toy], array, CPU, lambda fraction: None, confidence=True, excitation="decoder 4")
        assert len(passes) == 2 * alone
        np.testing.assert_array_equal(seen.classes, plain.classes)
        assert plain.confidence is None and plain.spatial is None and plain.channels is None
        handle.remove()
        # Nothing stays behind that would go on recording.
        assert not any(module._forward_hooks for module in toy.network.modules())


def test_a_block_that_is_not_there_is_named(array):
    with pytest.raises(SEBrainSegError, match="'bottleneck': choose one of encoder 1, .*, decoder 4"):
        classify_volume([model("sse")], array, CPU, lambda fraction: None, excitation="bottleneck")
    with pytest.raises(SEBrainSegError, match="no squeeze & excitation block 'decoder 4': it has none"):
        classify_volume([model("none")], array, CPU, lambda fraction: None, excitation="decoder 4")


def test_confidence_is_the_winning_softmax_probability(array):
    toy = model("scse")
    padded = np.pad(np.moveaxis(array, 1, 0), [(0, 0), (0, 48 - 37), (0, 48 - 45)])
    with torch.inference_mode():
        logits = toy.network(torch.from_numpy(padded)[:, None]).numpy()[:, :, :37, :45].astype(float)
    powers = np.exp(logits)
    expected = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
    found = classify_volume([toy], array, CPU, lambda fraction: None, confidence=True)
    np.testing.assert_allclose(np.moveaxis(found.confidence, 1, 0), expected, atol=1e-5)
    np.testing.assert_array_equal(np.moveaxis(found.classes, 1, 0), logits.argmax(axis=1))


def smoothed(slices):
    """Slices ``(n, rows, columns)`` whose pixels gave a fifth to each neighbour along both axes."""
    rows, columns = slices.shape[1:]
    beyond = np.pad(slices, [(0, 0), (1, 1), (1, 1)], mode="edge")
    across = 0.2 * beyond[:, :rows] + 0.6 * beyond[:, 1:-1] + 0.2 * beyond[:, 2:]
    return 0.2 * across[..., :columns] + 0.6 * across[..., 1:-1] + 0.2 * across[..., 2:]


@pytest.mark.parametrize("architecture", ["unet", "sdnet", "densenet"])
def test_of_the_bundled_networks_u_net_gets_smoothed_slices_and_others_get_them_as_they_are(array, architecture):
    bundled_one, seen = bundled.load(architecture, "none", "coronal"), []
    bundled_one.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 0].numpy()))
    classify_volume([bundled_one], array, CPU, lambda fraction: None)
    slices = np.moveaxis(array, 1, 0)
    seen = np.concatenate(seen)
    np.testing.assert_allclose(seen[:, :37, :45], smoothed(slices) if architecture == "unet" else slices, atol=1e-6)
    assert not seen[:, 37:].any() and not seen[:, :, 45:].any()


def test_confidence_of_three_views_is_that_of_the_mean_of_their_logarithms(array):
    models = [model("scse", view, seed) for seed, view in enumerate(("coronal", "axial", "sagittal"))]
    mean = 0
    for each in models:
        axis = {"coronal": 1, "axial": 0, "sagittal": 2}[each.view]
        slices = np.moveaxis(array, axis, 0)
        rows, columns = slices.shape[1:]
        padded = np.pad(slices, [(0, 0), (0, -rows % 16), (0, -columns % 16)])
        with torch.inference_mode():
            powers = np.exp(each.network(torch.from_numpy(padded)[:, None]).numpy()[:, :, :rows, :columns])
        probabilities = np.moveaxis(powers / powers.sum(axis=1, keepdims=True), 0, axis + 1)
        if each.view == "sagittal":
            probabilities = probabilities[unsided_classes()[:32]]
        mean = mean + np.log(probabilities) / 3
    found = classify_volume(models, array, CPU, lambda fraction: None, confidence=True, excitation="decoder 4")
    expected = np.exp(mean) / np.exp(mean).sum(axis=0)
    # Logarithms in steps of 0.1, rounded: each view's by 0.05 at most, their mean as well, and the sum by no more.
    np.testing.assert_allclose(np.log(found.confidence), np.log(expected.max(axis=0)), atol=0.1)
    assert np.abs(found.confidence - expected.max(axis=0)).mean() < 0.01
    # The recalibration map is the coronal network's.
    coronal = classify_volume(models[:1], array, CPU, lambda fraction: None, excitation="decoder 4")
    np.testing.assert_array_equal(found.spatial, coronal.spatial)


def test_maps_lie_on_the_scans_own_grid(monkeypatch, any_result):
    monkeypatch.setattr(bundled, "load", lambda architecture, se, view, protocol: model(se, view))
    monkeypatch.setattr(inference_run, "SMALLEST_BRAIN", -1.0)
    found = {}
    for grid in ("RAS", "LIA"):
        matrix, size = GRIDS[grid]
        image = phantom(centred(matrix, size), size)
        found[grid] = segment(image, device="cpu", confidence=True, excitation="decoder 4")
        for each in (found[grid].confidence, found[grid].excitation.spatial):
            assert each.GetSize() == image.GetSize() and each.GetDirection() == image.GetDirection()
            assert each.GetOrigin() == image.GetOrigin() and each.GetPixelID() == sitk.sitkFloat32
            values = sitk.GetArrayFromImage(each)
            assert 0 <= values.min() and values.max() <= 1 and np.ptp(values) > 0.01
    # The same place of the same head, however its file is oriented.
    for point in ((10.5, -3.5, 7.5), (-21.5, 12.5, -8.5)):
        for which in (lambda each: each.confidence, lambda each: each.excitation.spatial):
            here, there = (which(found[grid]) for grid in ("RAS", "LIA"))
            values = [each[each.TransformPhysicalPointToIndex(point)] for each in (here, there)]
            assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_mean_confidence_of_a_structure(monkeypatch, any_result):
    monkeypatch.setattr(bundled, "load", lambda architecture, se, view, protocol: model(se, view))
    monkeypatch.setattr(inference_run, "SMALLEST_BRAIN", -1.0)
    image = phantom(centred(np.eye(3), (80, 96, 76)), (80, 96, 76))
    found = segment(image, device="cpu", confidence=True)
    labels, sure = sitk.GetArrayFromImage(found.labels), sitk.GetArrayFromImage(found.confidence)
    present = set(np.unique(labels)) - {0}
    assert present and set(found.confidences) == present
    for label in present:
        assert found.confidences[label] == pytest.approx(sure[labels == label].mean(), abs=1e-4)
