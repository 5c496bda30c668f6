"""What is refused as unlikely to be right, and what is not: on label arrays made by hand, in all orientations."""

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.inference import plausibility

# Where structures of the right lie in a person, roughly: mm up, ahead and right of between the thalami, and the radii
# of ellipsoids along the same axes, the larger ones first. Those of the left mirror them.
RIGHT = {
    42: ((10, 0, 31), (50, 78, 30)),
    41: ((12, 2, 26), (34, 55, 17)),
    47: ((-42, -40, 22), (22, 26, 22)),
    46: ((-40, -32, 17), (9, 10, 9)),
    49: ((0, 0, 10), (10, 15, 8)),
    43: ((8, 3, 13), (7, 20, 4)),
    50: ((5, 27, 14), (10, 12, 6)),
    51: ((-4, 20, 25), (11, 16, 6)),
    52: ((-6, 14, 18), (7, 9, 4)),
    53: ((-19, -2, 24), (7, 16, 7)),
    54: ((-23, 17, 21), (7, 7, 7)),
    58: ((-11, 29, 8), (4, 6, 5)),
    60: ((-15, 4, 10), (8, 10, 7)),
    44: ((-20, 3, 29), (4, 8, 3)),
}
MIDDLE = {16: ((-36, -9, 0), (25, 12, 13)), 14: ((-10, 10, 0), (6, 8, 2)), 15: ((-36, -22, 0), (8, 6, 8))}
LEFT = dict(
    zip((42, 41, 47, 46, 49, 43, 50, 51, 52, 53, 54, 58, 60, 44), (3, 2, 8, 7, 10, 4, 11, 12, 13, 17, 18, 26, 28, 5))
)
SHAPE, THALAMI = (190, 220, 180), (95, 105, 90)


def person():
    """FreeSurfer ids ``[S, A, R]`` of a made-up brain, and the intensities of its head."""
    labels = np.zeros(SHAPE, np.uint8)
    axes = [np.arange(n) - middle for n, middle in zip(SHAPE, THALAMI)]
    s, a, r = np.meshgrid(*axes, indexing="ij", sparse=True)

    def ellipsoid(place, radii):
        return sum(((x - p) / radius) ** 2 for x, p, radius in zip((s, a, r), place, radii)) < 1

    for label, (place, radii) in RIGHT.items():
        labels[ellipsoid(place, radii) & (r > 0)] = label
        labels[ellipsoid((*place[:2], -place[2]), radii) & (r < 0)] = LEFT[label]
    for label, shape in MIDDLE.items():
        labels[ellipsoid(*shape)] = label
    head = ellipsoid((0, 0, 0), (90, 100, 80))
    return labels, np.where(head, np.float32(0.6), np.float32(0))


LABELS, HEAD = person()


def volumes_of(labels):
    counts = np.bincount(labels.ravel(), minlength=61)
    return {structure.label: counts[structure.label] / 1000 for structure in structures()}


def why(labels, head=HEAD, confidence=0.92, **chosen):
    return plausibility.why_unlikely(labels, head, volumes_of(labels), confidence, Parameters(**chosen))


def without(*labels):
    return np.where(np.isin(LABELS, labels), 0, LABELS).astype(np.uint8)


def test_a_person_is_likely():
    assert why(LABELS) == ""


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_what_lies_otherwise_than_in_a_person_is_refused(order):
    """In each of the 48 ways to turn or mirror an array along its axes, but for the two that nobody can tell apart."""
    for signs in product((1, -1), repeat=3):
        turned, head = (
            np.transpose(array, order)[tuple(slice(None, None, n) for n in signs)] for array in (LABELS, HEAD)
        )
        said = why(np.ascontiguousarray(turned), head)
        # The thalami are where they were; only left and right have changed sides, with or without their names.
        if order == (0, 1, 2) and signs == (1, 1, 1):
            assert said == ""
        else:
            assert "does not lie as in a person" in said, signs


