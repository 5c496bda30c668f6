"""What is drawn into a batch and validated with: the recipe of the bundled networks, and a general one.

A recipe has

- ``table``, ``spacing`` and ``window`` of the model that it makes, and its ``protocols``, none if labels follow one;
- ``crop`` and ``full``, each ``((rows, columns), slices a batch)``;
- ``slices``: the odd number of neighbouring slices that the network is given together;
- ``draw(rng, shape, cropped)``: these ``(slices, H, W)``, the classes ``(H, W)`` of the middle one and the index of its
  protocol;
- ``validation()``: of every scan held out all slices ``(N, H, W)``, the numbers of those to validate with, the classes
  of these and the index of their protocol;
- ``description()``: what of it decides the batches, in plain numbers and words.
"""

import math

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import SEBrainSegError
from ..inference import slices_of
from ..structures import class_of_label, class_type, mirrored_classes, structures, unsided_classes
from ..volume import BRAIN_SPACING, VIEWS, prepare
from ..zoo import PROTOCOLS
from .deformation import linear, nearest, slice_positions, smooth_noise
from .pairs import read_pair
from .synthesis import blur, paint_skull, scanner_effects, synthesise

# Of brains, in mm: rows and columns, slices a batch. Central crops hold the deep structures and cost a third of a full
# slice. Coronal and axial slices are 160 wide, left to right; sagittal ones 192, front to back.
FULL = {"coronal": ((192, 160), 3), "axial": ((192, 160), 3), "sagittal": ((160, 192), 3)}
CROP = ((96, 112), 5)
CROP_SPREAD = 22.0
VALIDATION_STRIDE = 8  # mm
NARROWEST = 3.0  # mm that the walls of ventricles move inwards at most

# Two conventions of drawing the same structures; a network learns a classifier for each (zoo.PROTOCOLS).
MANUAL, FREESURFER = 0, 1

# Of all else, in pixels.
LARGEST_CROP = 192
PIXELS = 2 * 256**2  # a batch, about
LARGEST_BATCH = 12  # slices
LABELLED = 0.75  # of the slices go through a voxel of a structure that was drawn
REMEMBERED = 2000  # voxels of a structure and scan to draw from
VALIDATION_SLICES = 64


def counts_of(scans, classes):
    """Return the voxels of every class in scans; the ignored ones count nowhere."""
    return sum(torch.bincount(scan.classes.flatten(), minlength=classes)[:classes] for scan in scans).numpy()


