"""Comparing variants, tables of volumes, remarks and jobs, on labels counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.analysis import remarks as remarks_module
from SEBrainSegLib.analysis import volume_table
from SEBrainSegLib.analysis.comparison import compare
from SEBrainSegLib.analysis.remarks import Range, remarks
from SEBrainSegLib.analysis.volume_table import volumes_of
from SEBrainSegLib.choices.job import Job, excitation_blocks
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.structures import Group, selected, structures
from SEBrainSegLib.choices.vocabulary import Protocol, values
from SEBrainSegLib.errors import Cancelled
from SEBrainSegLib.inference.result import Segmentation
from SEBrainSegLib.networks.bundled import facts

HIPPOCAMPI = selected("Hippocampus")


def segmentation(labels, structures=HIPPOCAMPI, **fields):
    """Of a row of labels, in voxels of 10 x 10 x 10 mm."""
    image = sitk.GetImageFromArray(np.array(labels, np.uint8).reshape(1, 1, -1))
    image.SetSpacing((10.0, 10.0, 10.0))
    image.SetOrigin((5.0, -3.0, 2.0))
    return Segmentation(image, volumes_of(image, structures), "cpu", structures, **fields)


def test_variants_are_compared_voxel_by_voxel():
    found = compare(
        [
            segmentation([17, 17, 17, 53, 0, 53], parameters=Parameters(se="none")),
            segmentation([17, 17, 0, 53, 53, 17], parameters=Parameters(se="cse")),
            segmentation([17, 0, 0, 53, 53, 0], parameters=Parameters(se="scse")),
        ]
    )
    assert found.titles == ("U-Net", "U-Net cSE", "U-Net scSE")
    np.testing.assert_array_equal(found.volumes, [[3, 3, 1], [2, 2, 2]])
    np.testing.assert_array_equal(found.largest, [2, 0])
    assert found.pairs == ((0, 1), (0, 2), (1, 2))
    np.testing.assert_allclose(found.dice, [[4 / 6, 2 / 4, 2 / 4], [2 / 4, 2 / 4, 4 / 4]])
    # The last voxel got three different labels: two are not the commonest, whichever that is.
    assert sitk.GetArrayFromImage(found.disagreement).ravel().tolist() == [0, 1, 1, 0, 1, 2]
    assert found.disagreement.GetOrigin() == (5.0, -3.0, 2.0)
    consensus = found.consensus()
    assert sitk.GetArrayFromImage(consensus.labels).ravel().tolist() == [17, 17, 0, 53, 53, 53]
    assert consensus.volumes == {17: 2.0, 53: 3.0}


def test_a_comparison_goes_slab_by_slab_and_can_be_ended(monkeypatch):
    rng, seen = np.random.default_rng(0), []
    arrays = rng.choice(np.array([0, 17, 53], np.uint8), (3, 7, 4, 5))
    variants = []
    for array in arrays:
        image = sitk.GetImageFromArray(array)
        variants.append(Segmentation(image, volumes_of(image, HIPPOCAMPI), "cpu", HIPPOCAMPI))
    whole = compare(variants)
    monkeypatch.setattr("SEBrainSegLib.analysis.comparison.SLAB", 3 * 4 * 5)
    found = compare(variants, seen.append)
    assert seen == pytest.approx([3 / 7, 6 / 7, 1])
    np.testing.assert_array_equal(found.dice, whole.dice)
    votes = np.stack([(arrays == label).sum(axis=0) for label in (0, 17, 53)])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.disagreement), 3 - votes.max(axis=0))
    for one, other in (((0, 1), 17), ((1, 2), 53)):
        a, b = (arrays[index] == other for index in one)
        row = [each.label for each in HIPPOCAMPI].index(other)
        assert found.dice[row, found.pairs.index(one)] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))

    def enough(fraction):
        raise Cancelled

    with pytest.raises(Cancelled):
        compare(variants, enough)


def test_what_neither_variant_found_has_no_dice():
    found = compare([segmentation([17, 0]), segmentation([17, 17])])
    assert np.isnan(found.dice[1, 0]) and found.dice[0, 0] == pytest.approx(2 / 3)


def test_what_cannot_be_compared_is_refused():
    one = segmentation([17, 0])
    with pytest.raises(SEBrainSegError, match="two or more"):
        compare([one])
    for other in (segmentation([17, 0, 0]), segmentation([17, 0], selected("Thalamus"))):
        with pytest.raises(SEBrainSegError, match="not of one volume"):
            compare([one, other])


def test_rows_of_the_table(monkeypatch):
    monkeypatch.setattr(remarks_module, "ranges", dict)
    found = segmentation(
        [17, 17, 17, 53, 16], selected("hippocampus, brain stem"), confidences={17: 0.9, 53: 0.5, 16: 0.7}
    )
    stem, hippocampus = volume_table.rows(found)
    assert [hippocampus[name] for name in ("structure", "left_ml", "right_ml", "total_ml")] == ["Hippocampus", 3, 1, 4]
    assert hippocampus["asymmetry_percent"] == pytest.approx(100)  # 2 ml of a mean of 2
    assert hippocampus["confidence"] == pytest.approx((3 * 0.9 + 0.5) / 4)
    assert [stem[name] for name in volume_table.COLUMNS] == ["Brain Stem", "", "", 1.0, "", "", 0.7, ""]
    assert volume_table.texts(hippocampus)["asymmetry_percent"] == "100.0"


def test_nothing_found_makes_no_numbers_up():
    (row,) = volume_table.rows(segmentation([0, 0]))
    assert (row["total_ml"], row["asymmetry_percent"], row["confidence"]) == (0, "", "")


@pytest.fixture
def expected(monkeypatch):
    known = {("freesurfer", each.label): Range(3, 0.02, 0.05, 0.8) for each in structures()}
    monkeypatch.setattr(remarks_module, "ranges", lambda: known)


def whole_brain(**ml):
    """A segmentation of 1000 ml in all, each structure of ``1000 / 31`` but for those named, as in ``l17=5``."""
    found = {each.label: 1000 / 31 for each in structures()}
    found.update({int(name[1:]): value for name, value in ml.items()})
    return replace(segmentation([0], structures()), volumes=found)


def test_what_held_out_scans_never_gave_is_remarked_upon(expected):
    assert remarks(whole_brain()) == {}
    assert remarks(whole_brain(l17=11)) == {}
    assert remarks(whole_brain(l17=8))[17].startswith("much smaller than in any of the 3 held-out scans")
    assert remarks(whole_brain(l17=130))[17].startswith("much larger than")
    assert remarks(whole_brain(l17=0))[17].startswith("not found, unlike in the 3 held-out scans")
    unsure = replace(whole_brain(l17=8), confidences={17: 0.69, 53: 0.71})
    assert remarks(unsure)[17].startswith("much smaller than and less certain than")
    assert list(remarks(unsure)) == [17]
    cut = replace(whole_brain(l17=8), cut_off=(16, 17))
    assert remarks(cut)[17].startswith("cut off by the edge of the scan, much smaller than")
    assert remarks(cut)[16] == "cut off by the edge of the scan"
    # Other networks are more or less confident by nature.
    assert remarks(replace(unsure, volumes=whole_brain().volumes, parameters=Parameters(view="all"))) == {}
    remark = {row["structure"]: row["remark"] for row in volume_table.rows(whole_brain(l17=8))}
    assert remark["Hippocampus"].startswith("left: much smaller") and remark["Amygdala"] == ""


def test_asymmetry_beyond_that_of_held_out_scans_is_remarked_upon(monkeypatch):
    known = {
        ("freesurfer", each.label): Range(9, 0.0, 1.0, 0.8, *((12.0, 5.0) if each.side else (None, None)))
        for each in structures()
    }
    monkeypatch.setattr(remarks_module, "ranges", lambda: known)

    def remark(left, right, **fields):
        found = replace(whole_brain(l18=left, l54=right), **fields)
        return {row["structure"]: row["remark"] for row in volume_table.rows(found)}["Amygdala"]

    # 12 percent are usual, and up to three times 5 more or less.
    assert remark(1.12, 1.0) == remark(1.3, 1.0) == remark(1.0, 1.0) == ""
    assert remark(2.0, 1.0) == ("left unusually large beside right (67 %, in 9 held-out scans 12 ± 5 %); look at it")
    assert remark(1.0, 2.0).startswith("right unusually large beside left (-67 %")
    # What the edge of the scan cuts off is smaller for that reason; what is missing has a remark of its own.
    assert remark(2.0, 1.0, cut_off=(54,)) == "right: cut off by the edge of the scan"
    assert "unusually" not in remark(2.0, 0.0)
    assert remark(2.0, 1.0, parameters=Parameters(protocol="manual")) == ""


def test_the_bundled_figures_tell_an_amygdala_half_as_large_as_the_other():
    for protocol in values(Protocol):
        found = replace(whole_brain(l18=2.0, l54=1.0, l26=1.26, l58=0.56), parameters=Parameters(protocol=protocol))
        said = {row["structure"]: row["remark"] for row in volume_table.rows(found)}
        assert "left unusually large beside right (67 %" in said["Amygdala"]
        assert "left unusually large beside right (77 %" in said["Accumbens Area"]


def test_what_was_never_measured_is_not_remarked_upon(expected):
    for parameters in (Parameters(model="mine"), Parameters(protocol="manual")):
        assert remarks(replace(whole_brain(l17=1), parameters=parameters)) == {}
    # Of a part of the structures nobody knows the share, but whether they are there.
    assert remarks(segmentation([17, 53, 0])) == {}
    assert remarks(segmentation([17, 0, 0])) == {53: "not found, unlike in the 3 held-out scans; look at it"}


def test_structures_are_selected_by_name_side_group_or_label():
    def names(text):
        return [each.name for each in selected(text)]

    assert names("") == names(" , ") == [each.name for each in structures()]
    assert names("Left Hippocampus") == names("left_hippocampus") == names("17") == ["Left Hippocampus"]
    assert names("amygdala,LEFT HIPPOCAMPUS") == ["Left Hippocampus", "Left Amygdala", "Right Amygdala"]
    assert len(names("deep grey matter")) == 16 and len(names("Ventricles")) == 6
    assert sorted(name for group in values(Group) for name in names(group)) == sorted(names(""))
    with pytest.raises(SEBrainSegError, match="no structure 'hipocampus': choose from .*Hippocampus"):
        selected("hipocampus")


def test_a_selection_is_part_of_the_choice():
    assert "'hipocampus'" in Parameters(structures="hipocampus").problem()
    assert not Parameters(structures="Hippocampus").problem()


def test_jobs():
    job = Job((Parameters(se="sSE", structures="Thalamus"), Parameters(view="all")), True, "decoder 4")
    assert Job.from_json(job.to_json()) == job and not job.problem()
    assert "choose a network" in Job(()).problem()
    assert Job((Parameters(), Parameters(se="x"))).problem().startswith("Unknown squeeze")
    assert "U-Net has no squeeze & excitation blocks" in Job((Parameters(se="none"),), excitation="encoder 1").problem()
    assert "no block 'encoder 5'" in Job(excitation="encoder 5").problem()
    with pytest.raises(SEBrainSegError):
        Job(()).checked()
    assert excitation_blocks(Parameters(se="none")) == () and "decoder 4" in excitation_blocks(Parameters(se="cse"))


def test_facts_are_those_of_bundled_networks():
    assert facts(Parameters(model="mine")) is None
    assert facts(Parameters(se="none")).increase == 0
    assert facts(Parameters(se="scse")).parameters > facts(Parameters(se="cse")).parameters


def test_what_is_expected_is_there_for_every_structure_of_both_protocols():
    known = remarks_module.ranges()
    assert set(known) == {(protocol, each.label) for protocol in values(Protocol) for each in structures()}
    for each in known.values():
        assert each.scans >= 2 and 0 <= each.smallest <= each.largest < 0.5 and 0.5 < each.confidence < 1
