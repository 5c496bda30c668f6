"""What the bundled networks are trained on: real heads and heads synthesised from label maps."""

from collections.abc import Iterator, Sequence
from typing import Any, Optional

import numpy as np
import torch

from ..choices.structures import structures
from ..choices.vocabulary import Protocol, slice_axis
from ..errors import SEBrainSegError
from ..inference.geometry import BRAIN_SPACING
from ..inference.slices import slices_of
from ..networks.classes import mirrored_classes, unsided_classes
from .batches import Sample, ValidationSlices
from .deformation import linear, nearest, slice_positions
from .scans import HeadLabels, LabelledScan
from .synthesis import paint_skull, scanner_effects, synthesise

# Of brains, in mm: rows and columns, slices a batch. Central crops hold the deep structures and cost a third of a full
# slice. Coronal and axial slices are 160 wide, left to right; sagittal ones 192, front to back.
FULL = {"coronal": ((192, 160), 3), "axial": ((192, 160), 3), "sagittal": ((160, 192), 3)}


CROP = ((96, 112), 5)


CROP_SPREAD = 22.0


VALIDATION_STRIDE = 8  # mm


NARROWEST = 3.0  # mm that the walls of ventricles move inwards at most


# Two conventions of drawing the same structures; a network learns a classifier for each.
PROTOCOLS = Protocol.in_rows()
MANUAL, FREESURFER = Protocol.MANUAL.row, Protocol.FREESURFER.row


def count_classes(scans: Sequence[Any], classes: int) -> np.ndarray:
    """Return the voxels of every class in scans; the ignored ones count nowhere.

    Args:
        scans: list of :class:`~.scans.LabelledScan` or :class:`~.general_recipe.LabelledImage`.
        classes: how many there are, background included.
    """
    counts = [torch.bincount(scan.classes.flatten(), minlength=classes)[:classes] for scan in scans]
    return torch.stack(counts).sum(dim=0).numpy()


class BrainRecipe:
    """Real heads and heads synthesised from label maps, in two drawing protocols.

    Half of the slices follow the manual protocol: three of four are cut from its scans, the others synthesised from
    their labels. Half follow FreeSurfer's: a share is cut from its scans, if there are any, the others are synthesised
    from label maps. Half of the stripped brains get a painted skull.

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

    protocols: tuple[str, ...] = PROTOCOLS
    spacing: Optional[tuple[float, float, float]] = BRAIN_SPACING
    window: Optional[tuple[float, float]] = None

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        heads: Sequence[HeadLabels],
        held_out: Sequence[LabelledScan],
        view: str,
        slices: int = 1,
        real_share: float = 0.5,
    ) -> None:
        self.scans_of = {name: [scan for scan in scans if scan.protocol == name] for name in PROTOCOLS}
        if not self.scans_of["manual"] or not heads:
            raise SEBrainSegError("The brain recipe needs labelled scans and label maps of heads; there are none.")
        self.scans, self.heads, self.view = scans, heads, view
        self.held_out: Sequence[Any] = held_out
        self.slices, self.real_share = slices, real_share if self.scans_of["freesurfer"] else 0.0
        self.table, self.crop, self.full = structures(), CROP, FULL[view]
        self.mirror = torch.from_numpy(mirrored_classes())
        self.unsided = torch.from_numpy(unsided_classes())

    def description(self) -> dict[str, Any]:
        """Return what tells this recipe from others, in plain values."""
        names = {key: [each.name for each in getattr(self, key)] for key in ("scans", "heads", "held_out")}
        return {"recipe": "brain", "view": self.view, "slices": self.slices, "real": self.real_share, **names}

    def class_counts(self) -> np.ndarray:
        """Return the voxels of every class in the scans to train on."""
        return count_classes(self.scans, len(self.table) + 1)

    def sample(self, rng: np.random.Generator, shape: tuple[int, int], cropped: bool) -> Sample:
        """Return deformed slices ``(slices, H, W)``, the classes ``(H, W)`` of the middle one and its protocol.

        Args:
            shape: rows and columns.
            cropped: whether it is a crop, near the brain's middle, or a full slice from anywhere in the brain.
        """
        protocol = MANUAL if rng.random() < 0.5 else FREESURFER
        real = rng.random() < (0.75 if protocol == MANUAL else self.real_share)
        labelled = real or protocol == MANUAL
        sources: Sequence[Any] = self.scans_of[PROTOCOLS[protocol]] if labelled else self.heads
        source = sources[int(rng.integers(len(sources)))]
        normal = slice_axis(self.view)
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

    def validation(self) -> Iterator[ValidationSlices]:
        """Yield every eighth slice of each scan held out."""
        for scan in self.held_out:
            images, classes = (slices_of(each, self.view) for each in (scan.image, scan.classes))
            classes = classes[::VALIDATION_STRIDE]
            if self.view == "sagittal":
                classes = self.unsided[classes.long()]
            numbers = range(0, len(images), VALIDATION_STRIDE)
            yield images, numbers, classes, PROTOCOLS.index(scan.protocol)
