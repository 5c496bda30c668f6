"""Labels in FreeSurfer's protocol for scans that have manual ones only."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from SEBrainSegLib import zoo
from SEBrainSegLib.inference import classify
from SEBrainSegLib.resources import resource
from SEBrainSegLib.structures import mirrored_classes
from SEBrainSegLib.training import freesurfer_labels
from SEBrainSegLib.training.freesurfer_labels import freesurfer_classes, main, teachers
from SEBrainSegLib.volume import VIEWS, prepare

THICK = 24  # mm


@pytest.fixture(scope="module")
def sample():
    """The sample scan, ``[S, A, R]`` at 1 mm."""
    return prepare(sitk.ReadImage(str(resource("SampleData/colin27_t1.nii.gz"))))[1]


def slab(array, view):
    """Some slices in the middle."""
    middle = array.shape[VIEWS[view]] // 2
    return np.take(array, range(middle - THICK // 2, middle + THICK // 2), axis=VIEWS[view])


def test_each_view_counts_as_in_the_mean_of_three_and_its_variants_alike():
    shares = [(model.view, share) for model, share in teachers()]
    assert sum(share for _, share in shares) == pytest.approx(1)
    assert [view for view, _ in shares] == 4 * ["coronal"] + ["axial", "sagittal"]
    assert shares[0][1] == shares[3][1] == pytest.approx(0.1) and shares[4][1] == pytest.approx(0.4)


@pytest.mark.parametrize("views", [("coronal",), ("axial",), ("coronal", "sagittal")])
def test_a_mirrored_scan_has_the_mirrored_labels(sample, views):
    models = [(zoo.load("unet", "scse", view), share) for view, share in zip(views, (0.8, 0.2))]
    seen = slab(sample, views[0])
    found = freesurfer_classes(seen, models)
    mirrored = mirrored_classes()[freesurfer_classes(np.ascontiguousarray(seen[..., ::-1]), models)][..., ::-1]
    assert len(np.unique(found)) > 15
    # The sums are made in another order, and probabilities are of bfloat16 logits; nothing else differs.
    assert (found == mirrored).mean() > 0.999


@pytest.mark.parametrize("view", ["coronal", "axial", "sagittal"])
def test_they_are_nearly_those_of_the_network_itself(sample, view):
    model, seen = zoo.load("unet", "scse", view), slab(sample, view)
    alone, _ = classify(model, seen, torch.device("cpu"), lambda fraction: None)
    found = freesurfer_classes(seen, [(model, 1.0)])
    assert found.shape == seen.shape
    assert (found == alone)[(found > 0) | (alone > 0)].mean() > 0.9


def test_the_command_writes_labels_on_the_scans_own_grid_and_keeps_what_is_there(tmp_path, monkeypatch, capsys):
    asked = []

    def bright_is_thalamus(array, models):
        asked.append(models)
        return np.where(array > 0.5, 7, 0).astype(np.uint8)

    monkeypatch.setattr(freesurfer_labels, "teachers", lambda: "all of them")
    monkeypatch.setattr(freesurfer_labels, "freesurfer_classes", bright_is_thalamus)
    voxels = np.zeros((40, 44, 48), np.int16)
    voxels[10:30, 10:20, 8:40] = 100
    scan = sitk.GetImageFromArray(voxels)
    scan.SetDirection((-1, 0, 0, 0, 0, 1, 0, -1, 0))
    scan.SetOrigin((12, -7, 30))
    for name in ("1000_t1.nii.gz", "a_t1.b_t1.nii.gz"):
        sitk.WriteImage(scan, str(tmp_path / name))
    arguments = [str(tmp_path / "1000_t1.nii.gz"), "--output", str(tmp_path / "made" / "here")]
    assert main(arguments) == 0
    path = tmp_path / "made" / "here" / "1000_structures.nii.gz"
    assert capsys.readouterr().out.strip() == str(path)
    labels = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels) == 10, voxels > 0)
    assert labels.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_allclose(labels.GetOrigin(), scan.GetOrigin())
    np.testing.assert_allclose(labels.GetDirection(), scan.GetDirection(), atol=1e-6)
    path.write_bytes(b"mine")
    assert main(arguments) == 0
    assert path.read_bytes() == b"mine" and asked == ["all of them"]


def test_what_cannot_be_labelled_is_said_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(freesurfer_labels, "teachers", list)
    (tmp_path / "1000_t1.nii.gz").write_bytes(b"no image")
    for name, sentence in (("scan.nii.gz", "is not called NAME_t1.nii.gz"), ("1000_t1.nii.gz", "1000_t1.nii.gz")):
        assert main([str(tmp_path / name), "--output", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert sentence in said and len(said.splitlines()) == 1
