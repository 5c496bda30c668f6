"""Devices that lack an operation or a precision: injected, as no test needs a GPU."""

import numpy as np
import pytest
import torch

from phantoms import ByIntensity, centred, phantom
from SEBrainSegLib import segment
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.inference import devices, slices
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.networks.architectures import SDNet, UNet
from SEBrainSegLib.networks.model_file import Model

GPU = torch.device("meta")  # torch's device for what is stored nowhere
SIZE = (64, 64, 64)


@pytest.fixture
def gpu_without_unpooling(monkeypatch):
    """A GPU, the automatic choice, that has all operations but one, as Apple's."""
    original = torch.nn.functional.max_unpool2d

    def max_unpool2d(values, *others, **named):
        if values.device == GPU:
            raise NotImplementedError("The operator 'aten::max_unpool2d' is not currently implemented for the device.")
        return original(values, *others, **named)

    monkeypatch.setattr(torch.nn.functional, "max_unpool2d", max_unpool2d)
    monkeypatch.setattr(devices, "choose", lambda name: GPU)


def sdnet():
    """An SD-Net that calls everything white matter of the left."""
    network = SDNet(classes=32, width=1, kernel=1, depth=4).eval()
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.nn.functional.one_hot(torch.tensor(1), 32))
    return network


def test_a_network_that_a_gpu_cannot_run_goes_to_the_cpu_which_is_said(gpu_without_unpooling, monkeypatch, any_result):
    monkeypatch.setattr(bundled, "load", lambda *_: Model(sdnet(), "coronal", structures()))
    told = []
    found = segment(phantom(centred(np.eye(3), SIZE), SIZE), "sdnet", "none", progress=lambda *step: told.append(step))
    assert found.device == "cpu" and found.volumes[2] > 100
    during = [message for fraction, message in told if 0.2 < fraction < 0.9]
    assert during and all(
        message.endswith("on cpu, as the GPU (meta) lacks an operation of this network") for message in during
    )


def test_only_networks_that_unpool_are_kept_from_it(gpu_without_unpooling, monkeypatch):
    assert not devices.can_run(sdnet(), GPU) and devices.can_run(sdnet(), torch.device("cpu"))
    assert devices.can_run(UNet(classes=2, width=1, kernel=1, depth=1), GPU)
    monkeypatch.undo()
    assert devices.can_run(sdnet(), GPU)


def test_where_nothing_is_reduced_autocast_is_not_asked(monkeypatch):
    """PyTorch 2.2 raises for Apple GPUs even if it is not enabled."""

    def autocast(device_type, *_, **__):
        raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")

    monkeypatch.setattr(torch, "autocast", autocast)
    monkeypatch.setattr(devices, "precision", lambda device: torch.float32)
    stack = torch.rand(3, 16, 16)
    for network in (sdnet(), ByIntensity()):
        assert len(list(slices.logits_of_slices(network, stack, torch.device("cpu")))) == 1
    with pytest.raises(RuntimeError, match="unsupported autocast"):
        devices.computing_in(torch.bfloat16, torch.device("cpu"))
