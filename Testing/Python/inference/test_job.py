"""Several choices for one volume, a part of the structures, and the files of what else was asked for."""

import csv

import numpy as np
import pytest
import SimpleITK as sitk

from phantoms import centred, phantom
from SEBrainSegLib import Cancelled, SEBrainSegError, segment
from SEBrainSegLib.analysis import volume_table
from SEBrainSegLib.choices.job import Job
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.structures import selected, structures
from SEBrainSegLib.files import results
from SEBrainSegLib.inference import run as inference_run
from SEBrainSegLib.inference.run import run
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.translation import parts

SIZE = (80, 96, 76)


@pytest.fixture
def image():
    return phantom(centred(np.eye(3), SIZE), SIZE)


def job(*choices, **fields):
    return Job(tuple(Parameters(device="cpu", **each) for each in choices), **fields)


def test_choices_are_run_in_turn_on_a_volume_that_is_prepared_once(network, image, monkeypatch):
    prepared, told = [], []
    original = inference_run.prepare
    monkeypatch.setattr(inference_run, "prepare", lambda *given: prepared.append(given) or original(*given))
    wanted = job({"se": "none"}, {"view": "axial"}, {"view": "all"})
    found = run(image, wanted, lambda *step: told.append(step))
    assert len(prepared) == 1
    assert tuple(each.parameters for each in found) == wanted.choices
    for each in found:
        alone = segment(image, **vars(each.parameters))
        assert sitk.Hash(each.labels) == sitk.Hash(alone.labels) and each.volumes == alone.volumes
        assert each.seconds > 0 and each.confidence is None and each.confidences == {} and each.excitation is None
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    # Each has a third of the progress and says what it is about.
    assert {message.split(":")[0] for fraction, message in told if 1 / 3 < fraction < 2 / 3} == {"U-Net scSE, axial"}


def test_cancel_is_heard_between_choices(network, image):
    told = []
    wanted = job({"se": "none"}, {})
    with pytest.raises(Cancelled):
        run(image, wanted, lambda *step: told.append(step), lambda: bool(told) and told[-1][0] >= 0.5)
    spent = network.batches
    segment(image, se="none", device="cpu")
    assert network.batches == 2 * spent


def test_what_fails_says_which_choice_it_was(network):
    noise = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 10, (40, 40, 40)).astype(np.int16))
    with pytest.raises(SEBrainSegError, match="^U-Net: Only .* ml of brain were found"):
        run(noise, job({"se": "none"}, {}))
    with pytest.raises(SEBrainSegError, match="^Only .* ml of brain were found"):
        run(noise, job({}))


def test_why_one_of_several_choices_fails_can_be_translated(network, image, monkeypatch):
    def load(*_unused):
        raise SEBrainSegError(Parameters(view="x").problem())

    monkeypatch.setattr(bundled, "load", load)
    with pytest.raises(SEBrainSegError, match="^U-Net: Unknown view 'x'") as raised:
        run(image, job({"se": "none"}, {}))
    assert parts(raised.value.sentence)["values"]["sentence"]["values"]["value"] == "x"


def test_progress_can_be_translated(network, image):
    told = []
    run(image, job({"se": "none"}, {}), lambda fraction, message: told.append(parts(message)))
    templates = {each["values"]["message"]["template"] for each in told}
    assert "Segmenting {views} slices on {device}{note}" in templates and len(templates) > 3


def test_a_part_of_the_structures_is_all_that_a_result_has(network, image):
    whole = segment(image, device="cpu")
    # The thalamus alone is far less than a brain, which is no reason to refuse it.
    part = segment(image, device="cpu", structures="thalamus, 16", confidence=True)
    kept = selected("Left Thalamus, Right Thalamus, Brain Stem")
    assert part.structures == kept and set(part.volumes) == {10, 16, 49} and set(part.confidences) == {16, 49}
    assert 0 < part.volumes[49] < inference_run.SMALLEST_BRAIN / 10
    assert all(part.volumes[label] == whole.volumes[label] for label in part.volumes)
    all_labels, labels = (sitk.GetArrayFromImage(each.labels) for each in (whole, part))
    np.testing.assert_array_equal(labels, np.where(np.isin(all_labels, [10, 16, 49]), all_labels, 0))
    assert part.labels.GetOrigin() == image.GetOrigin() and labels.dtype == all_labels.dtype
    assert [row["structure"] for row in volume_table.rows(part)] == ["Thalamus", "Brain Stem"]


def test_files_of_a_part_with_its_confidence(network, image, tmp_path):
    part = segment(image, device="cpu", structures="Deep grey matter", confidence=True)
    paths = results.result_paths(tmp_path, "a", (*results.ENDINGS, results.CONFIDENCE))
    results.write_results(image, part, paths)
    with open(paths[".csv"], newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0][:4] == ["structure", "left_ml", "right_ml", "total_ml"]
    rows = {row[0]: dict(zip(rows[0], row)) for row in rows[1:]}
    assert len(rows) == 8 and "Brain Stem" not in rows
    assert rows["Thalamus"]["right_ml"] == f"{part.volumes[49]:.3f}" and rows["Thalamus"]["left_ml"] == "0.000"
    assert rows["Thalamus"]["asymmetry_percent"] == "-200.0"
    assert rows["Thalamus"]["confidence"] == f"{part.confidences[49]:.3f}"
    assert rows["Caudate"]["confidence"] == rows["Caudate"]["asymmetry_percent"] == ""
    sure = sitk.ReadImage(str(tmp_path / "a_confidence.nii.gz"))
    assert sure.GetSize() == image.GetSize() and sure.GetPixelID() == sitk.sitkFloat32
    # e of one logit of 1 among 31 of 0.
    assert sure[40, 48, 38] == pytest.approx(np.e / (np.e + 31), abs=1e-5)
    written = sitk.ReadImage(str(paths[".seg.nrrd"]))
    names = [written.GetMetaData(f"Segment{index}_Name") for index in range(16)]
    assert names == [each.name for each in structures() if each.group == "Deep grey matter"]
    assert not written.HasMetaDataKey("Segment16_Name")
    # The picture is drawn as that of the whole brain is, but for the number of remarks beneath.
    whole = results.result_paths(tmp_path, "b")
    results.write_results(image, segment(image, device="cpu"), whole)
    sizes = [sitk.ReadImage(str(each[".png"])).GetSize() for each in (paths, whole)]
    assert sizes[0][0] == sizes[1][0]
