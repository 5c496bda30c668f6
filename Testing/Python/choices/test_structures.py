"""The table of structures against the list of FreeSurfer ids that the labels are made of."""

import numpy as np
import pytest

from SEBrainSegLib.choices.structures import Group, read_structures, structures
from SEBrainSegLib.choices.vocabulary import values
from SEBrainSegLib.networks.classes import class_of_label, labels_of_classes, mirrored_classes, unsided_classes

# FreeSurfer ids, left and right, then those of the midline.
PAIRS = {
    (2, 41): "cerebral white matter",
    (3, 42): "cerebral cortex",
    (4, 43): "lateral ventricle",
    (5, 44): "inferior lateral ventricle",
    (7, 46): "cerebellar white matter",
    (8, 47): "cerebellar cortex",
    (10, 49): "thalamus",
    (11, 50): "caudate",
    (12, 51): "putamen",
    (13, 52): "pallidum",
    (17, 53): "hippocampus",
    (18, 54): "amygdala",
    (26, 58): "accumbens area",
    (28, 60): "ventral dc",
}
MIDLINE = {14: "third ventricle", 15: "fourth ventricle", 16: "brain stem"}


def by_label():
    return {structure.label: structure for structure in structures()}


def test_the_31_structures_are_those_of_the_labels():
    expected = sorted([label for pair in PAIRS for label in pair] + list(MIDLINE))
    assert len(expected) == 31
    assert sorted(structure.label for structure in structures()) == expected


def test_names_and_sides():
    table = by_label()
    for (left, right), name in PAIRS.items():
        assert (table[left].name.lower(), table[right].name.lower()) == (f"left {name}", f"right {name}")
        assert (table[left].side, table[right].side) == ("left", "right")
        assert table[left].unsided_name == table[right].unsided_name
        assert table[left].unsided_name.lower() == name
    for label, name in MIDLINE.items():
        assert (table[label].name.lower(), table[label].side) == (name, "")
        assert table[label].unsided_name == table[label].name


def test_only_brain_structures_have_groups(tmp_path):
    assert {structure.group for structure in structures()} == set(values(Group))
    table = tmp_path / "table.csv"
    table.write_text("LabelValue,Name\n1,Hippocampus\n2,Left Hippocampus\n", encoding="utf-8")
    assert [structure.group for structure in read_structures(table)] == ["", ""]


def test_colours_are_unique_up_to_side():
    table = by_label()
    for left, right in PAIRS:
        assert table[left].color == table[right].color
    colors = [structure.color for structure in structures()]
    assert len(set(colors)) == 17
    assert all(len(color) == 3 and all(0 <= value <= 255 for value in color) for color in colors)
    assert (0, 0, 0) not in colors


def test_classes_count_from_1_in_the_order_of_the_table():
    labels = labels_of_classes()
    assert labels.dtype == np.uint8
    assert labels.shape == (32,)
    assert labels[0] == 0
    assert [int(label) for label in labels[1:]] == [structure.label for structure in structures()]
    assert class_of_label() == {int(label): index for index, label in enumerate(labels) if index > 0}


def test_without_sides_every_right_structure_is_its_left_one():
    table = unsided_classes()
    index_of = class_of_label()
    for left, right in ((2, 41), (17, 53), (28, 60), (5, 44)):
        assert table[index_of[right]] == table[index_of[left]] == index_of[left]
    for label in (14, 15, 16):
        assert table[index_of[label]] == index_of[label]
    assert table[0] == 0 and table[255] == 255


def test_mirroring_swaps_each_pair_and_nothing_else():
    mirror, classes = mirrored_classes(), class_of_label()
    expected = np.arange(256)
    for left, right in PAIRS:
        expected[classes[left]], expected[classes[right]] = classes[right], classes[left]
    np.testing.assert_array_equal(mirror, expected)
    np.testing.assert_array_equal(mirror[mirror], np.arange(256))
    assert (mirror[:32] != np.arange(32)).sum() == 28
    assert mirror[0] == 0
    assert mirror[255] == 255
    assert mirror.dtype == np.uint8


def verhoeff_holds(digits):
    """Whether the last digit of a SNOMED CT identifier checks the others (Verhoeff's algorithm, dihedral group D5)."""

    def product(a, b):
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
        return 5 + (a - b) % 5 if b < 5 else (a - b) % 5

    def permuted(digit, times):
        for _ in range(times):
            digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
        return digit

    check = 0
    for position, digit in enumerate(reversed(digits)):
        check = product(check, permuted(int(digit), position % 8))
    return check == 0


@pytest.mark.parametrize(
    "identifier, valid", [("7771000", True), ("24028007", True), ("7771001", False), ("42695009", True)]
)
def test_the_check_of_identifiers_itself(identifier, valid):
    # 7771000 |Left|, 24028007 |Right|, 42695009 |Thalamic structure|.
    assert verhoeff_holds(identifier) is valid


def test_terminology():
    table = by_label()
    for structure in structures():
        for code in (structure.category, structure.type):
            # SNOMED CT has no term for the ventral DC; DICOM does.
            assert code.scheme == ("DCM" if code.meaning.lower() == "ventral diencephalon" else "SCT")
            assert code.meaning
            assert code.value.isdigit()
            assert code.scheme == "DCM" or verhoeff_holds(code.value), (structure.name, code)
        if structure.side:
            assert structure.modifier.value == {"left": "7771000", "right": "24028007"}[structure.side]
    for left, right in PAIRS:
        assert table[left].type == table[right].type
    assert len({structure.type.value for structure in structures()}) == 17
    assert table[10].type.value == "42695009"
