"""Which way the head lies: files that do not say it, that say it twice, or that contradict themselves."""

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from cohorts import run
from phantoms import centred, phantom, value_at_ras
from SEBrainSegLib import SEBrainSegError, segment
from SEBrainSegLib.commandline import batch
from SEBrainSegLib.commandline import main as command_line
from SEBrainSegLib.commandline.inputs import BIDS_DESCRIPTION
from SEBrainSegLib.files import orientation
from SEBrainSegLib.files.reading import read
from SEBrainSegLib.inference.geometry import voxel_to_ras
from unoriented_files import AXES, HEAD, SIZE, UNKNOWN, meta, nrrd, saved, text_header

SUFFIX = "_unet-scse-coronal"
SIDES = {(-14, 0, 8): 2, (20, -20, 5): 41, (-10, 0, -20): 16, (36, 0, 0): 0}


@pytest.fixture(scope="module")
def head():
    """The phantom's voxels, (i, j, k) to the right, front and top; its left is brighter than its right."""
    return sitk.GetArrayFromImage(phantom(HEAD, SIZE)).T.astype(np.int16)


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_file_that_does_not_say_which_way_the_head_lies_is_refused_until_told(network, head, tmp_path, kind):
    name, write = UNKNOWN[kind]
    path = tmp_path / name
    write(path, head)
    image = read(path)
    assert image.GetSize() == SIZE
    with pytest.raises(SEBrainSegError, match="state it with --orientation") as refusal:
        segment(image, device="cpu")
    assert str(refusal.value).count(". ") == 0
    stated = read(path, orientation="ras")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(stated).T, head)
    assert not orientation.problem(stated) and not orientation.notes(stated)
    np.testing.assert_allclose(stated.GetSpacing(), 1, atol=0.03)
    assert orientation.letters_of(stated) == "RAS"
    # Stated the other way round, it is what one said.
    assert orientation.letters_of(read(path, orientation="LAS")) == "LAS"


STATED = {
    "qform only": ("a.nii", lambda path, voxels: saved(path, voxels, HEAD)),
    "sform only": ("a.nii", lambda path, voxels: saved(path, voxels, None, HEAD)),
    "sform and rubbish": ("a.nii", lambda path, voxels: saved(path, voxels, None, HEAD, quatern_b=0.9, qoffset_x=77)),
    "NIfTI-2": ("a.nii", lambda path, voxels: saved(path, voxels, HEAD, HEAD, kind=nibabel.Nifti2Image)),
    "pair": ("a.img", lambda path, voxels: saved(path, voxels, HEAD, HEAD, kind=nibabel.Nifti1Pair)),
    "vector of one": ("a.nii", lambda path, voxels: saved(path, voxels, HEAD, HEAD, intent_code=1007)),
    "one time point": ("a.nii", lambda path, voxels: saved(path, voxels[..., None], HEAD, HEAD)),
    "NIfTI-2, one time point": (
        "a.nii",
        lambda path, voxels: saved(path, voxels[..., None, None], HEAD, HEAD, kind=nibabel.Nifti2Image),
    ),
    "NRRD in RAS": (
        "a.nrrd",
        nrrd("space: right-anterior-superior", AXES, "space origin: ({},{},{})".format(*HEAD[:3, 3])),
    ),
    "NRRD in LPS": (
        "a.nrrd",
        nrrd(
            "space: LPS",
            "space directions: (-1,0,0) (0,-1,0) (0,0,1)",
            "space origin: ({},{},{})".format(*HEAD[:3, 3] * (-1, -1, 1)),
        ),
    ),
    "MetaImage": (
        "a.mha",
        meta("TransformMatrix = -1 0 0 0 -1 0 0 0 1", "Offset = {} {} {}".format(*HEAD[:3, 3] * (-1, -1, 1))),
    ),
    "mgh": ("a.mgh", lambda path, voxels: nibabel.save(nibabel.MGHImage(voxels, HEAD), path)),
}


