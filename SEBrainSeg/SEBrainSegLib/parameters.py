"""What a user chooses: network, squeeze & excitation variant, direction of slicing and device."""

import re
from dataclasses import dataclass
from enum import Enum

from .errors import SEBrainSegError


class Architecture(Enum):
    """The fully convolutional network."""

    UNET = "unet"

    def label(self):
        """As written in the paper."""
        return {"unet": "U-Net"}[self.value]


class Variant(Enum):
    """The squeeze & excitation (SE) block inside of the network."""

    NONE = "none"
    CSE = "cse"
    SSE = "sse"
    SCSE = "scse"

    def label(self):
        """As written in the paper."""
        return {"none": "none", "cse": "cSE", "sse": "sSE", "scse": "scSE"}[self.value]


class View(Enum):
    """The direction in which a volume is sliced."""

    CORONAL = "coronal"


class Device(Enum):
    """Where a network runs; :class:`Parameters` takes ``"cuda:N"`` besides."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"

    def label(self):
        """As shown in a list."""
        return {"auto": "Automatic", "cpu": "CPU", "cuda": "NVIDIA GPU (CUDA)", "mps": "Apple GPU (MPS)"}[self.value]


def values(choices):
    """Return the values of an enum, as typed on the command line."""
    return tuple(choice.value for choice in choices)


@dataclass
class Parameters:
    """One choice of each; strings in any case, or the enums above.

    Attributes:
        architecture: a value of :class:`Architecture`.
        se: a value of :class:`Variant`; ``"scSE"`` becomes ``"scse"``.
        view: a value of :class:`View`.
        device: a value of :class:`Device`, or ``"cuda:N"`` for the N-th GPU, from 0.
    """

    architecture: str = "unet"
    se: str = "scse"
    view: str = "coronal"
    device: str = "auto"

    def __post_init__(self):
        for field in ("architecture", "se", "view", "device"):
            value = getattr(self, field)
            setattr(self, field, str(value.value if isinstance(value, Enum) else value).strip().lower())

    def problem(self):
        """Return one sentence that names the valid choices, or ``""`` if all are valid."""
        for subject, value, choices in (
            ("architecture", self.architecture, values(Architecture)),
            ("squeeze & excitation variant", self.se, values(Variant)),
            ("view", self.view, values(View)),
        ):
            if value not in choices:
                return f"Unknown {subject} '{value}': choose {alternatives(choices)}."
        if self.device not in values(Device) and not re.fullmatch(r"cuda:[0-9]+", self.device):
            return f"Unknown device '{self.device}': choose auto, cpu, cuda, cuda:N (N = 0, 1, ...) or mps."
        return ""

    def checked(self):
        """Return these parameters.

        Raises:
            SEBrainSegError: one of them is not valid.
        """
        if self.problem():
            raise SEBrainSegError(self.problem())
        return self

    @property
    def model(self):
        """The network's name, as in ``unet-scse-coronal``."""
        return f"{self.architecture}-{self.se}-{self.view}"

    @property
    def title(self):
        """The network's name for people, as in ``U-Net scSE``; plain ``U-Net`` without SE blocks."""
        name = Architecture(self.architecture).label()
        return name if self.se == Variant.NONE.value else f"{name} {Variant(self.se).label()}"


def alternatives(choices):
    """Write choices as "a, b or c"."""
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
