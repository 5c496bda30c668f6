"""A picture to judge a segmentation by: scan above, structures over the scan below, in three orthogonal slices.

Of a 2D image or a single slice it shows just that. Remarks stand beneath.
"""

import os
from collections.abc import Sequence
from typing import Union

import numpy as np
import SimpleITK as sitk

from ..choices.structures import Structure
from ..choices.structures import structures as brain_structures
from ..choices.vocabulary import slice_axis
from ..inference.geometry import BRAIN_SPACING, conform, corners
from ..inference.head_region import head_box
from ..inference.intensities import normalise
from ..inference.preparation import stack
from . import lettering

ZOOM = 2


# Pixels along the longest side of what is no brain, of whatever size.
RESOLUTION = 256


GAP = 6


BETWEEN = 24  # pixels between slices, so that the letters of two do not read as one


OPACITY = 0.45


YELLOW = (255, 220, 80)  # remarks


# What stands at the left and the right edge of a panel: as in Slicer, the patient's left is on the right.
EDGES = {"coronal": "RL", "axial": "RL", "sagittal": "AP"}


def write_letter(panel, letter, row, column):
    """Draw a letter, white on black, into an RGB panel."""
    pixels = lettering.line(letter, ZOOM)[:, : lettering.WIDTH * ZOOM]
    height, width = pixels.shape
    panel[row : row + height, column : column + width] = 255 * pixels[..., None]


def outlined(labels):
    """Mask of the pixels whose right or lower neighbour has another label."""
    edge = np.zeros(labels.shape, bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return edge


def slice_of(array, view, position):
    """One slice, upright: superior (or anterior) at the top; the patient's left, or posterior, at the right."""
    return np.take(array, position, axis=slice_axis(view))[::-1, ::-1]


def positions_of_interest(labels, structures):
    """Slice numbers through thalamus (axial) and left hippocampus (coronal, sagittal), or the middle of the rest."""
    label_of = {structure.name: structure.label for structure in structures}

    def middle(*names):
        wanted = np.isin(labels, [label_of[name] for name in names if name in label_of])
        where = np.argwhere(wanted if wanted.any() else labels > 0)
        return np.rint(where.mean(axis=0)).astype(int) if where.size else np.array(labels.shape) // 2

    hippocampus = middle("Left Hippocampus")
    axial = middle("Left Thalamus", "Right Thalamus")[0]
    return {"coronal": hippocampus[1], "axial": axial, "sagittal": hippocampus[2]}


def spacing_for(image, structures):
    """Millimetres along ``[S, A, R]``: a brain's own, or what shows anything else in :data:`RESOLUTION` pixels."""
    if set(structures) <= set(brain_structures()):
        return BRAIN_SPACING
    return (float(np.ptp(corners(image), axis=0).max()) / RESOLUTION,) * 3


def slices_of(image, labels, structures):
    """Return what the picture shows, from left to right: ``(slice of the scan in [0, 1], its labels, letters)``."""
    if min(image.GetSize()) < 2 or image.GetDimension() == 2:
        scan, labels = (np.squeeze(sitk.GetArrayFromImage(each)) for each in (stack(image), labels))
        return [(np.clip(normalise(scan[None])[0], 0, 1), labels, "")]
    conformed = conform(image, spacing_for(image, structures))
    scan = np.clip(normalise(sitk.GetArrayFromImage(conformed)) / 1.1, 0, 1)
    labels = sitk.GetArrayFromImage(
        sitk.Resample(labels, conformed, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)
    )
    box = head_box(scan)
    scan, labels = scan[box], labels[box]
    positions = positions_of_interest(labels, structures)
    return [
        (slice_of(scan, view, position), slice_of(labels, view, position), EDGES[view])
        for view, position in positions.items()
    ]


def written(remarks, width):
    """Return remarks as an RGB image of a width, or none of its rows without.

    Args:
        remarks: texts, a line or more for each.
    """
    rows = [np.zeros((GAP, width, 3), np.uint8)] if remarks else []
    letters = max(1, (width - 2 * GAP) // (ZOOM * (lettering.WIDTH + 1)))
    for text in remarks:
        for each in lettering.wrapped(text, letters):
            dots = lettering.line(each[:letters], ZOOM)
            row = np.zeros((dots.shape[0] + GAP, width, 3), np.uint8)
            row[: dots.shape[0], GAP : GAP + dots.shape[1]] = dots[..., None] * np.array(YELLOW, np.uint8)
            rows.append(row)
    return np.concatenate([*rows, np.zeros((0, width, 3), np.uint8)])


def picture(
    image: sitk.Image, labels: sitk.Image, structures: Sequence[Structure], remarks: Sequence[str] = ()
) -> np.ndarray:
    """Render an RGB picture.

    Args:
        image: the scan, any grid.
        labels: label image on the same grid.
        structures: what the labels are.
        remarks: texts to write beneath.

    Returns:
        uint8 array ``(rows, columns, 3)``.
    """
    colors = np.zeros((1 + max(structure.label for structure in structures), 3))
    for structure in structures:
        colors[structure.label] = structure.color
    slices, rows = slices_of(image, labels, structures), []
    for overlaid in (False, True):
        panels = []
        for scan, label, letters in slices:
            scan, label = (array.repeat(ZOOM, 0).repeat(ZOOM, 1) for array in (scan, label))
            panel = scan[..., None].repeat(3, axis=-1) * 255
            if overlaid:
                opacity = OPACITY * (label > 0) + (1 - OPACITY) * (outlined(label) & (label > 0))
                panel = panel * (1 - opacity[..., None]) + colors[label] * opacity[..., None]
            panel = panel.astype(np.uint8)
            for letter, column in zip(letters, (GAP, panel.shape[1] - GAP - lettering.WIDTH * ZOOM)):
                write_letter(panel, letter, GAP, column)
            panels.append(panel)
        height = max(panel.shape[0] for panel in panels)
        padded = [np.pad(panel, ((0, height - panel.shape[0]), (0, BETWEEN), (0, 0))) for panel in panels]
        rows += [np.concatenate(padded, axis=1), np.zeros((GAP, sum(p.shape[1] for p in padded), 3), np.uint8)]
    return np.concatenate([*rows, written(remarks, rows[0].shape[1])])


def write(
    image: sitk.Image,
    labels: sitk.Image,
    structures: Sequence[Structure],
    path: Union[str, os.PathLike],
    remarks: Sequence[str] = (),
) -> None:
    """Write :func:`picture` as PNG."""
    pixels = picture(image, labels, structures, remarks)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path))
