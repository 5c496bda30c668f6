"""What structures measure in held-out scans, for remarks on those that measure something else.

    python Testing/Benchmarks/expectations.py FOLDER... [--names NAME ...] --protocol freesurfer|manual

FOLDER holds scans NAME_t1.nii.gz with labels, as of ``accuracy.py``; the labels are not looked at. Segments each with
the coronal U-Net with scSE and writes the protocol's rows of ``Resources/Expectations.csv``; the other protocol's stay.
"""

import argparse
import csv
import sys
from pathlib import Path

from scores import find_scans
from SEBrainSegLib import SEBrainSegError, segment
from SEBrainSegLib.parameters import Protocol, values
from SEBrainSegLib.resources import resource
from SEBrainSegLib.structures import structures

COLUMNS = ("protocol", "label", "structure", "scans", "smallest_share", "largest_share", "smallest_confidence")


def rows_of(protocol, found):
    """The rows of a protocol, of a list of segmentations with confidences."""
    totals = [sum(each.volumes.values()) for each in found]
    for structure in structures():
        shares = [each.volumes[structure.label] / total for each, total in zip(found, totals)]
        confidences = [each.confidences[structure.label] for each in found if structure.label in each.confidences]
        numbers = min(shares), max(shares), min(confidences, default=0.0)
        yield protocol, structure.label, structure.name, len(found), *(f"{number:.5f}" for number in numbers)


def main(argv=None):
    """Run the benchmark; returns the exit status (0 done, 2 bad input)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--names", nargs="+", help="only these scans")
    parser.add_argument("--protocol", required=True, choices=values(Protocol))
    parser.add_argument("--file", type=Path, help="file to write (default: Resources/Expectations.csv)")
    chosen = parser.parse_args(argv)
    path = chosen.file or resource("Structures.csv").with_name("Expectations.csv")
    try:
        scans = find_scans(chosen.folders, chosen.names)
        found = [segment(scan.read()[0], protocol=chosen.protocol, confidence=True) for scan in scans]
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    kept = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            kept = [tuple(row) for row in list(csv.reader(file))[1:] if row[0] != chosen.protocol]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sorted([*kept, *rows_of(chosen.protocol, found)], key=lambda row: row[0]))
    print(f"{path}: {len(found)} scans, {chosen.protocol} protocol")
    return 0


if __name__ == "__main__":
    sys.exit(main())
