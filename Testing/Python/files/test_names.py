"""Names that native libraries cannot bear, and paths that are none: each costs its scan at most, and mostly nothing."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk

from cohorts import DEADLOCK, pipe, rows, run, scan, segmented
from phantoms import dicom_series, write_pairs, write_table
from SEBrainSegLib.commandline import main as command_line
from SEBrainSegLib.files import native_paths
from SEBrainSegLib.files.reading import read

LIBRARY = Path(command_line.__file__).resolve().parents[2]
ANY_BYTES = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names are UTF-8 there")

BAD = os.fsdecode(b"M\xfcller") if os.name == "posix" else ""  # in Latin-1
ESCAPED = "M\\xfcller"


def bad_scan(path, ending):
    """A scan of the name Müller in Latin-1, which SimpleITK itself could not write."""
    path.mkdir(parents=True, exist_ok=True)
    scan(path / f"plain{ending}")
    if ending == ".hdr":
        os.rename(path / "plain.img", path / f"{BAD}.img")
    os.rename(path / f"plain{ending}", path / f"{BAD}{ending}")
    return path / f"{BAD}{ending}"


@ANY_BYTES
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".hdr", ".mhd"])
def test_a_name_that_is_no_utf8_is_read_like_any_other(tmp_path, ending):
    path = bad_scan(tmp_path, ending)
    found, expected = read(path), sitk.ReadImage(str(scan(tmp_path / "expected.nii.gz")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))
    path.write_bytes(b"broken")
    with pytest.raises(Exception) as refused:
        read(path)
    assert str(path) in str(refused.value) and "link" not in str(refused.value)


@ANY_BYTES
def test_dicom_slices_and_folders_of_names_that_are_no_utf8_are_read(tmp_path):
    folder = tmp_path / BAD
    folder.mkdir()
    image = sitk.GetImageFromArray(np.arange(6 * 8 * 9).reshape(6, 8, 9).astype(np.int16))
    dicom_series(tmp_path, 6, "1.2.3.4", image)
    for path in tmp_path.glob("*.dcm"):
        path.rename(folder / f"{path.stem}{BAD}.dcm")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(folder)), sitk.GetArrayFromImage(image))


@ANY_BYTES
def test_a_name_that_is_no_utf8_does_not_end_the_batch(organs, tmp_path, capsys):
    bad_scan(tmp_path / "study", ".nii.gz")
    scan(tmp_path / "study" / "a.nii.gz"), scan(tmp_path / "study" / "z.nii.gz")
    assert run("study", f"{BAD}*/*", "-o", f"out {BAD}") == 1  # such a pattern fits nothing
    assert segmented(f"out {BAD}") == {"a", BAD, "z"}
    shown = capsys.readouterr()
    assert f"study/{ESCAPED}.nii.gz: " in shown.out and f"{ESCAPED}*/*: No scan fits" in shown.err
    assert set(rows(f"out {BAD}/sebrainseg.csv")) == {"a.nii.gz", f"{ESCAPED}.nii.gz", "z.nii.gz"}
    # It is known by its name when the same command is typed again.
    assert run("study", "-o", f"out {BAD}") == 0
    assert capsys.readouterr().out.count("skipped") == 3
    assert {row["status"] for row in rows(f"out {BAD}/sebrainseg.csv").values()} == {"segmented"}


@ANY_BYTES
def test_where_no_link_can_be_made_it_costs_that_scan(organs, tmp_path, monkeypatch, capsys):
    bad_scan(tmp_path / "study", ".nii.gz")
    scan(tmp_path / "study" / "z.nii.gz")

    def refused(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native_paths.os, "symlink", refused)
    assert run("study", "-o", "out") == 1
    said = capsys.readouterr().err
    assert f"{ESCAPED}.nii.gz is no UTF-8" in said and "No space left on device" in said and "unexpected" not in said
    assert segmented("out") == {"z"} and rows("out/sebrainseg.csv")[f"{ESCAPED}.nii.gz"]["status"] == "failed"


@ANY_BYTES
def test_names_are_found_where_the_system_knows_ascii_only(organs, tmp_path):
    scan(tmp_path / "study" / "größe.nii.gz"), scan(tmp_path / "study" / "z.nii.gz")
    environment = {
        **os.environ,
        "PYTHONPATH": str(LIBRARY),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    command = [sys.executable, "-m", "SEBrainSegLib", "study", "-o", "out", "--model", "organs", "--device", "cpu"]
    assert subprocess.run(command, env=environment, timeout=DEADLOCK).returncode == 0
    assert segmented("out") == {"größe", "z"} and set(rows("out/sebrainseg.csv")) == {"größe.nii.gz", "z.nii.gz"}


@ANY_BYTES
def test_a_bids_dataset_in_a_folder_that_is_no_utf8_gets_its_derivatives(organs, tmp_path):
    scan(tmp_path / "plain" / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    (tmp_path / "plain").rename(tmp_path / BAD)
    (tmp_path / BAD / "dataset_description.json").write_text("{}")
    assert run(BAD, f"{BAD} out", "participant") == 0
    assert len(os.listdir(f"{BAD} out/sub-01/anat")) == 6
    made = json.loads((Path(f"{BAD} out") / "dataset_description.json").read_text(encoding="utf-8"))
    assert ESCAPED in made["Name"]


@ANY_BYTES
def test_a_training_on_names_that_are_no_utf8(tmp_path, capsys):
    from SEBrainSegLib.training import main as training

    labels = np.zeros((2, 16, 16, 16), np.uint8)
    labels[:, 4:12, 4:12, 4:12] = 1
    data = write_pairs(tmp_path / "data", labels * 100.0 + np.arange(16.0), labels)
    for path in list(data.iterdir()):
        path.rename(data / f"{BAD}{path.name}")
    data = data.rename(tmp_path / BAD)
    table = write_table(tmp_path / "table.csv", {1: "Liver"})
    arguments = [str(data), "--structures", str(table), "--output", str(tmp_path / f"{BAD}.pt"), "--device", "cpu"]
    assert training.main([*arguments, "--width", "4", "--steps", "1", "--workers", "0"]) == 0
    assert (tmp_path / f"{BAD}.pt").exists()


def test_a_name_with_line_feeds_and_escapes_is_shown_in_one_line(organs, tmp_path, capsys):
    name = "a\nsebrainseg: b \x1b[2J.nii.gz" if os.name == "posix" else "a.nii.gz"
    scan(tmp_path / "study" / name), scan(tmp_path / "study" / "c.nii.gz")
    (tmp_path / "study" / f"z{name}").write_bytes(b"broken")
    assert run("study", "-o", "out") == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2 and "\x1b" not in shown.out + shown.err
    assert sum(line.startswith("sebrainseg: ") for line in shown.err.splitlines()) == 2
    assert len(segmented("out")) == 2


# Paths that are none


def test_a_tilde_in_quotes_is_the_users_folder(organs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    for name in ("a b.nii.gz", "more/c.nii.gz", "bids/sub-1/anat/sub-1_T1w.nii.gz"):
        scan(tmp_path / "home" / name)
    scan(tmp_path / "~d.nii.gz")
    assert run("~/a b.nii.gz", "~/more", "~d.nii.gz", "--output=~/out") == 0
    assert segmented(tmp_path / "home" / "out") == {"a b", "c", "~d"}
    assert run("~/bids", "~/derivatives", "participant", "--skip-bids-validation") == 0
    assert (tmp_path / "home" / "derivatives" / "sub-1" / "anat").is_dir()
    assert not os.path.exists("~")


@pytest.mark.parametrize("address", ["https://host/t1.nii.gz?raw=1", "s3://bucket/*.nii", "file:///data/t1.nii.gz"])
def test_an_address_is_refused_as_one(organs, tmp_path, capsys, address):
    scan(tmp_path / "a.nii.gz")
    assert run(address, "a.nii.gz", "-o", "out") == 1
    assert f"{address}: This is an address and no path" in capsys.readouterr().err and segmented("out") == {"a"}
    for arguments in ([address, "out2", "participant"], [str(tmp_path), address, "participant"]):
        assert run(*arguments) == 1
        assert "This is an address and no path" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("a.nii.gz", "-o", address)
    assert "This is an address and no path" in capsys.readouterr().err
    assert set(os.listdir(tmp_path)) == {"a.nii.gz", "models", "out", "table.csv"}


@pytest.mark.parametrize("output", ["file", "file/out/deeper", "dangling"])
def test_a_file_in_the_way_of_the_results_is_told_once(organs, tmp_path, capsys, output):
    Path("file").write_text("mine")
    if output == "dangling":
        os.symlink("nowhere", "dangling")
    for name in "ab":
        scan(tmp_path / "study" / f"{name}.nii.gz")
    assert run("study", "-o", output) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "is in the way: it is a file" in said
    (tmp_path / "study" / "dataset_description.json").write_text("{}")
    assert run("study", output, "participant") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "is in the way: it is a file" in said
    assert Path("file").read_text() == "mine"


def test_a_folder_that_may_not_be_looked_into_does_not_end_the_batch(organs, tmp_path, monkeypatch, capsys):
    scan(tmp_path / "study" / "a.nii.gz"), scan(tmp_path / "study" / "b.nii.gz")
    exists = Path.exists

    def guarded(path, **options):
        if path.name.startswith("a_organs"):
            raise PermissionError(13, "Permission denied")
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", guarded)
    assert run("study", "-o", "out") == 1
    assert "cannot be opened (Permission denied)" in capsys.readouterr().err
    assert rows("out/sebrainseg.csv")["b.nii.gz"]["status"] == "segmented"


# Native code that crashes


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_file_that_crashes_its_reader_costs_that_scan(organs, tmp_path, capsys):
    """Stands in for damaged files by which SimpleITK ends: the process that reads a scan is killed meanwhile."""
    for name in "ace":
        scan(tmp_path / "study" / f"{name}.nrrd")
    deadly = pipe(tmp_path / "study" / "d.nrrd")
    command = threading.Thread(target=lambda: statuses.append(run(deadly, "study", "-o", "out")))
    statuses = []
    command.start()
    # Whoever can open the pipe for writing, has a reader at its other end.
    with open(deadly, "wb", buffering=0):
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
    command.join(DEADLOCK)
    assert statuses == [1] and segmented("out") == {"a", "c", "e"}
    assert rows("out/sebrainseg.csv")["d.nrrd"]["status"] == "failed"
    assert "d.nrrd made the process that read it crash" in capsys.readouterr().err
    assert not any("spawn_main" in " ".join(child.cmdline()) for child in psutil.Process().children())