@pytest.mark.parametrize("kind", STATED)
def test_a_file_that_says_it_is_read_as_it_says(network, head, tmp_path, kind):
    name, write = STATED[kind]
    write(tmp_path / name, head)
    image = read(tmp_path / name)
    assert image.GetSize() == SIZE and image.GetNumberOfComponentsPerPixel() == 1
    assert not orientation.problem(image) and not orientation.notes(image)
    np.testing.assert_allclose(voxel_to_ras(image), HEAD, atol=1e-4)
    for point in SIDES:
        index = np.rint(np.linalg.solve(HEAD, (*point, 1)))[:3].astype(int)
        assert value_at_ras(image, point) == head[tuple(index)], point


def test_a_packed_mgh_file_is_read(head, tmp_path):
    import gzip

    nibabel.save(nibabel.MGHImage(head, HEAD), tmp_path / "a.mgh")
    path = tmp_path / "a.mgh.gz"
    path.write_bytes(gzip.compress((tmp_path / "a.mgh").read_bytes(), 1))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(path)).T, head)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(SEBrainSegError, match="damaged"):
        read(path)


def test_an_nrrd_whose_first_axis_is_a_list_of_one_is_scalar(network, head, tmp_path):
    sizes = " ".join(map(str, head.shape))
    lines = ["NRRD0005", "type: short", "dimension: 4", f"sizes: 1 {sizes}", "kinds: list domain domain domain"]
    lines += ["space: RAS", "space directions: none (1,0,0) (0,1,0) (0,0,1)", "endian: little", "encoding: raw"]
    origin = "space origin: ({},{},{})".format(*HEAD[:3, 3])
    text_header(tmp_path / "a.nrrd", head, [*lines, origin, "", ""])
    assert read(tmp_path / "a.nrrd").GetNumberOfComponentsPerPixel() == 1
    # Given by SimpleITK itself, too, as a vector of one.
    found = segment(sitk.ReadImage(str(tmp_path / "a.nrrd")), device="cpu")
    assert value_at_ras(found.labels, (-14, 0, 8)) == 2


@pytest.mark.parametrize("letters", ["", "RA", "RRS", "XYZ", "RASL", "LR S"])
def test_what_is_no_orientation_is_one_sentence(letters, tmp_path, capsys):
    with pytest.raises(SEBrainSegError, match="three letters"):
        orientation.valid_letters(letters)
    if letters:
        assert command_line.main([str(tmp_path / "a.nii"), "--orientation", letters]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_each_of_the_48_orientations_is_what_it_says(head):
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16))
    image.SetSpacing((1.0, 2.0, 3.0))
    towards = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    for axes in itertools.permutations(("RL", "AP", "SI")):
        for letters in itertools.product(*axes):
            found = orientation.oriented(image, "".join(letters))
            assert orientation.letters_of(found) == "".join(letters) and found.GetSpacing() == image.GetSpacing()
            for axis, letter in enumerate(letters):
                ends = [
                    found.TransformIndexToPhysicalPoint([index * (axis == each) for each in range(3)])
                    for index in (0, 1)
                ]
                way = np.subtract(*ends[::-1]) * (-1, -1, 1) / image.GetSpacing()[axis]
                np.testing.assert_allclose(way, towards[letter])


def test_an_image_of_simpleitk_says_that_its_file_did_not(network, head, tmp_path):
    image = sitk.ReadImage(str(saved(tmp_path / "a.nii", head)))
    with pytest.raises(SEBrainSegError, match="--orientation"):
        segment(image, device="cpu")
    found = segment(image, device="cpu", orientation="RAS")
    assert value_at_ras(found.labels, (-14.5, 0.5, 8.5)) == 2
    # One that somebody made of voxels alone is taken at its word.
    assert not orientation.problem(phantom(HEAD, SIZE))


