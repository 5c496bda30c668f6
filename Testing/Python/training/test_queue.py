"""The queue that trains the networks of a recipe file, on toy heads made on the spot."""

import csv
import json

import pytest
import torch

from SEBrainSegLib.training import brain_recipe, queue
from toy_heads import write_head, write_scan

COMMON = {"width": 4, "steps": 3, "held_out": ["1017"]}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder as the command expects it."""
    monkeypatch.setattr(brain_recipe, "FULL", dict.fromkeys(("coronal", "axial", "sagittal"), ((32, 48), 2)))
    monkeypatch.setattr(brain_recipe, "CROP", ((32, 32), 2))
    folder = tmp_path / "data"
    for name in ("1000", "1017"):
        write_scan(folder / "malc", name)
    write_scan(folder / "freesurfer", "bert")
    write_scan(folder / "validation", "swm")
    write_head(folder / "labelmaps", "head_01")
    return folder


def run(tmp_path, data, *trainings, **common):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({**COMMON, **common, "trainings": trainings}), encoding="utf-8")
    return queue.main([str(recipe), str(data), "--run", str(tmp_path / "run"), "--device", "cpu", "--processes", "1"])


def model(tmp_path, name):
    return torch.load(tmp_path / "run" / f"{name}.pt", weights_only=True)


def test_what_is_missing_is_trained_and_nothing_twice(tmp_path, data, capsys):
    plain, thick = {"name": "plain"}, {"name": "thick", "se": "scse", "slices": 3, "real_share": 1.0, "average": 0.5}
    assert run(tmp_path, data, plain) == 0
    first = (tmp_path / "run" / "plain.pt").stat().st_mtime_ns
    assert run(tmp_path, data, plain, thick) == 0
    assert (tmp_path / "run" / "plain.pt").stat().st_mtime_ns == first
    configuration = model(tmp_path, "thick")["configuration"]
    assert (configuration["se"], configuration["slices"], configuration["classes"]) == ("scse", 3, 64)
    stored = torch.load(tmp_path / "run" / "thick" / "checkpoint.pt", weights_only=True)
    assert stored["step"] == 3 and stored["settings"]["scans"] == ["1000", "bert"]
    # What is exported is the average of the weights, which lags behind them.
    exported = model(tmp_path, "thick")["weights"]["classifier.weight"]
    assert torch.equal(exported, stored["average"]["module.classifier.weight"].half())
    assert not torch.equal(exported, stored["network"]["classifier.weight"].half())


def test_the_curve_is_measured_with_the_scans_of_both_protocols(tmp_path, data, monkeypatch):
    seen = []

    def validation_dice(network, slices, protocols, device):
        seen.append([protocol for *_, protocol in slices])
        return 0.5

    monkeypatch.setattr("SEBrainSegLib.training.training.validation_dice", validation_dice)
    monkeypatch.setattr("SEBrainSegLib.training.training.CURVE_EVERY", 1)
    trainings, held_out, validation = [{**queue.DEFAULTS, **COMMON, "name": "plain"}], ["1017"], ["swm"]
    material = queue.load_material(data, trainings, held_out, validation)
    (tmp_path / "run").mkdir()
    queue.train(trainings[0], material, tmp_path / "run", "cpu", 1, 0)
    assert seen and all(each == [brain_recipe.MANUAL, brain_recipe.FREESURFER] for each in seen)
    with open(tmp_path / "run" / "plain" / "curve.csv", newline="", encoding="utf-8") as file:
        assert [row["validation_dice"] for row in csv.DictReader(file)].count("0.5000") == len(seen)


def test_the_papers_own_setting_has_malc_scans_alone(tmp_path, data):
    assert run(tmp_path, data, {"name": "paper", "data": "malc", "loss": "both"}) == 0
    stored = model(tmp_path, "paper")
    assert stored["configuration"]["classes"] == 32 and not stored["protocols"] and len(stored["structures"]) == 31


def test_a_training_that_fails_does_not_stop_the_others(tmp_path, data, capsys):
    assert run(tmp_path, data, {"name": "even", "slices": 2}, {"name": "odd"}) == 1
    assert "even failed; see" in capsys.readouterr().err
    assert (tmp_path / "run" / "odd.pt").exists() and not (tmp_path / "run" / "even.pt").exists()


def test_what_is_no_recipe_is_refused_in_a_sentence(tmp_path, data, capsys):
    assert run(tmp_path, data, {"name": "plain", "epochs": 3}) == 2
    assert "unknown setting" in capsys.readouterr().err
    (tmp_path / "recipe.json").write_text("[]", encoding="utf-8")
    assert queue.main([str(tmp_path / "recipe.json"), str(data), "--run", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "is no recipe file" in said and len(said.splitlines()) == 1
