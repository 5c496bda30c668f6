"""What a user chooses: network, squeeze & excitation variant, direction of slicing, device and drawing protocol."""

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from ..errors import SEBrainSegError
from ..networks import bundled, user_models
from ..translation import tr as _
from .structures import selected
from .vocabulary import Architecture, Device, Protocol, Variant, View, alternatives, values


@dataclass(frozen=True)
class Parameters:
    """One choice of each; strings in any case, or members of the enums. The fields are arguments of ``segment``.

    Attributes:
        architecture: a value of :class:`~.vocabulary.Architecture`.
        se: a value of :class:`~.vocabulary.Variant`; ``"scSE"`` becomes ``"scse"``.
        view: a value of :class:`~.vocabulary.View`.
        device: a value of :class:`~.vocabulary.Device`, or ``"cuda:N"`` for the N-th GPU, from 0.
        protocol: a value of :class:`~.vocabulary.Protocol`.
        model: name or path of a user-trained model, which settles all of the above but the device; ``""`` for a bundled
            network.
        structures: those to keep, as :func:`.structures.selected` takes them; ``""`` for all.
    """

    architecture: str = Architecture.UNET.value
    se: str = Variant.SCSE.value
    view: str = View.CORONAL.value
    device: str = Device.AUTO.value
    protocol: str = Protocol.FREESURFER.value
    model: str = ""
    structures: str = ""

    def __post_init__(self) -> None:
        for field in ("architecture", "se", "view", "device", "protocol"):
            value = getattr(self, field)
            # Frozen: what was written is brought into shape here, and nothing is changed afterwards.
            object.__setattr__(self, field, str(value.value if isinstance(value, Enum) else value).strip().lower())
        for field in ("model", "structures"):
            object.__setattr__(self, field, str(getattr(self, field) or ""))

    def problem(self) -> str:
        """Return one sentence that says what is wrong and names what there is, or ``""`` if all is well."""
        for value, choices, sentence in (
            (self.architecture, values(Architecture), _("Unknown architecture '{value}': choose {choices}.")),
            (self.se, values(Variant), _("Unknown squeeze & excitation variant '{value}': choose {choices}.")),
            (self.view, values(View), _("Unknown view '{value}': choose {choices}.")),
            (self.protocol, values(Protocol), _("Unknown protocol '{value}': choose {choices}.")),
        ):
            if value not in choices:
                return sentence.format(value=value, choices=alternatives(choices))
        if not Device.accepts(self.device):
            return _("Unknown device '{value}': choose {choices} (N = 0, 1, ...).").format(
                value=self.device, choices=alternatives(Device.spellings())
            )
        try:
            if self.model:
                # What else a user-trained model has is known once it is loaded.
                user_models.path_of(self.model)
                return ""
            selected(self.structures)
            return self.absence()
        except SEBrainSegError as error:
            return error.sentence

    def absence(self) -> str:
        """Return one sentence if no such network is bundled for use, or ``""`` if it is.

        Raises:
            SEBrainSegError: the list of bundled networks is missing from the installation.
        """
        known = set(bundled.names())
        if not known:
            return _("No network is bundled; install SEBrainSeg again.")
        if self._is_among(known):
            return ""
        views = [view for view in values(View) if replace(self, view=view)._is_among(known)]
        others = [
            full_title(architecture, se)
            for architecture in values(Architecture)
            for se in values(Variant)
            if replace(self, architecture=architecture, se=se)._is_among(known)
        ]
        if views and others:
            text = _("No {title} is bundled for the view '{view}': choose the view {views}, or {others} for this view.")
        elif views:
            text = _("No {title} is bundled for the view '{view}': choose the view {views}.")
        elif others:
            text = _("No {title} is bundled for the view '{view}': choose {others} for this view.")
        else:
            text = _("No {title} is bundled for the view '{view}': choose {known}.")
        return text.format(
            title=full_title(self.architecture, self.se),
            view=self.view,
            views=alternatives(views),
            others=alternatives(others),
            known=alternatives(sorted(known)),
        )

    def _is_among(self, known: set[str]) -> bool:
        return known.issuperset(self.networks)

    def checked(self) -> "Parameters":
        """Return these parameters.

        Raises:
            SEBrainSegError: one of them is not valid, or there is no such network.
        """
        problem = self.problem()
        if problem:
            raise SEBrainSegError(problem)
        return self

    @property
    def views(self) -> tuple[str, ...]:
        """The views whose networks take part."""
        return values(View.planes()) if self.view == View.ALL.value else (self.view,)

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the bundled networks that take part, as in ``unet-scse-coronal``."""
        return tuple(f"{self.architecture}-{self.se}-{view}" for view in self.views)

    @property
    def name(self) -> str:
        """A name for files, as in ``unet-scse-all``, ``unet-scse-coronal-manual`` or the user-trained model's own."""
        if self.model:
            return Path(self.model.removesuffix(".pt")).name
        suffix = "" if self.protocol == Protocol.FREESURFER.value else f"-{self.protocol}"
        return f"{self.architecture}-{self.se}-{self.view}{suffix}"

    @property
    def title(self) -> str:
        """A name for people, as in ``U-Net scSE``, ``U-Net, all views, manual protocol`` or ``abdomen-ct``.

        It is the same in every language, as nodes and files carry it. What goes without saying is left out: no SE
        blocks, coronal slices, FreeSurfer's protocol.
        """
        if self.model:
            return self.name
        title = full_title(self.architecture, self.se)
        if self.view != View.CORONAL.value:
            title += ", all views" if self.view == View.ALL.value else f", {self.view}"
        return title if self.protocol == Protocol.FREESURFER.value else f"{title}, {self.protocol} protocol"


def full_title(architecture: str, se: str) -> str:
    """Return the name of a network with its SE blocks, as in ``U-Net scSE``; plain ``U-Net`` without."""
    title = Architecture(architecture).label()
    return title if se == Variant.NONE.value else f"{title} {Variant(se).label()}"
