"""What the classes of a network are: the bundled table of 31 brain structures, or one of a user's.

A table has the columns of Slicer's colour tables. The row of a structure, counted from 1, is its class index in a
network; 0 is background.
"""

import colorsys
import csv
import difflib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union, cast

from ..errors import SEBrainSegError
from ..resources import resource
from ..translation import tr as _
from .vocabulary import Choice

# Label, in training data, of voxels that count neither in losses nor in scores.
IGNORED = 255


LARGEST_LABEL = 65535


class Group(Choice):
    """A group of the 31 brain structures, which can be typed, hidden and shown."""

    CORTEX = "Cerebral cortex", _("Cerebral cortex")
    WHITE_MATTER = "Cerebral white matter", _("Cerebral white matter")
    VENTRICLES = "Ventricles", _("Ventricles")
    DEEP_GREY_MATTER = "Deep grey matter", _("Deep grey matter")
    HINDBRAIN = "Cerebellum and brain stem", _("Cerebellum and brain stem")


# By the names of structures without their side.
GROUP_OF = {
    "Cerebral Cortex": Group.CORTEX,
    "Cerebral White Matter": Group.WHITE_MATTER,
    **dict.fromkeys(
        ("Lateral Ventricle", "Inferior Lateral Ventricle", "Third Ventricle", "Fourth Ventricle"), Group.VENTRICLES
    ),
    **dict.fromkeys(
        ("Thalamus", "Caudate", "Putamen", "Pallidum", "Hippocampus", "Amygdala", "Accumbens Area", "Ventral DC"),
        Group.DEEP_GREY_MATTER,
    ),
    **dict.fromkeys(("Cerebellar White Matter", "Cerebellar Cortex", "Brain Stem"), Group.HINDBRAIN),
}


class Code(NamedTuple):
    """A term of a coding scheme, such as ``("SCT", "42695009", "Thalamus")``."""

    scheme: str
    value: str
    meaning: str


# Where a table says nothing.
TISSUE = Code("SCT", "85756007", "Tissue")


SIDES = {"left": Code("SCT", "7771000", "Left"), "right": Code("SCT", "24028007", "Right"), "": Code("", "", "")}


def words(name: str) -> list[str]:
    """Return the words of a name, such as ``["Left", "Kidney"]`` of ``Left Kidney`` or ``Left_Kidney``."""
    return [word for word in re.split(r"[\s_,-]+", name) if word]


class Structure(NamedTuple):
    """One row of a table: label (in the bundled one a FreeSurfer id), name, colour (0-255) and terminology."""

    label: int
    name: str
    color: tuple[int, ...]
    category: Code
    type: Code
    modifier: Code

    @property
    def side(self) -> str:
        """``"left"``, ``"right"`` or ``""``."""
        side = self.modifier.meaning.lower()
        return side if side in SIDES else ""

    @property
    def unsided_name(self) -> str:
        """The name without its side."""
        return " ".join(word for word in words(self.name) if word.lower() != self.side) if self.side else self.name

    @property
    def group(self) -> str:
        """The value of its :class:`Group`, or ``""`` for what is none of the 31 brain structures."""
        group = GROUP_OF.get(self.unsided_name) if (self.label, self.name) in brain() else None
        return "" if group is None else group.value

    @property
    def segment_id(self) -> str:
        """A stable id for Slicer's segments, such as ``"Left-Thalamus"``."""
        return self.name.replace(" ", "-")

    @property
    def terminology(self) -> str:
        """The structure's entry in Slicer's terminology, in the text form that segments are tagged with."""
        coded = ("^".join(code) for code in (self.category, self.type, self.modifier))
        return "~".join(("Segmentation category and type - 3D Slicer General Anatomy list", *coded, "", "^^", "^^"))


@cache
def structures() -> tuple[Structure, ...]:
    """Return the 31 brain structures as a tuple of :class:`Structure`, in the order of their class indices."""
    return read_structures(resource("Structures.csv"))


@cache
def brain() -> set[tuple[int, str]]:
    """Return label and name of the 31 brain structures."""
    return {(each.label, each.name) for each in structures()}