class BrainRecipe:
    """Real heads and heads synthesised from label maps, in two drawing protocols.

    Half of the slices follow the manual protocol: three of four are cut from its scans, the others synthesised from
    their labels. Half follow FreeSurfer's: a share is cut from its scans, if there are any, the others are synthesised
    from label maps. Half of the stripped brains get a
    painted skull.

    Args:
        scans: list of :class:`~.scans.LabelledScan` to train on, of one protocol or of both.
        heads: list of :class:`~.scans.HeadLabels`.
        held_out: list of :class:`~.scans.LabelledScan` to validate with.
        view: ``"coronal"``, ``"axial"`` or ``"sagittal"``.
        slices: odd number of neighbouring slices that the network is given together.
        real_share: in [0, 1], of the slices of FreeSurfer's protocol that are cut from its scans.

    Raises:
        SEBrainSegError: there are no scans of the manual protocol or no label maps.
    """

    protocols, spacing, window = PROTOCOLS, BRAIN_SPACING, None

    def __init__(self, scans, heads, held_out, view, slices=1, real_share=0.5):
        self.scans_of = {name: [scan for scan in scans if scan.protocol == name] for name in PROTOCOLS}
        if not self.scans_of["manual"] or not heads:
            raise SEBrainSegError("The brain recipe needs labelled scans and label maps of heads; there are none.")
        self.scans, self.heads, self.held_out, self.view = scans, heads, held_out, view
        self.slices, self.real_share = slices, real_share if self.scans_of["freesurfer"] else 0.0
        self.table, self.crop, self.full = structures(), CROP, FULL[view]
        self.mirror = torch.from_numpy(mirrored_classes())
        self.unsided = torch.from_numpy(unsided_classes())

    def description(self):
        names = {key: [each.name for each in getattr(self, key)] for key in ("scans", "heads", "held_out")}
        return {"recipe": "brain", "view": self.view, "slices": self.slices, "real": self.real_share, **names}

    def counts(self):
        """Voxels of every class in the scans to train on."""
        return counts_of(self.scans, len(self.table) + 1)

    def draw(self, rng, shape, cropped):
        """Deformed slices ``(slices, H, W)``, the classes ``(H, W)`` of the middle one and its protocol."""
        protocol = MANUAL if rng.random() < 0.5 else FREESURFER
        real = rng.random() < (0.75 if protocol == MANUAL else self.real_share)
        labelled = real or protocol == MANUAL
        sources = self.scans_of[PROTOCOLS[protocol]] if labelled else self.heads
        source = sources[rng.integers(len(sources))]
        normal = VIEWS[self.view]
        if cropped:
            offset, shift = rng.normal(0, CROP_SPREAD), rng.normal(0, 6, 2)
        else:
            first, last = source.extent[normal] - source.centre[normal]
            offset, shift = rng.uniform(first - 8, last + 8), rng.normal(0, (20, 12))
        mirrored = rng.random() < 0.5
        positions = slice_positions(rng, self.view, shape, source.centre, offset, mirrored, shift, slices=self.slices)
        middle, narrowed = positions[:, self.slices // 2], 0.0
        if labelled:
            classes = nearest(source.classes, middle)
        else:
            # The label maps are of older people: their ventricles are wider than most.
            narrowed = rng.uniform(0, NARROWEST) if rng.random() < 0.7 else 0.0
            classes = source.class_of_tissue[source.tissues_at(middle, narrowed).long()]
        if mirrored:
            classes = self.mirror[classes.long()]
        if self.view == "sagittal":
            classes = self.unsided[classes.long()]
        image = linear(source.image, positions) if real else synthesise(rng, source, positions, normal, narrowed)
        if labelled and source.stripped and rng.random() < 0.5:
            image = paint_skull(rng, image, linear(source.distance, positions), self.view)
        return scanner_effects(rng, image), classes, protocol

    def validation(self):
        """Every eighth slice of the scans held out."""
        for scan in self.held_out:
            images, classes = (slices_of(each, self.view) for each in (scan.image, scan.classes))
            classes = classes[::VALIDATION_STRIDE]
            if self.view == "sagittal":
                classes = self.unsided[classes.long()]
            numbers = range(0, len(images), VALIDATION_STRIDE)
            yield images, numbers, classes, PROTOCOLS.index(scan.protocol)


class LabelledImage:
    """An image with its labels as :class:`GeneralRecipe` takes it, both ``[S, A, R]``; a 2D image has one plane.

    Attributes:
        image: float32 tensor, intensities as at inference.
        classes: tensor of ``structures.class_type``, its largest number where ignored or outside of the scan.
        voxels: positions ``(n, 3)`` of some voxels by class.
    """

    def __init__(self, pair, table, spacing, window, ignored):
        self.name = pair.name
        image, labels = read_pair(pair)
        grid, array = prepare(image, spacing, window)
        nowhere = int(np.iinfo(class_type(table)).max)
        class_of = np.full(2**16, nowhere, class_type(table))
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
        table: tuple of :class:`~..structures.Structure`.
        spacing, window: of the scans, see :class:`~..model.Model`.

    Raises:
        SEBrainSegError: there are no scans.
    """

    protocols, slices = (), 1

    def __init__(self, scans, held_out, view, table, spacing, window):
        if not scans:
            raise SEBrainSegError("There are no scans to train on.")
        self.scans, self.held_out, self.view = scans, held_out, view
        self.table, self.spacing, self.window = table, spacing, window
        normal = VIEWS[view]
        in_plane = [axis for axis in range(3) if axis != normal]
        # Voxels a pixel: slices may be further apart than pixels, and a 2D image has no other plane.
        self.stretch = [1.0, 1.0, 1.0]
        self.stretch[normal] = spacing[in_plane[0]] / spacing[normal] if spacing else 0.0
        largest = np.max([[scan.image.shape[axis] for axis in in_plane] for scan in scans], axis=0)
        sides = [16 * math.ceil(side / 16) for side in largest]
        self.full, self.crop = (self.batch([min(side, most) for side in sides]) for most in (math.inf, LARGEST_CROP))
        self.nowhere = int(np.iinfo(class_type(table)).max)
        self.mirror = torch.from_numpy(mirrored_classes(table)) if self.is_symmetric() else None

    @staticmethod
    def batch(sides):
        """A slice's rows and columns, and how many make a batch."""
        return tuple(sides), int(np.clip(PIXELS // np.prod(sides), 2, LARGEST_BATCH))

    def is_symmetric(self):
        """Whether slices may be mirrored: two thirds of the structures come in pairs, and the view shows both sides.

        A liver on the left is nobody's, whatever the kidneys do.
        """
        mirrored = mirrored_classes(self.table)[1 : len(self.table) + 1]
        paired = (mirrored != np.arange(1, len(self.table) + 1)).mean()
        return self.spacing is not None and self.view != "sagittal" and paired >= 2 / 3

    def description(self):
        names = {key: [each.name for each in getattr(self, key)] for key in ("scans", "held_out")}
        plain = {"spacing": self.spacing and list(self.spacing), "window": self.window and list(self.window)}
        plain["labels"] = [each.label for each in self.table]
        return {"recipe": "general", "view": self.view, **names, **plain}

    def counts(self):
        """Voxels of every class in the scans to train on."""
        return counts_of(self.scans, len(self.table) + 1)

    def draw(self, rng, shape, cropped):
        """One deformed slice ``(1, H, W)``, its classes ``(H, W)``, and 0 for its protocol."""
        scan = self.scans[rng.integers(len(self.scans))]
        size, normal = np.array(scan.image.shape), VIEWS[self.view]
        target = rng.uniform(0, size - 1)
        if scan.voxels and rng.random() < LABELLED:
            places = list(scan.voxels.values())
            places = places[rng.integers(len(places))]
            target = places[rng.integers(len(places))].astype(float)
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
        if mirrored:
            classes = self.mirror[classes.long()]
        return varied(rng, linear(scan.image, positions)), classes, 0

    def validation(self):
        """Slices of the scans held out, evenly spread."""
        stacks = [tuple(slices_of(each, self.view) for each in (scan.image, scan.classes)) for scan in self.held_out]
        stride = math.ceil(sum(len(images) for images, _ in stacks) / VALIDATION_SLICES)
        for images, classes in stacks:
            first = len(images) % stride // 2
            yield images, range(first, len(images), stride), classes[first::stride], 0


def varied(rng, image):
    """Slices ``(slices, H, W)`` of intensities from 0 to about 1 with mildly other contrast, shading, gain, sharpness
    and noise."""
    shape = tuple(image.shape[-2:])
    image = image.clamp(min=0) ** float(math.exp(rng.normal(0, 0.1)))
    image = image * torch.exp(smooth_noise(rng, 1, shape, 4)[0] * float(rng.uniform(0, 0.05)))
    image = blur(image, float(rng.uniform(0.4, 0.8))) if rng.random() < 0.25 else image
    image = image * float(math.exp(rng.normal(0, 0.05)))
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32)) * float(rng.uniform(0, 0.03))
    return (image + noise).clamp(0, 2)
