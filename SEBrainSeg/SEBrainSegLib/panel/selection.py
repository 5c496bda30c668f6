"""What is chosen in the panel, and what follows from it on this computer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Optional

from ..choices.job import excitation_blocks
from ..choices.parameters import Device, Parameters, Protocol, Variant, full_title
from ..translation import tr as _
from .state import Action


class Choices(NamedTuple):
    """What is chosen in the panel.

    volume: the volume node, or ``None``.
    parameters: of the segmentation.
    variants: those ticked for a comparison, values of :class:`~.parameters.Variant`.
    consensus: whether the comparison is to make one.
    block: whose excitation to show, or ``""``.
    confidence: whether to show the confidence.
    with_maps: whether to make the maps together with the segmentation.
    """

    volume: Any = None
    parameters: Parameters = Parameters()
    variants: tuple[str, ...] = ()
    consensus: bool = False
    block: str = ""
    confidence: bool = False
    with_maps: bool = False


@dataclass(frozen=True)
class Selection:
    """What is chosen, as far as this computer has it.

    choices: those of the panel.
    devices: names for people of this computer's devices by device, the CPU aside; ``None`` until they are known.
    """

    choices: Choices = Choices()
    devices: Optional[Mapping[str, str]] = None

    @property
    def volume(self) -> Any:
        """The chosen volume node, or ``None``."""
        return self.choices.volume

    @property
    def parameters(self) -> Parameters:
        """The chosen parameters, on a device that this computer has."""
        return replace(self.choices.parameters, device=self.device)

    @property
    def device(self) -> str:
        """The device to run on: the one chosen, unless it is known to be missing."""
        chosen = self.choices.parameters.device
        if self.devices is None:
            return chosen
        chosen = "cuda:0" if chosen == "cuda" else chosen
        return chosen if chosen in self.device_names() else "auto"

    def device_names(self) -> dict[str, str]:
        """Return what to call the devices that can be chosen, by device."""
        names = {"auto": _("Automatic"), **(self.devices or {})}
        names["cpu"] = _("CPU")
        chosen = self.choices.parameters.device
        if self.devices is None and chosen not in names:
            known = [device for device in Device if device.value == chosen]
            names[chosen] = known[0].label() if known else chosen
        return names

    def missing_device(self) -> str:
        """Return one sentence if the chosen device is not there, or ``""``."""
        chosen = self.choices.parameters.device
        if self.device == "auto" and chosen != "auto":
            return _("This computer has no device '{device}'; automatic is taken instead.").format(device=chosen)
        return ""

    def variants(self) -> dict[str, Action]:
        """Return for every variant whether it can be compared with others."""
        parameters, actions = self.parameters, {}
        for variant in Variant:
            why_not = replace(parameters, se=variant.value, model="").problem()
            title = full_title(parameters.architecture, variant.value)
            if parameters.model:
                why_not = _("Only the bundled networks come in variants; choose one of them.")
            actions[variant.value] = Action(not why_not, why_not or title)
        return actions

    def compared(self, variants: Mapping[str, Action]) -> tuple[str, ...]:
        """Return the variants that are ticked and can be compared; ``variants`` is what :meth:`variants` returns."""
        return tuple(variant for variant in self.choices.variants if variants[variant].enabled)

    def why_not_compare(self, variants: Mapping[str, Action]) -> str:
        """Return one sentence on why there is nothing to compare, or ``""``; ``variants`` as for :meth:`compared`."""
        if not any(action.enabled for action in variants.values()):
            return min(action.text for action in variants.values())
        return "" if len(self.compared(variants)) > 1 else _("Tick at least two variants.")

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks whose excitation can be shown."""
        return tuple(excitation_blocks(self.parameters))

    @property
    def block(self) -> str:
        """The chosen block, if the chosen network has it, or ``""``."""
        return self.choices.block if self.choices.block in self.blocks else ""

    def why_not_maps(self) -> str:
        """Return one sentence on why there are no maps to show, or ``""``."""
        if self.block or self.choices.confidence:
            return ""
        return _("Choose a block or tick Confidence.") if self.blocks else _("Tick Confidence.")

    def maps_with_segmentation(self) -> tuple[str, bool]:
        """Return the block whose excitation and whether the confidence is to come with the segmentation."""
        if not self.choices.with_maps:
            return "", False
        # Of a network without blocks there is the confidence alone; whether a user's has them is not known.
        blocks = () if self.parameters.model else self.blocks
        return self.block or (blocks[-1] if blocks else ""), self.choices.confidence or not blocks

    def advanced_line(self) -> str:
        """Write what is chosen in the section Advanced."""
        parameters = self.parameters
        protocol = "" if parameters.model else protocol_label(parameters.protocol)
        structures = parameters.structures or _("all structures")
        device = self.device_names().get(parameters.device, parameters.device)
        return _("Advanced: {choices}").format(choices=", ".join(filter(None, (protocol, structures, device))))


def protocol_label(protocol: str) -> str:
    """Name a drawing protocol for people."""
    return next((each.label() for each in Protocol if each.value == protocol), protocol)
