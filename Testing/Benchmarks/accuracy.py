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

import SimpleITK as sitk

from scores import dice_of_structures, find_scans, mean, table
from SEBrainSegLib import SEBrainSegError, segment
from SEBrainSegLib.choices.parameters import Protocol, View, values
from SEBrainSegLib.choices.structures import structures


def main(argv=None):
    """Run the benchmark; returns the exit status (0 done, 2 bad input)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", default="unet")
    parser.add_argument("--se", nargs="+", default=["none", "cse", "sse", "scse"])
    parser.add_argument("--view", default="coronal", choices=values(View))
    parser.add_argument("--protocol", default="freesurfer", choices=values(Protocol), help="that of the labels")
    parser.add_argument("--names", nargs="+", help="only these scans")
    parser.add_argument("--csv", type=Path, help="file for the Dice of every scan, network and structure")
    chosen = parser.parse_args(argv)
    scores = {}
    try:
        scans = find_scans([chosen.folder], chosen.names)
        print(table(["scan", *chosen.se], []))
        for scan in scans:
            image, truth = scan.read()
            for se in chosen.se:
                found = segment(
                    image, architecture=chosen.architecture, se=se, view=chosen.view, protocol=chosen.protocol
                ).labels
                scores[scan.name, se] = dice_of_structures(sitk.GetArrayFromImage(found), truth)
            means = (f"{mean(scores[scan.name, se]):.3f}" for se in chosen.se)
            print(f"| {scan.name} | {' | '.join(means)} |", flush=True)
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    rows = []
    for index, structure in enumerate(structures()):
        means = [mean([scores[scan.name, se][index] for scan in scans]) for se in chosen.se]
        rows.append([structure.name, *(f"{value:.3f}" for value in means)])
    print("\n" + table(["structure", *chosen.se], rows))
    if chosen.csv:
        with open(chosen.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["scan", "network", "structure", "dice"])
            for (name, se), dice in scores.items():
                for structure, value in zip(structures(), dice):
                    writer.writerow([name, f"{chosen.architecture}-{se}-{chosen.view}", structure.name, f"{value:.4f}"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
