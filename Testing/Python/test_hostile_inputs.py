"""What nobody should feed it, and what happens then: the rows of ``Testing/hostile-inputs.md`` without another test."""

import errno
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohorts import POSIX, run, scan
from phantoms import ByIntensity, centred, dicom_series, model, phantom, value_at_ras
from SEBrainSegLib import SEBrainSegError, UnlikelyError, segment
from SEBrainSegLib.analysis import remarks as remarks_module
from SEBrainSegLib.commandline import summary
from SEBrainSegLib.files import folder_lock, results
from SEBrainSegLib.files.reading import read
from SEBrainSegLib.inference import plausibility, slices
from SEBrainSegLib.inference import run as inference_run
from SEBrainSegLib.inference.geometry import conform, restore
from SEBrainSegLib.inference.preparation import prepare
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.networks.architectures import UNet

LIBRARY = Path(results.__file__).resolve().parents[2]


def cube(low=0.0, high=1000.0, sides=(40, 40, 40)):
    """A bright cube in faint noise."""
    array = np.random.default_rng(0).uniform(0, 0.02, sides)
    array[tuple(slice(side // 4, 3 * side // 4) for side in sides)] += 0.9
    return (low + (high - low) * array).astype(np.float32)


def prepared(array, spacing=1.0):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([spacing] * 3)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return prepare(image)[1]


def test_the_table_names_tests_that_there_are():
    here = Path(__file__)
    named = set(re.findall(r"`(test_\w+)`", (here.parents[1] / "hostile-inputs.md").read_text(encoding="utf-8")))
    tests = {
        path: set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M))
        for path in here.parent.rglob("test_*.py")
    }
    assert named <= set().union(*tests.values())
    assert tests[here] - named == {"test_the_table_names_tests_that_there_are"}


# Images


@pytest.mark.parametrize("size, words", [([0, 0, 0], "no voxels"), ([1, 1, 1], "single slice or less")])
def test_an_image_of_no_voxel_or_one_is_refused(network, size, words):
    with pytest.raises(SEBrainSegError, match=words):
        segment(sitk.Image(size, sitk.sitkFloat32), device="cpu")


@pytest.mark.parametrize("size, words", [([0, 0], "no voxels"), ([1, 1], "same value")])
def test_a_2d_image_of_no_pixel_or_one_is_refused(size, words):
    with pytest.raises(SEBrainSegError, match=words):
        prepare(sitk.Image(size, sitk.sitkFloat32), None)


@pytest.mark.parametrize("value", [0.0, -7.0, 1e30, np.nan, np.inf, -np.inf])
def test_a_volume_of_one_value_is_refused(network, value):
    with pytest.raises(SEBrainSegError, match="same value"):
        segment(sitk.GetImageFromArray(np.full((40, 40, 40), value, np.float32)), device="cpu")


@pytest.mark.parametrize(
    "low, high",
    [(0, 1), (-3000, -2000), (0, 1e30), (-1e30, 1e30), (0, 1e-30)],
    ids="0-1 negative 1e30 +-1e30 tiny".split(),
)
@pytest.mark.parametrize("spacing", [1.0, 0.5, 0.83])
def test_intensities_are_relative(low, high, spacing):
    expected = prepared(cube(), spacing)
    assert np.isfinite(expected).all() and 0.8 < np.median(expected[expected > 0.5]) < 1.1
    np.testing.assert_allclose(prepared(cube(low, high), spacing), expected, atol=0.03)


def test_intensities_next_to_infinity_are_none():
    array = cube(-3.4e38, 3.4e38)
    with pytest.raises(SEBrainSegError, match="same value"):
        prepared(array)
    array = cube()
    array[3, 3, 3], array[4, 4, 4] = 3.4e38, -3.4e38
    np.testing.assert_allclose(prepared(array), prepared(cube()), atol=0.03)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_some_voxels_that_are_no_numbers_count_as_air(poison):
    array, expected = cube(), cube()
    array[30:, 30:, 30:], expected[30:, 30:, 30:] = poison, 0
    np.testing.assert_array_equal(prepared(array), prepared(expected))


@pytest.mark.parametrize("kind, hot", [(np.float32, 1e30), (np.uint16, 65535), (np.int16, -32768)])
@pytest.mark.parametrize("spacing", [1.0, 0.4])
def test_hot_voxels_stay_where_they_are(kind, hot, spacing):
    image = cube(sides=(64, 64, 64)).astype(kind)
    expected = prepared(image, spacing)
    places = np.random.default_rng(1).integers(4, 60, (5, 3))
    image[tuple(places.T)] = hot
    changed = np.abs(prepared(image, spacing) - expected) > 0.05
    assert changed.sum() <= 5 * 7**3
    # Farther than 4 mm from all of them, nothing changed.
    far = np.argwhere(changed)[:, None] - places * spacing
    assert (np.abs(far).max(axis=2).min(axis=1) <= 4).all()


def in_air(kind=np.int16, sides=(64, 64, 64)):
    """A bright ball in faint noise, whose corners an oblique field of view leaves out; and where these are."""
    axes = np.meshgrid(*(np.arange(side) - side / 2 for side in sides), indexing="ij", sparse=True)
    array = np.random.default_rng(0).uniform(0, 20, sides) + 900 * (sum(axis**2 for axis in axes) < 22**2)
    return array.astype(kind), np.abs(axes[0] + axes[1]) + np.abs(axes[2]) > 60


@pytest.mark.parametrize(
    "kind, fill",
    [(np.int16, -1000), (np.int16, -32768), (np.float32, -1e5), (np.uint16, 65535), (np.int16, 32767)],
)
def test_what_fills_the_outside_of_an_oblique_field_of_view_changes_nothing_inside(kind, fill):
    array, outside = in_air(kind)
    expected = prepared(np.where(outside, 0, array).astype(kind))
    np.testing.assert_allclose(prepared(np.where(outside, fill, array).astype(kind)), expected, atol=0.02)


def test_a_fill_that_was_resampled_again_counts_as_air_with_its_mixtures():
    array, outside = in_air()
    smoothed = [
        sitk.GetArrayFromImage(
            sitk.SmoothingRecursiveGaussian(
                sitk.GetImageFromArray(np.where(outside, fill, array).astype(np.float32)), 0.4
            )
        )
        for fill in (0, -1000)
    ]
    expected, found = (prepared(np.where(outside, fill, each)) for fill, each in zip((0, -1000), smoothed))
    inside = array > 500
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.05)


