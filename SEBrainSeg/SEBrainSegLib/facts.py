"""What is known of the bundled networks without loading them: size, measured Dice and time.

``Resources/Models/facts.csv`` is written by ``Testing/Benchmarks/facts.py``.
"""

import csv
from functools import cache
from typing import NamedTuple, Optional

from .resources import resource


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
def table():
    """Return the rows of the file by name, as in ``unet-scse-all``; none if it is not there."""
    try:
        with open(resource("Models/facts.csv"), newline="", encoding="utf-8") as file:
            return {row["network"]: row for row in csv.DictReader(file)}
    except FileNotFoundError:
        return {}


def facts(parameters):
    """Return the :class:`Facts` of a choice, ``None`` of what is not known, such as user-trained models."""
    row = table().get(f"{parameters.architecture}-{parameters.se}-{parameters.view}")
    if parameters.model or row is None:
        return None
    dice, seconds = (float(row[name]) if row[name] else None for name in (f"dice_{parameters.protocol}", "seconds"))
    return Facts(int(row["parameters"]), float(row["increase_percent"]), dice, seconds)
