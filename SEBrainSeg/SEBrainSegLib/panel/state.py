"""All that the panel shows, and how times and names are written."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ..analysis.volume_table import texts
from ..choices.parameters import Parameters
from ..text import duration
from ..translation import tr as _

if TYPE_CHECKING:
    from ..inference.result import Segmentation
    from ..networks.bundled import Facts


class Action(NamedTuple):
    """Whether something can be done now, and what it does or why it cannot be done."""

    enabled: bool
    text: str


@dataclass(frozen=True)
class State:
    """All that the panel shows.

    busy: whether the inputs are to stay as they are.
    apply, cancel, compare, maps, sequence, result: the actions; ``sequence.enabled`` is false without a sequence.
    accept: to show a result all the same that was refused as unlikely to be right.
    variants: an action for the tick of each variant, by value.
    status, facts: lines of text.
    doubt: a sentence beside the volume; ``""`` for none.
    percent: of the progress bar, or ``None`` for no bar.
    device: the device to run on, among the keys of ``devices``, which map to what is shown.
    blocks: the blocks whose excitation can be shown.
    result_name: the segmentation that the section Result is about, or ``""``.
    groups: maps its groups of structures to whether they are shown.
    in_3d: whether it is shown in 3D.
    has_sequence: whether the volume is one of a sequence.
    maps_time: how long the chosen maps will take, a line.
    advanced: what is chosen in the part that is closed at first, a line.
    map_name: the map that lies over a volume in the slice views, or ``""``.
    outlined: whether the structures are outlined meanwhile.
    opened: the sections that have something to show, in the order in which they got it.
    """

    busy: bool
    apply: Action
    cancel: Action
    compare: Action
    maps: Action
    sequence: Action
    result: Action
    accept: Action
    variants: Mapping[str, Action]
    status: str
    facts: str
    doubt: str
    percent: Optional[int]
    device: str
    devices: Mapping[str, str]
    blocks: tuple[str, ...]
    result_name: str
    groups: Mapping[str, bool]
    in_3d: bool
    has_sequence: bool
    maps_time: str
    advanced: str
    map_name: str
    outlined: bool
    opened: tuple[str, ...]


def facts_line(facts: "Optional[Facts]", time: str) -> str:
    """Write what is known of a network, ``None`` for nothing, and how long it will take."""
    lines = []
    if facts is not None:
        count = _("{count:,} parameters").format(count=facts.parameters)
        increase = _(" (+{increase:.2g} % over none)").format(increase=facts.increase) if facts.increase else ""
        lines.append(count + increase)
        if facts.dice is not None:
            lines.append(_("Dice {dice:.3f} on held-out scans").format(dice=facts.dice))
    return " · ".join([*lines, time])


def expected_time(facts: "Optional[Facts]", measured: str, device: str, device_name: str) -> str:
    """Write how long a segmentation may take.

    Args:
        facts: what is known of the network, or ``None``.
        measured: the seconds that it took on this device last time, or ``""``.
        device: name of the device, as in Parameters.
        device_name: its name for people.
    """
    if measured:
        return _("{time} on {device}, as last time").format(time=duration(float(measured)), device=device_name)
    if facts is None or facts.seconds is None:
        return _("time not measured yet")
    if device == "cpu":
        return _("about {time} of CPU time").format(time=duration(facts.seconds))
    return _("about {time} of CPU time, not measured here yet").format(time=duration(facts.seconds))


def next_step(segmentation: "Segmentation", rows: Iterable[Mapping[str, Any]]) -> str:
    """Write what is unusual about a segmentation, or what can be done next; ``rows`` are its table of volumes."""
    names = [row["structure"] for row in rows if row["remark"]]
    if segmentation.implausibility:
        return _("It is unlikely to be right: {reason}").format(reason=segmentation.implausibility)
    if not names:
        return _("Next: groups, 3D and volumes under Result.")
    return _("Under Result, the table of volumes has remarks on: {names}.").format(names=", ".join(names))


def table_text(rows: "list[dict[str, Any]]", delimiter: str) -> str:
    """Write the rows of a table of volumes as text, with its headings."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(texts, rows))
    return text.getvalue()


def cancelled_text() -> str:
    """Write what is left of a run that was cancelled."""
    return _("Cancelled; nothing was created.")


def quoted_names(nodes: Iterable[Any]) -> str:
    """Write the names of nodes as "'a', 'b'"."""
    return ", ".join(f"'{node.GetName()}'" for node in nodes)


def time_key(parameters: Parameters, device: str) -> str:
    """Return the key in the user's settings of how long a network takes on a device."""
    return f"seconds/{parameters.model or '-'.join((parameters.architecture, parameters.se, parameters.view))}/{device}"
