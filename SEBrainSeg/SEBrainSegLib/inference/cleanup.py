"""Removal of pieces that networks leave apart from the brain or from their structure."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from .geometry import BRAIN_SPACING

SMALLEST_PIECE = 0.1  # of a structure's largest piece


# mm that labels are shrunk and grown again by: what hangs on the brain by a sheet of under 5 mm goes.
_EROSION, _DILATION = 2.0, 4.0


def keep_largest(classes: np.ndarray, spacing: Sequence[float] = BRAIN_SPACING) -> np.ndarray:
    """Keep the largest piece of all that is labelled, and nothing that hangs on it by a sheet of under 5 mm.

    A brain is one piece; labels apart from it, or joined to it by a film of scalp, are not brain.

    Args:
        classes: class indices ``[S, A, R]``, 0 where there is none.
        spacing: mm along ``[S, A, R]``.

    Returns:
        class indices, same shape; 0 where something was removed.
    """
    labelled = sitk.GetImageFromArray((classes > 0).astype(np.uint8))
    erosion, dilation = ([round(mm / side) for side in reversed(spacing)] for mm in (_EROSION, _DILATION))
    pieces = sitk.ConnectedComponent(sitk.BinaryErode(labelled, erosion))
    sizes = np.bincount(sitk.GetArrayViewFromImage(pieces).ravel())
    if len(sizes) < 2:
        return classes
    brain = sitk.BinaryDilate(pieces == 1 + int(np.argmax(sizes[1:])), dilation)
    return classes * sitk.GetArrayViewFromImage(brain)


def keep_pieces(classes: np.ndarray, share: float = SMALLEST_PIECE) -> np.ndarray:
    """Keep the largest piece of every structure, and others that are not much smaller; touching corners connect.

    Args:
        classes: class indices ``[S, A, R]``, 0 where there is none.
        share: of the largest piece's voxels, in [0, 1]; pieces of fewer become background.

    Returns:
        class indices, same shape.
    """
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(sitk.GetImageFromArray(classes))
    kept = np.zeros_like(classes)
    for index in shapes.GetLabels():
        start, size = np.reshape(shapes.GetBoundingBox(index), (2, 3))[:, ::-1]
        box = tuple(slice(first, first + count) for first, count in zip(start, size))
        own = sitk.GetImageFromArray((classes[box] == index).astype(np.uint8))
        pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(own, True))
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        kept[box][(sizes >= max(1, share * sizes.max()))[pieces]] = index
    return kept
