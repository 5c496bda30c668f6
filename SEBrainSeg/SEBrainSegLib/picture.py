"""A picture to judge a segmentation by: three orthogonal slices, scan above, structures over the scan below."""

import numpy as np
import SimpleITK as sitk

from .structures import structures
from .volume import VIEWS, conform, head_box, normalise

ZOOM = 2
GAP = 6
OPACITY = 0.45
LETTERS = {
    "L": ("1....", "1....", "1....", "1....", "1....", "1....", "11111"),
    "R": ("1111.", "1...1", "1...1", "1111.", "1.1..", "1..1.", "1...1"),
    "A": (".111.", "1...1", "1...1", "11111", "1...1", "1...1", "1...1"),
    "P": ("1111.", "1...1", "1...1", "1111.", "1....", "1....", "1...."),
}
# What stands at the left and the right edge of a panel: the patient's left is on the left.
EDGES = {"coronal": "LR", "axial": "LR", "sagittal": "PA"}


def write_letter(panel, letter, row, column):
    """Draw a 5 x 7 letter, white on black, into an RGB panel."""
    pixels = np.array([[dot == "1" for dot in line] for line in LETTERS[letter]]).repeat(ZOOM, 0).repeat(ZOOM, 1)
    height, width = pixels.shape
    panel[row : row + height, column : column + width] = 255 * pixels[..., None]


def outlined(labels):
    """Mask of the pixels whose right or lower neighbour has another label."""
    edge = np.zeros(labels.shape, bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return edge


def slice_of(array, view, position):
    """One slice, upright: superior (or anterior) at the top, the patient's left at the left, enlarged."""
    return np.take(array, position, axis=VIEWS[view])[::-1].repeat(ZOOM, 0).repeat(ZOOM, 1)


def positions_of_interest(labels):
    """Slice numbers through thalamus (axial) and left hippocampus (coronal, sagittal), or the middle of the rest."""

    def middle(*wanted):
        where = np.argwhere(np.isin(labels, wanted) if np.isin(labels, wanted).any() else labels > 0)
        return np.rint(where.mean(axis=0)).astype(int) if where.size else np.array(labels.shape) // 2

    hippocampus = middle(17)
    return {"coronal": hippocampus[1], "axial": middle(10, 49)[0], "sagittal": hippocampus[2]}


def picture(image, labels):
    """Render an RGB picture.

    Args:
        image: the scan, any grid.
        labels: label image of FreeSurfer ids on the same grid.

    Returns:
        uint8 array ``(rows, columns, 3)``.
    """
    conformed = conform(image)
    scan = np.clip(normalise(sitk.GetArrayFromImage(conformed)) / 1.1, 0, 1)
    labels = sitk.GetArrayFromImage(
        sitk.Resample(labels, conformed, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)
    )
    box = head_box(scan)
    scan, labels = scan[box], labels[box]
    colors = np.zeros((256, 3))
    for structure in structures():
        colors[structure.label] = structure.color
    positions, rows = positions_of_interest(labels), []
    for overlaid in (False, True):
        panels = []
        for view, position in positions.items():
            panel = slice_of(scan, view, position)[..., None].repeat(3, axis=-1) * 255
            if overlaid:
                label = slice_of(labels, view, position)
                opacity = OPACITY * (label > 0) + (1 - OPACITY) * (outlined(label) & (label > 0))
                panel = panel * (1 - opacity[..., None]) + colors[label] * opacity[..., None]
            panel = panel.astype(np.uint8)
            for letter, column in zip(EDGES[view], (GAP, panel.shape[1] - GAP - 5 * ZOOM)):
                write_letter(panel, letter, GAP, column)
            panels.append(panel)
        height = max(panel.shape[0] for panel in panels)
        padded = [np.pad(panel, ((0, height - panel.shape[0]), (0, GAP), (0, 0))) for panel in panels]
        rows += [np.concatenate(padded, axis=1), np.zeros((GAP, sum(p.shape[1] for p in padded), 3), np.uint8)]
    return np.concatenate(rows)


def write(image, labels, path):
    """Write :func:`picture` as PNG."""
    sitk.WriteImage(sitk.GetImageFromArray(picture(image, labels), isVector=True), str(path))
