"""The bundled networks: model files of fp16 weights with their configuration, verified before they are used.

A model file is what ``torch.save`` makes of ``{"configuration": {...}, "weights": {...}}``: plain tensors, numbers and
strings, read with ``weights_only=True``, so that a file can hold no code. ``Resources/Models/checksums.csv`` lists the
SHA-256 of each.
"""

import csv
import hashlib
import io
import pickle

import torch

from .errors import SEBrainSegError
from .networks import NETWORKS
from .resources import resource


def model_name(architecture, se, view):
    """File name of a bundled network, for example ``unet-scse-coronal.pt``."""
    return f"{architecture}-{se}-{view}.pt"


def checksums():
    """Return the SHA-256 of every bundled model file by name."""
    try:
        with open(resource("Models/checksums.csv"), newline="", encoding="utf-8") as file:
            return {row["file"]: row["sha256"] for row in csv.DictReader(file)}
    except FileNotFoundError as error:
        raise SEBrainSegError(str(error)) from None


def load(architecture, se, view):
    """Load a bundled network, in evaluation mode, on the CPU.

    Raises:
        SEBrainSegError: there is no such network, or its file is missing or damaged.
    """
    name, listed = model_name(architecture, se, view), checksums()
    if name not in listed:
        choices = ", ".join(model[: -len(".pt")] for model in listed)
        raise SEBrainSegError(f"There is no bundled network {name[: -len('.pt')]}; choose one of {choices}.")
    try:
        content = resource(f"Models/{name}").read_bytes()
    except OSError:
        raise SEBrainSegError(f"The model file {name} is missing or unreadable; install SEBrainSeg again.") from None
    if hashlib.sha256(content).hexdigest() != listed[name]:
        raise SEBrainSegError(f"The model file {name} is damaged (its SHA-256 is wrong); install SEBrainSeg again.")
    try:
        stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        configuration = dict(stored["configuration"])
        network = NETWORKS[configuration.pop("architecture")](**configuration)
        network.load_state_dict(full_precision(stored["weights"]))
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError):
        raise SEBrainSegError(f"The model file {name} is no network of SEBrainSeg; install SEBrainSeg again.") from None
    return network.eval()


def full_precision(weights):
    """Return a model file's weights as a float32 state dict; batch norm's counters stay integers."""
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def write(network, configuration, path):
    """Write a model file: weights in fp16, ``configuration`` as given to the network plus ``architecture``."""
    weights = {
        key: value.detach().cpu().contiguous().half() if value.is_floating_point() else value.cpu()
        for key, value in network.state_dict().items()
    }
    torch.save({"configuration": configuration, "weights": weights}, path)


def list_checksums(folder):
    """Write ``checksums.csv`` for the model files of a folder."""
    with open(folder / "checksums.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "sha256"])
        for path in sorted(folder.glob("*.pt")):
            writer.writerow([path.name, hashlib.sha256(path.read_bytes()).hexdigest()])
