"""Which networks come with SEBrainSeg; without torch, which :mod:`.zoo` needs to load them."""

import csv

from .errors import SEBrainSegError
from .resources import resource


def checksums():
    """Return the SHA-256 of every bundled model file by name.

    Raises:
        SEBrainSegError: the list is missing from the installation.
    """
    try:
        with open(resource("Models/checksums.csv"), newline="", encoding="utf-8") as file:
            return {row["file"]: row["sha256"] for row in csv.DictReader(file)}
    except FileNotFoundError as error:
        raise SEBrainSegError(str(error)) from None


def names():
    """Return the names of the bundled networks, as in ``unet-scse-coronal``; raises as :func:`checksums`."""
    return tuple(file.removesuffix(".pt") for file in checksums())
