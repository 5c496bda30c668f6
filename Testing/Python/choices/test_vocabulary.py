"""What a contributor adds to an enum and to its registry appears everywhere else by itself."""

import pytest
import torch

from SEBrainSegLib.choices.job import Job, excitation_blocks
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.vocabulary import Aggregation, Architecture, Device, Protocol, Variant, View, values
from SEBrainSegLib.commandline import inputs
from SEBrainSegLib.commandline import main as command_line
from SEBrainSegLib.networks import architectures, bundled, squeeze_excitation
from SEBrainSegLib.networks.architectures import UNet, network_class
from SEBrainSegLib.networks.model_file import read_model, write_model
from SEBrainSegLib.training import main as training
from vocabularies import add_member


@pytest.fixture
def fifth(monkeypatch):
    """A fifth SE variant: its line in the enum and its block in the registry."""
    variant = add_member(monkeypatch, Variant, "PSE", "pse", "pSE", True, False)
    monkeypatch.setitem(squeeze_excitation.BLOCKS, variant, squeeze_excitation.BLOCKS[Variant.CSE])
    return variant


@pytest.fixture
def installed(fifth, monkeypatch, tmp_path):
    """A network of it, among the bundled ones."""
    network = UNet(classes=64, width=2, kernel=3, depth=1, se="pse")
    configuration = {"architecture": "unet", "classes": 64, "width": 2, "kernel": 3, "depth": 1, "se": "pse"}
    folder = tmp_path / "Models"
    folder.mkdir()
    write_model(folder / "unet-pse-coronal.pt", network, configuration, "coronal", Protocol.in_rows())
    bundled.list_checksums(folder)
    (folder / "corrections.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(bundled, "resource", lambda name: tmp_path / name)
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(tmp_path / "none"))


def test_a_fifth_variant_is_a_choice(installed):
    chosen = Parameters(se="pSE").checked()
    assert chosen == Parameters(se=Variant("pse"))
    assert (chosen.title, chosen.name) == ("U-Net pSE", "unet-pse-coronal")
    assert "none, cse, sse, scse or pse" in Parameters(se="x").problem()
    assert "choose U-Net pSE for this view" in Parameters().problem()
    assert Job((chosen,), excitation=excitation_blocks(chosen)[0]).problem() == ""


def test_a_fifth_variant_is_on_the_command_line(installed, capsys):
    for arguments in (["--help"], ["--list"]):
        with pytest.raises(SystemExit):
            command_line.main(arguments)
    said = " ".join(capsys.readouterr().out.split())
    assert "none, cse, sse, scse or pse" in said
    assert "--architecture unet --se pse --view coronal" in said
    assert training.parser().parse_args(["data", "--se", "pSE"]).se == "pse"


def test_results_of_a_fifth_variant_are_not_taken_for_scans(fifth):
    assert inputs.is_result("head_unet-pse-all-manual.nii.gz")
    assert not inputs.is_result("head_unet-qse-all-manual.nii.gz")


def test_a_fifth_variant_is_loaded_from_its_model_file(installed):
    network = bundled.load("unet", "pse", "coronal", "manual").network
    assert isinstance(network.encoders[0].se, squeeze_excitation.ChannelSE)
    assert network(torch.zeros(1, 1, 16, 16)).shape == (1, 32, 16, 16)


def test_a_fifth_aggregation_needs_its_function_alone(monkeypatch):
    mean = add_member(monkeypatch, Aggregation, "MEAN", "mean", "Mean")
    with pytest.raises(ValueError, match="concatenation, mean"):
        UNet(width=2, depth=1, se="scse", aggregation="median")
    monkeypatch.setitem(squeeze_excitation.AGGREGATE, mean, lambda a, b: (a + b) / 2)
    network = UNet(classes=3, width=2, depth=1, se="scse", aggregation="mean")
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 3, 8, 8)


def test_a_fourth_architecture_needs_its_class_alone(monkeypatch):
    fourth = add_member(monkeypatch, Architecture, "LNET", "lnet", "L-Net")
    monkeypatch.setitem(architectures.NETWORKS, fourth, UNet)
    monkeypatch.setattr(bundled, "names", lambda: ["lnet-none-coronal"])
    assert Parameters("lnet", "none").checked().title == "L-Net"
    assert network_class("lnet") is UNet
    assert "densenet or lnet" in command_line.parser().format_help()


def test_a_view_says_along_which_axis_it_slices():
    assert {view.value: view.axis for view in View.planes()} == {"coronal": 1, "axial": 0, "sagittal": 2}
    assert Parameters(view="all").views == values(View.planes())


def test_a_model_file_keeps_the_order_of_protocols_that_it_lists(tmp_path):
    network = UNet(classes=64, width=2, depth=1, kernel=3)
    configuration = {"architecture": "unet", "classes": 64, "width": 2, "kernel": 3, "depth": 1}
    write_model(tmp_path / "a.pt", network, configuration, "coronal", ("freesurfer", "manual"))
    stored = read_model((tmp_path / "a.pt").read_bytes(), "manual")
    expected = network.classifier.bias[32:].half().float()
    torch.testing.assert_close(stored.network.classifier.bias, expected)


@pytest.mark.parametrize("text, accepted", [("cuda:3", True), ("cuda:N", False), ("cuda:", False), ("mps", True)])
def test_devices_are_named_or_numbered(text, accepted):
    assert Device.accepts(text) is accepted
    assert Device.spellings() == ("auto", "cpu", "cuda", "cuda:N", "mps")
