"""Class indices of networks: 0 is the background, then the structures in the order of their table."""

from collections.abc import Sequence
from typing import Optional

import numpy as np

from ..choices.structures import IGNORED, Structure, structures

Table = Optional[Sequence[Structure]]  # None: the 31 brain structures


def class_of_label(table: Table = None) -> dict[int, int]:
    """Map label to class index; of the brain structures without a ``table``."""
    return {structure.label: index for index, structure in enumerate(table or structures(), start=1)}


def labels_of_classes(table: Table = None) -> np.ndarray:
    """Return the label of every class index, background first; uint8, or uint16 if a label exceeds 255."""
    labels = [0] + [structure.label for structure in table or structures()]
    return np.array(labels, dtype=np.uint8 if max(labels) <= 255 else np.uint16)


def class_type(table: Sequence[Structure]) -> type:
    """Return what holds class indices and, as its largest number, the ignored label: uint8, or int16 if it must."""
    return np.uint8 if len(table) < IGNORED else np.int16


def mirrored_classes(table: Table = None) -> np.ndarray:
    """Return, for every number of :func:`class_type`, the class in a mirror, same type; the ignored label stays."""
    table = table or structures()
    index_of = {(structure.unsided_name, structure.side): index for index, structure in enumerate(table, start=1)}
    other = {"left": "right", "right": "left", "": ""}
    mirrored: np.ndarray = np.arange(np.iinfo(class_type(table)).max + 1, dtype=class_type(table))
    for (name, side), index in index_of.items():
        mirrored[index] = index_of.get((name, other[side]), index)
    return mirrored


def unsided_classes() -> np.ndarray:
    """Return, for each of 256 class indices, that of its left counterpart, uint8: a sagittal slice has no sides."""
    mirrored, table = mirrored_classes(), np.arange(256, dtype=np.uint8)
    for index, structure in enumerate(structures(), start=1):
        if structure.side == "right":
            table[index] = mirrored[index]
    return table
