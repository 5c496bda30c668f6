"""The result of segmenting a volume, without torch."""

# Python 3.9 knows no ``X | None``, and SimpleITK is not to be imported for a type.
from __future__ import annotations

from dataclasses import dataclass, field

from ..choices.parameters import Parameters
from ..choices.structures import Structure
from ..lazy import sitk


@dataclass(frozen=True)
class Excitation:
    """The excitation of one SE block in the forward passes that made a segmentation.

    Attributes:
        block: its name, as in ``"decoder 4"``.
        spatial: of sSE and scSE, the spatial excitation in [0, 1] on the input's grid, float32; 0 beyond the slices.
        mean, spread: of cSE and scSE, mean and standard deviation over the slices of every channel's excitation.
    """

    block: str
    spatial: sitk.Image | None = None
    mean: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()


@dataclass(frozen=True)
class Segmentation:
    """Labels of the structures in a volume, and what else was asked for.

    Attributes:
        labels: image of labels on the input's grid, 0 elsewhere; FreeSurfer ids with a bundled network. uint8, or
            uint16 if a label exceeds 255.
        volumes: ml of every structure by label, measured on ``labels``; a 2D image counts as 1 mm thick.
        device: name of the device that the network ran on.
        structures: what the labels are.
        parameters: what was chosen.
        seconds: how long it took, without loading torch.
        confidences: mean probability that the network gave to its choice, by label of every structure that was found;
            empty unless asked for.
        confidence: that probability in every voxel, background included, float32 on the input's grid.
        excitation: what one of the SE blocks did.
        implausibility: one sentence on why the whole is unlikely to be right, of a result that was accepted all the
            same; ``""`` if it may be right.
        cut_off: labels of the structures that the edge of the scan cuts off.
    """

    labels: sitk.Image
    volumes: dict[int, float]
    device: str
    structures: tuple[Structure, ...] = ()
    parameters: Parameters = field(default_factory=Parameters)
    seconds: float = 0.0
    confidences: dict[int, float] = field(default_factory=dict)
    confidence: sitk.Image | None = None
    excitation: Excitation | None = None
    implausibility: str = ""
    cut_off: tuple[int, ...] = ()
