"""What structures measure in scans that no network was trained on, and remarks on those far outside of that.

``Resources/Expectations.csv`` holds, for each drawing protocol and structure, the smallest and the largest share of all
31 structures' volume and the smallest mean confidence in scans that no weight saw in training, the mean and the spread
of its asymmetry and its usual place, as ``Testing/Benchmarks/expectations.py`` measured them with the coronal U-Net
with scSE. So few scans of grown-ups say what is unusual, not what is ill.
"""

import csv
from functools import cache
from statistics import median
from typing import NamedTuple, Optional

from ..choices.structures import structures
from ..resources import resource

_MEASURED_NETWORK = "unet-scse-coronal"


_LARGEST_FACTOR = 2.0  # times smaller or larger than in any held-out scan


_CONFIDENCE_MARGIN = 0.1  # less confident than in any held-out scan


_LARGEST_DEVIATION = 3.0  # times the standard deviation from the mean of held-out scans


_LEAST_ASYMMETRY = 10.0  # percent, whatever the standard deviation


class Range(NamedTuple):
    """What the held-out scans of a protocol gave for one structure.

    Attributes:
        scans: how many there were.
        smallest, largest: share of the 31 structures' volume.
        confidence: smallest mean confidence.
        asymmetry, spread: mean and standard deviation of the difference of left and right, in percent of their mean;
            ``None`` of a structure without sides.
        place: mean centre of gravity, in mm towards superior, anterior and right, seen from the middle of both thalami.
    """

    scans: int
    smallest: float
    largest: float
    confidence: float
    asymmetry: Optional[float] = None
    spread: Optional[float] = None
    place: tuple[float, ...] = ()


@cache
def ranges() -> dict[tuple[str, int], Range]:
    """Return a :class:`Range` by protocol and label; none if the file is not there."""
    try:
        with open(resource("Expectations.csv"), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return {}
    names = ("smallest_share", "largest_share", "smallest_confidence", "mean_asymmetry", "sd_asymmetry")
    return {
        (row["protocol"], int(row["label"])): Range(
            int(row["scans"]),
            *(float(row[name]) if row[name] else None for name in names),  # type: ignore[arg-type,call-arg]
            tuple(float(row[name]) for name in ("superior_mm", "anterior_mm", "right_mm") if row[name]),
        )
        for row in rows
    }


def whole_brain(volumes: dict[int, float], protocol: str) -> float:
    """Return the ml of the brain if every structure that was found had its usual share; 0 if none was.

    Args:
        volumes: ml by label, of all 31 structures or of those of a part of a brain.
        protocol: the convention of drawing.
    """
    known = {label: ranges()[protocol, label] for label, ml in volumes.items() if ml and (protocol, label) in ranges()}
    if not known:
        return 0.0
    return median(2 * volumes[label] / (each.smallest + each.largest) for label, each in known.items())


def out_of_proportion(volumes: dict[int, float], protocol: str) -> list[int]:
    """Return the labels of structures that were found, but are far too small or large for the others that were.

    Args:
        volumes: ml by label, of all 31 structures.
        protocol: the convention of drawing.
    """
    found = {label: ml for label, ml in volumes.items() if ml and (protocol, label) in ranges()}
    expected = {label: ranges()[protocol, label] for label in found}
    whole = whole_brain(volumes, protocol)
    return [
        label
        for label, ml in found.items()
        if not expected[label].smallest / _LARGEST_FACTOR <= ml / whole <= expected[label].largest * _LARGEST_FACTOR
    ]


def remarks(segmentation):
    """Return, by label, what is unusual about the structures of a segmentation; ``{}`` of a user-trained model's.

    Args:
        segmentation: a :class:`~.result.Segmentation`. The shares of a part of the structures are not known: of
            these it is said what was not found and what is uncertain. Another network than that of the held-out scans
            is compared by volume only, as each has confidences of its own.
    """
    if segmentation.parameters.model:
        return {}
    confidences = segmentation.confidences if segmentation.parameters.networks == (_MEASURED_NETWORK,) else {}
    whole = segmentation.structures == structures()
    total, found = sum(segmentation.volumes.values()), {}
    for structure in segmentation.structures:
        expected = ranges().get((segmentation.parameters.protocol, structure.label))
        if expected is None:
            continue
        volume = segmentation.volumes[structure.label]
        is_cut = structure.label in segmentation.cut_off
        share = volume / total if whole and total else None
        confidence = confidences.get(structure.label)
        notes = []
        if volume == 0 and expected.smallest > 0:
            found[structure.label] = f"not found, unlike in the {expected.scans} held-out scans; look at it"
            continue
        if share is not None and share < expected.smallest / _LARGEST_FACTOR:
            notes.append("much smaller than")
        if share is not None and share > expected.largest * _LARGEST_FACTOR:
            notes.append("much larger than")
        if confidence is not None and confidence < expected.confidence - _CONFIDENCE_MARGIN:
            notes.append("less certain than")
        texts = ["cut off by the edge of the scan"] if is_cut else []
        if notes:
            texts.append(f"{' and '.join(notes)} in any of the {expected.scans} held-out scans; look at it")
        if texts:
            found[structure.label] = ", ".join(texts)
    return found


def asymmetry_remark(segmentation, left, right):
    """Return what is unusual about the asymmetry of a structure, or ``""``.

    Args:
        segmentation: a :class:`~.result.Segmentation`.
        left, right: its labels.
    """
    protocol = segmentation.parameters.protocol
    known, mirrored = ranges().get((protocol, left)), ranges().get((protocol, right))
    ml = segmentation.volumes[left], segmentation.volumes[right]
    if segmentation.parameters.model or not known or not mirrored or not all(ml):
        return ""
    if known.asymmetry is None or known.spread is None:
        return ""
    if left in segmentation.cut_off or right in segmentation.cut_off:
        return ""
    asymmetry = 200 * (ml[0] - ml[1]) / sum(ml)
    if abs(asymmetry - known.asymmetry) <= max(_LARGEST_DEVIATION * known.spread, _LEAST_ASYMMETRY):
        return ""
    larger, other = ("left", "right") if asymmetry > known.asymmetry else ("right", "left")
    return (
        f"{larger} unusually large beside {other} ({asymmetry:.0f} %, in {known.scans} held-out scans "
        f"{known.asymmetry:.0f} ± {known.spread:.0f} %); look at it"
    )
