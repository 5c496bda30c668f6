"""What structures measure in held-out scans, for remarks on those that measure something else.

    python Testing/Benchmarks/expectations.py FOLDER... [--names NAME ...] --protocol freesurfer|manual

FOLDER holds scans NAME_t1.nii.gz; labels are not needed. Segments each with the coronal U-Net with scSE and writes the
protocol's rows of ``Resources/Expectations.csv``; the other protocol's stay. Bundled are figures of ``swm``, ``oasis``,
``niivue``, MALC 1017 and 1036, ``philips``, ``chris``, ``pycortex`` and ``colin27``, which no weight saw in training.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from scores import read
from SEBrainSegLib import SEBrainSegError, segment
from SEBrainSegLib.choices.parameters import Protocol, values
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.resources import resource

COLUMNS = ("protocol", "label", "structure", "scans", "smallest_share", "largest_share", "smallest_confidence")
COLUMNS += ("mean_asymmetry", "sd_asymmetry", "superior_mm", "anterior_mm", "right_mm")
THALAMI = (10, 49)


def places_of(labels):
    """Centre of gravity ``(superior, anterior, right)`` in mm of every label of an image, from between the thalami."""
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(labels)
    # SimpleITK's world is left, posterior, superior.
    places = {label: np.array(shapes.GetCentroid(label))[::-1] * (1, -1, -1) for label in shapes.GetLabels()}
    middle = np.mean([places[label] for label in THALAMI], axis=0)
    return {label: place - middle for label, place in places.items()}


def asymmetry_of(structure, found):
    """Mean and standard deviation of the asymmetry of a structure in percent, as text; ``""`` without sides."""
    pair = sorted(
        (each for each in structures() if each.unsided_name == structure.unsided_name), key=lambda each: each.side
    )
    if len(pair) < 2:
        return "", ""
    ml = np.array([[each.volumes[side.label] for side in pair] for each in found])
    ml = ml[ml.sum(axis=1) > 0]
    if len(ml) < 2:
        return "", ""
    percent = 200 * (ml[:, 0] - ml[:, 1]) / ml.sum(axis=1)
    return f"{percent.mean():.1f}", f"{percent.std(ddof=1):.1f}"


def find_scans(folders, names):
    """Return the paths of the scans of some folders, or those named.

    Raises:
        SEBrainSegError: there are none, fewer than two, or one that is named is missing.
    """
    paths = {path.name[: -len("_t1.nii.gz")]: path for each in folders for path in sorted(each.glob("*_t1.nii.gz"))}
    missing = [name for name in names or () if name not in paths]
    if missing:
        raise SEBrainSegError(f"There is no scan {missing[0]}_t1.nii.gz in the folders given.")
    chosen = [path for name, path in paths.items() if not names or name in names]
    if len(chosen) < 2:
        raise SEBrainSegError("A spread takes at least two scans NAME_t1.nii.gz.")
    return chosen


def rows_of(protocol, found):
    """The rows of a protocol, of a list of segmentations with confidences."""
    totals = [sum(each.volumes.values()) for each in found]
    places = [places_of(each.labels) for each in found]
    for structure in structures():
        shares = [each.volumes[structure.label] / total for each, total in zip(found, totals)]
        confidences = [each.confidences[structure.label] for each in found if structure.label in each.confidences]
        numbers = min(shares), max(shares), min(confidences, default=0.0)
        there = [each[structure.label] for each in places if structure.label in each]
        place = [f"{mm:.1f}" for mm in np.mean(there, axis=0)] if there else ["", "", ""]
        yield (
            *(protocol, structure.label, structure.name, len(found), *(f"{number:.5f}" for number in numbers)),
            *(*asymmetry_of(structure, found), *place),
        )


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
        found = [segment(read(path), protocol=chosen.protocol, confidence=True, accept_unlikely=True) for path in scans]
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
