"""The volumes of structures, and their table: left, right, asymmetry, confidence and remarks."""

import numpy as np

from .expectations import remarks
from .lazy import sitk

COLUMNS = ("structure", "left_ml", "right_ml", "total_ml", "asymmetry_percent", "confidence", "remark")


def volumes_of(labels, structures):
    """Return the ml of every structure by label of a label image; a 2D image counts as 1 mm thick."""
    side = labels.GetDimension()
    counts = np.bincount(sitk.GetArrayViewFromImage(labels).ravel())
    voxel = float(np.prod(labels.GetSpacing())) * abs(
        np.linalg.det(np.array(labels.GetDirection()).reshape(side, side))
    )
    counts = np.pad(counts, (0, max((structure.label for structure in structures), default=0) + 1))
    return {structure.label: float(counts[structure.label] * voxel / 1000) for structure in structures}


def rows(segmentation):
    """Return the table of a segmentation: one dict of :data:`COLUMNS` for a pair or for a structure without a side.

    Volumes are in ml; the asymmetry is the difference of left and right in percent of their mean. What is not known or
    makes no sense is ``""``.
    """
    notes, pairs = remarks(segmentation), {}
    for structure in segmentation.structures:
        pairs.setdefault(structure.unsided_name, {})[structure.side] = structure.label
    return [row(name, sides, segmentation, notes) for name, sides in pairs.items()]


def row(name, sides, segmentation, notes):
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
    return dict(zip(COLUMNS, (name, left, right, total, asymmetry, confidence, "; ".join(texts))))


def texts(row):
    """Return a row of :func:`rows` as text: ml and confidences with three digits, percent with one."""
    digits = {"asymmetry_percent": 1}
    return {
        name: f"{value:.{digits.get(name, 3)}f}" if isinstance(value, float) else value for name, value in row.items()
    }
