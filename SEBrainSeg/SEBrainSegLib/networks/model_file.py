"""A trained network with what it must know about its input and its output, and the file that holds it."""

import io
import math
import pickle
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import torch

from ..choices.structures import Structure, rows_of, structures, table_of
from ..errors import SEBrainSegError
from ..files.atomic import replaced_whole
from .architectures import network_class
from .classes import class_of_label

# What a damaged or foreign file makes torch.load and the networks raise.
UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    EOFError,
    AttributeError,
    OSError,
)


@dataclass(frozen=True)
class Model:
    """One trained network.

    A model file is what ``torch.save`` makes of plain tensors, numbers and strings. It is read with
    ``weights_only=True``, so that a file can hold no code. It holds

    - ``configuration``: the arguments of the network and its ``architecture``;
    - ``weights``: fp16; with several ``protocols``, the classifier has one set of rows for each, of which a loaded
      model keeps one;
    - ``view``, ``structures``, ``spacing``, ``window`` and ``smoothing`` as below; what a file lacks has the default;
    - ``shared_rows``: by protocol, the labels whose classifier rows become the mean of those of all protocols;
    - ``logit_shifts``: by protocol, what is added to the logits, by label (0: background).

    Attributes:
        network: in evaluation mode, on the CPU; slices ``(N, 1, H, W)`` to logits ``(N, classes, H, W)``.
        view: the direction of slicing that it was trained in; ``"axial"`` if it was trained on 2D images.
        structures: what its classes are, in order, from class 1.
        spacing: mm of the conformed grid along ``[S, A, R]``; ``None``: trained on 2D images, used as they are.
        window: the intensities that become 0 and 1, for data in absolute units; ``None``: see
            :func:`.intensities.normalise`.
        smoothing: taps, odd in number, that slices are convolved with along rows and columns before the network sees
            them; ``()``: they stay as they are.
        protocol: the protocol whose rows were kept; ``""`` if the file has none to choose from.
    """

    network: torch.nn.Module
    view: str = "coronal"
    structures: tuple[Structure, ...] = ()
    spacing: Optional[tuple[float, float, float]] = (1.0, 1.0, 1.0)
    window: Optional[tuple[float, float]] = None
    smoothing: tuple[float, ...] = ()
    protocol: str = ""

    @property
    def segments_brains(self) -> bool:
        """Whether it labels the 31 brain structures in volumes of heads."""
        return self.structures == structures() and self.spacing is not None


Weights = dict[str, torch.Tensor]


def full_precision(weights: Weights) -> Weights:
    """Return a model file's weights as a float32 state dict; batch norm's counters stay integers."""
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def _with_rows_of(protocol: Optional[str], weights: Weights, stored: Mapping[str, Any]) -> Weights:
    """Keep the classifier's rows of one of a file's protocols, with the file's ``shared_rows`` and ``logit_shifts``."""
    protocols, kept, classes = stored["protocols"], dict(weights), {0: 0, **class_of_label()}
    shared = [classes[int(label)] for label in stored.get("shared_rows", {}).get(protocol, ())]
    for name in ("classifier.weight", "classifier.bias"):
        rows = weights[name].unflatten(0, (len(protocols), -1))
        kept[name] = rows[protocols.index(protocol)].clone()
        kept[name][shared] = rows[:, shared].mean(dim=0)
    for label, shift in stored.get("logit_shifts", {}).get(protocol, {}).items():
        kept["classifier.bias"][classes[int(label)]] += float(shift)
    return kept


def _floats(values: Optional[Sequence[float]], count: int) -> Any:
    """Return a tuple of ``count`` floats, or ``None``."""
    if values is not None and len(values) != count:
        raise ValueError(f"{count} numbers are needed")
    return None if values is None else tuple(float(value) for value in values)


def _taps(values: Sequence[float]) -> tuple[float, ...]:
    """Return the taps of a smoothing; raise :class:`ValueError` unless they are finite and odd in number."""
    taps = tuple(float(value) for value in values)
    if taps and (len(taps) % 2 == 0 or not all(map(math.isfinite, taps))):
        raise ValueError("the taps of a smoothing are finite and odd in number")
    return taps


def read_model(
    content: bytes, protocol: Optional[str] = None, corrections: Optional[Mapping[str, Any]] = None
) -> Model:
    """Read a model from the bytes of its file.

    Args:
        content: the bytes of a model file.
        protocol: one of the file's protocols; its only one if it has none to choose from.
        corrections: fields of :class:`Model`'s file that this one was written without.

    Raises:
        SEBrainSegError: the bytes are no model file of SEBrainSeg.
    """
    try:
        # torch.load overlooks altered weights.
        if zipfile.ZipFile(io.BytesIO(content)).testzip():
            raise ValueError("the checksum of a part is wrong")
        stored = {**(corrections or {}), **torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)}
        configuration, weights = dict(stored["configuration"]), full_precision(stored["weights"])
        protocols = stored.get("protocols", ())
        if protocols:
            weights = _with_rows_of(protocol, weights, stored)
            configuration["classes"] //= len(protocols)
        table = structures()
        if "structures" in stored:
            table = table_of(stored["structures"])
            if len(table) + 1 != configuration["classes"]:
                raise ValueError("as many structures as classes")
        network = network_class(configuration.pop("architecture"))(**configuration)
        network.load_state_dict(weights)
        return Model(
            network.eval(),
            stored["view"],
            table,
            _floats(stored.get("spacing", Model.spacing), 3),
            _floats(stored.get("window"), 2),
            _taps(stored.get("smoothing", ())),
            (protocol or "") if protocols else "",
        )
    except UNREADABLE:
        raise SEBrainSegError("This is no model file of SEBrainSeg, or of a newer one.") from None


def write_model(
    path: Union[str, Path],
    network: torch.nn.Module,
    configuration: Mapping[str, Any],
    view: str,
    protocols: Sequence[str] = (),
    table: Optional[Sequence[Structure]] = None,
    spacing: Optional[Sequence[float]] = Model.spacing,
    window: Optional[Sequence[float]] = Model.window,
) -> None:
    """Write a model file; see :class:`Model`. An interruption leaves no half of one.

    Args:
        path: of the file.
        network: whose weights to write.
        configuration: the arguments of the network and its ``architecture``.
        view: the direction of slicing.
        protocols: in the order of the classifier's sets of rows.
        table: its structures; without them the file has neither ``structures`` nor ``spacing`` nor ``window``.
        spacing: mm along ``[S, A, R]``, or ``None``.
        window: the intensities that become 0 and 1, or ``None``.

    Raises:
        ValueError: a weight is not finite in fp16.
    """
    weights = {
        name: value.detach().cpu().contiguous().half() if value.is_floating_point() else value.cpu()
        for name, value in network.state_dict().items()
    }
    unsound = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if unsound:
        raise ValueError(f"The weights of {unsound[0]} are not finite; train with a lower learning rate.")
    content: dict[str, Any] = {
        "configuration": configuration,
        "weights": weights,
        "view": view,
        "protocols": list(protocols),
    }
    if table is not None:
        content["structures"] = rows_of(table)
        content["spacing"] = spacing and list(spacing)
        content["window"] = window and list(window)
    with replaced_whole(path) as beside:
        torch.save(content, beside)
