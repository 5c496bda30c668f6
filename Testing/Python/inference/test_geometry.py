"""Geometry: conformed volumes and the way back, against positions worked out by hand."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from phantoms import image_with_affine, rotation, value_at_ras
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.inference.geometry import conform, restore
from SEBrainSegLib.inference.head_region import head_box
from SEBrainSegLib.inference.intensities import normalise


def smooth_scene(ras):
    """A smooth intensity over RAS positions (mm) without symmetry."""
    x, y, z = np.moveaxis(ras, -1, 0)
    return 100 * np.exp(-((x - 12) ** 2 + (y + 5) ** 2 + (z - 7) ** 2) / 400) + 60 * np.exp(
        -((x + 15) ** 2 + (y - 9) ** 2 + (z + 4) ** 2) / 250
    )


def scan_of_scene(affine, size):
    ijk = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    return image_with_affine(smooth_scene(ijk @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32), affine)


def affine_of(matrix, size):
    """The affine with that matrix whose grid is centred on (1, -2, 3)."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = np.array([1, -2, 3]) - matrix @ (np.array(size) - 1) / 2
    return affine


SIGNED_PERMUTATIONS = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


@pytest.mark.parametrize("matrix", SIGNED_PERMUTATIONS)
def test_every_orientation_conforms_to_the_same_voxels(matrix):
    ras_size = np.array([61, 71, 65])
    size = np.abs(matrix.T) @ ras_size
    reference = sitk.GetArrayFromImage(conform(scan_of_scene(affine_of(np.eye(3), ras_size), ras_size)))
    found = conform(scan_of_scene(affine_of(matrix, size.astype(int)), size.astype(int)))
    np.testing.assert_allclose(sitk.GetArrayFromImage(found), reference, atol=1e-3)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 0.5), (0.8, 1.2, 2.5)])
@pytest.mark.parametrize("degrees", [0, 17, 75])
def test_oblique_and_resampled_scans_conform_to_the_same_anatomy(spacing, degrees):
    size = [round(64 / s) for s in spacing]
    image = scan_of_scene(affine_of(rotation(degrees, (1, 2, 3)) * spacing, size), size)
    conformed = conform(image)
    assert conformed.GetSpacing() == (1.0, 1.0, 1.0)
    for point in itertools.product((-9, 2, 14), (-11, 0, 8), (-6, 5, 13)):
        expected = smooth_scene(np.array([point], float))[0]
        assert value_at_ras(conformed, point) == pytest.approx(expected, abs=4.0)


def test_conformed_axes_point_right_anterior_superior():
    array = np.zeros((50, 60, 70), np.float32)
    affine = np.diag([-2.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = 40, -30, -20
    array[10, 40, 30] = 100  # RAS (20, 10, 10)
    conformed = conform(image_with_affine(array, affine))
    assert np.array(conformed.TransformIndexToPhysicalPoint((0, 0, 0))) == pytest.approx(
        [58, 30, -20]
    )  # LPS of the corner at RAS (-58, -30, -20)
    hot = np.argwhere(sitk.GetArrayFromImage(conformed) > 99)
    assert hot.tolist() == [[30, 40, 78]]  # S, A, R


@pytest.mark.parametrize("matrix", [np.diag([1.0, 1, 1]), rotation(25, (3, 1, 2)) * (-0.9, 1.1, 1.6)])
def test_labels_return_to_the_same_place_on_the_input_grid(matrix):
    size = (60, 62, 50)
    affine = affine_of(matrix, size)
    image = scan_of_scene(affine, size)
    conformed = conform(image)
    labels = sitk.Cast(conformed > 50, sitk.sitkUInt8)
    back = restore(labels, image)
    assert back.GetSize() == image.GetSize()
    assert back.GetOrigin() == image.GetOrigin() and back.GetDirection() == image.GetDirection()
    expected = sitk.GetArrayFromImage(image) > 50
    found = sitk.GetArrayFromImage(back) == 1
    assert 2 * (expected & found).sum() / (expected.sum() + found.sum()) > 0.93


def test_a_hot_voxel_does_not_darken_the_scan():
    rng = np.random.default_rng(0)
    array = rng.uniform(0, 5, (40, 40, 40)).astype(np.float32)
    array[8:32, 8:32, 8:32] = rng.uniform(400, 500, (24, 24, 24))
    clean = normalise(array)
    array[20, 20, 20] = 1e9
    hot = normalise(array)
    assert np.abs(hot - clean)[15:19].max() < 0.05
    assert 0.9 < np.median(clean[10:30, 10:30, 10:30]) < 1.0
    assert hot.max() <= 2.0 and hot.dtype == np.float32


def test_the_box_around_a_head_leaves_nothing_of_it_out():
    array = np.zeros((80, 90, 100), np.float32)
    array[20:60, 25:70, 30:75] = 0.8
    array[2, 2, 2] = 2.0  # a hot voxel far away
    box = head_box(array)
    assert (array[box] > 0.5).sum() == 40 * 45 * 45
    assert array[box].size < 0.6 * array.size


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (sitk.Image(20, 20, sitk.sitkFloat32), "dimensions"),
        (sitk.Image([20, 20, 20, 3], sitk.sitkFloat32), "dimensions"),
        (sitk.Image([20, 20, 20], sitk.sitkVectorFloat32, 3), "several values"),
        (sitk.Image([20, 20, 1], sitk.sitkFloat32), "single slice"),
    ],
)
def test_what_is_no_scalar_volume_is_refused_in_words(image, words):
    with pytest.raises(SEBrainSegError, match=words):
        conform(image)


def test_a_header_that_is_kilometres_wrong_is_refused():
    image = sitk.Image([64, 64, 64], sitk.sitkInt16)
    image.SetSpacing((100.0, 1.0, 1.0))
    with pytest.raises(SEBrainSegError, match="too large to be segmented"):
        conform(image)


def test_a_plain_object_on_black_is_scaled_to_one():
    array = np.zeros((40, 40, 40), np.float32)
    array[10:30, 10:30, 10:30] = 0.1
    assert normalise(array).max() == pytest.approx(1.0)


def test_the_conformed_grid_reaches_the_last_plane_of_the_input():
    labels = image_with_affine(np.full((60, 60, 60), 7, np.uint8), np.diag([0.83, 0.83, 0.83, 1.0]))
    conformed = conform(labels)
    everywhere = sitk.Image(conformed.GetSize(), sitk.sitkUInt8) + 7
    everywhere.CopyInformation(conformed)
    assert (sitk.GetArrayFromImage(restore(everywhere, labels)) == 7).all()


def test_a_constant_volume_is_refused():
    with pytest.raises(SEBrainSegError, match="same value"):
        normalise(np.full((20, 20, 20), 7.0))
