"""Dice of the bundled networks on a folder of labelled scans that they never saw.

    python Testing/Benchmarks/accuracy.py FOLDER [--se none cse sse scse] [--csv FILE]

FOLDER holds pairs NAME_t1.nii.gz and NAME_structures.nii.gz (FreeSurfer ids; 255 is left out of the score). Prints the
mean Dice over the 31 structures for each scan and network, then every structure's mean over the scans; the file takes
every single value. The scores are those of the whole path, on the scan's own grid.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "SEBrainSeg"))

from SEBrainSegLib import segment  # noqa: E402
from SEBrainSegLib.structures import IGNORED, structures  # noqa: E402


def dice_of_structures(found, truth):
    """Return the Dice of every structure in table order; not-a-number where neither array has it."""
    scored = truth != IGNORED
    found, truth = found[scored], truth[scored]
    overlap = np.bincount(truth[found == truth], minlength=256)
    total = np.bincount(truth, minlength=256) + np.bincount(found, minlength=256)
    labels = [structure.label for structure in structures()]
    with np.errstate(invalid="ignore"):
        return 2 * overlap[labels] / total[labels]


def name_of(path):
    """The NAME of ``NAME_t1.nii.gz``."""
    return path.name[: -len("_t1.nii.gz")]


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", default="unet")
    parser.add_argument("--se", nargs="+", default=["none", "cse", "sse", "scse"])
    parser.add_argument("--names", nargs="+", help="only these scans")
    parser.add_argument("--csv", type=Path, help="file for the Dice of every scan, network and structure")
    chosen = parser.parse_args()
    paths = sorted(chosen.folder.glob("*_t1.nii.gz"))
    if chosen.names:
        paths = [path for path in paths if name_of(path) in chosen.names]
    if not paths:
        sys.exit(f"{chosen.folder} holds no NAME_t1.nii.gz with NAME_structures.nii.gz.")
    scores = {}
    print("| scan | " + " | ".join(chosen.se) + " |\n|---|" + "---|" * len(chosen.se))
    for path in paths:
        image = sitk.ReadImage(str(path))
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(path.with_name(f"{name_of(path)}_structures.nii.gz"))))
        name = name_of(path)
        for se in chosen.se:
            found = segment(image, architecture=chosen.architecture, se=se).labels
            scores[name, se] = dice_of_structures(sitk.GetArrayFromImage(found), truth)
        print(f"| {name} | " + " | ".join(f"{np.nanmean(scores[name, se]):.3f}" for se in chosen.se) + " |", flush=True)
    print("\n| structure | " + " | ".join(chosen.se) + " |\n|---|" + "---|" * len(chosen.se))
    for index, structure in enumerate(structures()):
        means = [np.nanmean([scores[name_of(path), se][index] for path in paths]) for se in chosen.se]
        print(f"| {structure.name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    if chosen.csv:
        with open(chosen.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["scan", "network", "structure", "dice"])
            for (name, se), values in scores.items():
                for structure, value in zip(structures(), values):
                    writer.writerow([name, f"{chosen.architecture}-{se}-coronal", structure.name, f"{value:.4f}"])


if __name__ == "__main__":
    main()