def test_a_file_that_states_an_orientation_keeps_it(network, head, tmp_path, capsys):
    path = saved(tmp_path / "a.nii", head, HEAD, HEAD)
    assert command_line.main([str(path), "--orientation", "LAS", "--device", "cpu"]) == 0
    assert "states its orientation itself, RAS; LAS was left aside" in capsys.readouterr().err
    assert value_at_ras(sitk.ReadImage(str(tmp_path / f"a{SUFFIX}.nii.gz")), (-14, 0, 8)) == 2


def scans(folder, head):
    """A cohort: a scan whose file states its orientation, and one whose file does not."""
    folder.mkdir(parents=True, exist_ok=True)
    small = np.ascontiguousarray(head[::8, ::8, ::8])
    saved(folder / "sub-1_T1w.nii", small, np.diag((2.0, 2.0, 2.0, 1.0)))
    saved(folder / "sub-2_T1w.nii", small)


ENGINES = {"in turn": [], "jobs": ["--jobs", "2"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_orientation_is_stated_for_a_batch(organs, head, tmp_path, capsys, engine):
    scans(tmp_path / "in", head)
    if engine == "in turn":
        assert run(tmp_path / "in", "-o", tmp_path / "out") == 1
        assert capsys.readouterr().err.count("state it with --orientation") == 1
    assert run(tmp_path / "in", "-o", tmp_path / "out", "--orientation", "PIR", *ENGINES[engine]) == 0
    found = nibabel.load(tmp_path / "out" / "sub-2_T1w_organs.nii.gz")
    assert "".join(nibabel.aff2axcodes(found.affine)) == "PIR"
    found = nibabel.load(tmp_path / "out" / "sub-1_T1w_organs.nii.gz")
    assert "".join(nibabel.aff2axcodes(found.affine)) == "RAS"


def test_an_orientation_is_stated_for_a_bids_dataset(organs, head, tmp_path):
    for number in (1, 2):
        scans(tmp_path / "raw" / f"sub-{number}" / "anat", head)
        (tmp_path / "raw" / f"sub-{number}" / "anat" / f"sub-{3 - number}_T1w.nii").unlink()
    (tmp_path / "raw" / BIDS_DESCRIPTION).write_text('{"Name": "two"}')
    assert run(tmp_path / "raw", tmp_path / "out", "participant") == 1
    assert run(tmp_path / "raw", tmp_path / "out", "participant", "--orientation", "PIR") == 0
    found = nibabel.load(tmp_path / "out" / "sub-2" / "anat" / "sub-2_desc-sebrainseg_dseg.nii.gz")
    assert "".join(nibabel.aff2axcodes(found.affine)) == "PIR"


def test_what_is_stated_and_what_is_noted_reaches_a_cluster(organs, head, tmp_path, capsys):
    distributed = pytest.importorskip("distributed")
    scans(tmp_path / "in", head)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        assert run(tmp_path / "in", "-o", tmp_path / "out", "--orientation", "PIR", "--dask", address) == 0
    assert "states its orientation itself, RAS; PIR was left aside" in capsys.readouterr().err
    found = nibabel.load(tmp_path / "out" / "sub-2_T1w_organs.nii.gz")
    assert "".join(nibabel.aff2axcodes(found.affine)) == "PIR"


# Two affines

TURNED = HEAD.copy()
TURNED[:3] = np.array([[np.cos(0.2), -np.sin(0.2), 0], [np.sin(0.2), np.cos(0.2), 0], [0, 0, 1]]) @ HEAD[:3]
TURNED[:3, 3] += (10, -20, 5)
SHEARED = HEAD @ np.array([[1, 0.1, 0, 0], [0, 1, 0.05, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("codes, which", [((1, 4), "qform"), ((2, 4), "qform"), ((1, 1), "sform"), ((2, 1), "sform")])
@pytest.mark.parametrize("other", [TURNED, SHEARED], ids=["turned", "sheared"])
def test_of_two_affines_one_is_read_and_both_are_written(network, head, tmp_path, capsys, codes, which, other):
    """The one that SimpleITK and 3D Slicer read; a sheared one is none of them, unless it is the only one."""
    path = saved(tmp_path / "a.nii", head, HEAD, other, codes)
    taken = {"qform": HEAD, "sform": other}["qform" if other is SHEARED else which]
    assert command_line.main([str(path), "--confidence", "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert said.count("places the scan twice") == 1
    assert f"the {'qform' if other is SHEARED else which} was read" in said
    name = f"a{SUFFIX}"
    for ending in (".nii.gz", "_confidence.nii.gz"):
        scan, made = nibabel.load(path), nibabel.load(tmp_path / f"{name}{ending}")
        for form in ("qform", "sform"):
            (expected, code), (found, its_code) = (getattr(each, f"get_{form}")(coded=True) for each in (scan, made))
            assert its_code == code
            np.testing.assert_allclose(found, expected, atol=1e-5)
    segmentation = voxel_to_ras(sitk.ReadImage(str(tmp_path / f"{name}.seg.nrrd")))
    np.testing.assert_allclose(segmentation, taken, atol=1e-4)
    assert read(tmp_path / f"{name}.nii.gz").GetSize() == SIZE


def test_affines_that_differ_by_rounding_are_one(head, tmp_path):
    near = HEAD.copy()
    near[0, 3] += 0.08
    assert not orientation.notes(read(saved(tmp_path / "a.nii", head, HEAD, near)))
    near[0, 3] += 0.04
    assert orientation.notes(read(saved(tmp_path / "b.nii", head, HEAD, near)))


@pytest.mark.parametrize("units, scale", [(1, 1000.0), (3, 0.001)])
def test_affines_in_other_units_are_one(head, tmp_path, units, scale):
    affine = np.diag((1 / scale, 1 / scale, 1 / scale, 1.0)) @ HEAD
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        path = saved(tmp_path / "a.nii", head, affine, affine, xyzt_units=units, kind=kind)
        image = read(path)
        assert not orientation.notes(image) and not orientation.problem(image)
        np.testing.assert_allclose(voxel_to_ras(image), HEAD, atol=0.05)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("shear", [0.3, 0.004])
def test_sheared_axes_are_read_as_nibabel_does_and_labels_lie_on_the_anatomy(network, tmp_path, kind, shear):
    size = (90, 100, 80)
    affine = centred(np.array([[1.0, shear, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), size)
    voxels = sitk.GetArrayFromImage(phantom(affine, size)).T.astype(np.int16)
    path = saved(tmp_path / "a.nii", voxels, None, affine, kind=kind)
    assert command_line.main([str(path), "--device", "cpu"]) == 0
    made = nibabel.load(tmp_path / f"a{SUFFIX}.nii.gz")
    np.testing.assert_allclose(made.affine, nibabel.load(path).affine, atol=1e-4)
    labels = np.asarray(made.dataobj)
    for point, label in SIDES.items():
        index = np.rint(np.linalg.solve(affine, (*point, 1)))[:3].astype(int)
        assert labels[tuple(index)] == label, point


def test_a_note_of_a_scan_is_told_once(organs, head, tmp_path, capsys):
    small = np.ascontiguousarray(head[::8, ::8, ::8])
    affine = np.diag((2.0, 2.0, 2.0, 1.0))
    other = affine.copy()
    other[:3, 3] = 30
    saved(tmp_path / "a.nii", small, affine, other)
    assert run(tmp_path / "a.nii", "-o", tmp_path / "out") == 0
    assert capsys.readouterr().err.count("places the scan twice") == 1
    outcome = batch.attempt(batch_scan(tmp_path), batch.Work(batch.Parameters(model="organs", device="cpu")))
    assert not outcome.reason and len(outcome.notes) == 1


def batch_scan(folder):
    from SEBrainSegLib.commandline.inputs import Scan
    from SEBrainSegLib.files.results import result_paths

    return Scan(folder / "a.nii", "a.nii", result_paths(folder / "again", "a"))
