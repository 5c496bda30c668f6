"""Folders of DICOM: several series, several volumes under one series, slanted and drifting slices."""

import shutil
import threading

import numpy as np
import pytest
import SimpleITK as sitk

from cohorts import run
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.files import orientation, reading
from SEBrainSegLib.files.reading import read

COUNT = 5
ROW, COLUMN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def positions(step=(0.0, 0.0, 2.0), count=COUNT):
    return np.array((-20.0, -30.0, 10.0)) + np.arange(count)[:, None] * np.array(step)


def series(folder, uid="1.2.3.4", offset=0, places=None, **tags):
    """Write slices of 12 x 10 pixels; those of the n-th slice are 100 n + ``offset``, brighter to the right."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    tags = {
        "0008|0060": "MR",
        "0020|000d": "1.2.3",
        "0020|000e": uid,
        "0020|0037": "\\".join(map(str, (*ROW, *COLUMN))),
        **{name.replace("_", "|").removeprefix("|"): value for name, value in tags.items()},
    }
    for number, place in enumerate(positions() if places is None else places):
        pixels = 100 * number + offset + np.arange(12) + np.zeros((10, 1))
        image = sitk.GetImageFromArray(pixels.astype(np.int16))
        instance = len(list(folder.glob("*.dcm")))
        own = {"0008|0018": f"{uid}.{instance + 1}", "0020|0013": str(instance + 1)}
        if place is not None:
            own["0020|0032"] = "\\".join(f"{x:.4f}" for x in place)
        for tag, value in {**tags, **own}.items():
            if value is not None:
                image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{instance:03d}.dcm"))
        writer.Execute(image)
    return folder


def first_values(image):
    return sitk.GetArrayFromImage(image)[:, 0, 0].tolist()


def refused(folder, **options):
    with pytest.raises(SEBrainSegError) as refusal:
        read(folder, **options)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_several_series_are_listed_and_one_is_chosen(tmp_path):
    folder = series(tmp_path / "in", "1.2.3.4", _0008_103e="t1 mprage")
    series(folder, "1.2.3.5", 7, positions()[:3], _0008_103e="localizer")
    said = refused(folder)
    assert "2 DICOM series" in said and "--series" in said
    assert "1.2.3.4 (t1 mprage, 5 images)" in said and "1.2.3.5 (localizer, 3 images)" in said
    assert first_values(read(folder, series="1.2.3.4")) == [0, 100, 200, 300, 400]
    assert first_values(read(folder, series="1.2.3.5")) == [7, 107, 207]
    assert "has no series 1.2.3; there are 1.2.3.4" in refused(folder, series="1.2.3")
    assert "no folder of DICOM" in refused(folder / "000.dcm", series="1.2.3.4")


def test_a_series_is_chosen_on_the_command_line(organs, tmp_path, capsys):
    folder = series(tmp_path / "in", "1.2.3.4")
    series(folder, "1.2.3.5", 7)
    assert run(folder, "-o", tmp_path / "out") == 1
    assert "choose one with --series" in capsys.readouterr().err
    assert run(folder, "-o", tmp_path / "out", "--series", "1.2.3.5") == 0
    assert (tmp_path / "out" / "in_organs.nii.gz").exists()


SEVERAL = {
    "echoes": ({"_0018_0081": "2.46", "_0018_0086": "1"}, {"_0018_0081": "12.3", "_0018_0086": "2"}),
    "kinds of image": ({"_0008_0008": "ORIGINAL\\PRIMARY\\M"}, {"_0008_0008": "ORIGINAL\\PRIMARY\\P"}),
    "inversion times": ({"_0018_0082": "700"}, {"_0018_0082": "2500"}),
    "time points": ({"_0020_0100": "1"}, {"_0020_0100": "2"}),
    "acquisitions": ({"_0020_0012": "1"}, {"_0020_0012": "2"}),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_volumes_under_one_series_are_named_and_one_is_chosen(tmp_path, kind):
    first, second = SEVERAL[kind]
    folder = series(tmp_path / "in", **second, offset=7)
    series(folder, **first)
    said = refused(folder)
    assert f"2 {kind} under one DICOM series" in said and "--series 1.2.3.4:1" in said and "missing" not in said
    if kind == "echoes":
        assert "1.2.3.4:1 (echo time 2.46 ms, 5 images), 1.2.3.4:2 (echo time 12.3 ms, 5 images)" in said
    assert first_values(read(folder, series="1.2.3.4:1")) == [0, 100, 200, 300, 400]
    assert first_values(read(folder, series="1.2.3.4:2")) == [7, 107, 207, 307, 407]
    assert f"2 {kind}" in refused(folder, series="1.2.3.4:3")


def test_echoes_with_magnitude_and_phase_are_four(tmp_path):
    folder = tmp_path / "in"
    for number, (echo, kind) in enumerate([("3", "M"), ("3", "P"), ("10", "M"), ("10", "P")]):
        series(folder, _0018_0081=echo, _0008_0008=f"ORIGINAL\\{kind}", offset=number)
    assert "4 echoes" in refused(folder) and "1.2.3.4:4 (echo time 10 ms, ORIGINAL\\P, 5 images)" in refused(folder)
    assert first_values(read(folder, series="1.2.3.4:3"))[0] == 2


def test_slices_of_several_orientations_under_one_series_are_told_apart(tmp_path):
    folder = series(tmp_path / "in")
    sagittal = positions((2.0, 0.0, 0.0))
    series(folder, places=sagittal, offset=7, _0020_0037="0\\1\\0\\0\\0\\-1")
    assert "2 orientations" in refused(folder)
    assert first_values(read(folder, series="1.2.3.4:1")) == [0, 100, 200, 300, 400]


def test_slices_in_one_place_that_nothing_tells_apart_are_refused(tmp_path):
    folder = series(tmp_path / "in")
    series(folder)
    assert "2 slices in the same place" in refused(folder)


def test_a_slice_that_was_copied_counts_once(tmp_path):
    folder = series(tmp_path / "in")
    shutil.copy(folder / "002.dcm", folder / "002 (1).dcm")
    assert first_values(read(folder)) == [0, 100, 200, 300, 400]


def test_slices_are_ordered_by_where_they_lie(tmp_path):
    folder = series(tmp_path / "in", places=positions()[::-1])
    image = read(folder)
    assert first_values(image) == [400, 300, 200, 100, 0]
    np.testing.assert_allclose(image.GetOrigin(), positions()[0])
    np.testing.assert_allclose(image.GetSpacing(), (1, 1, 2))


@pytest.mark.parametrize("step", [(0.0, 0.7, 2.0), (0.0, -0.7, 2.0), (0.5, 0.2, 2.0), (0.0, 0.03, 2.0)])
def test_slanted_slices_are_set_straight(tmp_path, step):
    """Every pixel is found where its slice's own header puts it."""
    places = positions(step, 20)
    image = read(series(tmp_path / "in", places=places))
    axes = np.array(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert "gantry tilt" in orientation.notes(image)[0]
    for number in range(1, 19):
        point = places[number] + (3, 4, 0)
        index = image.TransformPhysicalPointToContinuousIndex(point.tolist())
        # Linear in space, so that interpolation is exact but for whole numbers.
        found = image.EvaluateAtContinuousIndex(index, sitk.sitkLinear)
        assert found == pytest.approx(100 * number + 3, abs=1.5), number
    # All of it is there.
    assert sitk.GetArrayFromImage(image).max() >= 1900


def test_slices_that_drift_are_refused(tmp_path):
    places = positions(count=9)
    places[:, 1] += np.linspace(0, 3, 9) ** 2
    assert "drift sideways" in refused(series(tmp_path / "in", places=places))
    places = positions(count=9)
    places[4, 0] += 1
    assert "drift sideways" in refused(series(tmp_path / "one", places=places))


def test_a_missing_slice_is_told_even_among_slanted_ones(tmp_path):
    places = np.delete(positions((0.0, 0.7, 2.0), 9), 4, axis=0)
    assert "a slice is missing" in refused(series(tmp_path / "in", places=places))


@pytest.mark.parametrize("lacking", ["axes", "places"])
def test_dicom_slices_that_do_not_say_how_they_lie_are_marked(tmp_path, lacking):
    folder, tag = series(tmp_path / "in"), {"axes": 0x37, "places": 0x32}[lacking]
    for path in folder.iterdir():
        # GDCM writes both, whatever it is told: the tag becomes one that nobody knows.
        content = path.read_bytes()
        element = bytes((0x20, 0, tag, 0))
        assert content.count(element) == 1
        path.write_bytes(content.replace(element, bytes((0x20, 0, tag + 1, 0))))
    image = read(folder)
    assert "do not say which way" in orientation.problem(image)
    stated = read(folder, orientation="LPS")
    assert not orientation.problem(stated) and orientation.letters_of(stated) == "LPS"


def test_readers_warnings_do_not_reach_the_user(tmp_path, capfd):
    series(tmp_path / "gap", places=positions(count=9)[[0, 1, 2, 5, 8]])
    refused(tmp_path / "gap")
    damaged = series(tmp_path / "damaged")
    content = (damaged / "002.dcm").read_bytes()
    for cut in (len(content) - 100, len(content) // 2, 200):
        (damaged / "002.dcm").write_bytes(content[:cut])
        reading.is_dicom(damaged)
        with pytest.raises(SEBrainSegError):
            read(damaged)
    assert capfd.readouterr() == ("", "")


def test_warnings_are_back_once_the_last_of_several_readers_is_done():
    """Two threads whose reading overlaps; the one that began first ends first."""
    began, ended = threading.Event(), threading.Event()
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(True)

    def second():
        with reading.quietly():
            began.set()
            ended.wait(60)
            silent.append(not sitk.ProcessObject.GetGlobalWarningDisplay())

    silent, thread = [], threading.Thread(target=second)
    try:
        with reading.quietly():
            thread.start()
            began.wait(60)
        ended.set()
        thread.join()
        assert silent == [True] and sitk.ProcessObject.GetGlobalWarningDisplay()
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
