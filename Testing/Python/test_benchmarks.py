"""The benchmarks: measures against values found by hand or by brute force, and whole runs with stand-in networks."""

import csv
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
from SEBrainSegLib.choices.vocabulary import Protocol
from SEBrainSegLib.inference import run as inference_run
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.networks.architectures import UNet
from SEBrainSegLib.resources import resource

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Benchmarks"))

import ablation  # noqa: E402
import accuracy  # noqa: E402
import comparison  # noqa: E402
import crossvalidation  # noqa: E402
import expectations  # noqa: E402
import facts  # noqa: E402
import plausibility  # noqa: E402
import scores  # noqa: E402
import trainings  # noqa: E402

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
    reference = np.full((2, 3), 0.5)
    better = reference + [[0.01, 0.02, 0.03], [0.04, 0.05, 0.06]]
    # All of 6 differences have one sign: 2 of the 2^6 sign patterns are as extreme.
    assert comparison.paired_test(better, reference) == (pytest.approx(2 / 2**6), 6)
    assert comparison.paired_test(reference, better)[0] == pytest.approx(2 / 2**6)
    # Ranks 1, 2, 3 up and 4 down; 7 of the 16 subsets of the ranks have a sum of at most 4.
    mixed = reference + [[0.01, 0.02, 0.03], [-0.04, np.nan, np.nan]]
    assert comparison.paired_test(mixed, reference) == (pytest.approx(2 * 7 / 16), 4)


def test_networks_that_agree_do_not_differ():
    dice = np.array([[0.7, 0.8, np.nan]])
    assert comparison.paired_test(dice, dice) == (1.0, 2)


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
    # 1/3 and 1, twice each: all four pairs rise, 2 of 2^4 sign patterns.
    assert best[9] == "+0.6667" and best[11] == "4" and float(best[10]) < 0.2
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


