"""The 31 brain structures: one table, ``Resources/Structures.csv``, in the columns of Slicer's colour tables.

The row of a structure, counted from 1, is its class index in the networks; 0 is background.
"""

import csv
from functools import cache
from typing import NamedTuple

import numpy as np

from .resources import resource

# Label, in training data, of voxels that count neither in losses nor in scores.
IGNORED = 255


class Code(NamedTuple):
    """A term of a coding scheme, such as ``("SCT", "42695009", "Thalamus")``."""

    scheme: str
    value: str
    meaning: str


class Structure(NamedTuple):
    """One row of the table: FreeSurfer id, name, colour (0-255) and terminology."""

    label: int
    name: str
    color: tuple[int, int, int]
    category: Code
    type: Code
    modifier: Code

    @property
    def side(self):
        """``"left"``, ``"right"`` or ``""``."""
        return self.modifier.meaning.lower()

    @property
    def unsided_name(self):
        """The name without its side."""
        return self.name.split(" ", 1)[1] if self.side else self.name

    @property
    def segment_id(self):
        """A stable id for Slicer's segments, such as ``"Left-Thalamus"``."""
        return self.name.replace(" ", "-")

    @property
    def terminology(self):
        """The structure's entry in Slicer's terminology, in the text form that segments are tagged with."""
        coded = ("^".join(code) for code in (self.category, self.type, self.modifier))
        return "~".join(("Segmentation category and type - 3D Slicer General Anatomy list", *coded, "", "^^", "^^"))


@cache
def structures():
    """Return the structures as a tuple of :class:`Structure`, in the order of their class indices."""
    with open(resource("Structures.csv"), newline="", encoding="utf-8") as file:
        return tuple(
            Structure(
                int(row["LabelValue"]),
                row["Name"],
                tuple(int(row[f"Color_{channel}"]) for channel in "RGB"),
                *(
                    Code(*(row[f"{part}_{field}"] for field in ("CodingScheme", "CodeValue", "CodeMeaning")))
                    for part in ("Category", "Type", "TypeModifier")
                ),
            )
            for row in csv.DictReader(file)
        )


def class_of_label():
    """Map FreeSurfer id to class index."""
    return {structure.label: index for index, structure in enumerate(structures(), start=1)}


def labels_of_classes():
    """Return the FreeSurfer id of every class index, uint8, background first."""
    return np.array([0] + [structure.label for structure in structures()], dtype=np.uint8)


def mirrored_classes():
    """Return, for each of 256 class indices, its class in a mirror, uint8; the ignored label stays."""
    index_of = {
        (structure.unsided_name, structure.side): index for index, structure in enumerate(structures(), start=1)
    }
    other = {"left": "right", "right": "left", "": ""}
    table = np.arange(256, dtype=np.uint8)
    for (name, side), index in index_of.items():
        table[index] = index_of[name, other[side]]
    return table
