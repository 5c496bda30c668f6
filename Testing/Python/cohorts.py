"""What the tests of many scans share: scans of few voxels, the command, and what it leaves."""

import csv
import os
import time
from pathlib import Path

import pytest
import SimpleITK as sitk

from SEBrainSegLib.commandline import main as command_line
from SEBrainSegLib.files import results

POSIX = pytest.mark.skipif(os.name != "posix", reason="named pipes and signals")

DEADLOCK = 600.0  # seconds after which what is waited for will never come, however slow the machine


def wait_until(condition):
    """Wait until a condition holds."""
    end = time.monotonic() + DEADLOCK
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def scan(path, centre=9):
    """A scan of few voxels, slim because its picture has a fixed length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GaussianSource(sitk.sitkFloat32, [24, 6, 4], sigma=[4.0] * 3, mean=[float(centre), 3.0, 2.0])
    sitk.WriteImage(image, str(path))
    return path


def pipe(path):
    """A scan that keeps a process busy for as long as nobody writes to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def run(*arguments):
    return command_line.main([*map(str, arguments), "--model", "organs", "--device", "cpu"])


def segmented(folder):
    """The scans with results in a folder or those below it, by the path of their results without ending."""
    sets = {str(path)[: -len(".csv")] for path in Path(folder).rglob("*_organs.csv")}
    assert all(os.path.exists(f"{each}{ending}") for each in sets for ending in results.ENDINGS)
    return {os.path.relpath(each, folder)[: -len("_organs")] for each in sets}


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {os.path.basename(row["input"]): row for row in csv.DictReader(file)}
