"""The bundled networks, verified before they are used: ``Resources/Models/checksums.csv`` lists the SHA-256 of each."""

import csv
import hashlib
from dataclasses import replace

from .bundled import checksums
from .errors import SEBrainSegError
from .model import Model, read_model
from .resources import resource

# The conventions of drawing the structures that the bundled networks know, in the order of the classifier's rows:
# that of Neuromorphometrics' manual labels and FreeSurfer's.
PROTOCOLS = ("manual", "freesurfer")

# The smoothing (see Model) of slices for an architecture; chosen on the validation scans, where it helps U-Net only.
SMOOTHING = {"unet": (0.2, 0.6, 0.2)}


def model_name(architecture, se, view):
    """File name of a bundled network, for example ``unet-scse-coronal.pt``."""
    return f"{architecture}-{se}-{view}.pt"


def load(architecture, se, view, protocol="freesurfer") -> Model:
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
        return replace(read_model(content, protocol), smoothing=SMOOTHING.get(architecture, ()))
    except SEBrainSegError:
        raise SEBrainSegError(f"The model file {name} is no network of SEBrainSeg; install SEBrainSeg again.") from None


def list_checksums(folder):
    """Write ``checksums.csv`` for the model files of a folder."""
    with open(folder / "checksums.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "sha256"])
        for path in sorted(folder.glob("*.pt")):
            writer.writerow([path.name, hashlib.sha256(path.read_bytes()).hexdigest()])
