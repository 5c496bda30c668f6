"""The bundled networks: their names and what is known of them without loading; loading verifies them first."""

import csv
import hashlib
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ..errors import SEBrainSegError
from ..resources import resource
from ..translation import tr as _

if TYPE_CHECKING:
    from ..choices.parameters import Parameters
    from .model_file import Model


def checksums() -> Mapping[str, str]:
    """Return the SHA-256 of every bundled model file by name.

    Raises:
        SEBrainSegError: the list is missing from the installation.
    """
    try:
        path = resource("Models/checksums.csv")
        state = path.stat()
        return _checksums_in(path, state.st_mtime_ns, state.st_size)
    except FileNotFoundError as error:
        raise SEBrainSegError(error.args[0]) from None


@lru_cache(maxsize=1)
def _checksums_in(path: Path, modified: int, size: int) -> Mapping[str, str]:
    """Read a list of checksums that was last modified then, and that has this size."""
    with open(path, newline="", encoding="utf-8") as file:
        return MappingProxyType({row["file"]: row["sha256"] for row in csv.DictReader(file)})


def names() -> tuple[str, ...]:
    """Return the names of the bundled networks, as in ``unet-scse-coronal``; raises as :func:`checksums`."""
    return tuple(file.removesuffix(".pt") for file in checksums())


class Facts(NamedTuple):
    """What is known of a choice.

    Attributes:
        parameters: trainable parameters of its networks, of one protocol.
        increase: by its SE blocks, in percent.
        dice: mean over the 31 structures of the held-out scans of its protocol, in [0, 1]; ``None``: not measured.
        seconds: CPU-seconds for a head of 256 x 256 x 256 mm; ``None``: not measured.
    """

    parameters: int
    increase: float
    dice: Optional[float] = None
    seconds: Optional[float] = None


@cache
def _rows_of_facts() -> dict[str, dict[str, str]]:
    """Return the rows of ``facts.csv`` by name, as in ``unet-scse-all``; none if it is not there."""
    try:
        with open(resource("Models/facts.csv"), newline="", encoding="utf-8") as file:
            return {row["network"]: row for row in csv.DictReader(file)}
    except FileNotFoundError:
        return {}


def facts(parameters: "Parameters") -> Optional[Facts]:
    """Return the :class:`Facts` of a choice, ``None`` of what is not known, such as user-trained models."""
    row = _rows_of_facts().get(f"{parameters.architecture}-{parameters.se}-{parameters.view}")
    if parameters.model or row is None:
        return None
    dice, seconds = (float(row[name]) if row[name] else None for name in (f"dice_{parameters.protocol}", "seconds"))
    return Facts(int(row["parameters"]), float(row["increase_percent"]), dice, seconds)


def model_name(architecture: str, se: str, view: str) -> str:
    """File name of a bundled network, for example ``unet-scse-coronal.pt``."""
    return f"{architecture}-{se}-{view}.pt"


def corrections_of(name: str, checksum: str) -> dict[str, Any]:
    """Return the fields that a bundled model file was written without, see :class:`.model_file.Model`.

    They are listed by file name in ``corrections.json``, with the checksum of the file that they were chosen for: a new
    file of the same name has none.

    Args:
        name: of the file, as in ``unet-scse-coronal.pt``.
        checksum: its SHA-256.

    Raises:
        SEBrainSegError: the list is missing from the installation.
    """
    try:
        listed = json.loads(resource("Models/corrections.json").read_text(encoding="utf-8")).get(name, {})
    except FileNotFoundError as error:
        raise SEBrainSegError(error.args[0]) from None
    if listed.get("sha256") != checksum:
        return {}
    return {field: value for field, value in listed.items() if field != "sha256"}


def load(architecture: str, se: str, view: str, protocol: str = "freesurfer") -> "Model":
    """Load a bundled network, in evaluation mode, on the CPU.

    Args:
        architecture, se, view: see :class:`.parameters.Parameters`; ``view`` is one direction.
        protocol: whose convention of drawing to follow.

    Raises:
        SEBrainSegError: there is no such network, or its file is missing or damaged.
    """
    from .model_file import read_model  # torch takes seconds to import, a list of names should not

    name, listed = model_name(architecture, se, view), checksums()
    if name not in listed:
        choices = ", ".join(model[: -len(".pt")] for model in listed)
        raise SEBrainSegError(
            _("There is no bundled network {name}; choose one of {choices}.").format(
                name=name.removesuffix(".pt"), choices=choices
            )
        )
    try:
        content = resource(f"Models/{name}").read_bytes()
    except OSError:
        raise SEBrainSegError(
            _("The model file {name} is missing or unreadable; install SEBrainSeg again.").format(name=name)
        ) from None
    if hashlib.sha256(content).hexdigest() != listed[name]:
        raise SEBrainSegError(
            _("The model file {name} is damaged (its SHA-256 is wrong); install SEBrainSeg again.").format(name=name)
        )
    corrections = corrections_of(name, listed[name])
    try:
        return read_model(content, protocol, corrections)
    except SEBrainSegError:
        raise SEBrainSegError(
            _("The model file {name} is no network of SEBrainSeg; install SEBrainSeg again.").format(name=name)
        ) from None


def list_checksums(folder: Path) -> None:
    """Write ``checksums.csv`` for the model files of a folder."""
    with open(folder / "checksums.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "sha256"])
        for path in sorted(folder.glob("*.pt")):
            writer.writerow([path.name, hashlib.sha256(path.read_bytes()).hexdigest()])
