"""What the bundled networks learn from: labelled scans, and label maps of heads to synthesise scans from."""

from collections.abc import Collection
from pathlib import Path
from typing import Optional, Union

import numpy as np
import SimpleITK as sitk
import torch

from ..choices.structures import IGNORED
from ..errors import SEBrainSegError
from ..files.reading import read
from ..inference.geometry import restore
from ..inference.preparation import prepare
from ..networks.classes import class_of_label
from .deformation import nearest
from .pairs import Pair, find_pairs, read_pair

# Ids of the label maps of heads that are part of a structure: lesions in white matter, pieces of the ventricles.
SAME_AS = {25: 2, 57: 41, 136: 4, 137: 5, 163: 43, 164: 44}


DEEP_STRUCTURES = (10, 49, 11, 50, 12, 51, 13, 52)


FIRST_EXTRACEREBRAL = 500


FLUID = 24


VENTRICLES = (4, 43, 5, 44, 14, 15, 136, 137, 163, 164)


LARGEST_STRIPPED = 1.6  # what is not black, relative to what is labelled; a whole head has more than twice as much


def _array_of(image: sitk.Image) -> np.ndarray:
    """Reorder a label map of 1 mm to ``[S, A, R]`` without interpolating; int32."""
    return np.ascontiguousarray(sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.Cast(image, sitk.sitkInt32), "RAS")))


def _class_indices(labels: np.ndarray) -> np.ndarray:
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


def _centre_of(labels: np.ndarray) -> np.ndarray:
    """Return the mean position of the deep structures, of all labels if there are none; array index ``(S, A, R)``."""
    deep = np.isin(labels, DEEP_STRUCTURES)
    return np.argwhere(deep if deep.any() else labels > 0).mean(axis=0)


class LabelledScan:
    """A real scan with its labels, both ``[S, A, R]`` at 1 mm.

    Attributes:
        image: float32 tensor, normalised as at inference.
        classes: uint8 tensor of class indices, 255 where ignored.
        tissues, tissue_ids, pattern: as in :class:`HeadLabels`; what is unlabelled inside of the brain is fluid.
        distance: float32 tensor, mm outside the brain (0 within), for painting a skull around a stripped brain.
        stripped: whether it shows a brain alone, without skull and scalp.
        protocol: the convention that its labels follow, a value of :class:`~.vocabulary.Protocol`.
        centre: mean position of the deep structures, in voxels.
        extent: first and last voxel of the brain along each axis, shape ``(3, 2)``.
    """

    def __init__(self, pair: Pair, margin: int = 32, protocol: str = "manual") -> None:
        self.name, self.protocol = pair.name, protocol
        image, label_image = read_pair(pair)
        grid, array = prepare(image)
        labels = sitk.GetArrayFromImage(restore(label_image, grid))
        if not labels.any():
            raise SEBrainSegError(f"{pair.labels} has no label; remove it and its scan.")
        array, labels = (np.pad(each, margin) for each in (array, labels))
        self.image = torch.from_numpy(array)
        self.classes = torch.from_numpy(_class_indices(labels))
        inside = (array > 0.02) | (labels > 0)
        self.stripped = bool(inside.sum() < LARGEST_STRIPPED * (labels > 0).sum())
        self.tissue_ids, tissues = np.unique(np.where(inside & (labels == 0), FLUID, labels), return_inverse=True)
        self.tissues = torch.from_numpy(tissues.reshape(labels.shape).astype(np.uint8))
        self.pattern: Optional[torch.Tensor] = None
        brain = sitk.GetImageFromArray(inside.astype(np.uint8))
        distance = sitk.SignedMaurerDistanceMap(brain, squaredDistance=False, useImageSpacing=True)
        self.distance = torch.from_numpy(np.maximum(sitk.GetArrayFromImage(distance), 0).astype(np.float32))
        self.centre = _centre_of(labels)
        positions = np.argwhere(labels > 0)
        self.extent = np.stack((positions.min(axis=0), positions.max(axis=0)), axis=1)

    def tissues_at(self, positions: torch.Tensor, narrowed: float = 0.0) -> torch.Tensor:
        """Return the tissues at ``positions``; the ventricles of a real scan stay as wide as they are."""
        return nearest(self.tissues, positions)


