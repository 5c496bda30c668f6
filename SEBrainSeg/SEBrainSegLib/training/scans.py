"""What the bundled networks learn from: labelled scans, and label maps of heads to synthesise scans from."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import SEBrainSegError
from ..reading import read
from ..structures import IGNORED, class_of_label
from ..volume import prepare, restore
from .pairs import find_pairs, read_pair

# Ids of the label maps of heads that are part of a structure: lesions in white matter, pieces of the ventricles.
SAME_AS = {25: 2, 57: 41, 136: 4, 137: 5, 163: 43, 164: 44}
DEEP_STRUCTURES = (10, 49, 11, 50, 12, 51, 13, 52)
FIRST_EXTRACEREBRAL = 500
FLUID = 24


def array_of(image):
    """Reorder a label map of 1 mm to ``[S, A, R]`` without interpolating; int32."""
    return np.ascontiguousarray(sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.Cast(image, sitk.sitkInt32), "RAS")))


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
    """Mean position of the deep structures, of all labels if there are none; array index ``(S, A, R)``."""
    deep = np.isin(labels, DEEP_STRUCTURES)
    return np.argwhere(deep if deep.any() else labels > 0).mean(axis=0)


class LabelledScan:
    """A real scan with its labels, both ``[S, A, R]`` at 1 mm.

    Attributes:
        image: float32 tensor, normalised as at inference.
        classes: uint8 tensor of class indices, 255 where ignored.
        tissues, tissue_ids: as in :class:`HeadLabels`; what is unlabelled inside of the brain is fluid.
        distance: float32 tensor, mm outside the brain (0 within), for painting a skull around a stripped brain.
        centre: mean position of the deep structures, in voxels.
        extent: first and last voxel of the brain along each axis, shape ``(3, 2)``.
    """

    def __init__(self, pair, margin=32):
        self.name = pair.name
        image, label_image = read_pair(pair)
        grid, array = prepare(image)
        labels = sitk.GetArrayFromImage(restore(label_image, grid))
        if not labels.any():
            raise SEBrainSegError(f"{pair.labels} has no label; remove it and its scan.")
        array, labels = (np.pad(each, margin) for each in (array, labels))
        self.image = torch.from_numpy(array)
        self.classes = torch.from_numpy(classes_of(labels))
        inside = (array > 0.02) | (labels > 0)
        self.tissue_ids, tissues = np.unique(np.where(inside & (labels == 0), FLUID, labels), return_inverse=True)
        self.tissues = torch.from_numpy(tissues.reshape(labels.shape).astype(np.uint8))
        brain = sitk.GetImageFromArray(inside.astype(np.uint8))
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
        image = read(path)
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise SEBrainSegError(f"{path} is no volume of labels; remove it.")
        labels = array_of(image)
        self.name = Path(path).name.split(".")[0]
        self.tissue_ids, tissues = np.unique(labels, return_inverse=True)
        self.tissues = torch.from_numpy(tissues.reshape(labels.shape).astype(np.uint8))
        self.classes = torch.from_numpy(classes_of(labels))
        positions = np.argwhere(self.classes.numpy() > 0)
        if not len(positions) or labels.min() < 0:
            raise SEBrainSegError(f"{path} has none of the brain structures; remove it.")
        self.centre = centre_of(labels)
        self.extent = np.stack((positions.min(axis=0), positions.max(axis=0)), axis=1)


def labelled_scans(folder, names=None):
    """Load every ``NAME_t1`` / ``NAME_structures`` pair of a folder, or those named."""
    pairs = [pair for pair in find_pairs(folder) if names is None or pair.name in names]
    return [LabelledScan(pair) for pair in pairs]


def head_labels(folder):
    """Load every label map of a folder.

    Raises:
        SEBrainSegError: there are none, or one has no brain.
    """
    paths = sorted(Path(folder).glob("*.nii.gz"))
    if not paths:
        raise SEBrainSegError(f"{folder} holds no label maps (.nii.gz) of heads; name a folder that does.")
    return [HeadLabels(path) for path in paths]
