"""Labels of the conformed grid on other grids: exact on those of its spacing, smooth on finer ones, never a gap."""

import numpy as np
import pytest
import SimpleITK as sitk

from phantoms import rotation
from SEBrainSegLib.inference import label_resampling
from SEBrainSegLib.inference.geometry import RAS_DIRECTION, restore
from SEBrainSegLib.inference.label_resampling import labels_on_grid_of

SIDE = 40


def image_of(array, spacing=1.0, direction=RAS_DIRECTION):
    """An image of an array whose middle is at the world's origin."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([spacing] * 3 if np.isscalar(spacing) else spacing)
    image.SetDirection(np.ravel(direction).tolist())
    middle = (np.array(image.GetSize()) - 1) / 2
    image.SetOrigin((-np.reshape(direction, (3, 3)) @ (middle * image.GetSpacing())).tolist())
    return image


def grid(spacing, direction=RAS_DIRECTION, side=float(SIDE)):
    spacing = np.broadcast_to(spacing, 3)
    size = np.rint(side / spacing).astype(int)
    return image_of(np.zeros(size[::-1], np.uint8), spacing.tolist(), direction)


def anatomy(image):
    """The labels of a made-up anatomy in the voxels of an image: a ball of two halves, and an ellipsoid in it."""
    k, j, i = np.indices(image.GetSize()[::-1])
    matrix = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    x, y, z = np.moveaxis(np.stack([i, j, k], axis=-1) @ matrix.T + image.GetOrigin(), -1, 0)
    labels = np.zeros(x.shape, np.uint8)
    ball = x**2 + y**2 + z**2 < 15**2
    tilted = x + 0.4 * y - 0.3 * z < 0.2
    labels[ball & tilted], labels[ball & ~tilted] = 2, 41
    labels[((x - 5) / 7) ** 2 + ((y + 2) / 4) ** 2 + ((z - 3) / 4) ** 2 < 1] = 49
    return labels


LABELS = image_of(anatomy(grid(1.0)))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_on_a_parallel_grid_of_the_same_spacing_the_way_back_is_exact(order, signs):
    direction = (np.eye(3) * signs)[list(order)]
    reference = grid(1.0, direction)
    found = sitk.GetArrayFromImage(labels_on_grid_of(LABELS, reference))
    np.testing.assert_array_equal(found, anatomy(reference))


@pytest.mark.parametrize(
    "spacing, direction",
    [(0.5, RAS_DIRECTION), (0.7, RAS_DIRECTION), (0.5, rotation(25, (1, 2, -1))), ((0.4, 0.4, 1.6), RAS_DIRECTION)],
)
def test_on_a_finer_grid_surfaces_are_closer_to_the_anatomy_than_stairs(spacing, direction):
    reference = grid(spacing, direction, 36.0)
    expected = anatomy(reference)
    found = labels_on_grid_of(LABELS, reference)
    assert found.GetSize() == reference.GetSize() and found.GetPixelID() == LABELS.GetPixelID()
    assert found.GetOrigin() == reference.GetOrigin() and found.GetDirection() == reference.GetDirection()
    found, stairs = (sitk.GetArrayFromImage(each) for each in (found, restore(LABELS, reference)))
    assert (found != expected).sum() < 0.75 * (stairs != expected).sum()
    for label in (2, 41, 49):
        assert (found == label).sum() == pytest.approx((stairs == label).sum(), rel=0.015)


def test_small_structures_keep_their_volume():
    """Smoothing alone would take a tenth of a thin one, and a quarter of a rod."""
    k, j, i = np.indices((SIDE,) * 3) - 19.5
    array = np.full((SIDE,) * 3, 2, np.uint8)
    array[(np.abs(i + 0.3 * j) < 1.2) & (k**2 + j**2 < 120)] = 4
    array[((i - 10) ** 2 + (j + 0.2 * k) ** 2 < 3) & (np.abs(k) < 12)] = 5
    array[((i + 10) ** 2 + (j - 2) ** 2 + k**2) < 12] = 26
    labels, reference = image_of(array), grid(0.5)
    found = sitk.GetArrayFromImage(labels_on_grid_of(labels, reference))
    for label in (4, 5, 26):
        assert (found == label).sum() / 8 == pytest.approx((array == label).sum(), rel=0.05), label


def test_between_structures_that_touch_there_is_no_gap():
    reference = grid(0.5)
    found = sitk.GetArrayFromImage(labels_on_grid_of(LABELS, reference))
    # Whole but for the surface: a ball of half a millimetre less.
    inner = sum(((axis - 39.5) / 2) ** 2 for axis in np.indices(found.shape)) < 14.2**2
    assert set(np.unique(found[inner])) == {2, 41, 49}


def test_what_is_thin_does_not_vanish():
    array = np.zeros((SIDE,) * 3, np.uint8)
    array[5:35, 5:35, 5:35] = 2
    array[20, 20, 20] = 5
    array[10, 10, 8:30] = 14
    array[30, 8:30, 8:30] = 15
    array[0, 0, 0] = 44
    labels = image_of(array)
    found = sitk.GetArrayFromImage(labels_on_grid_of(labels, grid(0.5)))
    for label in (5, 14, 15, 44):
        assert (found == label).sum() >= 4 * (array == label).sum(), label


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_nothing_and_large_labels_come_back(kind):
    empty = image_of(np.zeros((8, 9, 10), kind))
    found = labels_on_grid_of(empty, grid(0.5, side=8.0))
    assert found.GetPixelID() == empty.GetPixelID() and not sitk.GetArrayFromImage(found).any()
    array = np.zeros((8, 9, 10), kind)
    array[2:6, 2:6, 2:6] = np.iinfo(kind).max
    found = sitk.GetArrayFromImage(labels_on_grid_of(image_of(array), grid(0.5, side=10.0)))
    assert set(np.unique(found)) == {0, np.iinfo(kind).max}


def test_slab_by_slab_is_as_all_at_once(monkeypatch):
    reference = grid(0.6, rotation(10, (1, 0, 1)))
    whole = sitk.GetArrayFromImage(labels_on_grid_of(LABELS, reference))
    monkeypatch.setattr(label_resampling, "_SLAB", 20_000)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels_on_grid_of(LABELS, reference)), whole)
