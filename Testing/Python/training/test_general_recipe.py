"""``sebrainseg-train`` on other people's data: abdominal CT and retinal OCT made on the spot, and unusable data."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from phantoms import write_pairs, write_table
from SEBrainSegLib import segment
from SEBrainSegLib.choices.structures import structure_of_row
from SEBrainSegLib.networks import user_models
from SEBrainSegLib.training import deformation
from SEBrainSegLib.training import main as command
from SEBrainSegLib.training.dataset_survey import PairSurvey, hounsfield_window, split
from SEBrainSegLib.training.general_recipe import GeneralRecipe, LabelledImage
from SEBrainSegLib.training.pairs import Pair
from SEBrainSegLib.training.training import estimate

# Abdominal CT: 3D, Hounsfield units, in files of several orientations; labels beyond a byte.
ORGANS = {1: "Liver", 2: "Spleen", 30: "Left Kidney", 300: "Right Kidney"}
SIZE, SPACING = (44, 56, 72), (4.0, 3.0, 3.0)  # [S, A, R], mm
AXCODES = ("LPS", "RAS", "PIR")

# Retinal OCT: B-scans of grey values.
LAYERS = {1: "Inner Retina", 2: "Outer Retina", 3: "Pigment Epithelium", 4: "Fluid"}


def ellipsoid(centre, radii):
    """Where in a grid of SIZE an ellipsoid lies; in units of the grid's sides, from -1 to 1."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    return sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii)) < 1


def abdomen(seed):
    """A patient: intensities in Hounsfield units and labels, ``[S, A, R]``.

    Liver and spleen are of one density, and so are the kidneys: where they lie tells them apart. The spine is no
    structure and is as bright as a kidney.
    """
    rng = np.random.default_rng(seed)
    place = rng.uniform(-0.05, 0.05, (6, 3))
    girth = rng.uniform(0.9, 1.05)
    image = np.full(SIZE, -1000.0)
    image[ellipsoid((0, 0, 0), (1.6, 0.85 * girth, 0.9 * girth))] = -100
    image[ellipsoid((0, 0, 0), (1.6, 0.75 * girth, 0.8 * girth))] = 30
    labels = np.zeros(SIZE, np.uint16)
    image[ellipsoid(place[5] + (0, -0.45, 0), (1.6, 0.16, 0.13))] = 190
    for (label, centre, radii, density), shift in zip(
        (
            (1, (0.3, 0.1, 0.38), (0.5, 0.45, 0.36), 105),
            (2, (0.3, -0.1, -0.45), (0.42, 0.36, 0.26), 105),
            (30, (-0.4, -0.2, -0.36), (0.36, 0.24, 0.22), 190),
            (300, (-0.45, -0.2, 0.36), (0.36, 0.24, 0.22), 190),
        ),
        place,
    ):
        organ = ellipsoid(shift + centre, np.multiply(radii, rng.uniform(0.9, 1.1, 3)))
        image[organ], labels[organ] = density, label
    return image + rng.normal(0, 15, SIZE), labels


def write_patient(image_path, labels_path, seed, axcodes):
    for array, path, kind in zip(abdomen(seed), (image_path, labels_path), (sitk.sitkInt16, sitk.sitkUInt16)):
        volume = sitk.Cast(sitk.GetImageFromArray(array), kind)
        volume.SetSpacing(SPACING[::-1])
        volume.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        sitk.WriteImage(sitk.DICOMOrient(volume, axcodes), str(path))