# The ablation and the cross-validation


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder as that of the training data; the two held-out scans have a "brain" of 4 ml to be labelled."""
    monkeypatch.setattr(inference_run, "SMALLEST_BRAIN", 1.0)
    truth = np.zeros((32, 32, 32), np.uint8)
    truth[8:24, 8:24, 8:16], truth[8:24, 8:24, 16:24] = 41, 2
    for name in ("1000", "1017", "1036"):
        write_scan(tmp_path / "data" / "malc", name, truth, (1.0, 1.0, 1.0))
    return tmp_path / "data"


def scans_named(folder, names):
    """Stand in for the reading of the scans to train on."""
    return [SimpleNamespace(name=name, protocol="manual") for name in sorted(names)]


@pytest.fixture
def trained(monkeypatch):
    """Stand in for the training; the list takes the configuration and other arguments of every call."""
    calls = []

    def fit(configuration, recipe, folder, steps, minutes, **others):
        if len(calls) == calls_until_time_is_up[0]:
            raise trainings.TimeUp("the time is up", None)
        scans = recipe.scans
        calls.append(SimpleNamespace(configuration=configuration, scans=scans, folder=folder, steps=steps, **others))
        arguments = {key: value for key, value in configuration.items() if key != "architecture"}
        return UNet(**arguments).eval()

    calls_until_time_is_up = [None]
    monkeypatch.setattr(trainings, "WIDTH", 8)
    monkeypatch.setattr(trainings, "fit", fit)
    monkeypatch.setattr(trainings.intensity_patterns, "lay_over", lambda heads, scans: None)
    monkeypatch.setattr(trainings, "labelled_scans", scans_named)
    monkeypatch.setattr(trainings, "head_labels", lambda folder: ["head"])
    return SimpleNamespace(calls=calls, until=calls_until_time_is_up)


def test_ablation_trains_each_configuration_once_and_alike(data, trained, tmp_path, capsys):
    arguments = [str(data), "--steps", "7", "--minutes", "9", "--run", str(tmp_path / "run")]
    trained.until[0] = 5
    assert ablation.main(arguments) == 3
    out, err = capsys.readouterr()
    assert "9 minutes ended" in err and out.count("| encoder |") == 0 and cells(out, "scSE", "addition")
    trained.until[0] = None
    assert ablation.main([*arguments, "--validation", str(data / "malc")]) == 0
    out, _ = capsys.readouterr()
    choices = {
        (each["se"], each["aggregation"], each["reduction"], each["placement"])
        for each in (call.configuration for call in trained.calls)
    }
    paper = ("scse", "max", 2, "both")
    assert len(trained.calls) == len(choices) == 13 and paper in choices
    assert {choice[0] for choice in choices} == {"none", "cse", "sse", "scse"}
    ours = [choice for choice in choices if choice[0] == "scse" and choice != paper]
    # One respect at a time: 3 aggregations, 3 reduction ratios, 3 placements.
    assert sorted(sum(a != b for a, b in zip(choice, paper)) for choice in ours) == [1] * 9
    assert {call.steps for call in trained.calls} == {7} and len({call.seed for call in trained.calls}) == 1
    assert all([scan.name for scan in call.scans] == ["1000"] for call in trained.calls)
    assert len({call.folder for call in trained.calls}) == 13
    # W1: C -> C / r, W2: C / r -> C with biases, sSE's C + 1: at C = 8, in 8 blocks, or 9 with the bottleneck.
    plain = int(cells(out, "none")[4].replace(",", ""))
    for start, blocks, squeezed in (
        (("scSE", "max", "2", "both"), 8, 4),
        (("scSE", "max", "4", "both"), 8, 2),
        (("scSE", "max", "2", "decoder"), 4, 4),
        (("scSE", "max", "2", "all"), 9, 4),
    ):
        extra = blocks * (8 * squeezed + squeezed + squeezed * 8 + 8 + 8 + 1)
        assert int(cells(out, *start)[4].replace(",", "")) == plain + extra
    # The last column are the validation scans, here the same with the other protocol's classes.
    assert "1000, 1017, 1036" in out
    ablation.main(arguments)
    assert len(trained.calls) == 13
    # Another budget is another comparison.
    trained.until[0] = 14
    assert ablation.main([*arguments[:2], "8", *arguments[3:]]) == 3
    assert len(trained.calls) == 14 and trained.calls[-1].steps == 8


def test_ablation_scores_the_labels_of_the_protocol(data, trained, tmp_path):
    """To one protocol's classifier everything is white matter, to the other's brain stem."""
    network = UNet(classes=2 * 32, width=8)
    for weights in network.parameters():
        torch.nn.init.zeros_(weights)
    for protocol, label in ((0, 2), (1, 16)):
        network.classifier.bias.data[protocol * 32 + 1 + INDEX[label]] = 1.0
    path = tmp_path / "network.pt"
    configuration = {"architecture": "unet", "classes": 64, "width": 8}
    trainings.write_model(path, network, configuration, "coronal", Protocol.in_rows())
    scans = scores.find_scans([data / "malc"], ["1017"])
    # All of the 32^3 voxels are called one structure, half of a cube of 16^3 is white matter.
    for protocol, label, dice in (("manual", 2, 2 * 2048 / (2048 + 32**3)), ("freesurfer", 16, 0.0)):
        found, _ = trainings.scores_of(path, scans, protocol, scores.Values(tmp_path / "values.csv"))
        assert found.shape == (1, len(INDEX), 2)
        assert found[0, INDEX[label], 0] == pytest.approx(dice, abs=1e-6)


def test_ablation_without_data_says_so(data, tmp_path, monkeypatch, capsys):
    arguments = ["--steps", "7", "--minutes", "9", "--run", str(tmp_path / "run")]
    assert ablation.main([str(tmp_path), *arguments]) == 2
    assert "holds no NAME_t1.nii.gz" in capsys.readouterr().err
    monkeypatch.setattr(trainings, "labelled_scans", scans_named)
    assert ablation.main([str(data), *arguments]) == 2
    assert "holds no label maps" in capsys.readouterr().err


def test_crossvalidation_scores_every_scan_by_a_network_that_never_saw_it(data, trained, tmp_path, capsys):
    names = ["1000", "1017", "1036"]
    arguments = [str(data), "--steps", "7", "--minutes", "9", "--run", str(tmp_path / "run"), "--folds", "2"]
    trained.until[0] = 1
    assert crossvalidation.main(arguments) == 3
    out, err = capsys.readouterr()
    assert "9 minutes ended" in err and "| 1017 |" not in out and cells(out, "all 2")
    trained.until[0] = None
    assert crossvalidation.main(arguments) == 0
    out, _ = capsys.readouterr()
    # The scans of a row's fold are those that its network was not trained on.
    folds = {name: cells(out, name)[1] for name in names}
    assert len(trained.calls) == 2 and {call.configuration["se"] for call in trained.calls} == {"scse"}
    for number, call in enumerate(trained.calls, start=1):
        assert {scan.name for scan in call.scans} == {name for name in names if folds[name] != str(number)}
        assert call.steps == 7 and call.seed == trained.calls[0].seed
    assert len(set(folds.values())) == 2
    # Scored are the labels that the fold's own network finds.
    for name in names:
        (scan,) = scores.find_scans([data / "malc"], [name])
        image, truth = scan.read()
        path = tmp_path / "run" / "steps-7" / f"fold-{folds[name]}.pt"
        found = scores.labels_found(image, name, model=str(path), protocol="manual")
        assert float(cells(out, name)[2]) == pytest.approx(
            np.nanmean(scores.dice_of_structures(found, truth)), abs=6e-4
        )
    dice = [float(cells(out, name)[2]) for name in names]
    mean, deviation = map(float, cells(out, "all 3")[2].split(" ± "))
    assert mean == pytest.approx(np.mean(dice), abs=1e-3) and deviation == pytest.approx(np.std(dice, ddof=1), abs=1e-3)


def test_crossvalidation_wants_two_folds(data, tmp_path, capsys):
    arguments = [str(data), "--steps", "7", "--minutes", "9", "--run", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        crossvalidation.main([*arguments, "--folds", "1"])
    assert stop.value.code == 2 and "at least 2" in capsys.readouterr().err
    # As many folds as scans at most: a network that is scored on nothing tells nothing.
    assert crossvalidation.main([*arguments, "--folds", "4"]) == 2
    assert "3 scans" in capsys.readouterr().err


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
