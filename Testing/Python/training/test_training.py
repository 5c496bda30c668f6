"""The training recipe on toy heads made on the spot: orientation, batches, synthesis, resuming and export."""

import csv
import itertools
import math
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.networks.architectures import UNet
from SEBrainSegLib.networks.classes import class_of_label
from SEBrainSegLib.training import brain_recipe, intensity_patterns
from SEBrainSegLib.training import main as command
from SEBrainSegLib.training import training as train_module
from SEBrainSegLib.training.batches import Batches
from SEBrainSegLib.training.brain_recipe import BrainRecipe
from SEBrainSegLib.training.scans import HeadLabels, LabelledScan, head_labels, labelled_scans
from SEBrainSegLib.training.synthesis import blur, scanner_effects, synthesise, tissue_intensities
from SEBrainSegLib.training.training import TimeUp, fit, learning_rate, start_from
from toy_heads import (
    FIRST,
    LEFT_IDS,
    ORIENTATIONS,
    RIGHT_IDS,
    STRIPPED,
    WHOLE_HEAD,
    expected_classes,
    index_of,
    intensity_at,
    label_at,
    world_grid,
    write,
    write_head,
    write_scan,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder as the command expects it: scans with labels, one of them held out, and label maps of heads."""
    folder = tmp_path_factory.mktemp("data")
    write_scan(folder / "malc", "1000", "LAS")
    write_scan(folder / "malc", "1017", "LIA")
    write_head(folder / "labelmaps", "head_01", "LIA")
    write_head(folder / "labelmaps", "head_02", "LAS")
    return folder


@pytest.fixture(scope="module")
def scans(data):
    return labelled_scans(data / "malc")


@pytest.fixture(scope="module")
def heads(data):
    return head_labels(data / "labelmaps")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(brain_recipe, "FULL", dict.fromkeys(("coronal", "axial", "sagittal"), ((32, 48), 2)))
    monkeypatch.setattr(brain_recipe, "CROP", ((32, 32), 4))
    monkeypatch.setattr(brain_recipe, "CROP_SPREAD", 3.0)


# Scans and label maps


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_scans_of_any_orientation_land_in_s_a_r(tmp_path, orientation):
    scan = LabelledScan(write_scan(tmp_path, "1000", orientation), margin=4)
    assert scan.name == "1000"
    np.testing.assert_array_equal(scan.classes.numpy(), expected_classes(margin=4))
    # Left brain is twice as bright as right brain; air stays air.
    brightness = intensity_at(*world_grid(margin=4))
    image = scan.image.numpy()
    assert image.shape == brightness.shape
    assert np.ptp(image[brightness == 200]) < 1e-4 and np.ptp(image[brightness == 100]) < 1e-4
    assert image[brightness == 200].mean() == pytest.approx(2 * image[brightness == 100].mean(), rel=1e-3)
    assert image[brightness == 0].max() < 1e-4


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_label_maps_of_any_orientation_land_in_s_a_r(tmp_path, orientation):
    head = HeadLabels(write_head(tmp_path, "head_07", orientation))
    assert head.name == "head_07"
    classes = head.class_of_tissue[head.tissues.long()].numpy()
    np.testing.assert_array_equal(classes, expected_classes(whole_head=WHOLE_HEAD))
    np.testing.assert_array_equal(head.tissue_ids[head.tissues.numpy()], label_at(*world_grid(), WHOLE_HEAD))
    # The left thalamus lies where R is negative: at the low end of the last index.
    thalamus = np.argwhere(classes == class_of_label()[10]).mean(axis=0)
    np.testing.assert_allclose(thalamus, index_of(-4, -1.5, 0.5))


def test_ventricles_narrow_from_their_walls_and_nothing_else_changes(tmp_path):
    head = HeadLabels(write_head(tmp_path, "head_01"))
    shape = head.tissues.shape
    everywhere = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij"))

    def ids(narrowed):
        flat = everywhere.reshape(3, shape[0], -1)  # positions are those of a slice
        return head.tissue_ids[head.tissues_at(flat, narrowed).numpy()].reshape(shape)

    wide = label_at(*world_grid(), WHOLE_HEAD)
    np.testing.assert_array_equal(ids(0.0), wide)
    ventricles = np.isin(wide, (136, 163))
    # They are boxes of 4 x 7 x 3 voxels: without the outer layer 2 x 5 x 1 are left of each.
    narrow = ids(1.5)
    assert (wide == 136).sum() == 84 and (narrow == 136).sum() == (narrow == 163).sum() == 10
    closed = ids(9.0)
    assert not np.isin(closed, (136, 163)).any()
    for changed in (narrow, closed):
        np.testing.assert_array_equal(changed[~ventricles], wide[~ventricles])
    # White matter lies around them and the thalamus below, each on its side; no third tissue is made up.
    assert set(closed[wide == 136]) == {2, 10} and set(closed[wide == 163]) == {41, 49}


def test_centre_extent_and_distance(tmp_path):
    scan = LabelledScan(write_scan(tmp_path, "1000", "LIA"), margin=3)
    # The centres of the thalami (5 x 6 x 6 voxels each) and putamina (3 x 7 x 5), weighted by volume.
    thalami, putamina = 180, 105
    a = (-1.5 * thalami + 1 * putamina) / (thalami + putamina)
    s = (0.5 * thalami + 0 * putamina) / (thalami + putamina)
    np.testing.assert_allclose(scan.centre, index_of(0, a, s, margin=3))
    first, last = index_of(-11, -12, -10, margin=3), index_of(11, 11, 9, margin=3)
    np.testing.assert_array_equal(scan.extent, np.stack((first, last), axis=1))
    head = HeadLabels(write_head(tmp_path / "heads", "head_01"))
    np.testing.assert_array_equal(head.extent, scan.extent - 3)
    np.testing.assert_allclose(head.centre, scan.centre - 3)
    # Nothing within the brain; beyond its right face, at R = 11, one more mm a voxel.
    distance = scan.distance.numpy()
    assert (distance[scan.classes.numpy() > 0] == 0).all()
    s, a, r = index_of(11, 0, 0, margin=3)
    np.testing.assert_allclose(distance[s, a, r:], np.arange(distance.shape[2] - r), atol=1e-4)


def test_pairs_are_found_by_name(data, tmp_path):
    assert [scan.name for scan in labelled_scans(data / "malc")] == ["1000", "1017"]
    assert [scan.name for scan in labelled_scans(data / "malc", names=["1017"])] == ["1017"]
    assert [head.name for head in head_labels(data / "labelmaps")] == ["head_01", "head_02"]
    with pytest.raises(SEBrainSegError, match="1000_t1.nii.gz has no label map"):
        (tmp_path / "1000_t1.nii.gz").write_bytes((data / "malc" / "1000_t1.nii.gz").read_bytes())
        labelled_scans(tmp_path)


@pytest.mark.parametrize("shift", ["size", "origin"])
def test_labels_on_another_grid_are_refused(tmp_path, shift):
    pair = write_scan(tmp_path, "1000")
    labels = sitk.ReadImage(str(pair.labels))
    if shift == "size":
        labels = labels[1:]
    else:
        labels.SetOrigin((5.0, 0.0, 0.0))
    sitk.WriteImage(labels, str(pair.labels))
    with pytest.raises(SEBrainSegError, match="The grids of .*1000_t1.* and 1000_structures.* differ"):
        LabelledScan(pair)


def test_a_label_map_without_deep_structures_has_a_centre(tmp_path):
    write(
        tmp_path / "head.nii.gz", lambda r, a, s: np.where((r == 3) & (a == 4) & (s < -9), 2, 0).astype(np.int16), "LAS"
    )
    np.testing.assert_allclose(HeadLabels(tmp_path / "head.nii.gz").centre, index_of(3, 4, -10.5))


def test_nothing_to_learn_from_is_said(tmp_path, scans, heads):
    write(tmp_path / "head.nii.gz", lambda r, a, s: 0 * r.astype(np.int16), "LAS")
    with pytest.raises(SEBrainSegError, match="none of the brain structures"):
        head_labels(tmp_path)
    with pytest.raises(SEBrainSegError, match="holds no label maps"):
        head_labels(tmp_path / "nowhere")
    for given in (([], heads), (scans, [])):
        with pytest.raises(SEBrainSegError, match="needs labelled scans and label maps"):
            BrainRecipe(*given, [], "coronal")


# Batches


def test_a_batch_is_a_function_of_seed_and_step(scans, heads):
    def batch(seed, step):
        return Batches(BrainRecipe(scans, heads, [], "coronal"), steps=20, seed=seed)[step]

    torch.manual_seed(1)
    np.random.seed(1)
    images, classes, protocols = batch(0, 4)
    # Whatever else was drawn before.
    torch.manual_seed(2)
    np.random.seed(2)
    again, classes_again, protocols_again = batch(0, 4)
    assert torch.equal(images, again) and torch.equal(classes, classes_again)
    assert torch.equal(protocols, protocols_again)
    assert not torch.equal(images, batch(1, 4)[0])
    # 0, 1, 3, 4, ... are of one shape: no two alike.
    different = [batch(0, step)[0] for step in (0, 1, 3, 4, 6, 7)]
    for first, second in itertools.combinations(different, 2):
        assert first.shape == second.shape and not torch.equal(first, second)


@pytest.mark.parametrize("view", ["coronal", "axial", "sagittal"])
def test_batches_hold_finite_slices_and_known_classes(scans, heads, view):
    batches = Batches(BrainRecipe(scans, heads, [], view), steps=15)
    # A sagittal slice knows no sides: what is on the right is called by its left counterpart.
    right = {class_of_label()[label] for label in RIGHT_IDS} if view == "sagittal" else set()
    known, seen, followed = {0, 255, *class_of_label().values()} - right, set(), set()
    for step in range(15):
        images, classes, protocols = batches[step]
        followed |= set(protocols.tolist())
        # Every third batch, and the last fifth, is of full slices.
        rows, columns, count = (32, 48, 2) if step % 3 == 2 or step >= 12 else (32, 32, 4)
        assert images.shape == (count, 1, rows, columns)
        assert classes.shape == (count, rows, columns)
        assert (images.dtype, classes.dtype) == (torch.float32, torch.int64)
        assert torch.isfinite(images).all() and images.min() >= 0 and images.max() <= 2
        seen |= set(classes.unique().tolist())
    assert seen <= known
    assert {class_of_label()[10], class_of_label()[2 if right else 41], 255} <= seen
    assert followed == {0, 1}
    assert len(batches) == 15


@pytest.mark.parametrize("view", ["coronal", "axial"])
def test_mirrored_slices_have_left_and_right_swapped(scans, heads, view):
    """Columns run to the right: what is labelled left is on the left, though mirroring moves the bright side."""
    recipe = BrainRecipe(scans, heads, [], view)
    left, right = (torch.tensor([class_of_label()[label] for label in ids]) for ids in (LEFT_IDS, RIGHT_IDS))
    brighter = []
    for step in range(60):
        image, classes, protocol = recipe.sample(np.random.default_rng(step), (40, 40), True)
        on_left, on_right = torch.isin(classes, left), torch.isin(classes, right)
        if min(on_left.sum(), on_right.sum()) < 60:
            continue
        columns = torch.arange(40.0).expand(40, 40)
        assert columns[on_left].mean() < columns[on_right].mean()
        ratio = float(image[0, on_left].mean() / image[0, on_right].mean())
        # Synthesised slices have sides alike, whatever the scan.
        if protocol == brain_recipe.MANUAL and not 0.8 < ratio < 1.25:
            brighter.append("left" if ratio > 1 else "right")
    assert min(brighter.count("left"), brighter.count("right")) >= 3


def test_slices_without_deformation_are_the_volume(scans, heads, monkeypatch):
    """With the random deformation taken out, rows run to superior (coronal) and columns to the right."""
    from SEBrainSegLib.training import deformation

    monkeypatch.setattr(deformation, "random_affine", lambda rng: np.eye(3, dtype=np.float32))
    monkeypatch.setattr(deformation, "smooth_noise", lambda rng, n, shape, cells: torch.zeros(n, *shape))
    classes = scans[0].classes
    centre = np.array([40, 45, 46])
    rng = np.random.default_rng(0)

    def slices(*arguments, **others):
        return deformation.slice_positions(rng, *arguments, **others)

    positions = slices("coronal", (5, 7), centre, 2, False)
    assert torch.equal(deformation.nearest(classes, positions)[0], classes[38:43, 47, 43:50])
    positions = slices("axial", (5, 7), centre, -1, False)
    assert torch.equal(deformation.nearest(classes, positions)[0], classes[39, 43:48, 43:50])
    positions = slices("sagittal", (5, 7), centre, 0, False, shift=(1, -2))
    assert torch.equal(deformation.nearest(classes, positions)[0], classes[39:44, 40:47, 46])
    positions = slices("coronal", (5, 7), centre, 2, True)
    mirrored = classes[38:43, 47, 43:50].flip(1)
    assert torch.equal(deformation.nearest(classes, positions)[0], mirrored)
    assert torch.equal(deformation.linear(classes.float(), positions)[0].round(), mirrored.float())
    # Neighbours lie a voxel apart along the normal, in the order of the slices of a volume.
    positions = slices("coronal", (5, 7), centre, 2, False, slices=3)
    expected = classes[38:43, 46:49, 43:50].movedim(1, 0)
    assert torch.equal(deformation.nearest(classes, positions), expected)
    assert torch.equal(deformation.linear(classes.float(), positions).round(), expected.float())
    # Halfway between two voxels lies their mean; outside there is nothing.
    volume = torch.arange(24.0).reshape(2, 3, 4)
    between = torch.tensor([0.5, 1.0, 2.5]).reshape(3, 1, 1, 1)
    assert float(deformation.linear(volume, between)) == pytest.approx((6 + 7 + 18 + 19) / 4)
    for outside in ((-3.0, 0, 0), (0, 7.0, 0), (0, 0, 9.0)):
        position = torch.tensor(outside).reshape(3, 1, 1, 1)
        assert float(deformation.nearest(volume + 1, position)) == 0
        assert float(deformation.linear(volume + 1, position)) == 0


# Synthesis


def test_left_and_right_are_synthesised_alike():
    pairs = [(2, 41), (3, 42), (4, 43), (5, 44), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52), (17, 53)]
    pairs += [(18, 54), (26, 58), (28, 60), (30, 62), (25, 57), (136, 163), (137, 164)]
    ids = np.array([0] + [label for pair in pairs for label in pair] + [14, 15, 16, 24, 502, 530])
    place = {int(label): index for index, label in enumerate(ids)}
    drawn = []
    for seed in range(30):
        means = tissue_intensities(np.random.default_rng(seed), ids, stripped=seed % 2 == 0)
        assert np.isfinite(means).all() and (means >= 0).all()
        assert means[0] == 0
        for left, right in pairs:
            assert means[place[left]] == means[place[right]] > 0
        outside = means[[place[502], place[530]]]
        assert (outside == 0).all() if seed % 2 == 0 else (outside > 0).all()
        drawn.append(means)
    # Contrasts vary from scan to scan, and most are T1-like: white matter brightest, then grey matter, then fluid.
    drawn = np.array(drawn)
    assert (np.ptp(drawn[:, 1:-2], axis=0) > 0.1).all()
    ordered = (drawn[:, place[2]] > drawn[:, place[3]]) & (drawn[:, place[3]] > drawn[:, place[4]])
    assert 0.6 < ordered.mean() < 1


def test_synthesised_slices_show_the_labels(tmp_path):
    head = HeadLabels(write_head(tmp_path, "head_01"))
    centre = torch.tensor(head.centre).round()
    rows, columns = torch.meshgrid(torch.arange(-11.0, 12), torch.arange(-12.0, 21), indexing="ij")
    positions = (torch.stack((rows, torch.zeros_like(rows), columns)) + centre[:, None, None])[:, None]
    labels = label_at(
        columns.numpy(), float(centre[1]) + FIRST[1], rows.numpy() + float(centre[0]) + FIRST[2], WHOLE_HEAD
    )
    differences = []
    for seed in range(12):
        image = synthesise(np.random.default_rng(seed), head, positions, normal=1).numpy()[0]
        assert image.shape == labels.shape and np.isfinite(image).all()
        assert np.abs(image[:, -4:]).max() < 1e-6  # beyond the head
        left, right = image[labels == 2].mean(), image[labels == 41].mean()
        assert left == pytest.approx(right, rel=0.1)
        differences.append(abs(left - image[labels == 10].mean()) / left)
    # The thalamus is about a fifth darker than white matter in a T1.
    assert np.median(differences) > 0.08
    assert len({round(value, 6) for value in differences}) == 12


def test_patterns_within_structures_are_those_of_the_scans(tmp_path):
    def brighter_outwards(r, a, s):
        return np.where(np.isin(label_at(r, a, s, STRIPPED), (0, 255)), 0, 100 + 5 * np.abs(r)).astype(np.int16)

    pair = write_scan(tmp_path, "1000", "LIA")
    write(pair.image, brighter_outwards, "LIA")
    head = HeadLabels(write_head(tmp_path / "heads", "head_01", "PSR"))
    scans = 8 * [LabelledScan(pair)]
    measured = intensity_patterns.measure_patterns(scans)
    patterns = intensity_patterns.pattern_volume(measured, head.tissues, head.tissue_ids).numpy() / 100
    r, a, s = world_grid()
    labels = label_at(r, a, s, WHOLE_HEAD)
    for white_matter in (2, 41):
        # Inside, where the cells of the pattern are neither at the box's border nor mixed with other tissue.
        inner = (labels == white_matter) & (np.abs(r) >= 3) & (np.abs(r) <= 9)
        slope, _ = np.polyfit(np.abs(r[inner]), patterns[inner], 1)
        assert slope == pytest.approx(5 / (100 + 5 * 6), rel=0.3)
        assert patterns[labels == white_matter].mean() == pytest.approx(1, abs=0.05)
    assert (patterns[(labels == 0) | (labels == 502)] == 1).all()

    intensity_patterns.add_patterns([head], scans)
    assert (head.pattern.numpy() == np.round(100 * patterns)).all()
    centre = torch.tensor(head.centre).round()
    rows, columns = torch.meshgrid(torch.arange(-6.0, 7), torch.arange(-12.0, 13), indexing="ij")
    positions = (torch.stack((rows, torch.full_like(rows, -5), columns)) + centre[:, None, None])[:, None]
    ratios = []
    for seed in range(20):
        image = synthesise(np.random.default_rng(seed), head, positions, normal=1).numpy()[0]
        outer, inner = (image[3:10, 12 - place : 13 - place].mean() for place in (9, 3))
        ratios.append(outer / inner)
    assert np.mean(ratios) > 1.08


def test_blurring_keeps_what_is_even():
    even = torch.full((2, 20, 24), 0.7)
    for sigma in (0.0, 0.4, 1.0):
        torch.testing.assert_close(blur(even, sigma), even)
    step = blur((torch.arange(24.0) >= 12).float().expand(1, 20, 24), 1.0)[0, 10]
    # An edge becomes the error function.
    expected = [0.5 * (1 + math.erf((column - 11.5) / math.sqrt(2))) for column in range(8, 16)]
    np.testing.assert_allclose(step[8:16].numpy(), expected, atol=0.02)


def test_scanner_effects_stay_in_range():
    image = torch.linspace(-0.5, 3, 40 * 36).reshape(1, 40, 36).expand(3, -1, -1)
    made = [scanner_effects(np.random.default_rng(seed), image.clone()) for seed in range(20)]
    for one in made:
        assert one.shape == image.shape
        assert torch.isfinite(one).all() and one.min() >= 0 and one.max() <= 2
        # Still the same image: bright stays bright.
        assert one[:, -5:].mean() > one[:, :5].mean() + 0.3
    assert not torch.equal(made[0], made[1])


# Training

CONFIGURATION = {"architecture": "unet", "classes": 64, "width": 4, "kernel": 3, "se": "scse"}


def run(folder, scans, heads, steps=4, minutes=60.0, configuration=CONFIGURATION, held_out=(), **arguments):
    said = []
    arguments = {"workers": 0, "echo": said.append, **arguments}
    recipe = BrainRecipe(scans, heads, list(held_out), "coronal")
    network = fit(configuration, recipe, folder, steps, minutes, **arguments)
    return network, said


def curve_of(folder):
    with open(folder / "curve.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_training_writes_a_checkpoint_and_a_curve_and_learns(tmp_path, scans, heads, monkeypatch):
    monkeypatch.setattr(train_module, "CURVE_EVERY", 2)
    monkeypatch.setattr(train_module, "WARM_UP", 1)
    network, said = run(tmp_path / "run", scans[:1], heads, steps=24, peak=0.02, held_out=scans[1:])
    assert not network.training
    assert {"checkpoint.pt", "curve.csv"} == {path.name for path in (tmp_path / "run").iterdir()}
    curve = curve_of(tmp_path / "run")
    assert set(range(2, 25, 2)) == {int(row["step"]) for row in curve}
    losses = [float(row["loss"]) for row in curve[:11]]
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    assert 0 <= float(curve[-1]["validation_dice"]) <= 1
    assert any("24/24" in line for line in said)
    stored = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert stored["step"] == 24
    # What comes back is the best of what was validated.
    validated = [float(row["validation_dice"]) for row in curve if row["validation_dice"]]
    assert len(validated) == 12 and stored["best"]["dice"] == pytest.approx(max(validated), abs=1e-4)
    for name, value in network.state_dict().items():
        assert torch.equal(stored["best"]["weights"][name], value)


def test_the_curve_has_one_finite_row_a_step(tmp_path, scans, heads, monkeypatch):
    monkeypatch.setattr(train_module, "CURVE_EVERY", 2)
    _, said = run(tmp_path, scans, heads, steps=4)
    curve = curve_of(tmp_path)
    assert [int(row["step"]) for row in curve] == [2, 4]
    assert all(math.isfinite(float(row["loss"])) for row in curve)
    assert not any("nan" in line for line in said)


def test_the_curve_of_a_killed_run_goes_on_from_its_checkpoint(tmp_path, scans, heads, monkeypatch):
    monkeypatch.setattr(train_module, "CURVE_EVERY", 1)

    def killed_at_3(text):
        if text.startswith("batch 3"):
            raise KeyboardInterrupt

    with pytest.raises(TimeUp):
        run(tmp_path, scans, heads, minutes=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, scans, heads, echo=killed_at_3)
    run(tmp_path, scans, heads)
    steps = [int(row["step"]) for row in curve_of(tmp_path)]
    # The last one may stand twice here: that is for the test above.
    assert sorted(set(steps)) == [1, 2, 3, 4]
    assert [step for step in steps if step < 4] == [1, 2, 3]


class ReadsAloud(torch.nn.Module):
    """A network whose input already holds the classes, of 4; what it says in the second protocol is nonsense."""

    slices = 1

    def forward(self, x):
        found = torch.nn.functional.one_hot(x[:, 0].long(), 4).movedim(-1, 1).float()
        return torch.cat((found, 1 - found), dim=1)


def test_validation_dice_by_hand():
    rng = np.random.default_rng(0)
    truth, found = (rng.integers(0, 4, (9, 30, 48)) for _ in range(2))
    found = np.where(rng.random(truth.shape) < 0.6, truth, found)
    truth[rng.random(truth.shape) < 0.2] = 255
    dice = []
    for index in (1, 2, 3):
        a, b = ((stack == index) & (truth != 255) for stack in (truth, found))
        dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    network = ReadsAloud()
    images, classes = torch.from_numpy(found).float(), torch.from_numpy(truth.astype(np.uint8))
    # In one piece, in two, whose voxels are pooled, or with slices between that are not asked for.
    spread = torch.full((18, 30, 48), 2.0)
    spread[::2] = images
    whole, parts = [(images, range(9), classes, 0)], ((0, 5), (5, 9))
    halves = [(images, range(*part), classes[slice(*part)], 0) for part in parts]
    for pieces in (whole, halves, [(spread, range(0, 18, 2), classes, 0)]):
        assert train_module.validation_dice(network, pieces, 2, "cpu") == pytest.approx(np.mean(dice), abs=1e-6)
    # A scan of the other protocol counts with its own rows, and each protocol as much as the other.
    other = torch.zeros(1, 30, 48)
    other[:, :, 24:] = 1
    both = [*whole, (other, range(1), other, 1)]
    # 1 - found is largest, and first, at class 1 where the input is 0, and at class 0 where it is 1: all wrong.
    assert train_module.validation_dice(network, both, 2, "cpu") == pytest.approx(np.mean(dice) / 2, abs=1e-6)
    assert 0.4 < np.mean(dice) < 0.9
    assert network.training


@pytest.mark.parametrize("view, axis", [("axial", 0), ("coronal", 1), ("sagittal", 2)])
def test_validation_takes_every_eighth_slice_of_the_view(scans, heads, view, axis):
    ((images, numbers, classes, protocol),) = BrainRecipe(scans[:1], heads, scans[1:], view).validation()
    assert protocol == brain_recipe.MANUAL
    np.testing.assert_array_equal(images.numpy(), np.moveaxis(scans[1].image.numpy(), axis, 0))
    assert list(numbers) == list(range(0, len(images), 8))
    expected = np.moveaxis(scans[1].classes.numpy(), axis, 0)[::8].copy()
    if view == "sagittal":
        for left, right in zip(LEFT_IDS, RIGHT_IDS):
            expected[expected == class_of_label()[right]] = class_of_label()[left]
    np.testing.assert_array_equal(classes.numpy(), expected)


def test_statistics_are_plain_averages_over_batches():
    rng = np.random.default_rng(0)
    batches = [rng.normal(mean, 1 + mean, (3, 2, 4, 5)).astype(np.float32) for mean in (0, 1, 5)]
    norm = torch.nn.BatchNorm2d(2)
    norm.running_mean.fill_(100)
    network = torch.nn.Sequential(norm)
    norm.momentum = 0.3
    train_module.reestimate_statistics(network, [(torch.from_numpy(batch), None, None) for batch in batches], "cpu")
    assert norm.momentum == 0.3
    means = np.mean([batch.mean(axis=(0, 2, 3)) for batch in batches], axis=0)
    variances = np.mean([batch.var(axis=(0, 2, 3), ddof=1) for batch in batches], axis=0)
    np.testing.assert_allclose(norm.running_mean.numpy(), means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_var.numpy(), variances, rtol=1e-4)


def distance(one, other):
    """Largest difference between the weights of two networks."""
    pairs = zip(one.state_dict().values(), other.state_dict().values())
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, scans, heads):
    whole, _ = run(tmp_path / "whole", scans, heads, peak=0.4)
    interruptions, resumed, said = 0, None, []
    for _ in range(6):
        try:
            # No time at all: one batch a call, then the checkpoint.
            resumed, said = run(tmp_path / "parts", scans, heads, minutes=0.0, peak=0.4)
            break
        except TimeUp as stop:
            interruptions += 1
            assert f"batch {interruptions} of 4" in str(stop)
            stored = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
            assert stored["step"] == interruptions
    assert interruptions == 3 and resumed is not None
    assert "Resumed at batch 3 of 4." in said
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["step"] == 4
    assert int(curve_of(tmp_path / "parts")[-1]["step"]) == 4
    # Time goes on where it ended, batch by batch.
    minutes = [float(row["minutes"]) for row in curve_of(tmp_path / "parts")]
    assert minutes == sorted(minutes)
    # The same arithmetic in the same order; the last bits may depend on how a processor's threads share it out.
    other, _ = run(tmp_path / "other", scans, heads, peak=0.4, seed=1)
    assert distance(whole, resumed) < 1e-3 * distance(whole, other)


def test_a_finished_run_is_not_trained_again(tmp_path, scans, heads):
    first, _ = run(tmp_path, scans, heads, steps=2)
    again, said = run(tmp_path, scans, heads, steps=2)
    assert "Resumed at batch 2 of 2." in said
    assert distance(first, again) < 1e-6
    assert not again.training
    assert [int(row["step"]) for row in curve_of(tmp_path)] == [2]


def test_the_learning_rate_warms_up_and_decays_to_zero(monkeypatch):
    monkeypatch.setattr(train_module, "WARM_UP", 10)
    rates = [learning_rate(step, 100, 0.5) for step in range(101)]
    np.testing.assert_allclose(rates[:5], 0.05 * np.arange(1, 6))
    assert rates[100] == 0
    assert rates[50] == pytest.approx(0.5 * 0.5**0.9)
    highest = int(np.argmax(rates))
    assert 8 <= highest <= 10 and max(rates) <= 0.5
    assert all(later < earlier for earlier, later in zip(rates[highest:], rates[highest + 1 :]))


def test_starting_from_a_plain_network_keeps_all_but_se_blocks():
    torch.manual_seed(0)
    donor = UNet(classes=3, width=6, kernel=3, depth=2)
    network = UNet(classes=3, width=6, kernel=3, depth=2, se="scse")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    new = start_from(network, donor.state_dict())
    # 4 blocks; each has weight and bias of W1, W2 and w, 6 x 3 + 3, 3 x 6 + 6 and 6 + 1 numbers.
    assert len(new) == 4 * 6
    own = network.state_dict()
    assert sum(own[name].numel() for name in new) == 4 * (21 + 24 + 7)
    assert len(own) - len(new) == len(donor.state_dict())
    for name, value in donor.state_dict().items():
        assert torch.equal(own[name], value)
        assert name not in new
    for name in new:
        assert torch.equal(own[name], before[name])
    # What has another shape starts anew, too.
    other = UNet(classes=4, width=6, kernel=3, depth=2)
    anew = start_from(other, donor.state_dict())
    assert sorted(other.state_dict()[name].shape[0] for name in anew) == [4, 4]


def test_training_from_a_plain_network(tmp_path, scans, heads):
    plain = {**CONFIGURATION, "se": "none"}
    donor, _ = run(tmp_path / "none", scans, heads, steps=1, configuration=plain)
    # A learning rate of nothing: the weights stay as they were handed over.
    network, said = run(tmp_path / "scse", scans, heads, steps=1, initial=donor.state_dict(), peak=0.0)
    # 8 blocks with 6 entries each.
    assert "New in this network: 48 entries." in said
    weights = dict(donor.named_parameters())
    assert weights
    for name, value in network.named_parameters():
        assert name not in weights or torch.equal(value, weights[name])


# The command


@pytest.fixture(scope="module")
def complete(data, tmp_path_factory):
    """The same data, but with voxels of all of the structures in its scans."""
    folder = tmp_path_factory.mktemp("complete") / "data"
    shutil.copytree(data, folder)
    for path in (folder / "malc").glob("*_structures.nii.gz"):
        image = sitk.ReadImage(str(path))
        labels = sitk.GetArrayFromImage(image)
        missing = sorted(set(class_of_label()) - set(np.unique(labels)))
        labels[tuple(np.argwhere(labels == 2)[: len(missing)].T)] = missing
        changed = sitk.GetImageFromArray(labels)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(path))
    return folder


def command_line(data, tmp_path, *more):
    common = ["--width", "4", "--steps", "3", "--workers", "0", "--device", "cpu", "--se", "sse"]
    recipe = ["--label-maps", str(data / "labelmaps"), "--validation", "1017"]
    folders = ["--run", str(tmp_path / "run"), "--models", str(tmp_path / "models")]
    return [str(data / "malc"), *recipe, *common, *folders, *more]


def test_the_command_trains_in_pieces_and_exports(complete, tmp_path, capsys):
    assert command.main(command_line(complete, tmp_path, "--minutes", "0")) == 3
    said = capsys.readouterr().out
    assert "1 to train on, 1 to validate" in said and "2 label maps" in said
    assert "run the same command to go on" in said
    # What there is is a model already; the same command replaces its own.
    path = tmp_path / "models" / "unet-sse-coronal.pt"
    first = path.read_bytes()
    assert command.main(command_line(complete, tmp_path)) == 0
    assert path.read_bytes() != first
    stored = torch.load(path, weights_only=True)
    floating = [value for value in stored["weights"].values() if value.is_floating_point()]
    assert floating and {value.dtype for value in floating} == {torch.float16}
    assert stored["configuration"]["se"] == "sse"
    assert stored["protocols"] == ["manual", "freesurfer"]
    trained = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert trained["step"] == 3
    best = trained["best"]["weights"]
    assert stored["weights"].keys() == best.keys()
    for name, value in best.items():
        torch.testing.assert_close(stored["weights"][name].to(value.dtype), value, rtol=1e-3, atol=1e-6)
    assert "unet-sse-coronal.pt" in (tmp_path / "models" / "checksums.csv").read_text(encoding="utf-8")
    # What was exported is a network of 31 structures and background again, in two protocols.
    arguments = {name: value for name, value in stored["configuration"].items() if name != "architecture"}
    network = UNet(**arguments).eval()
    network.load_state_dict(stored["weights"])
    assert network(torch.zeros(1, 1, 16, 16)).shape == (1, 64, 16, 16)


def test_the_command_starts_from_a_model_file(complete, tmp_path, capsys):
    assert command.main(command_line(complete, tmp_path, "--steps", "1", "--se", "none")) == 0
    model = tmp_path / "models" / "unet-none-coronal.pt"
    arguments = ["--steps", "1", "--se", "scse", "--start-from", str(model)]
    assert command.main(command_line(complete, tmp_path / "next", *arguments)) == 0
    # 8 blocks with weight and bias of W1, W2 and w.
    assert "New in this network: 48 entries." in capsys.readouterr().out
    assert (tmp_path / "next" / "models" / "unet-scse-coronal.pt").exists()
    assert command.main(command_line(complete, tmp_path / "other", *arguments, "--width", "6")) == 2
    assert "No weight of the network to start from fits" in capsys.readouterr().err


def test_a_run_is_not_mixed_with_another(complete, tmp_path, capsys):
    assert command.main(command_line(complete, tmp_path, "--minutes", "0")) == 3
    capsys.readouterr()
    assert command.main(command_line(complete, tmp_path, "--steps", "4")) == 2
    said = capsys.readouterr().err
    assert "other settings (steps: 3, now 4)" in said and len(said.splitlines()) == 1
    # Unfinished and its own: goes on even so; finished: starts anew.
    for resumed in (True, False):
        assert command.main(command_line(complete, tmp_path, "--overwrite")) == 0
        assert ("Resumed at batch 1 of 3." in capsys.readouterr().out) == resumed


def test_scans_that_lack_a_structure_are_refused(data, tmp_path, capsys):
    assert command.main(command_line(data, tmp_path)) == 2
    assert "No training scan has a voxel of Left Inferior Lateral Ventricle (label 5), " in capsys.readouterr().err
