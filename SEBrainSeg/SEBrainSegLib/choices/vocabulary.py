"""The words of every choice, once for networks, panel, command line and model files; needs neither torch nor numpy.

A new member appears in the panel's lists, the command line and ``sebrainseg --list`` by itself. Its other half is

========================  ==========================================================
:class:`Architecture`     a class in ``NETWORKS`` of :mod:`.networks.architectures`
:class:`Variant`          a block in ``BLOCKS`` of :mod:`.networks.squeeze_excitation`
:class:`Aggregation`      a function in ``AGGREGATE`` of :mod:`.networks.squeeze_excitation`
========================  ==========================================================
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Optional

from ..translation import tr as _


class Choice(Enum):
    """One thing that can be chosen: its value is typed and stored, its label is shown to people."""

    def __new__(cls, value: str, *_details: object) -> "Choice":
        member = object.__new__(cls)
        member._value_ = value
        return member

    # The defaults are for type checkers, to which Variant("cse") looks like the making of a member.
    def __init__(self, value: str, label: str = ""):
        self._label = label

    def label(self) -> str:
        """Return the words for it in a list; Slicer's parameter nodes ask for it by this name."""
        return self._label


class Architecture(Choice):
    """The fully convolutional network."""

    UNET = "unet", "U-Net"
    SDNET = "sdnet", "SD-Net"
    DENSENET = "densenet", "DenseNet"


class Variant(Choice):
    """The squeeze & excitation (SE) block in the network.

    Attributes:
        by_channel: whether it excites channels, as cSE does.
        spatial: whether it excites pixels, as sSE does.
    """

    NONE = "none", _("none"), False, False
    CSE = "cse", "cSE", True, False
    SSE = "sse", "sSE", False, True
    SCSE = "scse", "scSE", True, True

    def __init__(self, value: str, label: str = "", by_channel: bool = False, spatial: bool = False):
        super().__init__(value, label)
        self.by_channel, self.spatial = by_channel, spatial


class Aggregation(Choice):
    """How scSE joins its two branches."""

    MAX = "max", _("Maximum")
    ADDITION = "addition", _("Addition")
    MULTIPLICATION = "multiplication", _("Multiplication")
    CONCATENATION = "concatenation", _("Concatenation")


class View(Choice):
    """The direction in which a volume is sliced.

    Attributes:
        axis: the axis of an array ``[S, A, R]`` along which the slices are stacked; ``None`` for the mean of all views
            that have one.
    """

    CORONAL = "coronal", _("Coronal"), 1
    AXIAL = "axial", _("Axial"), 0
    SAGITTAL = "sagittal", _("Sagittal"), 2
    ALL = "all", _("All three"), None

    def __init__(self, value: str, label: str = "", axis: Optional[int] = None):
        super().__init__(value, label)
        self.axis = axis

    @classmethod
    def planes(cls) -> "tuple[View, ...]":
        """Return the views that have an axis, for each of which a network is trained."""
        return tuple(view for view in cls if view.axis is not None)


class Protocol(Choice):
    """Whose convention of drawing the structures the labels follow.

    Attributes:
        row: its place among the classifier's sets of rows in the model files that are trained here. A model file lists
            its own order, so that older files keep loading.
    """

    FREESURFER = "freesurfer", "FreeSurfer", 1
    MANUAL = "manual", _("Neuromorphometrics (manual)"), 0

    def __init__(self, value: str, label: str = "", row: int = 0):
        super().__init__(value, label)
        self.row = row

    @classmethod
    def in_rows(cls) -> tuple[str, ...]:
        """Return the values in the order of the classifier's rows."""
        return tuple(each.value for each in sorted(cls, key=lambda each: each.row))


class Device(Choice):
    """Where a network runs; the N-th of several NVIDIA GPUs is ``"cuda:N"``, N from 0."""

    AUTO = "auto", _("Automatic")
    CPU = "cpu", _("CPU")
    CUDA = "cuda", _("NVIDIA GPU (CUDA)")
    MPS = "mps", _("Apple GPU (MPS)")

    @classmethod
    def spellings(cls) -> tuple[str, ...]:
        """Return what can be typed, ``cuda:N`` after ``cuda``."""
        return tuple(text for each in cls for text in ((each.value, "cuda:N") if each is cls.CUDA else (each.value,)))

    @classmethod
    def accepts(cls, text: str) -> bool:
        """Return whether a text is the name of a device, on this computer or another."""
        return text in values(cls) or re.fullmatch(r"cuda:[0-9]+", text) is not None


def slice_axis(view: str) -> int:
    """Return the axis of an array ``[S, A, R]`` along which the slices of a view are stacked.

    Raises:
        ValueError: the view is not one of :meth:`View.planes`.
    """
    axis = View(view).axis
    if axis is None:
        raise ValueError(f"'{view}' is no direction of slicing: choose {alternatives(values(View.planes()))}.")
    return axis


def values(choices: Iterable[Choice]) -> tuple[str, ...]:
    """Return the values of choices, as typed on the command line."""
    return tuple(choice.value for choice in choices)


def alternatives(choices: Iterable[str]) -> str:
    """Return choices as "a, b or c"; ``""`` for none."""
    *others, last = list(choices) or [""]
    return _("{choices} or {last}").format(choices=", ".join(others), last=last) if others else last