@pytest.mark.parametrize("fill", [-1000, -32768, -3024])
def test_a_fill_makes_no_ct_of_a_scan_nor_a_scan_of_a_ct(fill):
    array, outside = in_air()
    scan, ct = (
        sitk.GetImageFromArray(np.where(outside, fill, each).astype(np.int16)) for each in (array, array - 1000)
    )
    for image, words in ((scan, "choose a T1-weighted scan of a whole head"), (ct, "those of a CT")):
        image.SetSpacing((2, 2, 2))
        assert words in plausibility.why_none(image, sitk.GetArrayFromImage(conform(image)))


@pytest.mark.parametrize("spacing, size", [(0.4, (200, 240, 190)), (6.0, (14, 16, 13))])
def test_very_fine_and_very_coarse_voxels(network, spacing, size):
    image = phantom(centred(np.eye(3) * spacing, size), size)
    found = segment(image, device="cpu")
    assert found.labels.GetSize() == size and found.labels.GetSpacing() == pytest.approx((spacing,) * 3)
    for point, label in {(-14, 0, 8): 2, (20, -18, 6): 41, (-10, 0, -20): 16, (36, 0, 0): 0}.items():
        assert value_at_ras(found.labels, point) == label, point


def test_memory_for_a_large_scan_is_that_of_the_brain_and_little_more():
    """512 x 512 x 400 voxels of 0.4 mm; the network sees 205 x 205 x 160 of 1 mm."""
    code = """
import resource, sys
import SimpleITK as sitk
from SEBrainSegLib.inference.preparation import prepare
image = sitk.GaussianSource(sitk.sitkUInt8, [512, 512, 400], sigma=[60.0] * 3, mean=[256, 256, 200], scale=200)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image.SetSpacing((0.4, 0.4, 0.4))
print(*prepare(image)[1].shape, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6)
"""
    if sys.platform != "linux":
        pytest.skip("memory is counted in other units elsewhere")
    shown = subprocess.run([sys.executable, "-c", code], cwd=LIBRARY, capture_output=True, text=True, check=True)
    *shape, gigabytes = shown.stdout.split()
    assert shape == ["161", "206", "206"]
    assert float(gigabytes) < 1.3


# Geometry

