"""The queue that trains the networks of a recipe file, on toy heads made on the spot."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from SEBrainSegLib.networks import bundled
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


def run(tmp_path, data, *trainings, options=(), **common):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({**COMMON, **common, "trainings": trainings}), encoding="utf-8")
    arguments = [str(recipe), str(data), "--run", str(tmp_path / "run"), "--device", "cpu", "--processes", "1"]
    return queue.main([*arguments, *options])


def model(tmp_path, name):
    return torch.load(tmp_path / "run" / f"{name}.pt", weights_only=True)


def checkpoint(tmp_path, name):
    return torch.load(tmp_path / "run" / name / "checkpoint.pt", weights_only=True)


def test_what_is_missing_is_trained_and_nothing_twice(tmp_path, data, capsys):
    plain, thick = {"name": "plain"}, {"name": "thick", "se": "scse", "slices": 3, "real_share": 1.0, "average": 0.5}
    assert run(tmp_path, data, plain) == 0
    first = (tmp_path / "run" / "plain.pt").stat().st_mtime_ns
    assert run(tmp_path, data, plain, thick) == 0
    assert (tmp_path / "run" / "plain.pt").stat().st_mtime_ns == first
    configuration = model(tmp_path, "thick")["configuration"]
    assert (configuration["se"], configuration["slices"], configuration["classes"]) == ("scse", 3, 64)
    stored = checkpoint(tmp_path, "thick")
    assert stored["step"] == 3 and stored["settings"]["scans"] == ["1000", "bert"]
    # What is exported is the average of the weights, which lags behind them.
    exported = model(tmp_path, "thick")["weights"]["classifier.weight"]
    assert torch.equal(exported, stored["average"]["module.classifier.weight"].half())
    assert not torch.equal(exported, stored["network"]["classifier.weight"].half())
    # Nothing is missing: the data need not even be there.
    capsys.readouterr()
    assert run(tmp_path, tmp_path / "gone", plain, thick) == 0
    assert "2 trainings: 2 done." in capsys.readouterr().out


def test_each_training_leaves_out_the_scans_of_its_own(tmp_path, data, monkeypatch):
    seen = []

    def add_patterns(heads, scans):
        seen.append([scan.name for scan in scans])

    monkeypatch.setattr(queue.intensity_patterns, "add_patterns", add_patterns)
    (tmp_path / "run").mkdir()
    plans = [queue.Plan(f"without-{name}", (name,), width=4, steps=1) for name in ("1000", "1017")]
    material = queue.load_material(data, plans)
    for plan in plans:
        queue.train(plan, material, tmp_path / "run", torch.device("cpu"), 1, 0)
    assert checkpoint(tmp_path, "without-1000")["settings"]["scans"] == ["1017"]
    assert checkpoint(tmp_path, "without-1017")["settings"]["scans"] == ["1000"]
    # The label maps' patterns know nothing of the scans left out, either.
    assert seen == [["1017"], ["1000"]]


def test_the_curve_is_measured_with_the_scans_of_both_protocols(tmp_path, data, monkeypatch):
    seen = []

    def validation_dice(network, slices, protocols, device):
        seen.append([protocol for *_, protocol in slices])
        return 0.5

    monkeypatch.setattr("SEBrainSegLib.training.training.validation_dice", validation_dice)
    monkeypatch.setattr("SEBrainSegLib.training.training.CURVE_EVERY", 1)
    plan = queue.Plan("plain", ("1017",), ("swm",), width=4, steps=3)
    (tmp_path / "run").mkdir()
    queue.train(plan, queue.load_material(data, [plan]), tmp_path / "run", torch.device("cpu"), 1, 0)
    assert seen and all(each == [brain_recipe.MANUAL, brain_recipe.FREESURFER] for each in seen)
    with open(queue.curve_path(tmp_path / "run", plan), newline="", encoding="utf-8") as file:
        assert [row["validation_dice"] for row in csv.DictReader(file)].count("0.5000") == len(seen)


def test_the_papers_own_setting_has_malc_scans_alone(tmp_path, data):
    for folder in ("labelmaps", "freesurfer", "validation"):
        for path in (data / folder).iterdir():
            path.unlink()
    assert run(tmp_path, data, {"name": "paper", "data": "malc", "loss": "both"}) == 0
    stored = model(tmp_path, "paper")
    assert stored["configuration"]["classes"] == 32 and not stored["protocols"] and len(stored["structures"]) == 31
    assert checkpoint(tmp_path, "paper")["settings"]["scans"] == ["1000"]


def test_a_training_that_fails_leaves_its_reason_and_does_not_stop_the_others(tmp_path, data, capsys):
    assert run(tmp_path, data, {"name": "even", "slices": 2}, {"name": "odd"}) == 1
    assert "even failed; see" in capsys.readouterr().err
    assert (tmp_path / "run" / "odd.pt").exists() and not (tmp_path / "run" / "even.pt").exists()
    assert "Error" in (tmp_path / "run" / "even" / "log").read_text(encoding="utf-8")
    assert "1 done, 1 failed" in (tmp_path / "run" / "status.txt").read_text(encoding="utf-8")


def curve(tmp_path, name, step, minutes):
    folder = tmp_path / "run" / name
    folder.mkdir(parents=True)
    (folder / "curve.csv").write_text(f"step,minutes,learning_rate,loss,validation_dice\n{step},{minutes},1,1,\n")


def test_status_foretells_the_end(tmp_path):
    """U-Net takes 0.1 minutes a batch here, so DenseNet about 0.3; two at a time."""
    plans = [queue.Plan(name, (), steps=100) for name in ("first", "second", "third")]
    plans.append(queue.Plan("dense", (), architecture="densenet", steps=100))
    assert queue.minutes_left(tmp_path / "run", plans, 2) is None
    curve(tmp_path, "first", 100, 10.0)
    (tmp_path / "run" / "first.pt").touch()
    curve(tmp_path, "second", 40, 4.0)
    # One process: 6 minutes of the second, then 30 of the dense one; the other one: 10 minutes of the third.
    assert queue.minutes_left(tmp_path / "run", plans, 2) == pytest.approx(36)
    assert queue.minutes_left(tmp_path / "run", plans, 1) == pytest.approx(46)
    text = queue.status(tmp_path / "run", plans, ["second"], [], 2).splitlines()
    assert [line.split()[1] for line in text[:4]] == ["done", "running", "waiting", "waiting"]
    assert text[4].startswith("4 trainings: 1 done, 1 running, 2 waiting; 36 min left, finished at about ")


def test_networks_are_installed_when_all_are_trained(tmp_path, data, monkeypatch, capsys):
    models = tmp_path / "Resources" / "Models"
    models.mkdir(parents=True)
    (models / "checksums.csv").write_text("file,sha256\n", encoding="utf-8")
    (models / "corrections.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(queue, "resource", lambda name: models.parent / name)
    networks = [{"name": "unet-none-coronal"}, {"name": "unet-scse-coronal", "se": "scse"}]
    assert run(tmp_path, data, *networks, options=["--install"]) == 0
    listed = (models / "checksums.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in listed[1:]] == ["unet-none-coronal.pt", "unet-scse-coronal.pt"]
    monkeypatch.setattr(bundled, "resource", lambda name: models.parent / name)
    assert bundled.load("unet", "scse", "coronal").network.slices == 1
    # A study's network is none to ship.
    capsys.readouterr()
    before = sorted(models.iterdir())
    assert run(tmp_path, data, *networks, {"name": "study", "steps": 1}, options=["--install"]) == 2
    assert "study is not to be installed" in capsys.readouterr().err and sorted(models.iterdir()) == before


def test_a_model_of_other_settings_is_not_taken_for_the_one_wanted(tmp_path, data, capsys):
    assert run(tmp_path, data, {"name": "plain"}) == 0
    capsys.readouterr()
    assert run(tmp_path, data, {"name": "plain", "learning_rate": 0.01}) == 2
    assert "trained with other settings (learning_rate: 0.004, now 0.01)" in capsys.readouterr().err
    # What the curve is measured on changes nothing of a network.
    assert run(tmp_path, data, {"name": "plain", "validation": ["swm"]}) == 0


def test_what_is_no_recipe_is_refused_in_a_sentence(tmp_path, data, capsys):
    for training, sentence in (
        ({"name": "plain", "epochs": 3}, "unknown setting epochs"),
        ({"name": "../plain"}, "has no name, or one that cannot be a file's"),
        ({"steps": 3}, "has no name"),
        ({"name": "plain", "architecture": "unett"}, "architecture of plain is 'unett'; choose one of"),
        ({"name": "plain", "data": "all"}, "data of plain is 'all'"),
        # A misspelt scan would be trained on.
        ({"name": "plain", "held_out": ["1071"]}, "has no scan 1071, which plain is to hold out"),
    ):
        assert run(tmp_path, data, training) == 2
        said = capsys.readouterr().err
        assert sentence in said and len(said.splitlines()) == 1
    assert run(tmp_path, data, {"name": "plain"}, {"name": "plain", "se": "cse"}) == 2
    assert "two trainings are called plain" in capsys.readouterr().err
    for content, sentence in (
        ("[]", "is no recipe file"),
        ('{"trainings": [{"name": "a"}]}', "which scans are held_out"),
    ):
        (tmp_path / "recipe.json").write_text(content, encoding="utf-8")
        assert queue.main([str(tmp_path / "recipe.json"), str(data), "--run", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert sentence in said and len(said.splitlines()) == 1


def test_the_recipes_of_this_repository_can_be_read():
    folder = Path(__file__).resolve().parents[2] / "Benchmarks" / "recipes"
    recipes = {path.stem: queue.read_recipe(path) for path in folder.glob("*.json")}
    assert sorted(recipes) == ["ablation", "bundled", "crossvalidation", "malc_only", "noise", "recipe_study"]
    # Each bundled network under its own name, all with one budget.
    shipped = recipes["bundled"]
    assert {f"{plan.name}.pt" for plan in shipped} == set(bundled.checksums())
    assert all(f"{plan.name}.pt" == bundled.model_name(plan.architecture, plan.se, plan.view) for plan in shipped)
    same = ("steps", "seed", "learning_rate", "loss", "average", "data", "real_share", "held_out", "width", "slices")
    assert all(len({getattr(plan, name) for plan in shipped}) == 1 for name in same)
    # The networks that tell the noise differ from those in their seeds alone.
    for plan in recipes["noise"]:
        twin = next(each for each in shipped if (each.se, each.view) == (plan.se, plan.view))
        assert all(getattr(plan, name) == getattr(twin, name) for name in same if name != "seed")
        assert plan.seed != twin.seed and plan.architecture == twin.architecture
    # Every fold leaves out other scans, together all.
    folds = [set(plan.held_out) for plan in recipes["crossvalidation"]]
    assert sum(map(len, folds)) == len(set.union(*folds)) == 15


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_nothing_trains_on_once_the_queue_is_killed(tmp_path):
    script = f"""
import os, sys, time
from pathlib import Path
import torch
from SEBrainSegLib.training import queue

def train(plan, material, run, device, threads, workers):
    (run / "child").write_text(str(os.getpid()))
    time.sleep(600)

queue.train = train
queue.train_all([queue.Plan("long", ())], queue.Material(), Path({str(tmp_path)!r}), torch.device("cpu"), 1)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(queue.__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.DEVNULL)
    try:
        until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
        child = int((tmp_path / "child").read_text())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: not is_running(child))


def until(condition, seconds=120):
    """Wait for something that takes a moment."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(process):
    import psutil

    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE
