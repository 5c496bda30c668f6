"""The command line, its files, and what it says when something is wrong."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from phantoms import ByIntensity, centred, dicom_series, model, phantom, rotation, value_at_ras
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.choices.structures import Code, Structure, structures
from SEBrainSegLib.commandline import dask_cluster
from SEBrainSegLib.commandline import main as command_line
from SEBrainSegLib.files import picture, results
from SEBrainSegLib.files.reading import read
from SEBrainSegLib.inference import plausibility
from SEBrainSegLib.networks import bundled, user_models
from SEBrainSegLib.networks.model_file import Model

SUFFIX = "_unet-scse-coronal"
SIZE = (80, 96, 76)


LEFT, RIGHT, TISSUE = (Code("SCT", *term) for term in (("7771000", "Left"), ("24028007", "Right"), ("1", "Tissue")))
KIDNEYS = (
    Structure(300, "Left Kidney", (250, 10, 10), TISSUE, TISSUE, LEFT),
    Structure(7, "Right Kidney", (10, 10, 250), TISSUE, TISSUE, RIGHT),
)


class Kidneys(torch.nn.Module):
    """Stand-in for a user-trained network: the right kidney is bright, the left one brighter."""

    slices = 1

    def forward(self, x):
        classes = (x > 0.4).long() * 2 - (x > 0.8).long()
        return torch.nn.functional.one_hot(classes[:, 0], 3).movedim(-1, 1).float()


@pytest.fixture(autouse=True)
def network(monkeypatch, any_result):
    """A bundled network of every view; returns the protocols that were asked for."""
    protocols = []

    def load(architecture, se, view, protocol):
        protocols.append(protocol)
        return model(ByIntensity(), view)

    monkeypatch.setattr(bundled, "load", load)
    views = ("coronal", "axial", "sagittal")
    names = ["unet-none-coronal", *(f"unet-scse-{view}" for view in views), "densenet-cse-coronal"]
    monkeypatch.setattr(bundled, "names", lambda: names)
    return protocols


@pytest.fixture
def kidneys(monkeypatch, tmp_path):
    """A user-trained model of the name "my kidneys"; returns what makes it one of volumes or of 2D images."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "my kidneys.pt").touch()
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(folder))

    def of_spacing(spacing):
        made = Model(Kidneys(), "axial", KIDNEYS, spacing, (0.0, 1000.0))
        monkeypatch.setattr(user_models, "load", lambda *_: made)

    return of_spacing


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "a scan, größer.nii.gz"
    sitk.WriteImage(phantom(centred(rotation(10, (1, 1, 0)), SIZE), SIZE), str(path))
    return path


def test_one_scan_leaves_four_files_on_its_own_grid(scan, tmp_path, capsys):
    assert command_line.main([str(scan), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    name = f"a scan, größer{SUFFIX}"
    assert sorted(os.listdir(tmp_path / "out")) == sorted(name + ending for ending in results.ENDINGS)
    image, labels = sitk.ReadImage(str(scan)), sitk.ReadImage(str(tmp_path / "out" / f"{name}.nii.gz"))
    assert labels.GetSize() == image.GetSize()
    np.testing.assert_allclose(labels.GetOrigin(), image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(labels.GetDirection(), image.GetDirection(), atol=1e-5)
    assert value_at_ras(labels, (-14, 0, 8)) == 2 and value_at_ras(labels, (20, -20, 5)) == 41
    shown = capsys.readouterr()
    assert "Segmenting coronal slices" in shown.err and ".seg.nrrd" in shown.out


def test_volumes_table_has_left_and_right(scan, tmp_path):
    command_line.main([str(scan), "--device", "cpu"])
    with open(tmp_path / f"a scan, größer{SUFFIX}.csv", newline="", encoding="utf-8") as file:
        rows = {row["structure"]: row for row in csv.DictReader(file)}
    assert len(rows) == 17
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"a scan, größer{SUFFIX}.nii.gz")))
    white = rows["Cerebral White Matter"]
    assert float(white["left_ml"]) == pytest.approx((labels == 2).sum() / 1000, abs=0.01)
    assert float(white["right_ml"]) == pytest.approx((labels == 41).sum() / 1000, abs=0.01)
    assert rows["Brain Stem"]["left_ml"] == "" and float(rows["Brain Stem"]["total_ml"]) > 1


UPSIDE_DOWN = "The cerebellum lies above the thalamus."


@pytest.fixture
def unlikely(monkeypatch):
    monkeypatch.setattr(plausibility, "why_unlikely", lambda *_: UPSIDE_DOWN)


def test_an_unlikely_result_is_refused_and_written_if_it_is_accepted(scan, tmp_path, unlikely, capsys):
    arguments = [str(scan), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert command_line.main(arguments) == 1
    said = capsys.readouterr().err
    assert f"{UPSIDE_DOWN} To see the result all the same, add --accept-unlikely." in said
    assert os.listdir(tmp_path / "out") == []
    assert command_line.main([*arguments, "--accept-unlikely"]) == 0
    assert f"Whole brain: unlikely to be right: {UPSIDE_DOWN}" in capsys.readouterr().out
    with open(tmp_path / "out" / f"a scan, größer{SUFFIX}.csv", newline="", encoding="utf-8") as file:
        whole, *rows = csv.DictReader(file)
    assert whole["structure"] == "Whole brain" and UPSIDE_DOWN in whole["remark"]
    assert float(whole["total_ml"]) == pytest.approx(sum(float(row["total_ml"]) for row in rows), abs=0.02)


def test_remarks_stand_in_the_summary_and_the_picture(scan, tmp_path, unlikely, monkeypatch):
    scan.with_name("b.nii.gz").write_bytes(scan.read_bytes())
    monkeypatch.setattr(plausibility, "cut_off", lambda *_: (2, 16))
    arguments = [str(tmp_path / "*.nii.gz"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert command_line.main([*arguments, "--accept-unlikely"]) == 0
    (tmp_path / "out" / "sebrainseg.csv").unlink()
    # Another run only reads them, from the tables that are there.
    assert command_line.main(arguments) == 0
    with open(tmp_path / "out" / "sebrainseg.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert UPSIDE_DOWN in row["remarks"] and "Brain Stem: cut off by the edge of the scan" in row["remarks"]
            assert "Cerebral White Matter: left: cut off by the edge of the scan" in row["remarks"]
            # Of all structures together there is no volume among the others.
            assert not any(column.startswith("Whole") for column in row)
    with open(tmp_path / "out" / f"b{SUFFIX}.csv", newline="", encoding="utf-8") as file:
        cut = {row["structure"]: row["cut_off"] for row in csv.DictReader(file)}
    assert (cut["Cerebral White Matter"], cut["Brain Stem"], cut["Thalamus"]) == ("left", "yes", "")
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"b{SUFFIX}.png"))).astype(int)
    yellow = np.argwhere((pixels == picture.YELLOW).all(axis=-1))
    labels = sitk.ReadImage(str(tmp_path / "out" / f"b{SUFFIX}.nii.gz"))
    plain = picture.picture(sitk.ReadImage(str(scan)), labels, structures())
    np.testing.assert_array_equal(pixels[: plain.shape[0]], plain)
    assert len(yellow) > 1000 and yellow[:, 0].min() >= plain.shape[0]


def test_what_was_found_is_counted(scan, tmp_path, capsys):
    """The stand-in finds four structures."""
    assert command_line.main([str(scan), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "ml in 4 of 31 structures" in capsys.readouterr().out


def test_a_bids_app_writes_an_unlikely_result_with_its_reason(scan, tmp_path, unlikely, capsys):
    image = tmp_path / "study" / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    image.parent.mkdir(parents=True)
    image.write_bytes(scan.read_bytes())
    (tmp_path / "study" / "dataset_description.json").write_text('{"Name": "a study"}')
    arguments = [str(tmp_path / "study"), str(tmp_path / "out"), "participant", "--device", "cpu"]
    assert command_line.main(arguments) == 1 and UPSIDE_DOWN in capsys.readouterr().err
    assert command_line.main([*arguments, "--accept-unlikely"]) == 0
    made = tmp_path / "out" / "sub-01" / "anat"
    assert UPSIDE_DOWN in (made / "sub-01_desc-sebrainseg_dseg.json").read_text(encoding="utf-8")
    assert UPSIDE_DOWN in (made / "sub-01_desc-sebrainseg_volumes.tsv").read_text(encoding="utf-8")


@pytest.mark.parametrize("options", [["--jobs", "2"], ["--dask", "tcp://here:1"]])
def test_other_processes_and_machines_accept_what_is_unlikely(scan, tmp_path, monkeypatch, options):
    asked = []

    def engine(scans, work, **_):
        asked.append(work.accept_unlikely)
        scans.clear()
        return (each for each in ())

    monkeypatch.setattr(command_line, "in_processes", engine)
    monkeypatch.setattr(dask_cluster, "on_cluster", engine)
    scan.with_name("b.nii.gz").write_bytes(scan.read_bytes())
    for more in ([], ["--accept-unlikely"]):
        command_line.main([str(tmp_path / "*.nii.gz"), "-o", str(tmp_path / "out"), *options, *more])
    assert asked == [False, True]


def test_results_that_exist_are_kept_unless_told(scan, tmp_path, capsys):
    kept = tmp_path / f"a scan, größer{SUFFIX}.csv"
    kept.write_text("mine")
    assert command_line.main([str(scan), "--device", "cpu"]) == 1
    assert kept.read_text() == "mine" and "--overwrite" in capsys.readouterr().err
    assert not (tmp_path / f"a scan, größer{SUFFIX}.png").exists()
    assert command_line.main([str(scan), "--device", "cpu", "--overwrite"]) == 0
    assert "structure" in kept.read_text()


def test_one_bad_file_does_not_stop_the_others(scan, tmp_path, capsys):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(scan.read_bytes()[:2000])
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    inputs = [str(tmp_path / "missing.nii"), str(broken), str(text), str(scan)]
    assert command_line.main([*inputs, "-o", str(tmp_path / "out"), "--device", "cpu"]) == 1
    errors = capsys.readouterr().err
    assert "3 of 4 inputs were not segmented" in errors and "Traceback" not in errors
    assert "missing.nii does not exist" in errors
    made = [f"a scan, größer{SUFFIX}{ending}" for ending in results.ENDINGS]
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*made, "sebrainseg.csv"])


def test_an_unexpected_failure_does_not_stop_the_others(scan, tmp_path, monkeypatch, capsys):
    twin = tmp_path / "second.nii.gz"
    twin.write_bytes(scan.read_bytes())
    calls = []

    class FailsOnce(ByIntensity):
        def forward(self, x):
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("can't allocate memory")
            return super().forward(x)

    network = FailsOnce()
    monkeypatch.setattr(bundled, "load", lambda *_: model(network))
    assert command_line.main([str(scan), str(twin), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 1
    errors = capsys.readouterr().err
    assert "can't allocate memory" in errors and "Traceback" not in errors
    assert (tmp_path / "out" / f"second{SUFFIX}.csv").exists()


def test_a_broken_input_does_not_reserve_its_name(scan, tmp_path):
    broken = tmp_path / "bad" / scan.name
    broken.parent.mkdir()
    broken.write_bytes(b"nothing")
    assert command_line.main([str(broken), str(scan), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 1
    assert (tmp_path / "out" / f"a scan, größer{SUFFIX}.csv").exists()


def test_a_linked_scan_gets_its_results_beside_the_link(scan, tmp_path):
    link = tmp_path / "subject" / "sub-01_T1w.nii.gz"
    link.parent.mkdir()
    link.symlink_to(scan)
    assert command_line.main([str(link), "--device", "cpu"]) == 0
    assert (link.parent / f"sub-01_T1w{SUFFIX}.csv").exists()


def test_a_folder_that_cannot_be_made_is_told_before_segmenting(scan, tmp_path, network, capsys):
    (tmp_path / "file").write_text("in the way")
    assert command_line.main([str(scan), "-o", str(tmp_path / "file" / "out"), "--device", "cpu"]) == 1
    shown = capsys.readouterr().err
    assert "choose another with -o" in shown and "Segmenting" not in shown


def test_two_inputs_of_one_name_do_not_replace_each_other(scan, tmp_path, capsys):
    twin = tmp_path / "other" / scan.name
    twin.parent.mkdir()
    twin.write_bytes(scan.read_bytes())
    arguments = [str(scan), str(twin), "-o", str(tmp_path / "out"), "--device", "cpu", "--overwrite"]
    assert command_line.main(arguments) == 1
    assert "would replace those of" in capsys.readouterr().err


def test_a_wrong_choice_is_one_sentence(scan, capsys):
    assert command_line.main([str(scan), "--se", "more"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "scse" in error


@pytest.mark.parametrize(
    "options, words",
    [
        (["--architecture", "densenet", "--view", "axial"], ["No DenseNet scSE is bundled", "U-Net scSE"]),
        (["--architecture", "vnet"], ["unet, sdnet or densenet"]),
        (["--protocol", "mine"], ["freesurfer or manual"]),
        (["--model", "livers"], ["no trained model 'livers'", "my kidneys"]),
        (["--model", "my kidneys", "--se", "cse", "--view", "axial"], ["leave out --se or --view", "--model"]),
    ],
)
def test_a_network_that_cannot_be_had_is_one_sentence(scan, kidneys, capsys, options, words):
    assert command_line.main([str(scan), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error


def test_all_views_and_another_protocol_have_results_of_their_own(scan, tmp_path, network, capsys):
    assert command_line.main([str(scan), "--view", "all", "--protocol", "manual", "--device", "cpu"]) == 0
    assert (tmp_path / "a scan, größer_unet-scse-all-manual.csv").exists()
    assert network == ["manual"] * 3
    assert command_line.main([str(scan), "--device", "cpu"]) == 0
    assert network == ["manual"] * 3 + ["freesurfer"]


def test_the_list_is_of_what_can_be_typed(kidneys, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--list"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        "--architecture unet --se none --view coronal",
        "--architecture unet --se scse --view coronal",
        "--architecture unet --se scse --view axial",
        "--architecture unet --se scse --view sagittal",
        "--architecture unet --se scse --view all",
        "--architecture densenet --se cse --view coronal",
        "--model 'my kidneys'",
    ]


def colours_of(path):
    """How many pixels of a picture are reddish and how many blueish."""
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(int)
    difference = pixels[..., 0] - pixels[..., 2]
    return (difference > 60).sum(), (difference < -60).sum()


def test_a_user_trained_model_gives_its_own_structures(scan, tmp_path, kidneys, capsys):
    kidneys((1.5, 1.5, 1.5))
    assert command_line.main([str(scan), "--model", "my kidneys", "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "in 2 structures" in capsys.readouterr().out
    result = str(tmp_path / "out" / "a scan, größer_my kidneys")
    labels = sitk.ReadImage(f"{result}.nii.gz")
    assert labels.GetSize() == SIZE
    # The phantom's left half is 1000 and its right half 750.
    assert value_at_ras(labels, (-14, 0, 8)) == 300 and value_at_ras(labels, (20, -20, 5)) == 7
    with open(f"{result}.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    array = sitk.GetArrayFromImage(labels)
    assert row["structure"] == "Kidney"
    assert float(row["left_ml"]) == pytest.approx((array == 300).sum() / 1000, abs=0.001)
    assert float(row["right_ml"]) == pytest.approx((array == 7).sum() / 1000, abs=0.001)
    segmentation = sitk.ReadImage(f"{result}.seg.nrrd")
    assert segmentation.GetMetaData("Segment0_Name") == "Left Kidney"
    assert segmentation.GetMetaData("Segment0_LabelValue") == "300"
    assert not segmentation.HasMetaDataKey("Segment2_Name")
    assert min(colours_of(f"{result}.png")) > 500


@pytest.mark.parametrize("ending", [".png", ".nii.gz"])
def test_a_2d_image_leaves_labels_a_picture_and_one_slice_for_slicer(tmp_path, kidneys, ending):
    slicer = pytest.importorskip("slicer")
    from vtk.util.numpy_support import vtk_to_numpy

    kidneys(None)
    array = np.zeros((40, 60), np.uint16)
    array[5:15, 10:30], array[25:35, 30:55] = 1000, 700
    image = sitk.GetImageFromArray(array)
    if ending == ".nii.gz":  # a volume of one slice, as Slicer holds a 2D image
        image = sitk.JoinSeries(image)
        image.SetSpacing((0.5, 0.5, 3.0))
    path = tmp_path / f"x-ray{ending}"
    sitk.WriteImage(image, str(path))
    assert command_line.main([str(path), "--model", "my kidneys", "--device", "cpu"]) == 0
    result = str(tmp_path / "x-ray_my kidneys")
    expected = np.where(array == 1000, 300, np.where(array == 700, 7, 0))
    labels = sitk.ReadImage(f"{result}.nii.gz")
    assert labels.GetSpacing()[:2] == pytest.approx(image.GetSpacing()[:2])
    np.testing.assert_array_equal(np.squeeze(sitk.GetArrayFromImage(labels)), expected)
    picture_size = sitk.ReadImage(f"{result}.png").GetSize()
    assert picture_size[0] < 3 * 60 and picture_size[1] > 2 * 40
    assert min(colours_of(f"{result}.png")) > 500
    scene = slicer.vtkMRMLScene()
    node, storage = scene.AddNewNodeByClass("vtkMRMLSegmentationNode"), slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(f"{result}.seg.nrrd")
    assert storage.ReadData(node)
    read_back = slicer.vtkOrientedImageData()
    assert node.GetBinaryLabelmapRepresentation("Left-Kidney", read_back)
    assert vtk_to_numpy(read_back.GetPointData().GetScalars()).sum() == 10 * 20
    assert node.GetSegmentation().GetSegment("Right-Kidney").GetLabelValue() == 7


def test_a_full_disk_leaves_nothing_half_written(scan, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(picture, "write", full)
    assert command_line.main([str(scan), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == []


def test_segmentation_file_names_and_codes_every_structure(scan, tmp_path):
    command_line.main([str(scan), "--device", "cpu"])
    image = sitk.ReadImage(str(tmp_path / f"a scan, größer{SUFFIX}.seg.nrrd"))
    names = [image.GetMetaData(f"Segment{index}_Name") for index in range(31)]
    assert names == [structure.name for structure in structures()]
    index = names.index("Right Thalamus")
    assert image.GetMetaData(f"Segment{index}_LabelValue") == "49"
    assert "SCT^42695009^Thalamus~SCT^24028007^Right" in image.GetMetaData(f"Segment{index}_Tags")


def test_slicers_own_reader_opens_the_segmentation_file(scan, tmp_path):
    slicer = pytest.importorskip("slicer")
    command_line.main([str(scan), "--device", "cpu"])
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(tmp_path / f"a scan, größer{SUFFIX}.seg.nrrd"))
    assert storage.ReadData(node)
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 31
    segment = segmentation.GetSegment("Right-Thalamus")
    assert segment.GetName() == "Right Thalamus" and segment.GetLabelValue() == 49
    assert segment.GetColor() == pytest.approx((0, 118 / 255, 14 / 255), abs=1e-3)
    geometry = segmentation.GetConversionParameter("Reference image geometry")
    values = [float(value) for value in geometry.split(";") if value]
    expected = centred(rotation(10, (1, 1, 0)), SIZE)
    np.testing.assert_allclose(values[:16], expected.ravel(), atol=1e-3)
    assert values[16:] == [0, 79, 0, 95, 0, 75]


def test_the_picture_shows_left_on_the_right_and_the_face_on_the_left_as_slicer_does():
    image = phantom(centred(np.eye(3), SIZE), SIZE)
    labels = np.zeros(SIZE, np.uint8)
    labels[:40, 48:], labels[:40, :48], labels[40:, 48:], labels[40:, :48] = 2, 3, 41, 42
    array = sitk.GetArrayFromImage(image)
    marked = sitk.GetImageFromArray(np.where(array > 0, labels.transpose(2, 1, 0), 0))
    marked.CopyInformation(image)

    def column(panel, *wanted):
        return np.argwhere(np.isin(panel, wanted))[:, 1].mean()

    (_, coronal, at_coronal), (_, axial, at_axial), (_, sagittal, at_sagittal) = picture.slices_of(
        image, marked, structures()
    )
    for panel in (coronal, axial):
        assert column(panel, 41, 42) + 10 < column(panel, 2, 3)
    assert column(sagittal, 2, 41) + 10 < column(sagittal, 3, 42)
    assert (at_coronal, at_axial, at_sagittal) == ("RL", "RL", "AP")


def test_mgh_files_keep_their_geometry(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[-1.0, 0, 0, 40], [0, 0, 1, -38], [0, -1, 0, 30], [0, 0, 0, 1]])
    voxels = np.random.default_rng(0).uniform(0, 9, (20, 24, 28)).astype(np.float32)
    nibabel.save(nibabel.MGHImage(voxels, affine), tmp_path / "t1.mgz")
    image = read(tmp_path / "t1.mgz")
    ras = (affine @ (3, 5, 7, 1))[:3]
    assert value_at_ras(image, ras) == pytest.approx(voxels[3, 5, 7])


def test_a_dicom_folder_is_a_volume_and_two_series_are_refused(tmp_path):
    image = sitk.GetImageFromArray(np.arange(6 * 8 * 9).reshape(6, 8, 9).astype(np.int16))
    image.SetSpacing((1.0, 1.0, 2.0))
    folder = tmp_path / "t1"
    folder.mkdir()
    dicom_series(folder, 6, "1.2.3.4", image)
    found = read(folder)
    assert found.GetSize() == (9, 8, 6) and found.GetSpacing() == pytest.approx((1, 1, 2))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(image))
    (folder / "1.2.3.4-002.dcm").rename(tmp_path / "kept.dcm")
    with pytest.raises(SEBrainSegError, match="slice is missing"):
        read(folder)
    (tmp_path / "kept.dcm").rename(folder / "1.2.3.4-002.dcm")
    dicom_series(folder, 6, "1.2.3.5", image)
    with pytest.raises(SEBrainSegError, match="2 DICOM series"):
        read(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SEBrainSegError, match="no DICOM"):
        read(tmp_path / "empty")


def test_the_documentation_names_every_option_and_no_other():
    root = Path(command_line.__file__).resolve().parents[3]
    page = (root / "Resources/Tutorial/command-line.md").read_text(encoding="utf-8")
    (synopsis,) = re.findall(r"```\n(sebrainseg INPUT.*?)```", page, re.S)
    known = {
        name for action in command_line.parser()._actions for name in action.option_strings if name.startswith("--")
    }
    named = set(re.findall(r"--[a-z-]+", synopsis))
    others = {"--session_label", "--skip_bids_validation"}  # BIDS apps have both spellings
    assert named <= known and known - named == {"--output", "--help", "--debug", "--participant_label", *others}
    for page in (root / "README.md", *(root / "Resources" / "Tutorial").glob("*.md")):
        for line in re.findall(r"^sebrainseg .*$", page.read_text(encoding="utf-8"), re.M):
            assert set(re.findall(r"--[a-z-]+", line)) <= known, line
