"""What networks of any other structures are trained on: images with their label maps."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Optional

import numpy as np
import SimpleITK as sitk
import torch

from ..choices.structures import Structure
from ..choices.vocabulary import slice_axis
from ..errors import SEBrainSegError
from ..inference.preparation import prepare
from ..inference.slices import slices_of
from ..networks.classes import class_of_label, class_type, mirrored_classes
from .batches import Sample, ValidationSlices
from .brain_recipe import count_classes
from .deformation import linear, nearest, slice_positions, smooth_noise
from .pairs import Pair, read_pair
from .synthesis import blur

LARGEST_CROP = 192  # pixels a side


PIXELS = 2 * 256**2  # a batch, about


LARGEST_BATCH = 12  # slices


LABELLED = 0.75  # of the slices go through a voxel of a structure that was drawn


REMEMBERED = 2000  # voxels of a structure and scan to draw from


VALIDATION_SLICES = 64


class LabelledImage:
    """An image with its labels as :class:`GeneralRecipe` takes it, both ``[S, A, R]``; a 2D image has one plane.

    Attributes:
        image: float32 tensor, intensities as at inference.
        classes: tensor of ``structures.class_type``, its largest number where ignored or outside of the scan.
        voxels: positions ``(n, 3)`` of some voxels by class.
    """

    def __init__(
        self,
        pair: Pair,
        table: tuple[Structure, ...],
        spacing: Optional[tuple[float, float, float]],
        window: Optional[tuple[float, float]],
        ignored: Optional[int],
    ) -> None:
        self.name = pair.name
        image, labels = read_pair(pair)
        grid, array = prepare(image, spacing, window)
        nowhere = int(np.iinfo(class_type(table)).max)
        class_of: np.ndarray = np.full(2**16, nowhere, class_type(table))
        for label, index in {0: 0, **class_of_label(table)}.items():
            class_of[label] = index
        if ignored is not None:
            class_of[ignored] = nowhere
        classes = class_of[sitk.GetArrayFromImage(labels)]
        if spacing is None:
            classes = classes.reshape(array.shape)
        else:
            class_image = sitk.GetImageFromArray(classes)
            class_image.CopyInformation(labels)
            identity = sitk.Transform(3, sitk.sitkIdentity)
            resampled = sitk.Resample(class_image, grid, identity, sitk.sitkNearestNeighbor, nowhere)
            classes = sitk.GetArrayFromImage(resampled)
        self.image, self.classes = torch.from_numpy(array), torch.from_numpy(classes)
        positions = {int(index): np.argwhere(classes == index) for index in np.unique(classes) if 0 < index < nowhere}
        self.voxels = {index: each[:: max(1, len(each) // REMEMBERED)] for index, each in positions.items()}


class GeneralRecipe:
    """Slices of images with labels, of any kind: met where the structures are, deformed, their intensities varied.

    Args:
        scans: list of :class:`LabelledImage` to train on.
        held_out: the same to validate with.
        view: ``"coronal"``, ``"axial"`` or ``"sagittal"``; ``"axial"`` for 2D images.
        table: tuple of :class:`~.structures.Structure`.
        spacing, window: of the scans, see :class:`~.model_file.Model`.

    Raises:
        SEBrainSegError: there are no scans.
    """

    protocols: tuple[str, ...] = ()
    slices = 1

    def __init__(
        self,
        scans: Sequence[LabelledImage],
        held_out: Sequence[LabelledImage],
        view: str,
        table: tuple[Structure, ...],
        spacing: Optional[tuple[float, float, float]],
        window: Optional[tuple[float, float]],
    ) -> None:
        if not scans:
            raise SEBrainSegError("There are no scans to train on.")
        self.scans, self.view = scans, view
        self.held_out: Sequence[Any] = held_out
        self.table, self.spacing, self.window = table, spacing, window
        normal = slice_axis(view)
        in_plane = [axis for axis in range(3) if axis != normal]
        # Voxels a pixel: slices may be further apart than pixels, and a 2D image has no other plane.
        self.stretch = [1.0, 1.0, 1.0]
        self.stretch[normal] = spacing[in_plane[0]] / spacing[normal] if spacing else 0.0
        largest = np.max([[scan.image.shape[axis] for axis in in_plane] for scan in scans], axis=0)
        sides = [16 * math.ceil(side / 16) for side in largest]
        self.full, self.crop = (
            _batch_shape([int(min(side, most)) for side in sides]) for most in (math.inf, LARGEST_CROP)
        )
        self.nowhere = int(np.iinfo(class_type(table)).max)
        self.mirror = torch.from_numpy(mirrored_classes(table)) if self.is_symmetric() else None

    def is_symmetric(self) -> bool:
        """Whether slices may be mirrored: two thirds of the structures come in pairs, and the view shows both sides.

        Not where a few come in pairs only: a mirrored abdomen has two kidneys as before, but its liver on the left.
        """
        mirrored = mirrored_classes(self.table)[1 : len(self.table) + 1]
        paired = (mirrored != np.arange(1, len(self.table) + 1)).mean()
        return self.spacing is not None and self.view != "sagittal" and paired >= 2 / 3

    def description(self) -> dict[str, Any]:
        """Return what tells this recipe from others, in plain values."""
        names = {key: [each.name for each in getattr(self, key)] for key in ("scans", "held_out")}
        plain: dict[str, Any] = {
            "spacing": self.spacing and list(self.spacing),
            "window": self.window and list(self.window),
        }
        plain["labels"] = [each.label for each in self.table]
        return {"recipe": "general", "view": self.view, **names, **plain}

    def class_counts(self) -> np.ndarray:
        """Return the voxels of every class in the scans to train on."""
        return count_classes(self.scans, len(self.table) + 1)

    def sample(self, rng: np.random.Generator, shape: tuple[int, int], cropped: bool) -> Sample:
        """Return one deformed slice ``(1, H, W)``, its classes ``(H, W)``, and 0 for its protocol.

        Args:
            shape: rows and columns.
            cropped: whether it is a crop around a voxel of a structure, or a full slice through it.
        """
        scan = self.scans[int(rng.integers(len(self.scans)))]
        size, normal = np.array(scan.image.shape), slice_axis(self.view)
        target = rng.uniform(0, size - 1)
        if scan.voxels and rng.random() < LABELLED:
            by_class = list(scan.voxels.values())
            voxels = by_class[rng.integers(len(by_class))]
            target = voxels[rng.integers(len(voxels))].astype(float)
        centre = (size - 1) / 2
        centre[normal] = target[normal]
        in_plane = [axis for axis in range(3) if axis != normal]
        for axis, side in zip(in_plane, shape):
            if cropped and side < size[axis]:
                centre[axis] = np.clip(target[axis] + rng.uniform(-0.3, 0.3) * side, side / 2, size[axis] - side / 2)
        mirrored = self.mirror is not None and rng.random() < 0.5
        shift = rng.normal(0, 4, 2)
        positions = slice_positions(rng, self.view, shape, centre, 0, mirrored, shift, self.stretch)
        classes = nearest(scan.classes, positions[:, 0], self.nowhere)
        if self.mirror is not None and mirrored:
            classes = self.mirror[classes.long()]
        return augment_intensities(rng, linear(scan.image, positions)), classes, 0

    def validation(self) -> Iterator[ValidationSlices]:
        """Yield slices of each scan held out, evenly spread."""
        stacks = [tuple(slices_of(each, self.view) for each in (scan.image, scan.classes)) for scan in self.held_out]
        stride = math.ceil(sum(len(images) for images, _ in stacks) / VALIDATION_SLICES)
        for images, classes in stacks:
            first = len(images) % stride // 2
            yield images, range(first, len(images), stride), classes[first::stride], 0


def _batch_shape(sides: Sequence[int]) -> tuple[tuple[int, int], int]:
    """Return a slice's rows and columns, and how many slices make a batch."""
    rows, columns = sides
    return (rows, columns), int(np.clip(PIXELS // (rows * columns), 2, LARGEST_BATCH))


def augment_intensities(rng: np.random.Generator, image: torch.Tensor) -> torch.Tensor:
    """Vary the contrast, shading, gain, sharpness and noise of slices mildly.

    Args:
        image: ``(slices, H, W)``, intensities from 0 to about 1.

    Returns:
        the same shape, in [0, 2].
    """
    shape = (image.shape[-2], image.shape[-1])
    image = image.clamp(min=0) ** float(math.exp(rng.normal(0, 0.1)))
    image = image * torch.exp(smooth_noise(rng, 1, shape, 4)[0] * float(rng.uniform(0, 0.05)))
    image = blur(image, float(rng.uniform(0.4, 0.8))) if rng.random() < 0.25 else image
    image = image * float(math.exp(rng.normal(0, 0.05)))
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32)) * float(rng.uniform(0, 0.03))
    return (image + noise).clamp(0, 2)