@pytest.mark.parametrize(
    "order, signs, words",
    [
        ((0, 1, 2), (1, -1, -1), "cerebellum lies in front of the thalamus"),
        ((0, 1, 2), (-1, 1, -1), "cerebellum lies above the thalamus"),
        ((0, 1, 2), (-1, -1, 1), "cerebellum lies above and in front of the thalamus"),
        ((0, 1, 2), (1, 1, -1), "structures of the left are not on the left"),
    ],
)
def test_it_is_said_what_lies_where(order, signs, words):
    """Backwards, upside down, both, and labels mirrored."""
    turned = np.transpose(LABELS, order)[tuple(slice(None, None, n) for n in signs)]
    assert words in why(np.ascontiguousarray(turned)) and "header" in why(np.ascontiguousarray(turned))


CORTEX = (3, 42)


@pytest.mark.parametrize(
    "beyond, words",
    [
        (np.s_[:, THALAMI[1] + 20 :], "no cerebral cortex lies in front of the thalamus"),
        (np.s_[:, : THALAMI[1] - 20], "no cerebral cortex lies behind the thalamus"),
        (np.s_[THALAMI[0] + 20 :], "no cerebral cortex lies above the thalamus"),
        (np.s_[:, :, : THALAMI[2] - 20], "no cerebral cortex lies to the left of the thalamus"),
    ],
)
def test_cortex_lies_around_the_thalami(beyond, words):
    labels, head = LABELS.copy(), HEAD.copy()
    # What was cortex there is white matter: neither sizes nor sides tell it.
    part = labels[beyond]
    part[np.isin(part, CORTEX)] -= 1
    assert words in why(labels)
    # Where the scan ends before it, nobody can tell.
    head[beyond] = 0
    assert why(labels, head) == ""


@pytest.mark.parametrize("step", [2, 3])
def test_a_coarser_grid_of_a_users_network_is_judged_in_mm(step):
    mine, spacing = Parameters(model="mine"), (float(step),) * 3

    def said(labels, protocol):
        coarse, head = (np.ascontiguousarray(each[::step, ::step, ::step]) for each in (labels, HEAD))
        return plausibility.why_unlikely(coarse, head, volumes_of(labels), None, mine, spacing, protocol)

    assert said(LABELS, "freesurfer") == said(LABELS, "") == ""
    assert "Not found" in said(without(10, 49), "freesurfer")
    # Where structures lie is the same in every protocol.
    assert "upside down" in said(LABELS[::-1], "")


def test_proportions_are_those_of_a_protocol_that_was_measured():
    """Who draws otherwise has other shares: nothing is known of a network of the user's that names no protocol."""
    volumes = volumes_of(LABELS)
    cortex = (2, 3, 41, 42, 7, 8, 46, 47)
    other = {label: ml * (1 if label in cortex else 8) for label, ml in volumes.items()}
    mine = Parameters(model="mine")
    judged = [
        plausibility.why_unlikely(LABELS, HEAD, other, None, mine, (1.0,) * 3, each) for each in ("", "freesurfer")
    ]
    assert judged[0] == "" and judged[1] != ""


def test_a_mirrored_head_cannot_be_told():
    """With names and places exchanged, left is on the left again: the documentation says so."""
    mirrored = np.ascontiguousarray(LABELS[..., ::-1])
    exchanged = np.arange(256, dtype=np.uint8)
    for right, left in LEFT.items():
        exchanged[[right, left]] = left, right
    assert why(exchanged[mirrored]) == ""


def test_a_hemisphere_that_the_scan_shows_but_nothing_was_found_in_is_refused():
    assert "left hemisphere only 0 ml" in why(without(*LEFT.values()))
    # Where the scan shows the half of a head, or ends there, nothing is missing.
    dark = HEAD.copy()
    dark[..., : THALAMI[2] - 5] = 0
    assert why(without(*LEFT.values()), dark) == ""
    half = np.ascontiguousarray(without(*LEFT.values())[..., THALAMI[2] - 5 :])
    assert why(half, HEAD[..., THALAMI[2] - 5 :]) == ""
    # Nor does a rim of it that is taken for white matter of the other side, wherever it lies.
    half[100:110, 90:110, 40:46] = 2
    assert why(half, HEAD[..., THALAMI[2] - 5 :]) == ""