AXES = {
    "sheared": np.array([[1.0, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    "mirrored": np.diag([1.0, 1.0, -1.0]),
}


@pytest.mark.parametrize("axes", AXES)
def test_sheared_and_mirrored_axes_do_not_move_labels(network, axes):
    size = (96, 100, 80)
    image = phantom(centred(AXES[axes], size), size)
    found = segment(image, device="cpu")
    assert found.labels.GetDirection() == image.GetDirection()
    for point, label in {(-14, 0, 8): 2, (20, -20, 5): 41, (-10, 0, -20): 16, (36, 0, 0): 0}.items():
        assert value_at_ras(found.labels, point) == label, point


def nrrd(path, directions):
    text = "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 6 6\n"
    rows = " ".join("({})".format(",".join(map(str, row))) for row in directions)
    text += f"space directions: {rows}\nspace origin: (0,0,0)\nendian: little\nencoding: raw\n\n"
    path.write_bytes(text.encode() + np.arange(216, dtype="<i2").tobytes())


@pytest.mark.parametrize(
    "matrix", [[[1, 0, 0], [1, 0, 0], [0, 0, 1]], [[0] * 3] * 3, [[1, 0, 0], [0, 1, 0], [1, 1, 0]]]
)
def test_axes_that_do_not_span_space_are_refused(tmp_path, matrix):
    nibabel = pytest.importorskip("nibabel")
    affine = np.eye(4)
    affine[:3, :3] = np.array(matrix).T
    voxels = np.arange(216, dtype=np.int16).reshape(6, 6, 6)
    nifti = nibabel.Nifti1Image(voxels, None)
    nifti.header["sform_code"] = 1
    nifti.header["srow_x"], nifti.header["srow_y"], nifti.header["srow_z"] = affine[:3]
    nibabel.save(nifti, tmp_path / "a.nii")
    with np.errstate(invalid="ignore"):
        nibabel.save(nibabel.MGHImage(voxels, affine), tmp_path / "a.mgz")
    nrrd(tmp_path / "a.nrrd", matrix)
    for name in ("a.nii", "a.mgz", "a.nrrd"):
        with pytest.raises(SEBrainSegError):
            conform(read(tmp_path / name))


def test_nearly_singular_axes_are_refused():
    image = sitk.GetImageFromArray(cube())
    image.SetDirection((1.0, 0.9999, 0.0, 0.0, 1e-4, 0.0, 0.0, 0.0, 1.0))
    with pytest.raises(SEBrainSegError, match="do not span space"):
        conform(image)


directions = st.builds(
    lambda turns, order, flips: (
        np.linalg.qr(np.array(turns).reshape(3, 3) + 0.01 * np.eye(3))[0][:, order] * flips
        if max(map(abs, turns)) > 0.1
        else np.eye(3)[:, order] * flips
    ),
    st.lists(st.floats(-1, 1, width=32), min_size=9, max_size=9),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
)
grids = st.tuples(
    directions,
    st.tuples(*[st.floats(0.375, 6.0, width=32)] * 3),
    st.tuples(*[st.floats(-300, 300, width=32)] * 3),
    st.tuples(*[st.integers(4, 14)] * 3),
)


def image_on(grid):
    """An image of large blocks of labels 1 to 8, one an octant."""
    direction, spacing, origin, size = grid
    halves = [(np.arange(side) >= side // 2).astype(np.uint8) << axis for axis, side in enumerate(size)]
    image = sitk.GetImageFromArray(1 + halves[0] + halves[1][:, None] + halves[2][:, None, None])
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(grids)
def test_labels_come_back_on_any_grid(grid):
    """What is labelled on the conformed grid by position comes back at that position, with rounding at borders only."""
    image = image_on(grid)
    conformed = conform(image)
    # Labels of the conformed voxels, from the positions of their centres alone.
    index = np.stack(np.meshgrid(*(np.arange(n) for n in conformed.GetSize()), indexing="ij"), -1).reshape(-1, 3)
    world = np.array(conformed.GetOrigin()) + index * (-1, -1, 1)
    back = np.linalg.solve(grid[0] * grid[1], (world - grid[2]).T).T
    octant = 1 + ((back >= np.array(grid[3]) // 2 - 0.5) << np.arange(3)).sum(axis=1)
    labels = octant.reshape(conformed.GetSize()).transpose(2, 1, 0).astype(np.uint8)
    made = sitk.GetImageFromArray(labels)
    made.CopyInformation(conformed)
    found = restore(made, image)
    assert found.GetSize() == image.GetSize() and found.GetSpacing() == image.GetSpacing()
    assert found.GetOrigin() == image.GetOrigin() and found.GetDirection() == image.GetDirection()
    same = sitk.GetArrayFromImage(found) == sitk.GetArrayFromImage(image)
    # Nearest neighbours are at most half a diagonal of a conformed voxel off.
    near = np.zeros(same.shape, bool)
    for axis, (spacing, side) in enumerate(zip(grid[1], grid[3])):
        distance = np.abs(np.arange(side) - (side // 2 - 0.5)) * spacing
        near |= (distance <= np.sqrt(3) / 2 + 1e-3).reshape([-1 if 2 - axis == number else 1 for number in range(3)])
    assert same[~near].all()


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(grids)
def test_the_conformed_grid_holds_any_image(grid):
    image = image_on(grid)
    conformed = conform(image)
    assert conformed.GetSpacing() == (1, 1, 1) and conformed.GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    ends = np.array(conformed.GetSize()) - 0.5
    for corner in np.ndindex(2, 2, 2):
        point = image.TransformIndexToPhysicalPoint([int(c * (n - 1)) for c, n in zip(corner, grid[3])])
        where = np.array(conformed.TransformPhysicalPointToContinuousIndex(point))
        assert (where >= -0.5).all() and (where <= ends).all()
    # No larger than it must be.
    diagonal = np.linalg.norm((np.array(grid[3]) - 1) * grid[1])
    assert max(conformed.GetSize()) <= diagonal + 2.01


# What is no brain


class Blind(torch.nn.Module):
    """Stand-in for a network that sees no brain."""

    slices = 1

    def forward(self, x):
        return torch.zeros(len(x), 32, *x.shape[2:]) + torch.eye(32)[0][:, None, None]


def solid(inside, value, rest, noise=10.0, sides=(96, 96, 96)):
    """A thing of one intensity in another; ``inside`` tells where it is from mm, [S, A, R], around its middle."""
    s, a, r = np.meshgrid(*(np.arange(n) - n / 2 for n in sides), indexing="ij", sparse=True)
    array = np.where(inside(s, a, r), value, rest) + np.random.default_rng(0).normal(0, noise, sides)
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


def is_hand(s, a, r):
    palm = (abs(a) < 12) & (abs(r) < 36) & (s > -44) & (s < 4)
    return palm | (sum((r - 18 * k) ** 2 + a**2 < 49 for k in range(-2, 3)) > 0) & (s >= 0) & (s < 40)


def is_head(s, a, r):
    return (s / 44) ** 2 + (a / 46) ** 2 + (r / 40) ** 2 < 1


NO_BRAINS = {
    "noise": (solid(lambda *_: False, 0, 500, 200), "looks like noise"),
    "a CT": (solid(is_head, 35, -1000), "those of a CT"),
    "a hand": (solid(is_hand, 500, 0), "T1-weighted scan of a whole head"),
    "a small piece": (solid(is_head, 500, 0, sides=(40, 50, 60)), "60 x 50 x 40 mm, too small for a head"),
}


@pytest.mark.parametrize("kind", NO_BRAINS)
def test_what_is_no_brain_is_told_apart_in_words(monkeypatch, kind):
    image, words = NO_BRAINS[kind]
    monkeypatch.setattr(bundled, "load", lambda *_: model(Blind()))
    with pytest.raises(SEBrainSegError, match=f"^Only 0 ml of brain were found; .*{words}"):
        segment(image, device="cpu")


@pytest.mark.parametrize("kind", ["noise", "a hand"])
def test_the_bundled_network_invents_no_brain(kind):
    image, words = NO_BRAINS[kind]
    with pytest.raises(SEBrainSegError, match=words):
        segment(image, device="cpu")


# ml of what the bundled coronal U-Net with scSE found in the sample scan, by label: as it is, and upside down. Of its
# upper half alone, it found the first seven.
UPRIGHT = (
    "2 310.7 3 362.8 4 13.0 41 312.1 42 365.3 43 10.9 11 5.1 5 0.8 7 19.5 8 80.0 10 10.7 12 7.3 13 2.2 14 1.3 15 2.8 "
    "16 27.8 17 6.1 18 2.5 26 1.0 28 6.7 44 1.0 46 19.3 47 86.9 49 9.9 50 5.3 51 7.2 52 2.3 53 5.9 54 2.2 58 0.8 60 6.5"
)
UPSIDE_DOWN = (
    "2 294.7 3 350.0 4 1.6 5 0.02 8 1.2 10 0.02 11 0.03 12 0.3 13 0.02 16 0.034 17 0.02 41 309.4 42 364.3 43 2.1 "
    "44 0.02 46 0.2 47 1.9 49 0.2 50 0.4 51 2.4 52 0.02 53 0.02 54 0.02"
)


def measured(text, protocol="freesurfer"):
    volumes = dict.fromkeys((label for each, label in remarks_module.ranges() if each == protocol), 0.0)
    numbers = text.split()
    return {**volumes, **{int(label): float(ml) for label, ml in zip(numbers[::2], numbers[1::2])}}


def test_a_head_upside_down_is_told_from_an_upright_one_and_a_part_of_it():
    assert "upside down" in plausibility.why_unlike(measured(UPSIDE_DOWN), "freesurfer")
    whole = measured(UPRIGHT)
    assert plausibility.why_unlike(whole, "freesurfer") == ""
    upper = " ".join(UPRIGHT.split()[:14])
    assert plausibility.why_unlike(measured(upper), "freesurfer") == ""
    deep = {label: ml * (0.2 if label in (2, 3, 41, 42, 7, 8, 46, 47) else 1) for label, ml in whole.items()}
    assert plausibility.why_unlike(deep, "freesurfer") == ""
    # Six times the ventricles, as in hydrocephalus.
    ventricles = {label: ml * (6 if label in (4, 5, 14, 15, 43, 44) else 1) for label, ml in whole.items()}
    assert plausibility.why_unlike(ventricles, "freesurfer") == ""


def test_a_result_unlike_any_brain_is_refused(monkeypatch):
    monkeypatch.setattr(bundled, "load", lambda *_: model(ByIntensity()))
    size = (80, 96, 76)
    image = phantom(centred(np.eye(3), size), size)
    noise = sitk.GetImageFromArray(np.random.default_rng(0).normal(0, 9, size[::-1]).astype(np.float32))
    noise.CopyInformation(image)
    with pytest.raises(UnlikelyError, match="unsure of most of what it found"):
        segment(image + noise, device="cpu")
    found = segment(image + noise, device="cpu", accept_unlikely=True)
    assert found.volumes[2] > 10 and "unsure of most of what it found" in found.implausibility


# Files

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".nhdr", ".mhd", ".hdr")


@pytest.mark.parametrize("ending", ENDINGS)
def test_truncated_files_are_refused_wherever_they_end(tmp_path, ending):
    voxels = np.random.default_rng(0).integers(0, 1000, (20, 24, 28)).astype(np.int16)
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read(path)), voxels)
    data = max(tmp_path.iterdir(), key=lambda each: each.stat().st_size)
    content = data.read_bytes()
    for count in (0, 10, 300, 400, len(content) // 2, len(content) - 20):
        data.write_bytes(content[:count])
        with pytest.raises(SEBrainSegError, match="damaged"):
            read(path)
    data.unlink()
    with pytest.raises(SEBrainSegError):
        read(path)


@pytest.mark.parametrize("kept", [0, 10, 300, 0.5, 0.9])
def test_a_truncated_mgh_file_is_refused(tmp_path, kept):
    nibabel = pytest.importorskip("nibabel")
    voxels = np.random.default_rng(0).integers(0, 1000, (20, 24, 28)).astype(np.int16)
    nibabel.save(nibabel.MGHImage(voxels, np.eye(4)), tmp_path / "scan.mgz")
    content = (tmp_path / "scan.mgz").read_bytes()
    (tmp_path / "scan.mgz").write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(SEBrainSegError, match="damaged"):
        read(tmp_path / "scan.mgz")


def test_a_file_packed_in_pieces_or_with_more_at_its_end_is_read(tmp_path):
    import gzip

    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 1000, (20, 24, 28)).astype(np.int16))
    sitk.WriteImage(image, str(tmp_path / "plain.nii"))
    content = (tmp_path / "plain.nii").read_bytes()
    packed = tmp_path / "packed.nii.gz"
    for pieces in ((content[:9000], content[9000:]), (content + bytes(100),)):
        packed.write_bytes(b"".join(map(gzip.compress, pieces)))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read(packed)), sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("ending", (*ENDINGS, ".mgz", ".mgh", ".dcm", ".png", ".tif", ".jpg", ".txt", ""))
@pytest.mark.parametrize("content", [b"", b"This is no image.\n" * 50, bytes(1000)], ids=["empty", "text", "zeros"])
def test_what_is_no_image_is_refused(tmp_path, ending, content):
    (tmp_path / f"scan{ending}").write_bytes(content)
    with pytest.raises(SEBrainSegError, match="not an image that can be read"):
        read(tmp_path / f"scan{ending}")


def test_a_truncated_slice_among_dicom_is_refused(tmp_path):
    dicom_series(tmp_path, 5, "1.2.3.4", sitk.GaussianSource(sitk.sitkInt16, [64, 64, 5], sigma=[9.0] * 3))
    path = tmp_path / "1.2.3.4-002.dcm"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SEBrainSegError):
        read(tmp_path)


@pytest.fixture
def nobody():
    """A folder that anyone may enter, as a user who may not open everything; pytest's temporary folders are root's."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        user = os.geteuid()
        path = scan(Path(folder) / "secret.nii.gz")
        path.chmod(0)
        os.seteuid(65534 if user == 0 else user)
        try:
            yield path
        finally:
            os.seteuid(user)


@POSIX
def test_a_file_that_may_not_be_opened_is_told(nobody):
    with pytest.raises(SEBrainSegError, match="permissions"):
        read(nobody)


NAMES = ['it\'s a "scan"; $(rm -rf) & 100 %', "größe 脑 мозг \N{BRAIN}", "-x --overwrite", "[1] *?", "a" * 200]


@POSIX
@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_letters(organs, tmp_path, name):
    path = scan(tmp_path / 'a folder, "quoted" ü' / f"{name}.nii.gz")
    assert run(path) == 0
    made = {f"{name}_organs{ending}" for ending in results.ENDINGS}
    assert set(os.listdir(path.parent)) == {path.name, *made}
    assert read(path.parent / f"{name}_organs.nii.gz").GetSize() == (24, 6, 4)


@POSIX
def test_a_name_of_250_characters_is_one_sentence_and_stops_nothing(organs, tmp_path, capsys):
    long, short = scan(tmp_path / f"{'a' * 243}.nii.gz"), scan(tmp_path / "b.nii.gz")
    for arguments in ([long], [long, "--overwrite"], [long, short], [tmp_path, "--overwrite"]):
        assert run(*arguments, "-o", tmp_path / "out") == 1
        said = capsys.readouterr().err
        assert "names of the results would be too long" in said and "Segmenting" not in said.split("too long")[0][-900:]
        assert "Traceback" not in said and "unexpected" not in said
    assert (tmp_path / "out" / "b_organs.csv").exists()


# Results

TEXTS = {ending: lambda image, found, path: Path(path).write_text(str(found)) for ending in results.ENDINGS}


def there(paths):
    """What the results that are there say, by ending."""
    return {ending: path.read_text() for ending, path in paths.items() if path.exists()}


def test_two_runs_into_one_place_do_not_mix(tmp_path):
    paths = results.result_paths(tmp_path, "scan")
    for number in range(25):
        at_once = threading.Barrier(3)

        def write(run, at_once=at_once, number=number):
            at_once.wait()
            results.write_results(None, f"{number}, {run}", paths, overwrite=True, writers=TEXTS)

        runs = [threading.Thread(target=write, args=(run,)) for run in range(3)]
        for each in runs:
            each.start()
        for each in runs:
            each.join()
        found = there(paths)
        assert len(found) == len(paths) and len(set(found.values())) == 1, found
    assert set(os.listdir(tmp_path)) == {path.name for path in paths.values()}


def test_of_two_runs_that_may_not_replace_one_is_refused_and_the_other_whole(tmp_path):
    paths, said = results.result_paths(tmp_path, "scan"), []

    def writer(image, found, path):
        Path(path).write_text(found)
        at_once.wait()

    def write(run):
        try:
            results.write_results(None, run, paths, writers=dict.fromkeys(paths, writer))
        except SEBrainSegError as error:
            said.append(str(error))

    at_once = threading.Barrier(2)
    runs = [threading.Thread(target=write, args=(run,)) for run in ("first", "second")]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert len(said) == 1 and "exists" in said[0]
    assert len(there(paths)) == len(paths) and len(set(there(paths).values())) == 1


def test_a_summary_that_runs_share_loses_no_row(tmp_path):
    path = tmp_path / summary.FILE

    def add(run):
        for number in range(8):
            summary.update(path, [{"input": f"{run}-{number}", "network": "unet", "status": "segmented"}])

    runs = [threading.Thread(target=add, args=(run,)) for run in range(3)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert len(summary.read_rows(path)) == 24


HOLDER = """
import os, sys, time
from SEBrainSegLib.files.folder_lock import locked_folder

with locked_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``tmp_path`` until a line is written to it, or it is killed."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, cwd=LIBRARY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_run_that_waits_for_a_lock_for_too_long_says_so(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(folder_lock, "LONGEST_WAIT", 0.1)
    with pytest.raises(SEBrainSegError, match=f"Another run has kept {re.escape(str(tmp_path))} locked"):
        with folder_lock.locked_folder(tmp_path):
            pass
    monkeypatch.setattr(folder_lock, "LONGEST_WAIT", 60.0)
    holder.communicate("end\n")
    with folder_lock.locked_folder(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_killed_run_frees_its_lock(tmp_path, holder):
    holder.kill()
    holder.wait()
    with folder_lock.locked_folder(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


class Holders:
    """Threads in ``with locked_folder(folder)``, which stay there until two of them do or the test ends."""

    def __init__(self, folder):
        self.folder, self.inside, self.most = folder, set(), 0
        self.entered, self.two, self.over = threading.Event(), threading.Event(), threading.Event()

    def start(self):
        thread = threading.Thread(target=self.hold)
        thread.start()
        return thread

    def hold(self):
        with folder_lock.locked_folder(self.folder):
            self.inside.add(threading.current_thread())
            self.most = max(self.most, len(self.inside))
            self.entered.set()
            if len(self.inside) > 1:
                self.two.set()
            self.two.wait(0.5)
            self.inside.discard(threading.current_thread())


@POSIX
def test_a_waiter_does_not_remove_the_lock_of_another_that_was_quicker(tmp_path, holder, monkeypatch):
    """Whoever waits for a killed run's lock and is about to remove it is held up until another has one of its own."""
    holders = Holders(tmp_path)

    def held_up(original):
        def call(path, *arguments, **options):
            is_waiter = threading.current_thread() not in holders.inside and str(tmp_path) in os.fspath(path)
            if is_waiter and not first.locked() and first.acquire(blocking=False):
                holders.entered.wait(60)
            return original(path, *arguments, **options)

        return call

    first = threading.Lock()
    holder.kill()
    holder.wait()
    for name in ("rmdir", "unlink", "remove"):
        monkeypatch.setattr(os, name, held_up(getattr(os, name)))
    threads = [holders.start() for _ in range(2)]
    for each in threads:
        each.join()
    assert holders.most == 1


@POSIX
def test_a_lock_whose_file_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """One run opens the file of a lock; before it locks it, the holder leaves and another run comes."""
    import fcntl

    holders, original = Holders(tmp_path), fcntl.flock
    opened, left = threading.Event(), threading.Event()

    def flock(*arguments):
        if threading.current_thread() is late and not opened.is_set():
            opened.set()
            left.wait(60)
        return original(*arguments)

    with folder_lock.locked_folder(tmp_path):
        monkeypatch.setattr(fcntl, "flock", flock)
        late = threading.Thread(target=holders.hold)
        late.start()
        assert opened.wait(60)
    quick = holders.start()
    assert holders.entered.wait(60)
    left.set()
    for each in (late, quick):
        each.join()
    assert holders.most == 1 and os.listdir(tmp_path) == []


@POSIX
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_in_a_sentence(tmp_path, monkeypatch, code):
    import fcntl

    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(SEBrainSegError, match="knows no locks.*another disk"):
        results.write_results(None, "new", results.result_paths(tmp_path, "scan"), writers=TEXTS)
    assert not [name for name in os.listdir(tmp_path) if name.startswith("scan")]


def test_a_folder_that_became_read_only_is_said_to_be(tmp_path, monkeypatch):
    class ReadOnly(folder_lock.FileLock):
        def acquire(self, *_, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(folder_lock, "FileLock", ReadOnly)
    with pytest.raises(SEBrainSegError, match=f"could not be written to .*{os.strerror(errno.EROFS)}"):
        results.write_results(None, "new", results.result_paths(tmp_path, "scan"), writers=TEXTS)
    with pytest.raises(SEBrainSegError, match=os.strerror(errno.EROFS)):
        summary.update(tmp_path / summary.FILE, [{"input": "a", "network": "unet", "status": "segmented"}])
    assert os.listdir(tmp_path) == []


KILLED = """
import json, os, sys
from pathlib import Path
from SEBrainSegLib.files import results

folder = Path(sys.argv[1])
writers = dict.fromkeys(results.ENDINGS, lambda image, found, path: Path(path).write_text(found))
calls = {"left": 0}
def dying(original):
    def call(*arguments, **options):
        if calls["left"] == 0:
            os._exit(9)
        calls["left"] -= 1
        return original(*arguments, **options)
    return call
for place in range(80):
    paths = results.result_paths(folder / str(place), "scan")
    results.write_results(None, "old", paths, writers=writers)
    if os.fork() == 0:
        calls["left"] = place
        for name in ("mkdir", "rmdir", "unlink", "replace", "open", "stat"):
            setattr(os, name, dying(getattr(os, name)))
        results.write_results(None, "new", paths, overwrite=True, writers=writers)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    print(json.dumps([place, status]))
"""


@POSIX
def test_killed_at_any_moment_it_leaves_no_mixture_and_bars_nobody(tmp_path):
    """The process ends at each of its calls of the operating system in turn, without tidying up."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    shown = subprocess.run(command, cwd=LIBRARY, capture_output=True, text=True, check=True).stdout
    outcomes = dict(map(json.loads, shown.splitlines()))
    assert set(outcomes.values()) == {0, 9}
    kinds, locked = set(), 0
    for place, status in outcomes.items():
        paths = results.result_paths(tmp_path / str(place), "scan")
        found = there(paths)
        assert len(set(found.values())) <= 1, (place, found)
        kinds.add((status, len(found), *set(found.values())))
        if (tmp_path / str(place) / folder_lock.LOCK).exists():
            locked += 1
        results.write_results(None, "newer", paths, overwrite=True, writers=TEXTS)
        assert there(paths) == dict.fromkeys(paths, "newer")
        assert not (tmp_path / str(place) / folder_lock.LOCK).exists()
    # It was killed before, between and after the renamings.
    assert locked >= 4 and {(9, 4, "old"), (9, 0), (9, 2, "new"), (9, 4, "new"), (0, 4, "new")} <= kinds


def test_what_killed_runs_left_is_cleared_away_after_a_day(tmp_path):
    old, fresh, own = (tmp_path / name for name in (".sebrainseg-old", ".sebrainseg-fresh", "mine"))
    for folder in (old, fresh, own):
        folder.mkdir()
        (folder / "result.png").touch()
    for folder in (old, own):
        os.utime(folder, (1e9, 1e9))
    results.write_results(None, "new", results.result_paths(tmp_path, "scan"), writers=TEXTS)
    assert not old.exists() and fresh.exists() and (own / "result.png").exists()


def test_an_interruption_while_writing_leaves_nothing(tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    paths = results.result_paths(tmp_path, "scan")
    for ending in paths:
        with pytest.raises(KeyboardInterrupt):
            results.write_results(None, "new", paths, writers={**TEXTS, ending: interrupted})
        assert os.listdir(tmp_path) == []


@POSIX
def test_a_disk_that_fills_up_while_any_result_is_written_leaves_nothing(organs, tmp_path, capsys):
    """Files may not grow beyond a limit, which the operating system enforces as it does the end of a disk."""
    import resource

    path = tmp_path / "scan.nii.gz"
    noise = np.random.default_rng(0).uniform(0, 1, (12, 40, 40)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path))
    image = read(path)
    found = segment(image, model="organs", device="cpu")
    paths = results.result_paths(tmp_path / "out", "scan")
    results.write_results(image, found, paths)
    sizes = {ending: written.stat().st_size for ending, written in paths.items()}
    before = {ending: written.read_bytes() for ending, written in paths.items()}
    for limit in sorted({0, 100, *(size - 1 for size in sizes.values()), *(size // 2 for size in sizes.values())}):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            with pytest.raises(SEBrainSegError, match="could not be written"):
                results.write_results(image, found, paths, overwrite=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert {ending: written.read_bytes() for ending, written in paths.items()} == before
        assert len(os.listdir(tmp_path / "out")) == len(paths)


# Model files


def test_one_altered_bit_of_a_users_model_is_found_or_harmless(organs, tmp_path):
    from SEBrainSegLib.networks import user_models

    content, expected = organs.read_bytes(), user_models.load("organs").network.state_dict()
    rng, refused = np.random.default_rng(0), 0
    for place in rng.integers(0, len(content), 60):
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        organs.write_bytes(altered)
        try:
            found = user_models.load("organs").network.state_dict()
        except SEBrainSegError as error:
            assert "damaged" in str(error)
            refused += 1
        else:
            assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert refused > 10


@pytest.mark.parametrize(
    "change", [{"architecture": "sdnet"}, {"width": 3}, {"classes": 4}, {"depth": 3}, {"se": "scse"}]
)
def test_weights_of_another_network_are_refused(organs, tmp_path, change):
    from SEBrainSegLib.networks import user_models

    stored = torch.load(organs, weights_only=True)
    stored["configuration"].update(change)
    torch.save(stored, organs)
    with pytest.raises(SEBrainSegError, match="no model file of SEBrainSeg, or it is damaged"):
        user_models.load("organs")


@pytest.mark.parametrize("rows", [1, 3])
def test_another_table_of_labels_is_refused(organs, rows):
    from SEBrainSegLib.networks import user_models

    stored = torch.load(organs, weights_only=True)
    stored["structures"] = (stored["structures"] * 2)[:rows]
    torch.save(stored, organs)
    with pytest.raises(SEBrainSegError, match="no model file of SEBrainSeg, or it is damaged"):
        user_models.load("organs")


def test_gpu_memory_that_is_too_small_for_one_slice_leaves_the_same_answer_to_the_cpu(network, monkeypatch):
    size = (80, 96, 76)
    image = phantom(centred(np.eye(3), size), size)
    asked, original, told = [], slices.classify_volume, []

    def classify_volume(models, array, device, *others):
        # The volume is there as a whole already.
        assert array.device.type == device.type
        asked.append(device.type)
        if device.type != "cpu":
            raise torch.cuda.OutOfMemoryError("injected")
        return original(models, array, device, *others)

    monkeypatch.setattr(inference_run, "classify_volume", classify_volume)
    monkeypatch.setattr(inference_run, "brain_box", lambda model, array, *_: tuple(slice(0, n) for n in array.shape))
    expected = segment(image, device="cpu")
    asked.clear()
    # "meta" is torch's device for what is stored nowhere.
    monkeypatch.setattr(inference_run.devices, "choose", lambda name: torch.device("meta"))
    monkeypatch.setattr(inference_run.devices, "release_memory", lambda device: asked.append(f"released {device}"))
    found = segment(image, progress=lambda fraction, message: told.append(message))
    assert asked == ["meta", "released meta", "cpu"] and found.device == "cpu"
    assert any("memory is full" in message for message in told)
    assert sitk.Hash(found.labels) == sitk.Hash(expected.labels) and found.volumes == expected.volumes


# Again and again


def test_the_same_scan_gives_the_same_bytes(organs, tmp_path):
    path = scan(tmp_path / "scan.nii.gz")
    for name in ("first", "second"):
        assert run(path, "-o", tmp_path / name, "--confidence") == 0
    made = sorted(os.listdir(tmp_path / "first"))
    assert len(made) == 5 and made == sorted(os.listdir(tmp_path / "second"))
    for name in made:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_another_number_of_threads_gives_nearly_the_same_labels():
    """Sums are formed in another order: logits differ in their last digits, labels where two classes are even."""
    torch.manual_seed(0)
    network = UNet(classes=32, width=8, kernel=5, depth=4, se="scse").eval()
    array = np.random.default_rng(0).uniform(0, 1, (32, 8, 32)).astype(np.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            found.append(
                slices.classify_volume([model(network)], array, torch.device("cpu"), lambda fraction: None).classes
            )
    finally:
        torch.set_num_threads(before)
    assert (found[0] == found[1]).mean() > 0.99
    np.testing.assert_array_equal(found[1], found[2])


def held():
    """Bytes of memory, open files and threads of this process."""
    gc.collect()
    process = psutil.Process()
    files = process.num_fds() if os.name == "posix" else process.num_handles()
    return process.memory_info().rss, files, process.num_threads()


def test_many_scans_in_one_process_leave_nothing_behind(organs, tmp_path):
    """60 of them; ``Testing/Benchmarks/soak.py`` takes as many as it is told."""
    path = scan(tmp_path / "scan.nii.gz")
    states = []
    for number in range(60):
        assert run(path, "-o", tmp_path / "out", "--overwrite") == 0
        if number in (19, 59):
            states.append(held())
    (memory, files, threads), (later_memory, later_files, later_threads) = states
    assert later_memory - memory < 8e6
    assert later_files == files and later_threads == threads
