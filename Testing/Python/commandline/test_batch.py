"""Many scans on the command line: what is meant, what is skipped, the summary, and processes that are killed."""

import csv
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk

from cohorts import DEADLOCK, POSIX, pipe, rows, run, scan, segmented, wait_until
from phantoms import dicom_series
from SEBrainSegLib.commandline import main as command_line
from SEBrainSegLib.commandline import summary
from SEBrainSegLib.files import results
from SEBrainSegLib.files.names import shown

LIBRARY = Path(command_line.__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("organs")


# What is meant


def test_folders_patterns_and_files_in_any_mixture_once_each(tmp_path, capsys):
    for name in ("study/b.nii.gz", "study/a, ä.nrrd", "study/.hidden.nii", "deep/x/t1.nii.gz", "deep/y/z/t1.nii.gz"):
        scan(tmp_path / name)
    (tmp_path / "study" / "notes.txt").write_text("no image")
    slices = tmp_path / "series"
    slices.mkdir()
    dicom_series(
        slices, 4, "1.2.3.4", sitk.GaussianSource(sitk.sitkInt16, [24, 6, 4], sigma=[4.0] * 3, mean=[9.0, 3.0, 2.0])
    )
    arguments = ["study", "./study/b.nii.gz", "deep/**/*.nii.gz", "series", "study/*.nii.gz"]
    assert run(*arguments, "-o", "out") == 0
    expected = {"b", "a, ä", os.path.join("x", "t1"), os.path.join("y", "z", "t1"), "series"}
    assert segmented("out") == expected
    assert "[5/5]" in capsys.readouterr().out
    assert len(rows("out/sebrainseg.csv")) == 4  # t1.nii.gz twice
    assert {row["status"] for row in rows("out/sebrainseg.csv").values()} == {"segmented"}


def test_results_beside_the_scans_are_no_scans(tmp_path, capsys):
    scan(tmp_path / "study" / "a.nii.gz"), scan(tmp_path / "study" / "b.nii.gz")
    assert run("study") == 0
    assert os.path.exists("sebrainseg.csv") and segmented("study") == {"a", "b"}
    before = sorted(os.listdir("study"))
    for arguments in (["study"], ["study/*"], sorted(map(str, Path("study").glob("*.nii.gz")))):
        assert run(*arguments) == 0
        shown = capsys.readouterr()
        assert "[2/2]" in shown.out and "results of earlier runs" in shown.err
        assert sorted(os.listdir("study")) == before


def test_pictures_are_scans_to_models_of_pictures_only(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "study"
    scan(folder / "a.nii.gz")
    sitk.WriteImage(sitk.Image([20, 20], sitk.sitkUInt8), str(folder / "shot.png"))
    assert command_line.main(["study", "--device", "cpu", "-o", "out"]) == 1  # no brain in this scan
    assert "a.nii.gz" in capsys.readouterr().err and set(rows("out/sebrainseg.csv")) == {"a.nii.gz"}
    run("study", "-o", "out")
    assert "shot.png" in rows("out/sebrainseg.csv")


@pytest.mark.parametrize(
    "argument, words",
    [
        ("empty", "no DICOM series and no image"),
        ("study/**/*.mha", "No scan fits this pattern"),
        ("bids", "sebrainseg BIDS_DIR OUTPUT_DIR participant"),
        ("nowhere.nii", "does not exist"),
    ],
)
def test_what_yields_no_scan_is_one_sentence_and_stops_nothing(tmp_path, capsys, argument, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids" / "dataset_description.json").write_text("{}")
    scan(tmp_path / "study" / "a.nii.gz")
    assert run(argument, "study", "-o", "out") == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sebrainseg:")]
    assert words in errors[0] and "1 of 2 inputs were not segmented" in errors[1] and len(errors) == 2
    assert segmented("out") == {"a"}


# Resuming and the summary


def test_the_same_command_goes_on_where_it_stopped(tmp_path, capsys):
    for name in "abc":
        scan(tmp_path / "study" / f"{name}.nii.gz", 7 + ord(name) - ord("a"))
    assert run("study", "-o", "out") == 0
    first = rows("out/sebrainseg.csv")
    with open("out/b_organs.csv", newline="", encoding="utf-8") as file:
        table = {row["structure"]: row for row in csv.DictReader(file)}
    assert float(first["b.nii.gz"]["Left Kidney (ml)"]) == float(table["Kidney"]["left_ml"])
    assert float(first["b.nii.gz"]["Spleen (ml)"]) == float(table["Spleen"]["total_ml"])
    # One is half written, one was lost and one is whole.
    os.unlink("out/a_organs.png")
    for ending in results.ENDINGS:
        os.unlink(f"out/b_organs{ending}")
    whole = Path("out/c_organs.nii.gz").stat().st_mtime_ns
    capsys.readouterr()
    assert run("study", "-o", "out") == 0
    assert segmented("out") == {"a", "b", "c"} and Path("out/c_organs.nii.gz").stat().st_mtime_ns == whole
    skipped = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(skipped) == 1 and "c.nii.gz" in skipped[0]
    again = rows("out/sebrainseg.csv")
    assert again["c.nii.gz"] == first["c.nii.gz"] and {row["status"] for row in again.values()} == {"segmented"}
    assert run("study", "-o", "out", "--overwrite") == 0
    assert Path("out/c_organs.nii.gz").stat().st_mtime_ns > whole


def test_the_summary_tells_of_failures_and_of_what_others_made(tmp_path):
    scan(tmp_path / "study" / "a.nii.gz")
    (tmp_path / "study" / "broken.nii.gz").write_bytes(b"nothing")
    assert run("study/a.nii.gz", "-o", "out") == 0
    assert not os.path.exists("out/sebrainseg.csv")
    assert run("study", "-o", "out") == 1
    found = rows("out/sebrainseg.csv")
    assert found["a.nii.gz"]["status"] == "skipped" and float(found["a.nii.gz"]["Spleen (ml)"]) >= 0
    assert found["broken.nii.gz"]["status"] == "failed" and "damaged" in found["broken.nii.gz"]["reason"]
    scan(tmp_path / "study" / "broken.nii.gz")
    assert run("study", "-o", "out") == 0
    assert rows("out/sebrainseg.csv")["broken.nii.gz"]["status"] == "segmented"


def test_the_summary_is_kept_after_every_scan(tmp_path, monkeypatch):
    for name in "abc":
        scan(tmp_path / "study" / f"{name}.nii.gz")
    seen, update = [], summary.update

    def interrupted(path, new):
        update(path, new)
        seen.append(set(rows(path)))
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("SEBrainSegLib.commandline.batch.update", interrupted)
    assert run("study", "-o", "out") == 130
    assert seen == [{"a.nii.gz"}, {"a.nii.gz", "b.nii.gz"}]
    assert not [name for name in os.listdir("out") if name.startswith(".")]
    monkeypatch.setattr("SEBrainSegLib.commandline.batch.update", update)
    assert run("study", "-o", "out") == 0
    assert set(rows("out/sebrainseg.csv")) == {"a.nii.gz", "b.nii.gz", "c.nii.gz"}


def test_a_file_that_is_no_summary_is_left_alone(tmp_path, capsys):
    scan(tmp_path / "study" / "a.nii.gz")
    Path("sebrainseg.csv").write_text("mine\n")
    assert run("study") == 1
    assert "is no summary" in capsys.readouterr().err and Path("sebrainseg.csv").read_text() == "mine\n"


def test_the_results_of_a_rival_are_not_taken_for_ones_own(tmp_path, capsys):
    scan(tmp_path / "one" / "t1.nii.gz").write_bytes(b"broken")
    scan(tmp_path / "two" / "t1.nii.gz")
    assert run("one/t1.nii.gz", "two/t1.nii.gz", "-o", "out") == 1
    scan(tmp_path / "one" / "t1.nii.gz")
    capsys.readouterr()
    assert run("one/t1.nii.gz", "two/t1.nii.gz", "-o", "out") == 1
    shown = capsys.readouterr()
    assert "two/t1.nii.gz: skipped" in shown.out and "one/t1.nii.gz: Its results would replace" in shown.err


def test_confidence_is_one_more_result(tmp_path):
    scan(tmp_path / "study" / "a.nii.gz")
    assert run("study") == 0 and not os.path.exists("study/a_organs_confidence.nii.gz")
    # The results lack one, so that the scan is not done.
    assert run("study", "--confidence") == 0
    confidence = sitk.ReadImage("study/a_organs_confidence.nii.gz")
    assert confidence.GetSize() == (24, 6, 4) and confidence.GetPixelID() == sitk.sitkFloat32
    assert 0 < sitk.GetArrayFromImage(confidence).max() <= 1
    with open("study/a_organs.csv", newline="", encoding="utf-8") as file:
        assert any(0 < float(row["confidence"] or 0) <= 1 for row in csv.DictReader(file))
    before = sorted(os.listdir("study"))
    assert run("study", "--confidence") == 0 and sorted(os.listdir("study")) == before


def test_chosen_structures_have_results_of_their_own(tmp_path):
    scan(tmp_path / "study" / "a.nii.gz")
    assert run("study") == 0 and run("study", "--structures", "Left Kidney") == 0
    with open("study/a_organs_left-kidney.csv", newline="", encoding="utf-8") as file:
        assert [row["structure"] for row in csv.DictReader(file)] == ["Kidney"]
    labels = sitk.GetArrayFromImage(sitk.ReadImage("study/a_organs_left-kidney.nii.gz"))
    assert set(np.unique(labels)) <= {0, 4}
    with open("sebrainseg.csv", newline="", encoding="utf-8") as file:
        found = {row["network"]: row for row in csv.DictReader(file)}
    assert found["organs_left-kidney"]["Spleen (ml)"] == "" and float(found["organs"]["Spleen (ml)"]) >= 0
    before = sorted(os.listdir("study"))
    assert run("study") == 0 and sorted(os.listdir("study")) == before


# Several at a time


class Command:
    """The command in a process and a session of its own, and what it has said."""

    def __init__(self, *arguments):
        environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "SEBrainSegLib", *arguments, "--model", "organs", "--device", "cpu"]
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
            # What a shell starts in the background ignores Ctrl-C, and so would this.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.lines = []
        threading.Thread(target=self.lines.extend, args=(self.process.stdout,), daemon=True).start()

    def wait_for(self, words):
        wait_until(lambda: any(words in line for line in list(self.lines)) or self.process.poll() is not None)
        assert any(words in line for line in list(self.lines)), self.lines

    def workers(self):
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@POSIX
def test_a_killed_process_costs_one_scan_a_second_try_and_not_the_run(tmp_path):
    latin = os.fsdecode(b"\xfc") if sys.platform != "darwin" else "c"  # is no UTF-8
    scan(tmp_path / "study" / "b.nii.gz")
    scan(tmp_path / "study" / "c.nii.gz").rename(tmp_path / "study" / f"{latin}.nii.gz")
    deadly, slow = pipe(tmp_path / "study" / "a.nii"), pipe(tmp_path / "study" / "d.nii")
    command = Command(str(deadly), "study", str(slow), "-o", "out", "--jobs", "2")
    command.wait_for("b.nii.gz: ")
    command.wait_for(f"{shown(latin)}.nii.gz: ")
    os.replace(scan(tmp_path / "whole.nii"), slow)
    wait_until(lambda: len(command.workers()) == 2)
    for worker in command.workers():
        worker.kill()
    command.wait_for("d.nii: ")
    wait_until(command.workers)
    for worker in command.workers():
        worker.kill()
    assert command.process.wait(DEADLOCK) == 1
    assert segmented("out") == {"b", latin, "d"}
    assert not [name for name in os.listdir("out") if name.startswith(".")]
    said = "".join(command.lines)
    assert "a.nii: Its process died 2 times (signal 9)" in said and "1 of 4 inputs" in said and "left" in said
    found = rows("out/sebrainseg.csv")
    assert found["a.nii"]["status"] == "failed" and found["d.nii"]["status"] == "segmented"


@POSIX
@pytest.mark.parametrize("ended", ["by Ctrl-C", "by kill -9"])
def test_nothing_outlives_the_command(tmp_path, ended):
    scan(tmp_path / "study" / "b.nii.gz")
    slow = pipe(tmp_path / "study" / "a.nii")
    command = Command(str(slow), "study/b.nii.gz", "-o", "out", "--jobs", "2")
    command.wait_for("b.nii.gz: ")
    workers = command.workers()
    assert workers
    if ended == "by Ctrl-C":
        os.killpg(command.process.pid, signal.SIGINT)
        assert command.process.wait(DEADLOCK) == 130
        assert command.lines[-1].startswith("sebrainseg: interrupted") and "Traceback" not in "".join(command.lines)
    else:
        command.process.kill()
        command.process.wait()
    assert not psutil.wait_procs(workers, timeout=DEADLOCK)[1]
    assert segmented("out") == {"b"} and rows("out/sebrainseg.csv")["b.nii.gz"]["status"] == "segmented"


def test_jobs_are_a_number_of_at_least_one(capsys):
    for wrong in ("0", "-2", "many"):
        with pytest.raises(SystemExit):
            command_line.main(["scan.nii", "--jobs", wrong])
        assert "whole number of at least 1" in capsys.readouterr().err or wrong == "-2"
