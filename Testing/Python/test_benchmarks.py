"""The benchmarks: measures against values found by hand or by brute force, and whole runs with stand-in networks."""

import csv
import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.inference import run as inference_run
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.networks.architectures import UNet
from SEBrainSegLib.networks.model_file import write_model
from SEBrainSegLib.resources import resource
from SEBrainSegLib.training.brain_recipe import BrainRecipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Benchmarks"))

import ablation  # noqa: E402
import accuracy  # noqa: E402
import comparison  # noqa: E402
import crossvalidation  # noqa: E402
import curves  # noqa: E402
import expectations  # noqa: E402
import facts  # noqa: E402
import plausibility  # noqa: E402
import recipe_study  # noqa: E402
import scores  # noqa: E402
import tables  # noqa: E402
import trained  # noqa: E402

INDEX = {structure.label: index for index, structure in enumerate(structures())}
NAME = {structure.label: structure.name for structure in structures()}

# Dice


def test_dice_of_hand_counted_voxels():
    truth = np.array([2, 2, 2, 2, 41, 41, 0, 0, 10, 0], np.uint8)
    found = np.array([2, 2, 2, 0, 41, 41, 2, 0, 0, 11], np.uint8)
    dice = scores.dice_of_structures(found, truth)
    # 3 of 4 and 4 voxels; all of 2 and 2; only in the truth; only found.
    assert dice[[INDEX[2], INDEX[41], INDEX[10], INDEX[11]]] == pytest.approx([2 * 3 / 8, 1, 0, 0])
    assert np.isnan(dice).sum() == len(INDEX) - 4


def test_ignored_voxels_leave_dice_alone():
    truth = np.array([2, 2, 255, 255, 0, 255], np.uint8)
    found = np.array([2, 0, 2, 2, 0, 41], np.uint8)
    dice = scores.dice_of_structures(found, truth)
    assert dice[INDEX[2]] == pytest.approx(2 / 3)
    # Found only where the truth is open: as if in neither.
    assert np.isnan(dice[INDEX[41]])


# Hausdorff distance


def brute_force(found, truth, label, spacing):
    """Every surface voxel against every other one."""

    def surface(mask):
        padded = np.pad(mask, 1)
        inner = padded.copy()
        for axis in range(3):
            inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        return (np.argwhere(padded & ~inner) - 1) * spacing

    a, b = (surface((array == label) & (truth != 255)) for array in (found, truth))
    if not len(a) or not len(b):
        return np.nan
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    return max(np.percentile(distances.min(axis=1), 95), np.percentile(distances.min(axis=0), 95))


