"""What the networks leave behind is removed: pieces apart from the brain or from their structure."""

import numpy as np
import SimpleITK as sitk

SMALLEST_PIECE = 0.1  # of a structure's largest piece


def keep_largest(classes):
    """Keep the largest piece of all that is labelled, and nothing that hangs on it by a sheet of under 5 mm.

    A brain is one piece; labels apart from it, or joined to it by a film of scalp, are not brain.
    """
    labelled = sitk.GetImageFromArray((classes > 0).astype(np.uint8))
    pieces = sitk.ConnectedComponent(sitk.BinaryErode(labelled, [2, 2, 2]))
    sizes = np.bincount(sitk.GetArrayViewFromImage(pieces).ravel())
    if len(sizes) < 2:
        return classes
    brain = sitk.BinaryDilate(pieces == 1 + int(np.argmax(sizes[1:])), [4, 4, 4])
    return classes * sitk.GetArrayViewFromImage(brain)


def keep_pieces(classes, share=SMALLEST_PIECE):
    """Keep the largest piece of every structure, and others that are not much smaller; touching corners connect.

    Args:
        classes: class indices ``[S, A, R]``, 0 where there is none.
        share: of the largest piece's voxels, in [0, 1]; pieces of fewer go to the background.
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
