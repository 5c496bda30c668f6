"""What is told of every bundled network beforehand: ``Resources/Models/facts.csv``.

    python Testing/Benchmarks/facts.py [--freesurfer FILE ...] [--manual FILE ...] [--seconds NAME ...]

Counts parameters. The Dice of a protocol is the mean over the scans and structures in the files that ``accuracy.py
--csv`` or ``comparison.py`` (values.csv) left; what the latter measured of a network that has changed since is left
out. ``--seconds`` measures the CPU-seconds of ``sebrainseg`` with two threads on the bundled scan, brought to 256 x 256
x 256 voxels of 1 mm, from start to files written, of the choices named (such as ``unet-scse-all``; all if none is).
What is not measured anew stays as it is in the file. The README's table follows (``readme.py``).
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import SimpleITK as sitk

import readme
from scores import model_checksum
from SEBrainSegLib.choices.parameters import Architecture, Parameters, Variant, View, values
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.networks.architectures import network_class, parameters
from SEBrainSegLib.resources import resource

COLUMNS = ("network", "parameters", "increase_percent", "dice_freesurfer", "dice_manual", "seconds")
SAMPLE = "SampleData/colin27_t1.nii.gz"
SIDE = 256
LIBRARY = Path(bundled.__file__).resolve().parents[2]


def choices():
    """Every choice of network, SE block and view that there is."""
    choices = (Parameters(*choice) for choice in product(values(Architecture), values(Variant), values(View)))
    return [choice for choice in choices if not choice.absence()]


def counts_of(choice):
    """Trainable parameters of a choice, and how many percent of those without SE blocks they are more."""
    with_se = plain = 0
    for view in choice.views:
        network = bundled.load(choice.architecture, choice.se, view).network
        with_se += parameters(network)
        classes, width = network.classifier.weight.shape[:2]
        plain += parameters(network_class(choice.architecture)(classes=classes, width=width, se="none"))
    return with_se, 100 * (with_se / plain - 1)


def mean_dice(paths, protocol):
    """Mean Dice by name over all rows of a protocol in the files; a structure that neither had counts nowhere."""
    found, checksums = {}, {choice.name: model_checksum(choice) for choice in choices()}
    for path in paths:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                name, checksum = row["network"].removesuffix("-manual"), row.get("model_sha256")
                current = checksum in (None, checksums.get(name))
                meant = row.get("protocol", protocol) == protocol
                if current and meant and row["dice"] and row["dice"] != "nan":
                    found.setdefault(name, []).append(float(row["dice"]))
    return {name: sum(each) / len(each) for name, each in found.items()}


def head():
    """The bundled scan in the midst of 256 x 256 x 256 voxels of 1 mm."""
    image = sitk.ReadImage(str(resource(SAMPLE)))
    whole = sitk.Image([SIDE] * 3, image.GetPixelID())
    whole.SetDirection(image.GetDirection())
    centres = [
        each.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in each.GetSize()])
        for each in (image, whole)
    ]
    whole.SetOrigin([there - here for there, here in zip(*centres)])
    return sitk.Resample(image, whole)


def cpu_seconds(choice):
    """CPU-seconds of the command line on :func:`head`."""
    command = [sys.executable, "-m", "SEBrainSegLib", "--device", "cpu"]
    command += ["--architecture", choice.architecture, "--se", choice.se, "--view", choice.view]
    paths = os.pathsep.join(filter(None, (str(LIBRARY), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "2"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head.nii.gz"
        sitk.WriteImage(head(), str(path))
        before = os.times()
        subprocess.run([*command, str(path)], check=True, env=environment)
        after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(argv=None):
    """Run the benchmark; returns the exit status (0 done)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for protocol in ("freesurfer", "manual"):
        parser.add_argument(f"--{protocol}", nargs="+", default=[], metavar="FILE", type=Path)
    parser.add_argument("--seconds", nargs="*", metavar="NAME", help="measure the time of these choices, or of all")
    parser.add_argument("--file", type=Path, help="file to write (default: Resources/Models/facts.csv)")
    chosen = parser.parse_args(argv)
    path = chosen.file or resource("Models/checksums.csv").with_name("facts.csv")
    before = {}
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            before = {row["network"]: row for row in csv.DictReader(file)}
    dice = {protocol: mean_dice(getattr(chosen, protocol), protocol) for protocol in ("freesurfer", "manual")}
    rows = []
    for choice in choices():
        count, increase = counts_of(choice)
        row = {name: before.get(choice.name, {}).get(name, "") for name in COLUMNS}
        row.update(network=choice.name, parameters=count, increase_percent=f"{increase:.2f}")
        for protocol, means in dice.items():
            if choice.name in means:
                row[f"dice_{protocol}"] = f"{means[choice.name]:.3f}"
        if chosen.seconds is not None and (not chosen.seconds or choice.name in chosen.seconds):
            row["seconds"] = f"{cpu_seconds(choice):.0f}"
        rows.append(row)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{path}: {len(rows)} choices")
    if not chosen.file:
        readme.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
