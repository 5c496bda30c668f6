"""Files that appear whole or not at all, and the endings that images may have."""

import os

import numpy as np
import pytest
import SimpleITK as sitk

from SEBrainSegLib.commandline.inputs import is_image
from SEBrainSegLib.files.atomic import replaced_whole
from SEBrainSegLib.files.endings import stem
from SEBrainSegLib.training.pairs import find_pairs


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_what_breaks_off_leaves_the_file_that_was_there(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(type(error)), replaced_whole(path) as beside:
        beside.write_text("half of the n")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["table.csv"]


def test_what_ends_well_replaces_the_file_that_was_there(tmp_path):
    for text in ("old", "new"):
        with replaced_whole(tmp_path / "table.csv") as beside:
            beside.write_text(text)
    assert (tmp_path / "table.csv").read_text() == "new" and os.listdir(tmp_path) == ["table.csv"]


def test_what_killed_writers_left_goes_after_a_day(tmp_path):
    old, fresh = tmp_path / ".sebrainseg-old", tmp_path / ".sebrainseg-fresh"
    for each in (old, fresh):
        each.mkdir()
    os.utime(old, (1e9, 1e9))
    with replaced_whole(tmp_path / "checkpoint.pt") as beside:
        beside.write_text("weights")
    assert sorted(os.listdir(tmp_path)) == [".sebrainseg-fresh", "checkpoint.pt"]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("sub-01_T1w.nii.gz", "sub-01_T1w"),
        ("Scan.1.NII", "Scan.1"),
        ("head.seg.nrrd", "head"),
        ("head.mgh.gz", "head"),
        ("slice.jpeg", "slice"),
        ("1.2.840.10008", "1.2.840.10008"),
    ],
)
def test_a_scan_is_called_by_its_name_without_ending(name, expected):
    assert stem(f"folder/{name}") == expected


def test_voxels_that_have_a_header_beside_are_no_scan_of_their_own(tmp_path):
    for name in ("pair.hdr", "pair.img.gz", "alone.img"):
        (tmp_path / name).touch()
    scans = [name for name in sorted(os.listdir(tmp_path)) if is_image(str(tmp_path / name), False)]
    assert scans == ["alone.img", "pair.hdr"]


@pytest.mark.parametrize("ending", [".jpeg", ".png", ".nii.gz"])
def test_pictures_and_volumes_of_every_ending_are_found_for_training(tmp_path, ending):
    for folder, values in (("images", 90), ("labels", 1)):
        (tmp_path / folder).mkdir()
        image = sitk.GetImageFromArray(np.full((8, 8), values, np.uint8))
        sitk.WriteImage(image, str(tmp_path / folder / f"a{ending}"))
    assert [pair.name for pair in find_pairs(tmp_path)] == ["a"]
