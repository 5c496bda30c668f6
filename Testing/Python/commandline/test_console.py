"""Consoles that cannot show a line, and commands that take long: neither decides about a scan."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cohorts import DEADLOCK, POSIX, rows, run, scan, segmented, wait_until
from phantoms import write_pairs, write_table
from SEBrainSegLib.commandline import console
from SEBrainSegLib.commandline import main as command_line
from SEBrainSegLib.files import names

LIBRARY = Path(command_line.__file__).resolve().parents[2]


def nobody_reads():
    """What is left of a pipe after ``| head -c 0``."""
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w", encoding="utf-8")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


CONSOLES = {
    "a closed pipe": nobody_reads,
    "a full disk": lambda: open("/dev/full", "w", encoding="utf-8"),
    "ASCII": lambda: io.TextIOWrapper(io.BytesIO(), "ascii"),
    "closed": closed,
    "none": lambda: None,
}


@POSIX
@pytest.mark.skipif(sys.platform == "darwin", reason="/dev/full")
@pytest.mark.parametrize("which", ["stdout", "stderr"])
@pytest.mark.parametrize("kind", CONSOLES)
def test_a_line_that_cannot_be_shown_costs_no_scan(organs, tmp_path, monkeypatch, kind, which):
    for name in ("a", "ü 脑", "z"):
        scan(tmp_path / "study" / f"{name}.nii.gz")
    (tmp_path / "study" / "größe.nii.gz").write_bytes(b"broken")
    monkeypatch.setattr(sys, which, CONSOLES[kind]())
    assert run("study", "-o", "out") == 1
    assert segmented("out") == {"a", "ü 脑", "z"}
    found = {name: row["status"] for name, row in rows("out/sebrainseg.csv").items()}
    assert found.pop("größe.nii.gz") == "failed" and set(found.values()) == {"segmented"} and len(found) == 3


@POSIX
@pytest.mark.skipif(sys.platform == "darwin", reason="/dev/full")
@pytest.mark.parametrize("which", ["stdout", "stderr"])
@pytest.mark.parametrize("kind", CONSOLES)
def test_a_line_that_cannot_be_shown_costs_no_training(tmp_path, monkeypatch, kind, which):
    from SEBrainSegLib.training import main as training

    labels = np.zeros((2, 16, 16, 16), np.uint8)
    labels[:, 4:12, 4:12, 4:12] = 1
    data = write_pairs(tmp_path / "größe", labels * 100.0 + np.arange(16.0), labels)
    table = write_table(tmp_path / "table.csv", {1: "Liver"})
    monkeypatch.setattr(sys, which, CONSOLES[kind]())
    arguments = [str(data), "--structures", str(table), "--output", str(tmp_path / "ü.pt"), "--device", "cpu"]
    assert training.main([*arguments, "--width", "4", "--steps", "1", "--workers", "0"]) == 0
    assert (tmp_path / "ü.pt").exists()
    assert training.main(arguments[:-2]) in (0, 2)


@POSIX
@pytest.mark.skipif(sys.platform == "darwin", reason="/dev/full")
@pytest.mark.parametrize(
    "arguments, redirection, status, words",
    [
        ("--list", "| head -c 0", 0, ""),
        ("--list", "| head -1", 0, ""),
        ("--help", "| head -c 0", 0, ""),
        ("--version", ">&-", 0, ""),
        ("--list", "> /dev/full", 1, "Standard output cannot be written (No space left on device)"),
        ("nowhere.nii", ">&- 2>&-", 1, ""),
        ("größe.nii", "2> /dev/full", 1, ""),
    ],
)
def test_the_process_ends_in_order_whatever_reads_it(arguments, redirection, status, words):
    command = f"set -o pipefail; '{sys.executable}' -m SEBrainSegLib {arguments} {redirection}"
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=DEADLOCK)
    assert done.returncode == status
    assert words in done.stderr and done.stderr.count("\n") == bool(words), done.stderr


@POSIX
def test_results_do_not_get_the_numbers_of_closed_streams(tmp_path):
    """Else what a library prints would go into one of them."""
    code = """
kept = open('kept', 'w')  # takes the place of stdin
from SEBrainSegLib.commandline import console
with console.steady('x'):
    print(open('file', 'w').fileno() > 2, file=kept)
"""
    command = f'"{sys.executable}" -c "{code}" <&- >&- 2>&-'
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(LIBRARY)}, check=True)
    assert (tmp_path / "kept").read_text() == "True\n"


def test_text_that_no_file_can_hold_is_shown_all_the_same():
    assert names.shown("größe 脑.nii") == "größe 脑.nii"
    assert names.shown("M\udcfcller.nii") == "M\\xfcller.nii"
    assert names.shown("\ud800.nii") == "\\ud800.nii"
    assert names.shown("a\nb\r\x1b[2J\x9b.nii") == "a\\nb\\r\\x1b[2J\\x9b.nii"


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_off_a_terminal_goes_on_while_nothing_new_happens(monkeypatch):
    assert console.SILENCE <= 10
    monkeypatch.setattr(console, "SILENCE", 0.02)
    stream = io.StringIO()
    line = command_line.ProgressLine("t1", stream)
    line(0.15, "Segmenting coronal slices")
    wait_until(lambda: stream.getvalue().count("15% Segmenting coronal slices") >= 3)
    line(0.4, "Segmenting coronal slices")
    wait_until(lambda: "40% Segmenting coronal slices" in stream.getvalue())
    line.close()
    line.pulse.thread.join(DEADLOCK)
    assert all(each.startswith("t1:  ") for each in stream.getvalue().splitlines())


def test_progress_on_a_terminal_is_one_line():
    stream = Terminal()
    line = command_line.ProgressLine("t1", stream)
    for number in range(10):
        line(number / 10, "Segmenting")
    line.close()
    assert stream.getvalue().count("\n") == 1


def test_scans_in_other_processes_are_spoken_of_while_they_take_long(monkeypatch):
    monkeypatch.setattr(console, "SILENCE", 0.02)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with command_line.signs_of_life(SimpleNamespace(finished=3, count=12)):
        wait_until(lambda: sys.stderr.getvalue().count("3 of 12 inputs done") >= 2)