def _ventricle_walls(labels: np.ndarray, tissues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what :class:`HeadLabels` calls ``depth`` and ``around``.

    Args:
        labels: FreeSurfer ids ``[S, A, R]`` at 1 mm.
        tissues: uint8, the same shape.
    """
    depth, around = np.zeros(labels.shape, np.uint8), tissues.copy()
    inside = np.isin(labels, VENTRICLES)
    if not inside.any():
        return depth, around
    box = tuple(slice(max(0, found.min() - 4), found.max() + 5) for found in np.nonzero(inside))
    inside, image = inside[box], sitk.GetImageFromArray(np.where(inside[box], 0, around[box].astype(np.int16) + 1))
    nearest_tissue = sitk.DanielssonDistanceMapImageFilter()
    nearest_tissue.Execute(image)
    around[box] = sitk.GetArrayFromImage(nearest_tissue.GetVoronoiMap()) - 1
    distance = sitk.SignedMaurerDistanceMap(sitk.Cast(image > 0, sitk.sitkUInt8), False, False, True)
    depth[box] = np.where(inside, np.clip(10 * sitk.GetArrayFromImage(distance), 1, 255), 0)
    return depth, around


class HeadLabels:
    """A label map of a whole head without an image, ``[S, A, R]`` at 1 mm.

    Attributes:
        tissues: uint8 tensor of indices into ``tissue_ids`` (the map's own ids, brain and surroundings).
        tissue_ids: the FreeSurfer or extra-cerebral id of every tissue index.
        class_of_tissue: uint8 tensor, the class index of every tissue index.
        depth: uint8 tensor, tenths of a mm from a ventricle's wall, in ventricles; 0 elsewhere.
        around: uint8 tensor, as ``tissues``, but in ventricles what lies nearest outside of them.
        pattern: uint8 tensor, intensities in percent of the tissue's mean, see :mod:`.intensity_patterns`; or ``None``.
        centre, extent: as in :class:`LabelledScan`.
    """

    def __init__(self, path: Path) -> None:
        image = read(path)
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise SEBrainSegError(f"{path} is no volume of labels; remove it.")
        labels = _array_of(image)
        self.name = Path(path).name.split(".")[0]
        self.tissue_ids, tissues = np.unique(labels, return_inverse=True)
        self.tissues = torch.from_numpy(tissues.reshape(labels.shape).astype(np.uint8))
        if labels.min() < 0 or not _class_indices(labels).any():
            raise SEBrainSegError(f"{path} has none of the brain structures; remove it.")
        positions = np.argwhere(_class_indices(labels) > 0)
        self.class_of_tissue = torch.from_numpy(_class_indices(self.tissue_ids))
        self.depth, self.around = map(torch.from_numpy, _ventricle_walls(labels, self.tissues.numpy()))
        self.pattern: Optional[torch.Tensor] = None
        self.centre = _centre_of(labels)
        self.extent = np.stack((positions.min(axis=0), positions.max(axis=0)), axis=1)

    def tissues_at(self, positions: torch.Tensor, narrowed: float = 0.0) -> torch.Tensor:
        """Return the tissues at ``positions``, with ventricles whose walls have moved inwards by ``narrowed`` mm."""
        tissues = nearest(self.tissues, positions)
        if not narrowed:
            return tissues
        depth = nearest(self.depth, positions)
        return torch.where((depth > 0) & (depth < 10 * narrowed), nearest(self.around, positions), tissues)


def labelled_scans(
    folder: Union[Path, str], names: Optional[Collection[str]] = None, protocol: str = "manual"
) -> list[LabelledScan]:
    """Load every ``NAME_t1`` / ``NAME_structures`` pair of a folder, or those named; labels follow ``protocol``."""
    pairs = [pair for pair in find_pairs(folder) if names is None or pair.name in names]
    return [LabelledScan(pair, protocol=protocol) for pair in pairs]


def head_labels(folder: Union[Path, str]) -> list[HeadLabels]:
    """Load every label map of a folder.

    Raises:
        SEBrainSegError: there are none, or one has no brain.
    """
    paths = sorted(Path(folder).glob("*.nii.gz"))
    if not paths:
        raise SEBrainSegError(f"{folder} holds no label maps (.nii.gz) of heads; name a folder that does.")
    return [HeadLabels(path) for path in paths]