def read_structures(path: Union[str, Path]) -> tuple[Structure, ...]:
    """Read a table of structures.

    Only ``LabelValue`` (1 to 65535) and ``Name`` are required. A structure without colour gets one that differs from
    its neighbours', one without terminology is a "Tissue", left or right if its name says so.

    Args:
        path: a CSV file with the columns of ``Resources/Structures.csv``.

    Returns:
        tuple of :class:`Structure`.

    Raises:
        SEBrainSegError: the table is unusable.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or _("it is no CSV file in UTF-8")
        raise SEBrainSegError(
            _("The table {path} cannot be read ({reason}).").format(path=path, reason=reason)
        ) from None
    if not rows:
        raise SEBrainSegError(
            _("The table {path} has no rows; it needs the columns LabelValue and Name.").format(path=path)
        )
    missing = [column for column in ("LabelValue", "Name") if column not in rows[0]]
    if missing:
        raise SEBrainSegError(
            _("The table {path} has no column {columns}; add it.").format(path=path, columns=", ".join(missing))
        )
    found = []
    for index, row in enumerate(rows):
        try:
            found.append(structure_of_row(row, index))
        except ValueError as error:
            raise SEBrainSegError(
                _("The table {path} is wrong in row {row}: {error}.").format(
                    path=path, row=index + 1, error=error.args[0]
                )
            ) from None
    checks: tuple[tuple[list[Any], str], ...] = (
        ([each.label for each in found], _("The table {path} has the label {value} more than once; remove a row.")),
        ([each.segment_id for each in found], _("The table {path} has the name {value} more than once; remove a row.")),
    )
    for values, text in checks:
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            raise SEBrainSegError(text.format(path=path, value=repeated[0]))
    return tuple(found)


def structure_of_row(row: dict[str, Optional[str]], index: int) -> Structure:
    """Make a :class:`Structure` of row number ``index`` of a table; raise :class:`ValueError` if it is wrong."""
    cells = {column: (value or "").strip() for column, value in row.items() if isinstance(value, (str, type(None)))}
    label, name = _whole_number(cells["LabelValue"], _("LabelValue"), LARGEST_LABEL), cells["Name"]
    if label == 0:
        raise ValueError(_("label 0 is the background and belongs in no table; remove the row"))
    if not name:
        raise ValueError(_("label {label} has no name").format(label=label))
    channels = [cells.get(f"Color_{channel}", "") for channel in "RGB"]
    color: tuple[int, ...] = _default_color(index)
    if any(channels):
        color = tuple(_whole_number(value, _("colour"), 255) for value in channels)
    modifier = _code_of(cells, "TypeModifier") or SIDES[_side_of(name)]
    return Structure(
        label,
        name,
        cast("tuple[int, int, int]", color),
        _code_of(cells, "Category") or TISSUE,
        _code_of(cells, "Type") or TISSUE,
        modifier,
    )


def _whole_number(text: str, what: str, largest: int) -> int:
    """Return a number from 0 to ``largest``; raise :class:`ValueError` if the text is none."""
    if not text.isascii() or not text.isdigit() or int(text) > largest:
        raise ValueError(
            _("'{text}' is no {what}, which is a whole number up to {largest}").format(
                text=text, what=what, largest=largest
            )
        )
    return int(text)


def _code_of(cells: dict[str, str], part: str) -> Optional[Code]:
    """Return the code of a part of the terminology, ``None`` if its cells are empty or not there."""
    code = Code(*(cells.get(f"{part}_{field}", "") for field in ("CodingScheme", "CodeValue", "CodeMeaning")))
    return code if any(code) else None


def _side_of(name: str) -> str:
    """Return ``"left"`` or ``"right"`` if that is a word of the name, else ``""``."""
    return next((word.lower() for word in words(name) if word.lower() in ("left", "right")), "")


def _default_color(index: int) -> tuple[int, ...]:
    """Return the colour of row number ``index``: hues a golden section apart, so that neighbours differ."""
    rgb = colorsys.hsv_to_rgb((0.02 + 0.618034 * index) % 1, 0.65, 0.95 if index % 2 == 0 else 0.75)
    return tuple(round(255 * channel) for channel in rgb)


def rows_of(table: Iterable[Structure]) -> list[list[Any]]:
    """Return structures as plain lists, for model files and JSON."""
    return [[each.label, each.name, list(each.color), *map(list, each[3:])] for each in table]


def table_of(rows: Iterable[Sequence[Any]]) -> tuple[Structure, ...]:
    """Return the structures of :func:`rows_of`."""
    return tuple(Structure(int(row[0]), str(row[1]), tuple(row[2]), *(Code(*code) for code in row[3:])) for row in rows)


def selected(text: str, table: Optional[tuple[Structure, ...]] = None) -> tuple[Structure, ...]:
    """Return the structures that a text names, in the order of the table; all of them if it is empty.

    Args:
        text: names ("Left Hippocampus"), names without a side ("Hippocampus", which is both), groups ("Deep grey
            matter") or labels, in any case, with commas between.
        table: tuple of :class:`Structure`; the 31 brain structures without one.

    Raises:
        SEBrainSegError: it names something that is not in the table.
    """
    table = structures() if table is None else table
    wanted = [" ".join(words(each)).lower() for each in text.split(",")]
    wanted = [each for each in wanted if each]
    names: dict[str, tuple[str, list[Structure]]] = {}
    for structure in table:
        of_structure = (structure.name, structure.unsided_name, structure.group, str(structure.label))
        for name in filter(None, (" ".join(words(each)) for each in of_structure)):
            names.setdefault(name.lower(), (name, []))[1].append(structure)
    for each in wanted:
        if each not in names:
            close = [names[name][0] for name in difflib.get_close_matches(each, names, 3, 0.5)]
            choices = ", ".join(close) if close else ", ".join(dict.fromkeys(one.unsided_name for one in table))
            raise SEBrainSegError(
                _("There is no structure '{name}': choose from {choices}.").format(name=each, choices=choices)
            )
    chosen = {structure.label for each in wanted for structure in names[each][1]}
    return tuple(structure for structure in table if not wanted or structure.label in chosen)
