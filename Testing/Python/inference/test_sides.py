"""Parting left from right at the plane between the hemispheres, of heads that are turned, shifted and not symmetric."""

import numpy as np
import pytest

from SEBrainSegLib.inference.sides import midsagittal_plane, part_sides
from SEBrainSegLib.networks.classes import class_of_label, unsided_classes

SHAPE = (150, 170, 170)  # [S, A, R]
CLASS = class_of_label()
CORTEX, WHITE = (CLASS[3], CLASS[42]), (CLASS[2], CLASS[41])


def brain(yaw=0.0, roll=0.0, shift=0.0, petalia=0.0):
    """Two hemispheres with a fissure of 3 mm above, joined by white matter below, and a brain stem.

    Args:
        yaw, roll: turn of the head in degrees.
        shift: of the head to the right in voxels.
        petalia: how much wider than the left the right hemisphere is in front, and narrower behind, as a fraction.

    Returns:
        class indices, and the mm to the right of the true plane, ``[S, A, R]`` both.
    """
    s, a, r = (index - (side - 1) / 2 for index, side in zip(np.indices(SHAPE), SHAPE))
    r = r - shift
    yaw, roll = np.deg2rad((yaw, roll))
    r, a = np.cos(yaw) * r - np.sin(yaw) * a, np.sin(yaw) * r + np.cos(yaw) * a
    r, s = np.cos(roll) * r - np.sin(roll) * s, np.sin(roll) * r + np.cos(roll) * s
    width = np.where(r > 0, 1 + petalia * a / 80, 1)
    outer = (s / 55) ** 2 + (a / 75) ** 2 + (r / (62 * width)) ** 2
    classes = np.zeros(SHAPE, np.uint8)
    right = (r > 0).astype(int)
    classes[outer < 1] = np.array(CORTEX)[right[outer < 1]]
    classes[outer < 0.75] = np.array(WHITE)[right[outer < 0.75]]
    classes[(abs(r) < 1.5) & ((s > 12) | (abs(a) > 40))] = 0
    classes[(a**2 + r**2 < 120) & (s < -15) & (s > -65)] = CLASS[16]
    return classes, r


@pytest.mark.parametrize(
    "head", [{}, {"yaw": 14}, {"roll": -12}, {"shift": -13}, {"yaw": -9, "roll": 8, "shift": 6, "petalia": 0.1}]
)
def test_sides_come_back_wherever_the_head_is(head):
    classes, right = brain(**head)
    found = part_sides(unsided_classes()[classes])
    sided = np.isin(classes, CORTEX + WHITE)
    assert (found[~sided] == classes[~sided]).all()
    wrong = (found != classes) & sided
    assert wrong.sum() / sided.sum() < 0.003 and np.abs(right[wrong]).max(initial=0) < 2.5


def test_the_sides_that_classes_have_already_do_not_count():
    classes, _ = brain(yaw=5)
    np.testing.assert_array_equal(part_sides(classes), part_sides(unsided_classes()[classes]))


@pytest.mark.parametrize("step", [2, 3])
def test_on_a_coarser_grid_sides_come_back_as_well(step):
    classes, _ = brain(yaw=-9, roll=8, petalia=0.1)
    coarse = np.ascontiguousarray(classes[::step, ::step, ::step])
    found = part_sides(unsided_classes()[coarse], (float(step),) * 3)
    sided = np.isin(coarse, CORTEX + WHITE)
    assert ((found != coarse) & sided).sum() / sided.sum() < 0.015


def test_the_fissure_counts_for_more_than_unequal_hemispheres():
    classes, right = brain(petalia=0.15)
    c, s, a = midsagittal_plane(unsided_classes()[classes])
    assert abs(c + s * 75 + a * 85 - 84.5) < 1 and abs(a) < 0.01


def test_what_is_too_small_is_parted_in_the_middle_of_the_image():
    classes = np.zeros((20, 20, 20), np.uint8)
    classes[5:15, 5:15, 5:15] = CLASS[17]
    found = part_sides(classes)
    assert (found[5:15, 5:15, 5:10] == CLASS[17]).all() and (found[5:15, 5:15, 10:15] == CLASS[53]).all()
    assert not part_sides(np.zeros((5, 6, 7), np.uint8)).any()
