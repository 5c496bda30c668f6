"""What a user chooses: network, squeeze & excitation variant, direction of slicing, device and drawing protocol."""

import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from ..errors import SEBrainSegError
from ..networks import bundled, user_models
from .structures import selected


class Architecture(Enum):
    """The fully convolutional network."""

    UNET = "unet"
    SDNET = "sdnet"
    DENSENET = "densenet"

    def label(self):
        """As written in the paper."""
        return {"unet": "U-Net", "sdnet": "SD-Net", "densenet": "DenseNet"}[self.value]


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
    AXIAL = "axial"
    SAGITTAL = "sagittal"
    ALL = "all"

    def label(self):
        """As shown in a list."""
        return "All three" if self is View.ALL else self.value.capitalize()


class Device(Enum):
    """Where a network runs; :class:`Parameters` takes ``"cuda:N"`` besides."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"

    def label(self):
        """As shown in a list."""
        return {"auto": "Automatic", "cpu": "CPU", "cuda": "NVIDIA GPU (CUDA)", "mps": "Apple GPU (MPS)"}[self.value]


class Protocol(Enum):
    """Whose convention of drawing the structures the labels follow."""

    FREESURFER = "freesurfer"
    MANUAL = "manual"

    def label(self):
        """As shown in a list."""
        return {"freesurfer": "FreeSurfer", "manual": "Neuromorphometrics (manual)"}[self.value]


def values(choices):
    """Return the values of an enum, as typed on the command line."""
    return tuple(choice.value for choice in choices)


@dataclass
class Parameters:
    """One choice of each; strings in any case, or the enums above. The fields are arguments of ``segment``.

    Attributes:
        architecture: a value of :class:`Architecture`.
        se: a value of :class:`Variant`; ``"scSE"`` becomes ``"scse"``.
        view: a value of :class:`View`.
        device: a value of :class:`Device`, or ``"cuda:N"`` for the N-th GPU, from 0.
        protocol: a value of :class:`Protocol`.
        model: name or path of a user-trained model, which settles all of the above but the device; ``""`` for a bundled
            network.
        structures: those to keep, as :func:`.structures.selected` takes them; ``""`` for all.
    """

    architecture: str = "unet"
    se: str = "scse"
    view: str = "coronal"
    device: str = "auto"
    protocol: str = "freesurfer"
    model: str = ""
    structures: str = ""

    def __post_init__(self):
        for field in ("architecture", "se", "view", "device", "protocol"):
            value = getattr(self, field)
            setattr(self, field, str(value.value if isinstance(value, Enum) else value).strip().lower())
        self.model = str(self.model or "")
        self.structures = str(self.structures or "")

    def problem(self):
        """Return one sentence that says what is wrong and names what there is, or ``""`` if all is well."""
        for subject, value, choices in (
            ("architecture", self.architecture, values(Architecture)),
            ("squeeze & excitation variant", self.se, values(Variant)),
            ("view", self.view, values(View)),
            ("protocol", self.protocol, values(Protocol)),
        ):
            if value not in choices:
                return f"Unknown {subject} '{value}': choose {alternatives(choices)}."
        if self.device not in values(Device) and not re.fullmatch(r"cuda:[0-9]+", self.device):
            return f"Unknown device '{self.device}': choose auto, cpu, cuda, cuda:N (N = 0, 1, ...) or mps."
        try:
            if not self.model:
                # What a user-trained model has is known once it is loaded.
                selected(self.structures)
                return self.absence()
            user_models.path_of(self.model)
            return ""
        except SEBrainSegError as error:
            return str(error)

    def absence(self):
        """Return one sentence if no such network is bundled for use, or ``""``; raises as :func:`.bundled.names`."""
        known = set(bundled.names())

        def is_there(**other):
            return known.issuperset(replace(self, **other).networks)

        if not known:
            return "No network is bundled; install SEBrainSeg again."
        if is_there():
            return ""
        views = [view for view in values(View) if is_there(view=view)]
        pairs = [(architecture, se) for architecture in values(Architecture) for se in values(Variant)]
        others = [full_title(*pair) for pair in pairs if is_there(architecture=pair[0], se=pair[1])]
        choices = [f"the view {alternatives(views)}"] if views else []
        choices += [f"{alternatives(others)} for this view"] if others else []
        title, choices = full_title(self.architecture, self.se), choices or [alternatives(sorted(known))]
        return f"No {title} is bundled for the view '{self.view}': choose {', or '.join(choices)}."

    def checked(self):
        """Return these parameters.

        Raises:
            SEBrainSegError: one of them is not valid, or there is no such network.
        """
        problem = self.problem()
        if problem:
            raise SEBrainSegError(problem)
        return self

    @property
    def views(self):
        """The views whose networks take part."""
        return values(View)[:3] if self.view == View.ALL.value else (self.view,)

    @property
    def networks(self):
        """The names of the bundled networks that take part, as in ``unet-scse-coronal``."""
        return tuple(f"{self.architecture}-{self.se}-{view}" for view in self.views)

    @property
    def name(self):
        """A name for files, as in ``unet-scse-all``, ``unet-scse-coronal-manual`` or the user-trained model's own."""
        if self.model:
            return Path(self.model.removesuffix(".pt")).name
        suffix = "" if self.protocol == Protocol.FREESURFER.value else f"-{self.protocol}"
        return f"{self.architecture}-{self.se}-{self.view}{suffix}"

    @property
    def title(self):
        """A name for people, as in ``U-Net scSE``, ``U-Net, all views, manual protocol`` or ``abdomen-ct``.

        What goes without saying is left out: no SE blocks, coronal slices, FreeSurfer's protocol.
        """
        if self.model:
            return self.name
        title = full_title(self.architecture, self.se)
        if self.view != View.CORONAL.value:
            title += ", all views" if self.view == View.ALL.value else f", {self.view}"
        return title if self.protocol == Protocol.FREESURFER.value else f"{title}, {self.protocol} protocol"


def full_title(architecture, se):
    """Name a network with its SE blocks, as in ``U-Net scSE``; plain ``U-Net`` without."""
    title = Architecture(architecture).label()
    return title if se == Variant.NONE.value else f"{title} {Variant(se).label()}"


def alternatives(choices):
    """Write choices as "a, b or c"."""
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
