"""The volumes of structures, and their table: left, right, asymmetry, confidence and remarks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..lazy import sitk
from .remarks import asymmetry_remark, remarks

if TYPE_CHECKING:
    from ..choices.structures import Structure
    from ..inference.result import Segmentation

COLUMNS = ("structure", "left_ml", "right_ml", "total_ml", "cut_off", "asymmetry_percent", "confidence", "remark")


WHOLE = "Whole brain"  # the row of what is to be said of all structures together


def volumes_of(labels: sitk.Image, structures: Iterable[Structure]) -> dict[int, float]:
    """Return the ml of every structure by label of a label image; a 2D image counts as 1 mm thick."""
    side = labels.GetDimension()
    counts = np.bincount(sitk.GetArrayViewFromImage(labels).ravel())
    voxel = float(np.prod(labels.GetSpacing())) * abs(
        np.linalg.det(np.array(labels.GetDirection()).reshape(side, side))
    )
    counts = np.pad(counts, (0, max((structure.label for structure in structures), default=0) + 1))
    return {structure.label: float(counts[structure.label] * voxel / 1000) for structure in structures}


def rows(segmentation: Segmentation) -> list[dict[str, str | float]]:
    """Return the table of a segmentation: one dict of :data:`COLUMNS` for a pair or for a structure without a side.

    Volumes are in ml; ``cut_off`` names the sides that the edge of the scan cuts off, or is ``yes`` of a structure
    without sides; the asymmetry is the difference of left and right in percent of their mean. What is not known or
    makes no sense is ``""``. A result that is unlikely to be right begins with a row :data:`WHOLE` that says why.
    """
    notes = remarks(segmentation)
    pairs: dict[str, dict[str, int]] = {}
    for structure in segmentation.structures:
        pairs.setdefault(structure.unsided_name, {})[structure.side] = structure.label
    found = [_row(name, sides, segmentation, notes) for name, sides in pairs.items()]
    if segmentation.implausibility:
        whole = {**dict.fromkeys(COLUMNS, ""), "structure": WHOLE, "total_ml": sum(segmentation.volumes.values())}
        found.insert(0, {**whole, "remark": f"unlikely to be right: {segmentation.implausibility}"})
    return found


def _row(name, sides, segmentation, notes):
    """One row; ``sides`` maps sides to labels."""
    ml = {side: segmentation.volumes[label] for side, label in sides.items()}
    left, right, total = ml.get("left", ""), ml.get("right", ""), sum(ml.values())
    asymmetry = 200 * (left - right) / (left + right) if "" not in (left, right) and total else ""
    # Voxel by voxel, so that a small side does not count as much as a large one.
    known = [
        (segmentation.confidences[label], ml[side])
        for side, label in sides.items()
        if label in segmentation.confidences
    ]
    weight = sum(volume for _, volume in known)
    confidence = sum(value * volume for value, volume in known) / weight if weight else ""
    texts = [f"{side}: {notes[label]}" if side else notes[label] for side, label in sides.items() if label in notes]
    if len(texts) == 2 and len({notes[label] for label in sides.values()}) == 1:
        texts = [f"left and right: {next(notes[label] for label in sides.values())}"]
    if {"left", "right"} <= set(sides):
        texts += filter(None, [asymmetry_remark(segmentation, sides["left"], sides["right"])])
    cut = " and ".join(side or "yes" for side, label in sides.items() if label in segmentation.cut_off)
    return dict(zip(COLUMNS, (name, left, right, total, cut, asymmetry, confidence, "; ".join(texts))))


def remark_lines(segmentation: Segmentation) -> list[str]:
    """Return the remarks of the table of a segmentation, a text for each row that has one."""
    return [f"{row['structure']}: {row['remark']}" for row in rows(segmentation) if row["remark"]]


def texts(row: dict[str, str | float]) -> dict[str, str]:
    """Return a row of :func:`rows` as text: ml and confidences with three digits, percent with one."""
    digits = {"asymmetry_percent": 1}
    return {
        name: f"{value:.{digits.get(name, 3)}f}" if isinstance(value, float) else value for name, value in row.items()
    }