def test_large_structures_that_the_scan_shows_must_be_found():
    assert "Left Cerebellar Cortex, Brain Stem" in why(without(8, 16))
    # One may be missing, as in a person who lacks it; so may small ones.
    assert why(without(16)) == "" and why(without(18, 54, 5, 44, 26, 58)) == ""
    # A scan that ends above the cerebellum shows none.
    cut = slice(THALAMI[0] - 12, None)
    assert why(np.ascontiguousarray(without(7, 8, 46, 47, 16, 15)[cut]), HEAD[cut]) == ""


def test_little_brain_in_a_large_head_is_refused():
    small = np.zeros_like(LABELS)
    middle = tuple(slice(side // 4, side // 4 + side // 2) for side in SHAPE)
    small[middle] = LABELS[::2, ::2, ::2]
    assert "head of a grown-up's size" in why(small)
    # The same brain in a head of its own size may be a newborn's.
    head = np.zeros_like(HEAD)
    head[middle] = HEAD[::2, ::2, ::2]
    assert why(small, head) == ""


def test_more_brain_than_anyone_has_is_refused():
    """As of voxels that are said to be 1.4 times as long as they are."""
    large = {label: 1.4**3 * ml for label, ml in volumes_of(LABELS).items()}
    said = plausibility.why_unlikely(LABELS, HEAD, large, 0.92, Parameters())
    assert "more than anyone has; check the voxel spacing" in said


def test_a_network_that_is_unsure_of_most_is_refused():
    assert "mean confidence 0.55" in why(LABELS, confidence=0.55)
    assert why(LABELS, confidence=None) == ""
    # DenseNets are less sure by nature, and of a user's network nobody knows.
    assert "unsure" in why(LABELS, confidence=0.77) and why(LABELS, confidence=0.77, architecture="densenet") == ""
    assert why(LABELS, confidence=0.55, model="mine") == ""


def image_of(array, spacing=(1.0, 1.0, 1.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


def test_a_label_map_is_no_scan():
    assert "label map" in plausibility.why_no_scan(image_of(LABELS))
    # Nor is one with a value for each of hundreds of regions.
    regions = np.random.default_rng(0).integers(1, 2000, [side // 10 for side in SHAPE]).repeat(10, 0).repeat(10, 1)
    many = np.where(LABELS > 0, regions.repeat(10, 2), 0).astype(np.int16)
    assert "label map" in plausibility.why_no_scan(image_of(many))
    grey = np.random.default_rng(1).normal(100 * HEAD, 10)
    for kind in (np.uint8, np.float32):
        assert plausibility.why_no_scan(image_of(grey.clip(0).astype(kind))) == ""
    # A scan of 8 bits is still one on a grid twice as fine, where neighbours are alike.
    fine = grey.clip(0).astype(np.uint8)[60:90].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert plausibility.why_no_scan(image_of(fine)) == ""


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 4.0)])
def test_structures_that_the_edge_of_the_scan_cuts_off_are_named(spacing):
    # The picture of the same brain on a grid of other voxels.
    coarse = image_of(np.ascontiguousarray(LABELS[:: int(spacing[2]), :: int(spacing[1]), :: int(spacing[0])]), spacing)
    assert plausibility.cut_off(coarse, structures()) == ()
    # Through the cerebellum.
    cut = coarse[:, :, round((THALAMI[0] - 42) / spacing[2]) :]
    assert {7, 8, 46, 47, 16} <= set(plausibility.cut_off(cut, structures())) <= {7, 8, 46, 47, 16, 15}
    # Just at the brain's surface nothing is lost.
    where = np.argwhere(sitk.GetArrayViewFromImage(coarse) > 0)
    low, high = where.min(axis=0)[::-1].tolist(), (where.max(axis=0) + 1)[::-1].tolist()
    tight = coarse[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    assert plausibility.cut_off(tight, structures()) == ()
