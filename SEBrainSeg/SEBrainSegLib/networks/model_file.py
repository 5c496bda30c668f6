"""A trained network with what it must know about its input and its output, and the file that holds it."""

import io
import pickle
import zipfile
import zlib
from dataclasses import dataclass
from typing import Optional

import torch

from ..choices.structures import Structure, rows_of, structures, table_of
from ..errors import SEBrainSegError
from ..files.atomic import replaced_whole
from .architectures import NETWORKS
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


# What FreeSurfer's protocol takes from the manual one, and what is added to its logits, by label (0: background); both
# chosen on the validation scans. Real scans taught the manual rows only: where both protocols draw a structure alike,
# FreeSurfer's row is averaged with that one. The label maps that taught FreeSurfer's rows are of older people, whose
# inferior lateral ventricles are three times as large.
ALIKE = {"freesurfer": (2, 41, 4, 43, 7, 46, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53)}


SHIFTS = {"freesurfer": {0: 0.5, 5: -2.0, 44: -2.0}}


@dataclass(frozen=True)
class Model:
    """One trained network.

    A model file is what ``torch.save`` makes of plain tensors, numbers and strings: ``configuration`` (the arguments of
    the network and its ``architecture``), ``weights`` (fp16) and the fields below. It is read with
    ``weights_only=True``, so that a file can hold no code. The classifier of a file with several ``protocols`` has one
    set of classes for each, of which a loaded model keeps one. The bundled files have neither ``structures`` nor
    ``spacing`` nor ``window``: the defaults here are theirs.

    Attributes:
        network: in evaluation mode, on the CPU; slices ``(N, 1, H, W)`` to logits ``(N, classes, H, W)``.
        view: the direction of slicing that it was trained in; ``"axial"`` if it was trained on 2D images.
        structures: what its classes are, in order, from class 1.
        spacing: mm of the conformed grid along ``[S, A, R]``; ``None``: trained on 2D images, used as they are.
        window: the intensities that become 0 and 1, for data in absolute units; ``None``: see ``volume.normalise``.
        smoothing: taps that slices are convolved with along rows and columns before the network sees them; ``()``: they
            stay as they are. No part of the file.
    """

    network: torch.nn.Module
    view: str = "coronal"
    structures: tuple[Structure, ...] = ()
    spacing: Optional[tuple[float, float, float]] = (1.0, 1.0, 1.0)
    window: Optional[tuple[float, float]] = None
    smoothing: tuple[float, ...] = ()

    @property
    def segments_brains(self):
        """Whether it labels the 31 brain structures in volumes of heads."""
        return self.structures == structures() and self.spacing is not None


def full_precision(weights):
    """Return a model file's weights as a float32 state dict; batch norm's counters stay integers."""
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def of_protocol(weights, protocols, protocol):
    """Keep the classifier's rows that belong to one of its protocols, after :data:`ALIKE` and :data:`SHIFTS`."""
    chosen, classes = dict(weights), {0: 0, **class_of_label()}
    alike = [classes[label] for label in ALIKE.get(protocol, ())]
    for name in ("classifier.weight", "classifier.bias"):
        rows = weights[name].unflatten(0, (len(protocols), -1))
        chosen[name] = rows[protocols.index(protocol)].clone()
        chosen[name][alike] = rows[:, alike].mean(dim=0)
    for label, shift in SHIFTS.get(protocol, {}).items():
        chosen["classifier.bias"][classes[label]] += shift
    return chosen


def numbers(values, count):
    """A tuple of ``count`` floats, or ``None``."""
    if values is not None and len(values) != count:
        raise ValueError
    return None if values is None else tuple(float(value) for value in values)


def read_model(content, protocol=None) -> Model:
    """Read a model from the bytes of its file.

    Args:
        content: the bytes of a model file.
        protocol: one of the file's protocols; its only one if it has none to choose from.

    Raises:
        SEBrainSegError: the bytes are no model file of SEBrainSeg.
    """
    try:
        # torch.load overlooks altered weights.
        if zipfile.ZipFile(io.BytesIO(content)).testzip():
            raise ValueError("the checksum of a part is wrong")
        stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        configuration, weights = dict(stored["configuration"]), full_precision(stored["weights"])
        protocols = stored.get("protocols", ())
        if protocols:
            weights = of_protocol(weights, protocols, protocol)
            configuration["classes"] //= len(protocols)
        table = structures()
        if "structures" in stored:
            table = table_of(stored["structures"])
            if len(table) + 1 != configuration["classes"]:
                raise ValueError("as many structures as classes")
        network = NETWORKS[configuration.pop("architecture")](**configuration)
        network.load_state_dict(weights)
        spacing = numbers(stored.get("spacing", Model.spacing), 3)
        return Model(network.eval(), stored["view"], table, spacing, numbers(stored.get("window"), 2))
    except UNREADABLE:
        raise SEBrainSegError("This is no model file of SEBrainSeg, or of a newer one.") from None


def write_model(
    path, network, configuration, view, protocols=(), table=None, spacing=Model.spacing, window=Model.window
):
    """Write a model file; see :class:`Model`. An interruption leaves no half of one.

    Args:
        table: its structures; without them the file has none of the fields that the bundled ones lack.

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
    content = {"configuration": configuration, "weights": weights, "view": view, "protocols": list(protocols)}
    if table is not None:
        content["structures"] = rows_of(table)
        content["spacing"] = spacing and list(spacing)
        content["window"] = window and list(window)
    with replaced_whole(path) as beside:
        torch.save(content, beside)