@pytest.mark.parametrize("seed", range(6))
def test_hausdorff_distance_is_that_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(0.4, 3.0, 3)
    shape = rng.integers(9, 15, 3)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)

    def shapes():
        array = np.zeros(shape, np.uint8)
        for label in (2, 41, 16):
            radii = rng.uniform(2, 6, 3)
            array[(((grid - rng.uniform(0, shape)) / radii) ** 2).sum(axis=-1) < 1] = label
        array[rng.random(shape) < 0.02] = 10
        return array

    found, truth = shapes(), shapes()
    truth[tuple(slice(n // 2, n // 2 + 3) for n in shape)] = 255
    distances = scores.hausdorff95_of_structures(found, truth, spacing)
    expected = [brute_force(found, truth, structure.label, spacing) for structure in structures()]
    assert np.isfinite(expected).sum() >= 3
    assert distances == pytest.approx(expected, nan_ok=True)


def line(*voxels, label=2):
    """A volume of 1 x 1 x 60 voxels."""
    array = np.zeros((1, 1, 60), np.uint8)
    array[0, 0, list(voxels)] = label
    return array


def test_hausdorff_distance_by_hand():
    found, truth = np.zeros((2, 6, 6, 6), np.uint8)
    found[1, 1, 1], truth[2, 3, 4] = 2, 2
    assert scores.hausdorff95_of_structures(found, truth, (3.0, 2.0, 0.5))[INDEX[2]] == pytest.approx(
        np.sqrt(3**2 + 4**2 + 1.5**2)
    )
    # From the line to its end 0, 1, ... 40 voxels of 2 mm, whose 95th percentile is 38; the other way 0.
    for pair in ((line(*range(41)), line(0)), (line(0), line(*range(41)))):
        assert scores.hausdorff95_of_structures(*pair, (1.0, 1.0, 2.0))[INDEX[2]] == pytest.approx(76)


def test_distances_are_those_of_surfaces():
    truth = np.zeros((14, 9, 9), np.uint8)
    truth[1:8, 1:8, 1:8] = 2
    found = truth.copy()
    found[12, 2:6, 2:6] = 2
    # 16 voxels are 5 mm off: more than a twentieth of 16 + 7^3 - 5^3 surface voxels, less than one of 16 + 7^3.
    assert scores.hausdorff95_of_structures(found, truth, (1.0, 1.0, 1.0))[INDEX[2]] == pytest.approx(5)


def test_a_structure_that_one_of_both_lacks_has_no_distance():
    found, truth = line(1, 2), line(1, 2)
    found[0, 0, 10], truth[0, 0, 20] = 10, 11
    found[0, 0, 30], truth[0, 0, 30] = 12, 255
    distances = scores.hausdorff95_of_structures(found, truth, (1.0, 1.0, 1.0))
    assert distances[INDEX[2]] == 0 and np.isnan(distances).sum() == len(INDEX) - 1
    dice = scores.score(found, truth, (1.0, 1.0, 1.0))[:, 0]
    assert (dice[INDEX[10]], dice[INDEX[11]]) == (0, 0) and np.isnan(dice[INDEX[12]])


# Wilcoxon signed-rank test


def test_wilcoxon_of_pairs_counted_by_hand():
    reference = np.full(6, 0.5)
    better = reference + [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    # All of 6 differences have one sign: 2 of the 2^6 sign patterns are as extreme.
    assert comparison.paired_test(better, reference) == (pytest.approx(2 / 2**6), 6)
    assert comparison.paired_test(reference, better)[0] == pytest.approx(2 / 2**6)
    # Ranks 1, 2, 3 up and 4 down; 7 of the 16 subsets of the ranks have a sum of at most 4.
    mixed = reference + [0.01, 0.02, 0.03, -0.04, np.nan, np.nan]
    assert comparison.paired_test(mixed, reference) == (pytest.approx(2 * 7 / 16), 4)


def test_networks_that_agree_do_not_differ():
    dice = np.array([0.7, 0.8, np.nan])
    assert comparison.paired_test(dice, dice) == (1.0, 2)


def test_scans_and_structures_are_tested_separately():
    """Every scan gains the same; of the structures, four gain and one loses as much as all these."""
    reference = np.full((3, 5), 0.5)
    dice = reference + [0.01, 0.02, 0.03, 0.04, -0.05]
    difference, p_scans, scans, p_structures, pairs = comparison.compared(dice, reference)
    assert (difference, scans, pairs) == ("+0.0100", "3", "5")
    # Three scans of one sign, 2 of 2^3; ranks 1 to 4 up and 5 down: 10 of the 2^5 subsets have a sum of at most 5.
    assert float(p_scans) == pytest.approx(2 / 2**3) and float(p_structures) == pytest.approx(2 * 10 / 2**5, abs=0.01)
    # What one of both lacks is compared in neither.
    dice[0, 0] = np.nan
    reference[1, 4] = np.nan
    assert comparison.compared(dice, reference)[2::2] == ["3", "5"]
    dice[:, 0] = np.nan
    assert comparison.compared(dice, reference)[2::2] == ["3", "4"]


# The comparison end to end

# mm along x, y and z: all differ, so that no two can be mistaken for one another.
SPACING = (0.5, 2.0, 3.0)
CHECKSUMS = {f"{name}-{se}-coronal.pt": f"{name} {se}" for name in ("unet", "sdnet") for se in ("none", "cse", "scse")}


def write_scan(folder, name, truth, spacing=SPACING):
    """Write a labelled scan; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for array, kind in ((rng.random(truth.shape).astype(np.float32), "t1"), (truth, "structures")):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing)
        sitk.WriteImage(image, str(folder / f"{name}_{kind}.nii.gz"))
    return folder


def toy_truth():
    """Six voxels of white matter, one of the brain stem, an ignored one; arrays are [z, y, x]."""
    truth = np.zeros((8, 10, 12), np.uint8)
    truth[1, 1, 1:7] = 2
    truth[4, 5, 6] = 16
    truth[6, 6, 6] = 255
    return truth


def answer(se):
    """What the stand-in for ``segment`` finds: without SE the stem one slice off, with scSE all of it."""
    found = toy_truth()
    found[found == 255] = 0
    if se == "none":
        found[1, 1, 4:7] = 0
        found[4, 5, 6], found[5, 5, 6] = 0, 16
    if se == "scse":
        # In the ignored voxel.
        found[6, 6, 6] = 2
    return found


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a benchmark with stand-ins: ``run(main, *arguments)`` returns status, output, errors, calls of segment."""
    calls = []

    def segment(image, architecture, se, view="coronal", protocol="freesurfer", accept_unlikely=False):
        calls.append((architecture, se, view, protocol))
        if se == "cse":
            raise SEBrainSegError("Only 3 ml of brain were found.")
        labels = sitk.GetImageFromArray(answer(se))
        labels.CopyInformation(image)
        return SimpleNamespace(labels=labels)

    def load(architecture, se, view, protocol):
        if bundled.model_name(architecture, se, view) not in bundled.checksums():
            raise SEBrainSegError(f"There is no bundled network {architecture}-{se}-{view}.")
        return SimpleNamespace(network=UNet(classes=3, width=4, kernel=3, se=se).eval())

    monkeypatch.setattr(scores, "segment", segment)
    monkeypatch.setattr(accuracy, "segment", segment)
    monkeypatch.setattr(bundled, "load", load)
    monkeypatch.setattr(bundled, "checksums", lambda: CHECKSUMS)
    monkeypatch.setattr(comparison, "SIDE", 32)

    def run(main, *arguments):
        calls.clear()
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err, calls=list(calls))

    return run


@pytest.fixture
def folder(tmp_path):
    """A folder of two labelled scans."""
    write_scan(tmp_path / "scans", "anna", toy_truth())
    return write_scan(tmp_path / "scans", "bert", toy_truth())


def cells(text, *start):
    """The cells of the table row that starts with these."""
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()]
    return next(row for row in rows if row[: len(start)] == list(start))


def test_comparison_of_known_labels(run, folder, tmp_path):
    done = run(comparison.main, folder, "--architectures", "unet", "-o", tmp_path / "out")
    assert done.status == 0
    assert (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8").strip() == done.out.strip()
    # Half of the white matter (Dice 2/3) and none of the stem; its slices are 3 mm apart, the voxels of white matter
    # 0.5 mm: 0, 0, 0, 0.5, 1, 1.5 mm from half to whole, 95th percentile 1 + 0.75 * 0.5.
    plain = cells(done.out, "U-Net", "none")
    assert plain[2:5] == ["0.333 ± 0.000", f"{(1.375 + 3) / 2:.2f} ± 0.00", "0"]
    # cSE found no brain at all: both structures of both scans are missed and count as 0.
    assert cells(done.out, "U-Net", "cSE")[2:5] == ["0.000 ± 0.000", "–", "4"]
    best = cells(done.out, "U-Net", "scSE")
    assert best[2:5] == ["1.000 ± 0.000", "0.00 ± 0.00", "0"]
    # cSE's two layers C -> C/2 -> C with biases and sSE's C + 1, eight times, at 4 channels.
    extra, before = 8 * (4 * 2 + 2 + 2 * 4 + 4 + 5), int(plain[5].replace(",", ""))
    assert int(best[5].replace(",", "")) == before + extra
    assert best[6] == f"+{100 * extra / before:.2f} %" and plain[6] == "–"
    assert float(best[7]) >= 0
    # Two scans rise by 2/3 each; two structures by 1/3 and by 1: 2 of 2^2 sign patterns.
    assert best[9:] == ["1", "–", "+0.6667", "0.5", "2", "0.5", "2"]
    assert cells(done.out, NAME[2])[1:] == ["0.667", "0.000", "1.000"]
    assert cells(done.out, NAME[16])[1:] == ["0.000", "0.000", "1.000"]
    # sSE has no model file.
    assert "unet-sse-coronal is left out: There is no bundled network" in done.err
    assert not any(call[1] == "sse" for call in done.calls)


def test_every_single_value_is_written(run, folder, tmp_path):
    run(comparison.main, folder, "--architectures", "unet", "--se", "none", "-o", tmp_path)
    with open(tmp_path / "values.csv", newline="", encoding="utf-8") as file:
        rows = {(row["scan"], row["structure"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * len(INDEX)
    assert {row["network"] for row in rows.values()} == {"unet-none-coronal"}
    row = rows["bert", NAME[2]]
    assert (row["dice"], row["hausdorff95_mm"]) == ("0.666667", "1.375000")
    assert (rows["anna", NAME[10]]["dice"], rows["anna", NAME[10]]["hausdorff95_mm"]) == ("", "")


def test_a_run_that_goes_on_computes_what_is_new_only(run, folder, tmp_path, monkeypatch):
    arguments = (folder, "--architectures", "unet", "--se", "none", "scse", "-o", tmp_path / "out")
    first = run(comparison.main, *arguments, "--names", "anna")
    assert len(first.calls) == 2
    second = run(comparison.main, *arguments)
    assert second.calls == [("unet", "none", "coronal", "freesurfer"), ("unet", "scse", "coronal", "freesurfer")]
    third = run(comparison.main, *arguments)
    assert third.calls == []
    for network in ("none", "scSE"):
        assert cells(third.out, "U-Net", network)[2:5] == cells(second.out, "U-Net", network)[2:5]
    # Another protocol is another result.
    assert len(run(comparison.main, *arguments, "--protocol", "manual").calls) == 4
    # A retrained network counts anew, on both scans; so does a scan whose labels were changed, with both networks.
    monkeypatch.setitem(CHECKSUMS, "unet-scse-coronal.pt", "retrained")
    assert [call[1] for call in run(comparison.main, *arguments).calls] == ["scse", "scse"]
    truth = toy_truth()
    truth[7, 7, 7] = 10
    write_scan(folder, "bert", truth)
    changed = run(comparison.main, *arguments)
    assert [call[1] for call in changed.calls] == ["none", "scse"]
    assert cells(changed.out, NAME[10])[1:] == ["0.000", "0.000"]
    assert cells(changed.out, "U-Net", "scSE")[4] == "1"


def test_choices_reach_the_segmentation(run, folder, tmp_path, monkeypatch):
    for view in ("axial", "sagittal"):
        monkeypatch.setitem(CHECKSUMS, f"sdnet-none-{view}.pt", view)
    done = run(
        *(comparison.main, folder, "--architectures", "sdnet", "--se", "none", "--names", "bert", "-o", tmp_path),
        *("--view", "all", "--protocol", "manual"),
    )
    assert done.calls == [("sdnet", "none", "all", "manual")]
    # Three networks have three times the parameters of one.
    one = run(comparison.main, folder, "--architectures", "sdnet", "--se", "none", "-o", tmp_path)
    counts = [int(cells(text, "SD-Net", "none")[5].replace(",", "")) for text in (done.out, one.out)]
    assert counts[0] == 3 * counts[1]


def test_picture_of_none_against_scse(run, folder, tmp_path):
    run(comparison.main, folder, "--se", "none", "scse", "--names", "anna", "-o", tmp_path / "two")
    with open(tmp_path / "two" / "comparison.png", "rb") as file:
        header = file.read(24)
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">I", header[16:20]) == (2000,)
    done = run(comparison.main, folder, "--se", "scse", "--names", "anna", "-o", tmp_path / "one")
    assert done.status == 0 and not (tmp_path / "one" / "comparison.png").exists() and "png" not in done.out


def test_time_is_that_of_the_forward_pass_after_a_warm_up(monkeypatch):
    clock = SimpleNamespace(wall=0.0, cpu=0.0)
    monkeypatch.setattr(
        comparison, "time", SimpleNamespace(perf_counter=lambda: clock.wall, process_time=lambda: clock.cpu)
    )
    order = []

    class Timed(torch.nn.Module):
        slices = 1

        def __init__(self, name, *walls):
            super().__init__()
            self.name, self.walls = name, list(walls)

        def forward(self, x):
            order.append(self.name)
            wall = self.walls.pop(0)
            clock.wall, clock.cpu = clock.wall + wall, clock.cpu + 2 * wall

    first = Timed("first", 1000, 5, 1, 4, 2, 3)
    views = [Timed(name, *[1] * 6) for name in ("coronal", "axial")]
    cost = comparison.costs({"one": [first], "two": views})
    assert (cost["one"].seconds, cost["one"].cpu_seconds) == (3, 6)
    assert (cost["two"].seconds, cost["two"].cpu_seconds) == (2, 4)
    assert order == ["first", "coronal", "axial"] * 6


def test_accuracy_of_known_labels(run, folder, tmp_path):
    path = tmp_path / "dice.csv"
    done = run(accuracy.main, folder, "--se", "none", "scse", "--protocol", "manual", "--csv", path)
    assert done.status == 0 and {call[3] for call in done.calls} == {"manual"}
    assert cells(done.out, "anna") == ["anna", "0.333", "1.000"]
    assert cells(done.out, NAME[2]) == [NAME[2], "0.667", "1.000"]
    assert f"bert,unet-none-coronal,{NAME[2]},0.6667" in path.read_text(encoding="utf-8")


# Bad input


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


def other_spacing(folder):
    path = str(folder / "anna_structures.nii.gz")
    image = sitk.ReadImage(path)
    image.SetSpacing((0.5, 2.0, 3.1))
    sitk.WriteImage(image, path)


def other_ids(folder):
    write_scan(folder, "anna", np.full((8, 10, 12), 1035, np.int16))


def background_only(folder):
    write_scan(folder, "anna", np.zeros((8, 10, 12), np.uint8))


def no_image(folder):
    (folder / "anna_t1.nii.gz").write_bytes(b"no image")


@pytest.mark.parametrize("main", [comparison.main, accuracy.main])
@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (empty, "holds no NAME_t1.nii.gz"),
        (lambda folder: (folder / "bert_structures.nii.gz").unlink(), "has no labels: bert_structures.nii.gz"),
        (other_spacing, "not on the same grid"),
        (other_ids, "holds other values"),
        (background_only, "holds other values"),
        (no_image, "cannot be read as an image"),
    ],
)
def test_bad_scans_get_one_sentence(run, folder, tmp_path, monkeypatch, main, spoil, sentence):
    spoil(folder)
    monkeypatch.chdir(tmp_path)
    done = run(main, folder, "--se", "none")
    problems = [text for text in done.err.splitlines() if "is left out" not in text]
    assert done.status == 2 and len(problems) == 1 and sentence in problems[0], done.err
    assert done.calls == []


def test_bad_choices_get_one_sentence(run, folder, tmp_path, monkeypatch):
    other = write_scan(tmp_path / "other", "anna", toy_truth())
    foreign = tmp_path / "foreign" / "values.csv"
    foreign.parent.mkdir()
    foreign.write_text("my,own,values\n1,2,3\n", encoding="utf-8")
    out = ("-o", tmp_path / "out", "--architectures", "unet", "--se", "none")
    for arguments, sentence in (
        ((folder, *out, "--names", "anna", "carl"), "There is no scan carl_t1.nii.gz"),
        ((folder, other, *out), "have one name"),
        ((folder, *out, "-o", foreign.parent), "is no file of this benchmark"),
        ((folder, *out, "-o", foreign), "is in the way"),
    ):
        done = run(comparison.main, *arguments)
        assert done.status == 2 and sentence in done.err and done.err.count("\n") == 1
        assert done.calls == []
    assert foreign.read_text(encoding="utf-8") == "my,own,values\n1,2,3\n"
    monkeypatch.setattr(bundled, "checksums", dict)
    done = run(comparison.main, folder, *out)
    assert done.status == 2 and "None of these networks is bundled" in done.err


# Networks that the queue trained


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder as that of the training data; every scan has a "brain" of 4 ml to be labelled."""
    monkeypatch.setattr(inference_run, "SMALLEST_BRAIN", 1.0)
    truth = np.zeros((32, 32, 32), np.uint8)
    truth[8:24, 8:24, 8:16], truth[8:24, 8:24, 16:24] = 41, 2
    for name in ("1000", "1017", "1036"):
        write_scan(tmp_path / "data" / "malc", name, truth, (1.0, 1.0, 1.0))
    write_scan(tmp_path / "data" / "validation", "swm", truth, (1.0, 1.0, 1.0))
    return tmp_path / "data"


# Dice of white matter where all of the 32^3 voxels are called that and half of a cube of 16^3 is.
ALL_WHITE = 2 * 2048 / (2048 + 32**3)


def stubborn(label, protocols=BrainRecipe.protocols, **arguments):
    """A network that calls everything one structure: a list has one for each protocol."""
    network = UNet(classes=max(1, len(protocols)) * 32, width=8, **arguments)
    for weights in network.parameters():
        torch.nn.init.zeros_(weights)
    for number, each in enumerate(label if isinstance(label, list) else [label] * max(1, len(protocols))):
        network.classifier.bias.data[number * 32 + 1 + INDEX[each]] = 1.0
    return network.eval()


def write_stubborn(path, label, protocols=BrainRecipe.protocols, **arguments):
    """Write the model file of a stubborn network."""
    path.parent.mkdir(parents=True, exist_ok=True)
    network = stubborn(label, protocols, **arguments)
    configuration = {"architecture": "unet", "classes": max(1, len(protocols)) * 32, "width": 8, **arguments}
    write_model(path, network, configuration, "coronal", protocols, None if protocols else structures())


def write_recipe(tmp_path, *trainings, **common):
    path = tmp_path / "recipe.json"
    content = {"held_out": ["1017", "1036"], "width": 8, "steps": 7, **common, "trainings": trainings}
    path.write_text(json.dumps(content), encoding="utf-8")
    return ["--recipe", str(path), "--run", str(tmp_path / "run"), "-o", str(tmp_path / "out")]


def test_a_model_file_is_scored_by_the_labels_of_the_protocol(data, tmp_path):
    path = tmp_path / "network.pt"
    write_stubborn(path, [2, 16])
    scans = scores.find_scans([data / "malc"], ["1017"])
    for protocol, label, dice in (("manual", 2, ALL_WHITE), ("freesurfer", 16, 0.0)):
        found = trained.scores_of(path, scans, protocol, scores.Values(tmp_path / "values.csv"))
        assert found.shape == (1, len(INDEX), 2)
        assert found[0, INDEX[label], 0] == pytest.approx(dice, abs=1e-6)


def test_ablation_tells_each_setting_with_its_spread_over_seeds(data, tmp_path, capsys):
    trainings = [{"name": f"{se}-seed{seed}", "se": se, "seed": seed} for seed in (1, 2) for se in ("none", "scse")]
    arguments = [str(data), *write_recipe(tmp_path, *trainings), "--validation"]
    assert ablation.main(arguments) == 2
    assert "has no network of" in capsys.readouterr().err
    # One seed calls all white matter, whose other half has Dice 0; the other one all brain stem.
    write_stubborn(tmp_path / "run" / "none-seed1.pt", 2)
    write_stubborn(tmp_path / "run" / "none-seed2.pt", 16)
    write_stubborn(tmp_path / "run" / "scse-seed1.pt", [2, 16], se="scse")
    assert ablation.main(arguments) == 0
    out, _ = capsys.readouterr()
    plain, squeezed = cells(out, "none"), cells(out, "scse")
    assert cells(out, "se")[1:] == ["parameters", "seeds", "1017", "1036", "MALC", "HD95 (mm)", "swm"]
    assert "3 of 4 trainings of 7 batches" in out
    mean, deviation = ALL_WHITE / 4, ALL_WHITE / 2 / np.sqrt(2)
    assert plain[2:6] == ["2", f"{mean:.3f}", f"{mean:.3f}", f"{mean:.3f} ± {deviation:.3f}"] and plain[7] == plain[5]
    # A single seed has no spread.
    assert squeezed[2:6] == ["1", *[f"{ALL_WHITE / 2:.3f}"] * 3] and squeezed[7] == "0.000"
    # W1: C -> C / r, W2: C / r -> C with biases, sSE's C + 1: at C = 8, in 8 blocks.
    extra = 8 * (8 * 4 + 4 + 4 * 8 + 8 + 8 + 1)
    assert int(squeezed[1].replace(",", "")) == int(plain[1].replace(",", "")) + extra
    assert (tmp_path / "out" / "recipe.md").read_text(encoding="utf-8").strip() == out.strip()
    with open(tmp_path / "out" / "recipe.csv", newline="", encoding="utf-8") as file:
        assert [row["MALC"] for row in csv.DictReader(file)] == [plain[5], squeezed[5]]


def test_the_papers_own_setting_is_scored_by_the_manual_labels_alone(data, tmp_path, capsys):
    training = {"name": "paper", "data": "malc", "loss": "weighted"}
    write_stubborn(tmp_path / "run" / "paper.pt", 2, protocols=())
    assert ablation.main([str(data), *write_recipe(tmp_path, training), "--validation"]) == 0
    assert f"| {ALL_WHITE / 2:.3f} |" in capsys.readouterr().out


def test_crossvalidation_scores_every_scan_by_the_network_that_held_it_out(data, tmp_path, capsys):
    folds = [{"name": "fold-1", "held_out": ["1000", "1036"]}, {"name": "fold-2", "held_out": ["1017"]}]
    arguments = [str(data), *write_recipe(tmp_path, *folds)]
    write_stubborn(tmp_path / "run" / "fold-1.pt", 2)
    assert crossvalidation.main(arguments) == 0
    out, _ = capsys.readouterr()
    assert "| 1017 |" not in out and cells(out, "all 2") and "1 of 2 networks" in out
    write_stubborn(tmp_path / "run" / "fold-2.pt", 16)
    assert crossvalidation.main(arguments) == 0
    out, _ = capsys.readouterr()
    for name, fold, dice in (("1000", 1, ALL_WHITE / 2), ("1017", 2, 0.0), ("1036", 1, ALL_WHITE / 2)):
        assert cells(out, name)[:4] == [name, f"fold-{fold}", f"{dice:.3f}", f"{dice:.3f}"]
    all_dice = [ALL_WHITE / 2, 0.0, ALL_WHITE / 2]
    assert cells(out, "all 3")[2] == f"{np.mean(all_dice):.3f} ± {np.std(all_dice, ddof=1):.3f}"


def test_scans_that_cannot_be_scored_fairly_are_refused(data, tmp_path, capsys):
    for trainings, main, sentence in (
        ([{"name": "a"}, {"name": "b"}], crossvalidation.main, "held out the scan 1017"),
        ([{"name": "a"}, {"name": "b", "held_out": ["1017"]}], ablation.main, "held out different scans"),
        ([{"name": "a", "held_out": []}], ablation.main, "held out no scan"),
        ([{"name": "a", "data": "malc"}], recipe_study.main, "are not of heads"),
    ):
        write_stubborn(tmp_path / "run" / "a.pt", 2)
        assert main([str(data), *write_recipe(tmp_path, *trainings)]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1


def write_checkpoint(folder, last, average):
    """Write what the study reads of a checkpoint, from the structures that its networks see everywhere."""
    folder.mkdir(parents=True)
    averaged = {f"module.{name}": value for name, value in stubborn(average).state_dict().items()}
    torch.save({"network": stubborn(last).state_dict(), "average": averaged}, folder / "checkpoint.pt")
    write_stubborn(folder.with_suffix(".pt"), average)


def test_the_recipe_study_tells_weights_and_corrections_apart(data, tmp_path, capsys):
    run = tmp_path / "run"
    # FreeSurfer's rows: white matter at last; in the average inferior ventricles, which the shift turns to background.
    write_checkpoint(run / "plain-seed1", [16, 2], [2, 5])
    write_checkpoint(run / "plain-seed2", [16, 2], [16, 5])
    trainings = [{"name": f"plain-seed{seed}", "seed": seed, "average": 0.9} for seed in (1, 2)]
    arguments = [str(data), *write_recipe(tmp_path, *trainings)]
    assert recipe_study.main(arguments) == 0
    out, _ = capsys.readouterr()
    # The margin around the scan is called white matter, too, so that Dice is below that of the whole path.
    last = cells(out, "plain", "2", "last", "no", "none")
    average = cells(out, "plain", "2", "average", "no", "none")
    dice = float(last[5])
    assert 0 < dice < ALL_WHITE and last[6] == f"{dice:.4f} ± 0.0000" and last[9] == "0.0000 ± 0.0000"
    # Only one of the seeds calls white matter white in the manual protocol, and one structure less is missed there.
    assert (
        average[5] == "0.0000" and average[7] == average[8] and float(average[7]) == pytest.approx(dice / 2, abs=2e-4)
    )
    spread = float(average[9].split(" ± ")[1])
    assert spread == pytest.approx(dice / np.sqrt(2), abs=2e-4)
    for correction in recipe_study.CORRECTIONS:
        for smoothing in ("no", "yes"):
            assert cells(out, "plain", "2", "average", smoothing, correction)
    # What is there is not computed again.
    assert recipe_study.main(arguments) == 0
    again = capsys.readouterr()
    assert again.out == out and not again.err
    with open(tmp_path / "out" / "recipe_study.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * len(recipe_study.CORRECTIONS)


def test_corrections_by_hand():
    freesurfer, manual = torch.zeros(1, 32, 1, 1), torch.zeros(1, 32, 1, 1)
    white, ventricle, pallidum = (1 + INDEX[label] for label in (2, 5, 13))
    accumbens = 1 + INDEX[26]
    freesurfer[0, [white, ventricle, accumbens]] = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    manual[0, [white, pallidum, accumbens]] = torch.tensor([3.0, 4.0, 5.0])[:, None, None]
    places = [0, white, ventricle, pallidum, accumbens]
    for correction, expected in (
        ("none", [0, 1, 2, 0, 3]),
        ("mean", [0, 2, 2, 2, 3]),
        ("shift", [0.5, 1, 0, 0, 3]),
        ("mean and shift", [0.5, 2, 0, 2, 3]),
    ):
        assert recipe_study.corrected(freesurfer, manual, correction)[0, places, 0, 0].tolist() == expected
    assert freesurfer[0, white] == 1.0


def write_curve(run, name, *points):
    folder = run / name
    folder.mkdir(parents=True)
    rows = [f"{step},1.0,1e-3,2.0,{dice}" for step, dice in points]
    text = "\n".join(["step,minutes,learning_rate,loss,validation_dice", *rows, ""])
    (folder / "curve.csv").write_text(text, encoding="utf-8")


def test_curves_are_drawn_and_told_for_each_network(tmp_path, capsys):
    trainings = [
        {"name": "plain", "se": "none"},
        {"name": "plain-seed2", "se": "none", "seed": 2},
        {"name": "sd", "architecture": "sdnet"},
        {"name": "axial", "view": "axial"},
        {"name": "unfinished", "se": "scse"},
    ]
    arguments = write_recipe(tmp_path, *trainings, steps=100)
    run = tmp_path / "run"
    run.mkdir()
    assert curves.main(arguments) == 2
    assert "has no curve" in capsys.readouterr().err
    write_curve(run, "plain", (25, ""), (50, 0.5), (100, 0.7))
    write_curve(run, "plain-seed2", (25, ""), (50, 0.6), (100, 0.9))
    write_curve(run, "sd", (50, 0.4), (100, 0.5))
    write_curve(run, "axial", (50, 0.1))
    write_curve(run, "unfinished", (25, ""))
    assert curves.main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "curves-sdnet.png",
        "curves-unet.png",
        "curves.csv",
    ]
    with open(tmp_path / "out" / "curves.csv", newline="", encoding="utf-8") as file:
        told = [(row["training"], row["seed"], row["step"], row["validation_dice"]) for row in csv.DictReader(file)]
    assert told[:4] == [
        ("plain", "0", "50", "0.5000"),
        ("plain", "0", "100", "0.7000"),
        ("plain-seed2", "2", "50", "0.6000"),
        ("plain-seed2", "2", "100", "0.9000"),
    ]
    assert {name for name, *_ in told} == {"plain", "plain-seed2", "sd"}


def test_lines_are_means_over_seeds_and_their_difference_to_no_se_blocks():
    def curve(se, *dice):
        plan = SimpleNamespace(architecture="unet", se=se)
        return curves.Curve(plan, np.array([50.0, 100.0, 150.0])[: len(dice)], np.array(dice))

    # One seed is behind: the mean ends where it does.
    figure = curves.draw([curve("scse", 0.5, 0.7), curve("scse", 0.6, 0.9, 0.95), curve("none", 0.4, 0.6, 0.7)], (0, 1))
    above, below = figure.axes
    lines = {line.get_label(): line for line in above.get_lines()}
    assert list(lines["scSE"].get_xdata()) == [50, 100]
    np.testing.assert_allclose(lines["scSE"].get_ydata(), [0.55, 0.8])
    (difference,) = [line for line in below.get_lines() if line.get_marker() != "None"]
    assert list(difference.get_xdata()) == [50, 100]
    np.testing.assert_allclose(difference.get_ydata(), [0.15, 0.2])


def test_the_comparison_counts_further_seeds(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        comparison, "scores_of", lambda path, scans, protocol, kept: np.stack([answers[path.stem] for _ in scans])
    )
    image = np.zeros_like(toy_truth())
    answers = {"unet-scse-coronal-seed1": scores.score(image, toy_truth(), SPACING[::-1])}
    (tmp_path / "seeds").mkdir()
    for name in ("unet-scse-coronal-seed1", "unet-scse-axial-seed1"):
        (tmp_path / "seeds" / f"{name}.pt").touch()
    arguments = ("--architectures", "unet", "--se", "none", "scse", "--seeds", tmp_path / "seeds", "-o", tmp_path)
    done = run(comparison.main, folder, *arguments)
    # The bundled network finds all, the other one nothing: two structures of two scans.
    best = cells(done.out, "U-Net", "scSE")
    assert best[2] == "0.500 ± 0.000" and best[4] == "2" and best[9:11] == ["2", f"{1 / np.sqrt(2):.4f}"]
    assert best[11] == f"{0.5 - 1 / 3:+.4f}" and cells(done.out, "U-Net", "none")[9:11] == ["1", "–"]


def test_all_tables_come_from_one_command(run, folder, tmp_path, monkeypatch):
    for name in ("malc", "validation"):
        for scan in ("1017", "1036"):
            write_scan(tmp_path / "data" / name, scan, toy_truth())
    for view in ("axial", "sagittal"):
        monkeypatch.setitem(CHECKSUMS, f"unet-scse-{view}.pt", view)
    asked = []
    monkeypatch.setattr(tables.facts, "main", lambda arguments: asked.append(arguments) or 0)
    common = write_recipe(tmp_path, {"name": "unet-none-coronal"}, held_out=["1017"])
    write_curve(tmp_path / "run", "unet-none-coronal", (7, 0.5))
    done = run(tables.main, tmp_path / "data", *common)
    assert done.status == 0
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    views = ("all", "axial", "coronal", "sagittal")
    comparisons = [f"comparison-{protocol}-{view}" for protocol in ("freesurfer", "manual") for view in views]
    assert made == [*comparisons, "curves-unet.png", "curves.csv"]
    # The manual labels' scans are those that were held out.
    with open(tmp_path / "out" / "comparison-manual-coronal" / "values.csv", newline="", encoding="utf-8") as file:
        assert {row["scan"] for row in csv.DictReader(file)} == {"1017"}
    (arguments,) = asked
    assert sum(each.endswith("values.csv") for each in arguments) == 8 and "--seconds" not in arguments
    assert ("unet", "scse", "all", "manual") in done.calls and ("unet", "none", "all", "manual") not in done.calls


# What is told of networks and remarked upon


def test_expectations_are_the_extremes_of_the_scans(folder, tmp_path, monkeypatch, capsys):
    # White matter, thalami and stem only; what one of two scans lacks has a share of 0 and the other's confidence.
    array = np.zeros((8, 10, 12), np.uint8)
    array[2, 3, 2], array[2, 3, 6], array[6, 8, 2], array[0, 1, 4] = 10, 49, 2, 16
    labels = sitk.GetImageFromArray(array)
    labels.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    found = [
        SimpleNamespace(volumes={label: 0.0 for label in NAME} | volumes, confidences=confidences, labels=labels)
        for volumes, confidences in (
            ({2: 30.0, 41: 6.0, 16: 4.0}, {2: 0.9, 16: 0.7}),
            ({2: 30.0, 41: 10.0}, {2: 0.8}),
        )
    ]
    given = []
    monkeypatch.setattr(
        expectations, "segment", lambda image, **choices: given.append(choices) or found[len(given) - 1]
    )
    path = tmp_path / "Expectations.csv"
    rest = "0.1,0.2,0.3,0,0,0,0,0\n"
    path.write_text(f"{','.join(expectations.COLUMNS)}\nfreesurfer,2,old,9,{rest}manual,2,kept,9,{rest}")
    assert expectations.main([str(folder), "--protocol", "freesurfer", "--file", str(path)]) == 0
    assert given == 2 * [{"protocol": "freesurfer", "confidence": True, "accept_unlikely": True}]
    with open(path, newline="", encoding="utf-8") as file:
        rows = {(row["protocol"], row["label"]): row for row in csv.DictReader(file)}
    assert len(rows) == len(NAME) + 1 and rows["manual", "2"]["structure"] == "kept"
    white, stem = ([*rows["freesurfer", label].values()][3:] for label in ("2", "16"))
    # Asymmetries of 133 and 100 percent; mm seen from the middle between the thalami.
    assert white[0] == "2" and [float(value) for value in white[1:]] == [0.75, 0.75, 0.8, 116.7, 23.6, 4, 5, -2]
    assert stem[4:6] == ["", ""] and [float(value) for value in stem[1:4] + stem[6:]] == [0.0, 0.1, 0.7, -2, -2, 0]


def test_the_table_of_both_errors_counts_what_is_refused_of_every_kind(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plausibility, "TRIED", {"anna": ("backwards", "label map"), "bert": ("backwards",)})
    images = []

    def found_in(image, protocol):
        images.append(image)
        doubt = "It is backwards; turn it." if len(images) in (2, 3) else ""
        empty = np.zeros((8, 8, 8), np.uint8), np.zeros((2, 2, 2), bool)
        return plausibility.Evidence(*empty, {}, 0.8 + len(images) / 100, doubt)

    monkeypatch.setattr(plausibility, "found_in", found_in)
    arguments = [str(folder), "--file", str(tmp_path / "table.md"), "--cache", str(tmp_path / "cache")]
    assert plausibility.main(arguments) == 0
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert cells(text, "as it is") == ["as it is", "2", "0", "0.81 to 0.84", "", ""]
    assert cells(text, "backwards") == ["backwards", "2", "1", "0.82 to 0.85", "", "It is backwards"]
    assert cells(text, "label map") == ["label map", "1", "1", "0.83 to 0.83", "", "It is backwards"]
    # What was backwards is, and is not looked at anew.
    plain, backwards, labels = (sitk.GetArrayFromImage(sitk.DICOMOrient(each, "RAS")) for each in images[:3])
    np.testing.assert_allclose(backwards, plain[:, ::-1, ::-1])
    assert (labels == toy_truth()).all() or set(np.unique(labels)) == set(np.unique(toy_truth()))
    assert plausibility.main(arguments) == 0 and len(images) == 5
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == text
    assert plausibility.main([str(tmp_path), "--file", str(tmp_path / "table.md")]) == 2
    assert "no such scans" in capsys.readouterr().err


def test_facts_are_of_every_bundled_choice_and_count_their_networks(tmp_path):
    path = tmp_path / "facts.csv"
    assert facts.main(["--file", str(path)]) == 0
    with open(path, newline="", encoding="utf-8") as file:
        rows = {row["network"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == sorted([*bundled.names(), "unet-scse-all"])
    one, three = (int(rows[f"unet-scse-{view}"]["parameters"]) for view in ("coronal", "all"))
    assert three == 3 * one
    # Of the paper's formulas with biases and r = 2: eight blocks of 32 channels.
    extra = 8 * (32 * 16 + 16 + 16 * 32 + 32 + 32 + 1)
    assert one - int(rows["unet-none-coronal"]["parameters"]) == extra
    assert float(rows["unet-scse-coronal"]["increase_percent"]) == pytest.approx(100 * extra / (one - extra), abs=0.01)
    with open(resource("Models/facts.csv"), newline="", encoding="utf-8") as file:
        told = {row["network"]: (row["parameters"], row["increase_percent"]) for row in csv.DictReader(file)}
    assert told == {name: (row["parameters"], row["increase_percent"]) for name, row in rows.items()}


def test_facts_take_dice_of_networks_as_they_are_now(run, folder, tmp_path, monkeypatch):
    for protocol in ("freesurfer", "manual"):
        arguments = ("--architectures", "unet", "--se", "none", "scse", "--protocol", protocol, "-o", tmp_path)
        run(comparison.main, folder, *arguments)
    monkeypatch.setattr(bundled, "names", lambda: [file[:-3] for file in CHECKSUMS])
    values = tmp_path / "values.csv"
    # One third and 1, as counted for the comparison; the mean over two structures that there are.
    for protocol in ("freesurfer", "manual"):
        dice = facts.mean_dice([values], protocol)
        assert dice == pytest.approx({"unet-none-coronal": 1 / 3, "unet-scse-coronal": 1.0}, abs=1e-4)
    monkeypatch.setitem(CHECKSUMS, "unet-scse-coronal.pt", "retrained")
    assert list(facts.mean_dice([values], "manual")) == ["unet-none-coronal"]
    run(accuracy.main, folder, "--se", "scse", "--csv", tmp_path / "accuracy.csv")
    assert facts.mean_dice([tmp_path / "accuracy.csv"], "manual") == {"unet-scse-coronal": 1.0}


def test_the_head_that_is_timed_is_of_the_usual_size_and_in_its_midst():
    head, scan = facts.head(), sitk.ReadImage(str(resource(facts.SAMPLE)))
    assert head.GetSize() == (256, 256, 256) and head.GetSpacing() == (1, 1, 1)
    voxels, original = sitk.GetArrayFromImage(head), sitk.GetArrayFromImage(scan)
    assert voxels.sum(dtype=float) == pytest.approx(original.sum(dtype=float), rel=0.01)
    middle = [axis.mean() for axis in np.nonzero(voxels)]
    assert middle == pytest.approx([127.5] * 3, abs=25)
