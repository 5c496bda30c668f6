"""What structures measure in scans that no network was trained on, and remarks on those far outside of that.

``Resources/Expectations.csv`` holds, for each drawing protocol and structure, the smallest and the largest share of all
31 structures' volume and the smallest mean confidence in the held-out scans, as ``Testing/Benchmarks/expectations.py``
measured them with the coronal U-Net with scSE. There are three such scans for FreeSurfer's protocol and two for the
manual one: so few scans of grown-ups say what is unusual, not what is ill.
"""

import csv
from functools import cache
from statistics import median
from typing import NamedTuple

from .resources import resource
from .structures import structures

MEASURED = "unet-scse-coronal"
FARTHEST = 2.0  # times smaller or larger than in any held-out scan
UNSURE = 0.1  # less confident than in any held-out scan


class Range(NamedTuple):
    """What the held-out scans of a protocol gave for one structure.

    Attributes:
        scans: how many there were.
        smallest, largest: share of the 31 structures' volume.
        confidence: smallest mean confidence.
    """

    scans: int
    smallest: float
    largest: float
    confidence: float


@cache
def ranges():
    """Return a :class:`Range` by protocol and label; none if the file is not there."""
    try:
        with open(resource("Expectations.csv"), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return {}
    numbers = ("smallest_share", "largest_share", "smallest_confidence")
    return {
        (row["protocol"], int(row["label"])): Range(int(row["scans"]), *(float(row[name]) for name in numbers))
        for row in rows
    }


def out_of_proportion(volumes, protocol):
    """Return the labels of structures that were found, but are far too small or large for the others that were.

    Args:
        volumes: ml by label, of all 31 structures.
        protocol: the convention of drawing.
    """
    found = {label: ml for label, ml in volumes.items() if ml and (protocol, label) in ranges()}
    expected = {label: ranges()[protocol, label] for label in found}
    if not found:
        return []
    # The size of the whole brain if each structure had its usual share of it; of a part of a brain, too.
    whole = median(2 * ml / (expected[label].smallest + expected[label].largest) for label, ml in found.items())
    return [
        label
        for label, ml in found.items()
        if not expected[label].smallest / FARTHEST <= ml / whole <= expected[label].largest * FARTHEST
    ]


def remarks(segmentation):
    """Return, by label, what is unusual about the structures of a segmentation; ``{}`` of a user-trained model's.

    Args:
        segmentation: a :class:`~.segmentation.Segmentation`. The shares of a part of the structures are not known: of
            these it is said what was not found and what is uncertain. Another network than that of the held-out scans
            is compared by volume only, as each has confidences of its own.
    """
    if segmentation.parameters.model:
        return {}
    confidences = segmentation.confidences if segmentation.parameters.networks == (MEASURED,) else {}
    whole = segmentation.structures == structures()
    total, found = sum(segmentation.volumes.values()), {}
    for structure in segmentation.structures:
        expected = ranges().get((segmentation.parameters.protocol, structure.label))
        if expected is None:
            continue
        volume = segmentation.volumes[structure.label]
        share = volume / total if whole and total else None
        confidence = confidences.get(structure.label)
        notes = []
        if volume == 0 and expected.smallest > 0:
            found[structure.label] = f"not found, unlike in the {expected.scans} held-out scans; look at it"
            continue
        if share is not None and share < expected.smallest / FARTHEST:
            notes.append("much smaller than")
        if share is not None and share > expected.largest * FARTHEST:
            notes.append("much larger than")
        if confidence is not None and confidence < expected.confidence - UNSURE:
            notes.append("less certain than")
        if notes:
            found[structure.label] = f"{' and '.join(notes)} in any of the {expected.scans} held-out scans; look at it"
    return found