def b_scan(seed):
    """A retina: grey values and labels, ``(rows, columns)``. The fluid is as dark as the vitreous above the retina."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.arange(80), np.arange(112), indexing="ij")
    top = 18 + rng.uniform(-4, 4) + rng.uniform(2, 5) * np.sin(columns / rng.uniform(18, 30) + rng.uniform(0, 6))
    borders = top + np.cumsum([[0], [14 + rng.uniform(-2, 2)], [16 + rng.uniform(-2, 2)], [11]], axis=0)[:, :, None]
    labels = sum((rows >= border).astype(np.uint8) for border in borders)
    labels[labels == 4] = 0
    image = np.array([25.0, 150, 90, 220])[labels]
    image[rows >= borders[-1]] = 60
    middle = rng.uniform(30, 80)
    centre = np.mean([borders[1][0, int(middle)], borders[2][0, int(middle)]])
    fluid = ((rows - centre) / 6) ** 2 + ((columns - middle) / rng.uniform(12, 17)) ** 2 < 1
    image[fluid], labels[fluid] = 25, 4
    return np.clip(image * rng.gamma(12, 1 / 12, image.shape), 0, 255).astype(np.uint8), labels


def dice_by_label(found, truth, labels):
    return [2 * ((found == n) & (truth == n)).sum() / ((found == n).sum() + (truth == n).sum()) for n in labels]


@pytest.fixture(autouse=True)
def folder_of_models(tmp_path, monkeypatch):
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def trained(capsys, *arguments, steps=120):
    """Run the command and return what it said."""
    common = ["--width", "16", "--steps", str(steps), "--learning-rate", "8e-3", "--workers", "0", "--device", "cpu"]
    assert command.main([*map(str, arguments), *common]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_abdominal_ct_reaches_dice_of_0_9_on_unseen_patients(tmp_path, capsys):
    data = tmp_path / "ct"
    data.mkdir()
    for number in range(8):
        names = (data / f"p{number}_{kind}.nii.gz" for kind in ("image", "labels"))
        write_patient(*names, number, AXCODES[number % 3])
    table = write_table(tmp_path / "organs.csv", ORGANS)
    said = trained(capsys, data, "--structures", table, "--view", "axial", "--se", "scse", "--output", "abdomen")
    assert "8 volumes with labels" in said and "6 to train on, 2 to validate" in said
    assert user_models.names() == ("abdomen",)
    # Organs of 105 to 190 HU with noise of 15: their window leaves the air out.
    low, high = user_models.load("abdomen").window
    assert -300 < low < 60 and 230 < high < 500
    for seed, axcodes in ((100, "RAS"), (101, "LPS"), (102, "PIR")):
        write_patient(tmp_path / "new.nrrd", tmp_path / "truth.nrrd", seed, axcodes)
        image, truth = (sitk.ReadImage(str(tmp_path / name)) for name in ("new.nrrd", "truth.nrrd"))
        found = segment(image, model="abdomen", device="cpu")
        assert found.labels.GetPixelID() == sitk.sitkUInt16
        dice = dice_by_label(*(sitk.GetArrayFromImage(each) for each in (found.labels, truth)), ORGANS)
        assert np.mean(dice) > 0.9, dice
        voxels = (sitk.GetArrayFromImage(found.labels) == 300).sum()
        assert found.volumes[300] == pytest.approx(voxels * np.prod(SPACING) / 1000)


def test_retinal_oct_reaches_dice_of_0_9_on_unseen_scans(tmp_path, capsys):
    data = tmp_path / "oct"
    for name in ("images", "labels"):
        (data / name).mkdir(parents=True)
    for number in range(10):
        image, labels = b_scan(number)
        labels[:, :6] = 255  # not drawn to the border
        sitk.WriteImage(sitk.GetImageFromArray(image), str(data / "images" / f"eye{number:02}.png"))
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(data / "labels" / f"eye{number:02}.png"))
    table = write_table(tmp_path / "layers.csv", LAYERS)
    held_out = ("--validation", "eye03", "eye07")
    said = trained(
        capsys,
        data,
        "--structures",
        table,
        "--se",
        "cse",
        "--loss",
        "both",
        "--output",
        "retina",
        *held_out,
        steps=40,
    )
    assert "10 2D images with labels" in said and "Validation: eye03, eye07." in said and "255  ignored" in said
    images, truths = zip(*(b_scan(seed) for seed in range(100, 104)))
    found = [segment(sitk.GetImageFromArray(image), model="retina", device="cpu").labels for image in images]
    assert {each.GetDimension() for each in found} == {2}
    found = np.stack([sitk.GetArrayFromImage(each) for each in found])
    dice = dice_by_label(found, np.stack(truths), LAYERS)
    assert np.mean(dice) > 0.9, dice
    # A stack of B-scans is segmented scan by scan.
    stack = segment(sitk.GetImageFromArray(np.stack(images)), model="retina", device="cpu")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(stack.labels), found)


# What is found in the data


def small_pairs(folder, count=3):
    """Volumes of noise with a box of label 1 and a box of label 2."""
    rng = np.random.default_rng(0)
    labels = np.zeros((20, 24, 28), np.uint8)
    labels[4:12, 4:12, 4:12], labels[12:18, 12:20, 12:24] = 1, 2
    images = [(40 * labels + rng.normal(100, 5, labels.shape)).astype(np.float32) for _ in range(count)]
    return write_pairs(folder, images, [labels] * count)


def command_line(folder, *more, names=None):
    table = write_table(folder.parent / "table.csv", names or {1: "One", 2: "Two"})
    quick = ["--width", "2", "--steps", "1", "--workers", "0", "--device", "cpu", "--output", "quick"]
    return [str(folder), "--structures", str(table), *quick, *more]


def refusal(capsys, arguments):
    """The one sentence that a command is refused with."""
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("sebrainseg-train: ") and said.count("\n") == 1 and said.endswith(".\n"), said
    assert user_models.names() == ()
    return said


def test_scans_labels_frequencies_and_the_ignored_label_are_shown(tmp_path, capsys):
    folder = small_pairs(tmp_path / "data", 5)
    path = folder / "s1_labels.nii.gz"
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    labels[0] = 255
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(path))
    assert command.main(command_line(folder, "--validation", "s4")) == 0
    said = capsys.readouterr().out
    assert "5 volumes with labels, 28 x 24 x 20: 4 to train on, 1 to validate." in said
    # 4 scans of 13440 voxels: boxes of 8 x 8 x 8 and 6 x 8 x 12, a plane of 24 x 28 ignored once.
    rows = [line.split() for line in said.splitlines()]
    assert ["1", "One", "2,048", "3.8095%", "4"] in rows
    assert ["2", "Two", "2,304", "4.2857%", "4"] in rows
    assert ["255", "ignored", "672", "1.2500%", "1"] in rows
    assert ["0", "background", "48,736", "90.6548%", "4"] in rows


def test_time_is_estimated():
    assert estimate(2.0, 100, 3600) == "About 3 min for 100 batches at 2 s each."
    assert estimate(2.0, 100, 60).endswith("; the time left is enough for some 30 of them.")


@pytest.mark.parametrize("change", ["size", "spacing", "origin"])
def test_grids_that_differ_are_refused(tmp_path, capsys, change):
    folder = small_pairs(tmp_path / "data")
    path = str(folder / "s2_labels.nii.gz")
    labels = sitk.ReadImage(path)
    if change == "size":
        labels = labels[:-1]
    elif change == "spacing":
        labels.SetSpacing((1.0, 1.0, 1.2))
    else:
        labels.SetOrigin((0.0, 3.0, 0.0))
    sitk.WriteImage(labels, path)
    said = refusal(capsys, command_line(folder))
    assert "s2_image.nii.gz" in said and "differ" in said


def test_unusable_labels_are_refused(tmp_path, capsys):
    folder = small_pairs(tmp_path / "data")
    said = refusal(capsys, command_line(folder, names={1: "One"}))
    assert "s0_labels.nii.gz has label 2 (576 voxels), which is not in the table" in said
    said = refusal(capsys, command_line(folder, names={1: "One", 2: "Two", 7: "Seven"}))
    assert "No training scan has a voxel of Seven (label 7)" in said
    said = refusal(capsys, command_line(folder, "--ignore", "2"))
    assert "Label 2 is in the table" in said
    path = str(folder / "s1_labels.nii.gz")
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(path), sitk.sitkFloat32) * 0.5, path)
    assert "s1_labels.nii.gz is no label map" in refusal(capsys, command_line(folder))


def test_a_label_can_be_left_out(tmp_path):
    folder = small_pairs(tmp_path / "data")
    assert command.main(command_line(folder, "--ignore", "2", names={1: "One"})) == 0
    assert [each.label for each in user_models.load("quick").structures] == [1]


def test_unusable_folders_are_refused(tmp_path, capsys):
    folder = small_pairs(tmp_path / "data")
    assert "is no folder" in refusal(capsys, command_line(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "no images to train on" in refusal(capsys, command_line(tmp_path / "empty"))
    assert "There is no scan 'x'" in refusal(capsys, command_line(folder, "--validation", "x"))
    assert "none for training" in refusal(capsys, command_line(folder, "--validation", "3"))
    (folder / "s1_labels.nii.gz").unlink()
    assert "s1_image.nii.gz has no label map" in refusal(capsys, command_line(folder))
    (folder / "s1_labels.nii.gz").write_text("no image")
    assert "s1_labels.nii.gz is not an image" in refusal(capsys, command_line(folder))


def test_a_mixture_of_2d_and_3d_is_refused(tmp_path, capsys):
    folder = small_pairs(tmp_path / "data")
    for kind in ("image", "labels"):
        volume = sitk.ReadImage(str(folder / f"s0_{kind}.nii.gz"))
        sitk.WriteImage(volume[:, :, 8], str(folder / f"flat_{kind}.nii.gz"))
    assert "flat_image.nii.gz is 2D and" in refusal(capsys, command_line(folder))


def test_a_constant_or_coloured_image_is_refused(tmp_path, capsys):
    folder = small_pairs(tmp_path / "data")
    path = str(folder / "s0_image.nii.gz")
    sitk.WriteImage(sitk.ReadImage(path) * 0, path)
    assert "s0_image.nii.gz have the same value" in refusal(capsys, command_line(folder))
    volume = sitk.ReadImage(path)
    sitk.WriteImage(sitk.Compose(volume, volume, volume), path)
    assert "several values per voxel" in refusal(capsys, command_line(folder))


def test_a_model_that_exists_is_not_replaced(tmp_path, capsys):
    folder = small_pairs(tmp_path / "data")
    assert command.main(command_line(folder)) == 0
    path = user_models.path_of("quick")
    path.write_bytes(b"another's")
    assert command.main(command_line(folder)) == 2
    assert "exists; choose another --output" in capsys.readouterr().err
    assert path.read_bytes() == b"another's"
    assert command.main(command_line(folder, "--overwrite")) == 0
    assert path.read_bytes() != b"another's"


def test_what_a_model_knows_of_its_data_goes_with_it(tmp_path):
    folder = small_pairs(tmp_path / "data")
    for path in folder.glob("*.nii.gz"):
        image = sitk.ReadImage(str(path))
        image.SetSpacing((0.5, 0.7, 2.0))
        sitk.WriteImage(image, str(path))
    assert command.main(command_line(folder, "--view", "axial", "--window", "50", "150")) == 0
    model = user_models.load("quick")
    assert (model.view, model.spacing, model.window) == ("axial", (2.0, 0.5, 0.5), (50.0, 150.0))
    assert [(each.label, each.name) for each in model.structures] == [(1, "One"), (2, "Two")]
    with pytest.raises(SystemExit):
        command.main(command_line(folder, "--window", "50"))


# Intensities, classes, validation


def facts(name, labels, lowest=0.0, intensities=(0.0,)):
    return PairSurvey(Pair(name, None, None), (9, 9, 9), (1.0, 1.0, 1.0), dict.fromkeys(labels, 5), lowest, intensities)


def test_hounsfield_units_are_recognised_by_the_air_in_every_scan():
    organ = np.linspace(0, 200, 1001)
    # 0.5 % at either end off, then half of that span added at both: 1 - 99 and 199 + 99.
    assert hounsfield_window([facts("a", [1], -1000, organ)] * 2) == (-98, 298)
    # Magnetic resonance, or one scan cropped to the body: no telling.
    assert hounsfield_window([facts("a", [1], -1000, organ), facts("b", [1], 0, organ)]) is None
    # Labels of a single density still have surroundings.
    assert hounsfield_window([facts("a", [1], -1000, [40.0, 40.0])]) == (-10, 90)


def test_validation_is_drawn_by_the_seed_and_leaves_a_scan_of_every_structure():
    scans = [facts(f"s{number}", [0, 1, 2] if number == 3 else [0, 1]) for number in range(10)]
    drawn = []
    for seed in range(20):
        training, validation = split(scans, None, seed)
        assert len(validation) == 2 and len(training) == 8
        assert "s3" in {each.pair.name for each in training}
        assert split(scans, None, seed) == (training, validation)
        drawn.append(tuple(each.pair.name for each in validation))
    assert len(set(drawn)) > 5
    assert [each.pair.name for each in split(scans, ["s3", "s1"], 0)[1]] == ["s1", "s3"]
    assert len(split(scans, ["4"], 0)[1]) == 4 and split(scans, ["0"], 0)[1] == []
    # A number that is a scan's name is that scan.
    assert [each.pair.name for each in split([facts("1017", [1]), facts("2", [1])], ["2"], 0)[1]] == ["2"]


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """A recipe whose only structure is one voxel thick in 30 planes; planes are 2 mm apart, pixels 1 mm."""
    folder = tmp_path_factory.mktemp("boxes")
    labels = np.zeros((30, 40, 48), np.uint8)
    labels[20] = 1
    image = np.random.default_rng(0).normal(100, 9, labels.shape).astype(np.float32)
    for kind, array in (("image", image), ("labels", labels)):
        volume = sitk.GetImageFromArray(array)
        volume.SetSpacing((1.0, 1.0, 2.0))
        volume.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        sitk.WriteImage(volume, str(folder / f"a_{kind}.nrrd"))
    pair = Pair("a", folder / "a_image.nrrd", folder / "a_labels.nrrd")
    table = (structure_of_row({"LabelValue": "1", "Name": "Sheet"}, 0),)
    scan = LabelledImage(pair, table, (2.0, 1.0, 1.0), None, None)
    np.testing.assert_array_equal(scan.classes.numpy(), labels)
    return GeneralRecipe([scan], [scan], "axial", table, (2.0, 1.0, 1.0), None)


def test_slices_go_where_the_structures_are(boxes):
    drawn = [boxes.sample(np.random.default_rng(seed), (32, 32), True) for seed in range(40)]
    # One of 30 planes has it, and deformed slices cut it: chance alone would meet it in far fewer.
    assert sum(bool((classes == 1).any()) for _, classes, _ in drawn) > 28
    for image, classes, protocol in drawn:
        assert image.shape == (1, 32, 32) and classes.shape == (32, 32) and protocol == 0
        assert torch.isfinite(image).all() and set(classes.unique().tolist()) <= {0, 1, 255}


def test_what_is_outside_of_the_scan_counts_nowhere(boxes):
    image, classes, _ = boxes.sample(np.random.default_rng(0), (96, 96), False)
    assert (classes[:4] == 255).all() and (classes[-4:] == 255).all() and (classes != 255).sum() > 500


def test_planes_further_apart_than_pixels_are_not_flattened(boxes, monkeypatch):
    # Turned by 30 degrees about the first in-plane axis, a slice rises by sin(30) a pixel: half of that in planes.
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]], np.float32)
    monkeypatch.setattr(deformation, "random_affine", lambda rng: turn)
    monkeypatch.setattr(deformation, "smooth_noise", lambda rng, n, shape, cells: torch.zeros(n, *shape))
    positions = deformation.slice_positions(
        np.random.default_rng(0), "axial", (5, 9), (15, 20, 24), 0, False, stretch=boxes.stretch
    )
    positions = positions[:, 0]
    np.testing.assert_allclose(positions[0, :, -1] - positions[0, :, 0], 8 * np.sin(angle) / 2, rtol=1e-5)
    np.testing.assert_allclose(positions[2, :, -1] - positions[2, :, 0], 8 * np.cos(angle), rtol=1e-5)
    np.testing.assert_allclose(positions[1, -1] - positions[1, 0], 4, rtol=1e-5)


def named(*names):
    return tuple(
        structure_of_row({"LabelValue": str(label), "Name": name}, label) for label, name in enumerate(names, start=1)
    )


def test_only_symmetric_anatomy_is_mirrored(boxes):
    def mirrors(*names, view="axial", spacing=(2.0, 1.0, 1.0)):
        return GeneralRecipe(boxes.scans, [], view, named(*names), spacing, None).mirror is not None

    assert mirrors("Left Lung", "Right Lung", "Trachea")
    assert not mirrors("Left Lung", "Right Lung", "Trachea", view="sagittal")
    assert not mirrors("Left Kidney", "Right Kidney", "Liver", "Spleen")
    assert not mirrors("Left Atrium", "Aorta")
    assert not mirrors("Left Lung", "Right Lung", spacing=None)


def test_more_structures_than_a_byte_can_count(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.permutation(32 * 32).reshape(32, 32).astype(np.uint16) % 401
    labels[0, 0] = 65535
    image = rng.normal(100, 9, labels.shape).astype(np.float32)
    folder = write_pairs(tmp_path / "data", [image, image], [labels, labels], ".mha")
    names = {label: f"Region {label}" for label in range(1, 401)}
    arguments = command_line(folder, "--validation", "0", "--ignore", "65535", "--loss", "both", names=names)
    assert command.main(arguments) == 0
    found = segment(sitk.GetImageFromArray(image), model="quick", device="cpu")
    assert len(found.structures) == 400 and found.labels.GetPixelID() == sitk.sitkUInt16
    scan = LabelledImage(
        Pair("s0", folder / "s0_image.mha", folder / "s0_labels.mha"), found.structures, None, None, 65535
    )
    classes = scan.classes.numpy()[0]
    assert classes[0, 0] > 400
    # Class n is label n here; 255 is a class as any other.
    np.testing.assert_array_equal(classes.ravel()[1:], labels.ravel()[1:])
