"""Model files: what is written comes back, and what is damaged or foreign is refused before it is used."""

import csv
import hashlib
import os
import pickle

import pytest
import torch

from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.networks.architectures import UNet
from SEBrainSegLib.networks.model_file import write_model

# Two protocols of background and 31 structures each.
ARGUMENTS = {"classes": 64, "width": 4, "kernel": 3, "depth": 2, "se": "scse", "aggregation": "addition"}
NAME = "unet-scse-coronal.pt"


class Touch:
    """What an attacker would pickle: unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def network():
    """A network whose batch norms hold statistics that matter."""
    torch.manual_seed(0)
    network = UNet(**ARGUMENTS)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.2, 2.0)
    return network.eval()


@pytest.fixture
def models(tmp_path, monkeypatch, network):
    """The folder of the only bundled network, in place of the real one."""
    folder = tmp_path / "Resources" / "Models"
    folder.mkdir(parents=True)

    def resource(name):
        path = tmp_path / "Resources" / name
        if not path.exists():
            raise FileNotFoundError(name)
        return path

    for reader in (bundled, bundled):
        monkeypatch.setattr(reader, "resource", resource)
    write_model(folder / NAME, network, {"architecture": "unet", **ARGUMENTS}, "coronal", ("manual", "freesurfer"))
    bundled.list_checksums(folder)
    return folder


def slices():
    return torch.rand(2, 1, 20, 24, generator=torch.Generator().manual_seed(1))


def in_protocol(logits, protocol):
    """Logits of one protocol from those of the classifier's 64 rows: the manual ones, then FreeSurfer's."""
    manual, freesurfer = logits[:, :32].clone(), logits[:, 32:].clone()
    if protocol == "manual":
        return manual
    # Rows of the table: white matter, ventricle, cerebellum (2), thalamus, caudate, putamen, pallidum, hippocampus.
    left = [1, 3, 5, 6, 7, 8, 9, 10, 14]
    right = [18, 20, 22, 23, 24, 25, 26, 27, 28]
    names = {each.name.split(" ", 1)[1] for index, each in enumerate(structures(), 1) if index in left}
    assert names == {each.name.split(" ", 1)[1] for index, each in enumerate(structures(), 1) if index in right}
    assert names >= {"Hippocampus", "Lateral Ventricle"} and len(names) == 9
    # What is drawn alike, is half of each; background and the inferior lateral ventricles are shifted.
    for index in (*left, *right):
        freesurfer[:, index] = (manual[:, index] + freesurfer[:, index]) / 2
    freesurfer[:, 0] += 0.5
    freesurfer[:, [4, 21]] -= 2.0
    return freesurfer


@pytest.mark.parametrize("protocol", ["manual", "freesurfer"])
def test_a_network_comes_back_as_it_was_but_for_fp16(models, network, protocol):
    model = bundled.load("unet", "scse", "coronal", protocol)
    assert model.view == "coronal"
    loaded = model.network
    assert not loaded.training
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    with torch.no_grad():
        found, expected = loaded(slices()), in_protocol(network(slices()), protocol)
        torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)
        assert not torch.equal(found, expected)
        # Nothing but the rounding to fp16 lies between them.
        for value in (*network.parameters(), *network.buffers()):
            if value.is_floating_point():
                value.copy_(value.half())
        torch.testing.assert_close(found, in_protocol(network(slices()), protocol), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e6])
def test_weights_that_fp16_cannot_hold_are_not_written(tmp_path, network, poison):
    with torch.no_grad():
        network.classifier.weight[0, 0] = poison
    with pytest.raises(ValueError, match="classifier.weight"):
        write_model(tmp_path / "x.pt", network, {"architecture": "unet", **ARGUMENTS}, "coronal")
    assert not (tmp_path / "x.pt").exists()


def test_checksums_are_those_of_the_files(models):
    with open(models / "checksums.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["file", "sha256"], [NAME, hashlib.sha256((models / NAME).read_bytes()).hexdigest()]]
    assert list(bundled.checksums()) == ["unet-scse-coronal.pt"]


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.9999])
def test_one_altered_byte_is_found(models, place):
    content = bytearray((models / NAME).read_bytes())
    content[int(place * len(content))] ^= 1
    (models / NAME).write_bytes(content)
    with pytest.raises(SEBrainSegError, match=NAME):
        bundled.load("unet", "scse", "coronal")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_found(models, kept):
    content = (models / NAME).read_bytes()
    (models / NAME).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(SEBrainSegError, match=NAME):
        bundled.load("unet", "scse", "coronal")


def test_a_missing_file_is_named(models):
    (models / NAME).unlink()
    with pytest.raises(SEBrainSegError, match=NAME):
        bundled.load("unet", "scse", "coronal")


def test_a_folder_in_place_of_the_file_is_refused(models):
    (models / NAME).unlink()
    (models / NAME).mkdir()
    with pytest.raises(SEBrainSegError, match=NAME):
        bundled.load("unet", "scse", "coronal")


def test_a_missing_list_is_an_error_for_users(models):
    (models / "checksums.csv").unlink()
    with pytest.raises(SEBrainSegError, match=r"checksums\.csv"):
        bundled.load("unet", "scse", "coronal")


@pytest.mark.parametrize(
    "wanted", [("unet", "sse", "coronal"), ("densenet", "scse", "coronal"), ("unet", "scse", "../x")]
)
def test_unknown_networks_name_the_choices(models, wanted):
    with pytest.raises(SEBrainSegError, match="unet-scse-coronal"):
        bundled.load(*wanted)


def foreign(kind, target):
    if kind == "pickle":
        return lambda path: path.write_bytes(pickle.dumps(Touch(target), protocol=2))
    if kind == "torch":
        return lambda path: torch.save(Touch(target), path)
    content = {"configuration": {"architecture": "unet"}, "weights": {}, "extra": Touch(target)}
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=kind == "hidden")


@pytest.mark.parametrize("kind", ["pickle", "torch", "hidden", "hidden-legacy"])
def test_code_in_a_model_file_does_not_run(models, tmp_path, kind):
    target = tmp_path / "made-by-unpickling"
    write = foreign(kind, target)
    write(models / NAME)
    bundled.list_checksums(models)  # even where the checksum matches
    with pytest.raises(Exception):  # noqa: B017 - which one, the next test says
        bundled.load("unet", "scse", "coronal")
    assert not target.exists()
    # The payload is live: a reader that trusts it makes the folder.
    torch.load(models / NAME, weights_only=False) if kind != "pickle" else pickle.loads((models / NAME).read_bytes())
    assert target.exists()


@pytest.mark.parametrize("kind", ["pickle", "torch", "hidden", "hidden-legacy"])
def test_code_in_a_model_file_is_an_error_for_users(models, tmp_path, kind):
    foreign(kind, tmp_path / "made-by-unpickling")(models / NAME)
    bundled.list_checksums(models)
    with pytest.raises(SEBrainSegError, match=NAME):
        bundled.load("unet", "scse", "coronal")


def test_the_list_of_checksums_is_read_again_only_when_it_was_written(models, monkeypatch):
    reads, original = [], csv.DictReader
    monkeypatch.setattr(bundled.csv, "DictReader", lambda file: reads.append(1) or original(file))
    for _ in range(3):
        assert bundled.names() == ("unet-scse-coronal",) and NAME in bundled.checksums()
    assert len(reads) == 1
    (models / NAME).rename(models / "unet-none-coronal.pt")
    bundled.list_checksums(models)
    assert bundled.names() == ("unet-none-coronal",) and len(reads) == 2
