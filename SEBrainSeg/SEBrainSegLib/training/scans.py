"""What the networks learn from: labelled scans, and label maps of heads from which scans are synthesised."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..structures import IGNORED, class_of_label
from ..volume import conform, corners, normalise

# Ids of the label maps of heads that are part of a structure: lesions in white matter, pieces of the ventricles.
SAME_AS = {25: 2, 57: 41, 136: 4, 137: 5, 163: 43, 164: 44}
DEEP_STRUCTURES = (10, 49, 11, 50, 12, 51, 13, 52)
FIRST_EXTRACEREBRAL = 500


def array_of(image):
    """Reorder a 1 mm image to ``[S, A, R]`` without interpolating."""
    return np.ascontiguousarray(sitk.GetArrayFromImage(sitk.DICOMOrient(image, "RAS")))


def classes_of(labels):
    """Map FreeSurfer ids to class indices, the ignored label to :data:`IGNORED`, all others to background."""
    table = np.zeros(int(labels.max()) + 1, np.uint8)
    for label, index in class_of_label().items():
        if label < len(table):
            table[label] = index
    for label, other in SAME_AS.items():
        if label < len(table):
            table[label] = class_of_label()[other]
    if len(table) > IGNORED:
        table[IGNORED] = IGNORED
    return table[labels]


def centre_of(labels):
    """Mean position of the deep structures, array index ``(S, A, R)``."""
    return np.argwhere(np.isin(labels, DEEP_STRUCTURES)).mean(axis=0)


class LabelledScan:
    """A real scan with its labels, both ``[S, A, R]`` at 1 mm.

    Attributes:
        image: float32 tensor, normalised as at inference.
        classes: uint8 tensor of class indices, 255 where ignored.
        distance: float32 tensor, mm outside the brain (0 within), for painting a skull around a stripped brain.
        centre: mean position of the deep structures, in voxels.
        extent: first and last voxel of the brain along each axis, shape ``(3, 2)``.
    """

    def __init__(self, image_path, labels_path, margin=32):
        self.name = Path(image_path).name[: -len("_t1.nii.gz")]
        image = sitk.ReadImage(str(image_path))
        array = normalise(sitk.GetArrayFromImage(conform(image)))
        label_image = sitk.ReadImage(str(labels_path))
        labels = array_of(label_image)
        same = np.allclose(corners(image).min(axis=0), corners(label_image).min(axis=0), atol=0.01)
        if array.shape != labels.shape or not same:
            raise ValueError(f"{image_path} and {labels_path} are not on the same 1 mm grid.")
        array, labels = (np.pad(a, margin) for a in (array, labels))
        self.image = torch.from_numpy(array)
        self.classes = torch.from_numpy(classes_of(labels))
        brain = sitk.GetImageFromArray((array > 0.02).astype(np.uint8) | (labels > 0))
        distance = sitk.SignedMaurerDistanceMap(brain, squaredDistance=False, useImageSpacing=True)
        self.distance = torch.from_numpy(np.maximum(sitk.GetArrayFromImage(distance), 0).astype(np.float32))
        self.centre = centre_of(labels)
        positions = np.argwhere(labels > 0)
        self.extent = np.stack((positions.min(axis=0), positions.max(axis=0)), axis=1)


class HeadLabels:
    """A label map of a whole head without an image, ``[S, A, R]`` at 1 mm.

    Attributes:
        tissues: uint8 tensor of indices into ``tissue_ids`` (the map's own ids, brain and surroundings).
        tissue_ids: the FreeSurfer or extra-cerebral id of every tissue index.
        classes: uint8 tensor of class indices.
        centre, extent: as in :class:`LabelledScan`.
    """

    def __init__(self, path):
        labels = array_of(sitk.ReadImage(str(path)))
        self.name = Path(path).name.split(".")[0]
        self.tissue_ids, tissues = np.unique(labels, return_inverse=True)
        self.tissues = torch.from_numpy(tissues.reshape(labels.shape).astype(np.uint8))
        self.classes = torch.from_numpy(classes_of(labels))
        self.centre = centre_of(labels)
        positions = np.argwhere(self.classes.numpy() > 0)
        self.extent = np.stack((positions.min(axis=0), positions.max(axis=0)), axis=1)


def labelled_scans(folder, names=None):
    """Load every ``NAME_t1`` / ``NAME_structures`` pair of a folder, or those named."""
    paths = sorted(Path(folder).glob("*_t1.nii.gz"))
    if names is not None:
        paths = [path for path in paths if path.name.split("_")[0] in names]
    return [LabelledScan(path, path.with_name(path.name.replace("_t1", "_structures"))) for path in paths]


def head_labels(folder):
    """Load every label map of a folder."""
    return [HeadLabels(path) for path in sorted(Path(folder).glob("*.nii.gz"))]
