"""From a volume to labels: with a network that labels by intensity, so that geometry and control flow stand alone."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from phantoms import GRIDS, ByIntensity, centred, model, phantom, value_at_ras
from SEBrainSegLib import Cancelled, SEBrainSegError, segment
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.choices.vocabulary import View, slice_axis
from SEBrainSegLib.inference import brain_region, cleanup, devices, head_region, plausibility, slices
from SEBrainSegLib.inference import run as inference_run
from SEBrainSegLib.inference.intensities import normalise
from SEBrainSegLib.networks import user_models
from SEBrainSegLib.networks.classes import class_of_label
from SEBrainSegLib.networks.model_file import Model


@pytest.mark.parametrize("grid", GRIDS)
def test_the_same_anatomy_gets_the_same_labels_on_every_grid(network, grid):
    matrix, size = GRIDS[grid]
    image = phantom(centred(matrix, size), size)
    found = segment(image, device="cpu")
    assert found.labels.GetSize() == image.GetSize()
    assert found.labels.GetDirection() == image.GetDirection() and found.labels.GetOrigin() == image.GetOrigin()
    for point, label in {(-14, 0, 8): 2, (20, -20, 5): 41, (12, 5, 4): 49, (-10, 0, -20): 16, (36, 0, 0): 0}.items():
        assert value_at_ras(found.labels, point) == label, point
    # Half of the ellipsoid's part above z = -12, integrated by hand: pi a b (z - z^3 / 3 c^2) from -12 to 28.
    above = np.pi * 30 * 38 * ((28 - 28**3 / (3 * 28**2)) - (-12 - (-12) ** 3 / (3 * 28**2)))
    assert found.volumes[2] == pytest.approx(above / 2 / 1000, rel=0.06)
    assert set(found.volumes) == set(class_of_label()) and found.volumes[17] == 0.0


@pytest.mark.parametrize("view", ["coronal", "axial", "sagittal"])
def test_slicing_direction_does_not_move_labels(network, view):
    size = (77, 95, 71)  # no multiple of 16
    array = np.zeros(size, np.float32)
    array[10:60, 20:80, 15:60] = 1000
    array[40, 50, 30] = 600
    conformed = normalise(array).transpose(2, 1, 0)
    found = slices.classify_in_view(model(network, view), conformed, torch.device("cpu"), lambda fraction: None)[0]
    assert found.shape == conformed.shape
    assert found[30, 50, 40] == class_of_label()[49]
    assert (found == class_of_label()[2]).sum() == 50 * 60 * 45 - 1


@pytest.mark.parametrize("view", ("coronal", "axial", "sagittal"))
def test_the_networks_look_at_the_brain_alone(network, view):
    array = np.zeros((140, 160, 130), np.float32)
    brain = (slice(41, 104), slice(35, 131), slice(30, 93))
    array[brain] = 1
    array[60:66, 150:156, 100:106] = 1  # a nose that it takes for brain
    box = brain_region.brain_box(model(network, view), array, torch.device("cpu"), lambda: None)
    for axis, (there, found) in enumerate(zip(brain, box)):
        before, after = there.start - found.start, found.stop - there.stop
        if axis == slice_axis(view):
            # As much as lies between two slices that are looked at.
            assert 0 <= before <= 16 and 0 <= after <= 16
        else:
            assert 8 <= before < 20 and 8 <= after < 20
            # Four poolings meet the same pixels as without a box.
            assert found.start % 16 == 0 and (found.stop - found.start) % 16 == 0


def test_where_no_brain_is_seen_the_networks_look_at_everything(network):
    array = np.zeros((40, 50, 30), np.float32)
    box = brain_region.brain_box(model(network), array, torch.device("cpu"), lambda: None)
    assert array[box].shape == array.shape
    within = brain_region.box_within((slice(2, 9),) * 3, (slice(1, 4), slice(0, 7), slice(3, 5)))
    assert within == (slice(3, 6), slice(2, 9), slice(5, 7))


def test_a_brain_at_the_border_of_a_large_scan_is_whole(network):
    size = (100, 150, 180)
    affine = centred(np.eye(3), size)
    affine[2, 3] -= 60  # at the top of the scan, with much below
    image = phantom(affine, size)
    found = segment(image, device="cpu")
    x, y, z = np.meshgrid(*(np.arange(n) + affine[i, 3] for i, n in enumerate(size)), indexing="ij", sparse=True)
    brain = ((x / 30) ** 2 + (y / 38) ** 2 + (z / 28) ** 2 < 1).transpose(2, 1, 0)
    labels = sitk.GetArrayFromImage(found.labels)
    assert (brain != (labels > 0)).sum() < 0.02 * brain.sum()


class Says(torch.nn.Module):
    """Stand-in for a network of one view: the same logits everywhere, by FreeSurfer id."""

    slices = 1

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.full((32,), -20.0)
        for label, logit in logits.items():
            self.logits[class_of_label()[label] if label else 0] = logit

    def forward(self, x):
        return self.logits[None, :, None, None].expand(len(x), 32, *x.shape[2:])


def voted(coronal, axial, sagittal):
    """FreeSurfer id that three views with these logits agree on."""
    views = {"coronal": coronal, "axial": axial, "sagittal": sagittal}
    models = [model(Says(logits), view) for view, logits in views.items()]
    array = np.zeros((5, 6, 7), np.float32)
    found = slices.classify_in_views(models, array, torch.device("cpu"), lambda fraction: None)[0]
    assert found.shape == array.shape and len(np.unique(found)) == 1
    return {0: 0, **{index: label for label, index in class_of_label().items()}}[int(found[0, 0, 0])]


def test_the_log_probabilities_of_the_views_are_averaged():
    # Two views outvote one that is as sure.
    assert voted({10: 5}, {12: 5}, {10: 5}) == 10
    assert voted({10: 5}, {12: 5}, {12: 5}) == 12
    assert voted({0: 5}, {0: 5}, {16: 5}) == 0
    # A sure view outvotes two unsure ones: log 0.525 + log 0.525 + log 0.007 < log 0.475 + log 0.475 + log 0.993.
    even = {10: 0.1, 12: 0.0}
    assert voted(even, {12: 5.0, 10: 0.0}, even) == 12
    # What one view excludes cannot win, however sure the others are: 2 log 0.95 + log 0.0003 < 2 log 0.05 + log 0.9997.
    likely = {10: 3.0, 12: 0.0}
    assert voted(likely, likely, {12: 8.0, 10: 0.0}) == 12


def test_the_sagittal_view_has_no_say_on_sides():
    # It knows the left structures only; the other views tell left from right.
    assert voted({53: 5}, {53: 5}, {17: 5}) == 53
    assert voted({17: 5}, {17: 5}, {17: 5}) == 17
    # What it says of a hippocampus tips the scales for the right one, too.
    assert voted({53: 5}, {54: 5}, {17: 5}) == 53


def test_all_views_give_the_same_anatomy_the_same_labels(network):
    matrix, size = GRIDS["RAS"]
    image = phantom(centred(matrix, size), size)
    one, three = (sitk.GetArrayFromImage(segment(image, device="cpu", view=view).labels) for view in ("coronal", "all"))
    assert len(np.unique(one)) == 5
    np.testing.assert_array_equal(one, three)


def test_sagittal_slices_alone_get_their_sides_from_the_brain(network):
    matrix, size = GRIDS["RAS"]
    image = phantom(centred(matrix, size), size)
    expected, found = (segment(image, device="cpu", view=view) for view in ("coronal", "sagittal"))
    np.testing.assert_array_equal(*(sitk.GetArrayFromImage(each.labels) for each in (expected, found)))


def test_a_network_of_several_slices_gets_the_neighbours_of_each():
    class Sees(torch.nn.Module):
        slices = 5

        def forward(self, x):
            seen.append(x)
            return x.mean(dim=1, keepdim=True)

    seen, stack = [], torch.arange(9.0)[:, None, None].expand(9, 16, 16)
    found = torch.cat([logits for _, logits in slices.logits_of_slices(Sees(), stack, torch.device("cpu"))])
    assert found.shape == (9, 1, 16, 16)
    # Beyond the first and the last slice, these are repeated.
    for number, slab in enumerate(torch.cat(seen)):
        expected = [min(max(number + step, 0), 8) for step in (-2, -1, 0, 1, 2)]
        assert slab[:, 3, 4].tolist() == expected
    seen.clear()
    firsts = [first for first, _ in slices.logits_of_slices(Sees(), stack, torch.device("cpu"), numbers=range(0, 9, 4))]
    assert firsts[0] == 0 and torch.cat(seen)[:, 2, 0, 0].tolist() == [0, 4, 8]
    assert torch.cat(seen)[1, :, 0, 0].tolist() == [2, 3, 4, 5, 6]


def test_progress_rises_to_one_and_names_what_happens(network):
    seen = []
    matrix, size = GRIDS["RAS"]
    segment(phantom(centred(matrix, size), size), device="cpu", progress=lambda *step: seen.append(step))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert any("coronal" in message for _, message in seen)


def test_cancel_half_way_stops_within_a_batch(network):
    matrix, size = GRIDS["RAS"]
    with pytest.raises(Cancelled):
        segment(phantom(centred(matrix, size), size), device="cpu", cancelled=lambda: network.batches >= 3)
    assert network.batches == 3


def test_gpu_memory_exhausted_halves_the_batch_and_gives_the_same_answer(network):
    size = (64, 64, 64)
    array = normalise(sitk.GetArrayFromImage(phantom(centred(np.eye(3), size), size)))

    class Limited(ByIntensity):
        def forward(self, x):
            if len(x) > 1:
                raise torch.cuda.OutOfMemoryError("injected")
            return super().forward(x)

    expected = slices.classify_in_view(model(network), array, torch.device("cpu"), lambda fraction: None)[0]
    found = slices.classify_in_view(model(Limited()), array, torch.device("cpu"), lambda fraction: None)[0]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("free", "kept", "side", "slices"),
    [
        (40e9, 0, 256, 16),
        (1.1e9, 0, 256, 5),
        (1.1e9, 0, 128, 16),
        (0.1e9, 0, 256, 1),
        (0, 0, 256, 1),
        (0.1e9, 1.0e9, 256, 5),
    ],
)
def test_a_gpu_gets_as_many_slices_at_a_time_as_its_free_memory_holds(monkeypatch, free, kept, side, slices):
    """A slice of 256 x 256 pixels takes some 200 MB; what torch keeps of earlier batches is free as well."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), int(80e9)))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 7_000_000)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7_000_000 + int(kept))
    assert devices.batch_size(torch.device("cuda:0"), side * side) == slices


def test_a_volume_without_a_brain_is_refused_not_invented(network):
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.integers(0, 10, (40, 40, 40)).astype(np.int16))
    with pytest.raises(SEBrainSegError, match="ml of brain were found"):
        segment(image, device="cpu")


def test_pieces_apart_from_the_brain_or_joined_by_a_film_are_dropped():
    classes = np.zeros((60, 60, 60), np.uint8)
    classes[5:40, 5:40, 5:40] = 7
    classes[50:58, 50:58, 50:58] = 3  # apart
    classes[10:30, 10:30, 40:50] = 0
    classes[20:22, 10:30, 40:52] = 2  # a film that leads to ...
    classes[10:30, 10:30, 50:58] = 2  # ... a piece of face
    kept = cleanup.keep_largest(classes)
    assert (kept == 7).sum() == 35**3
    assert (kept == 3).sum() == 0
    assert (kept[:, :, 48:] == 2).sum() == 0


@pytest.mark.parametrize("mm, sheet, kept", [(2.0, 4, True), (2.0, 2, False), (0.5, 8, False), (0.5, 12, True)])
def test_a_sheet_is_a_film_by_its_millimetres_whatever_the_grid(mm, sheet, kept):
    """8 mm, 4 mm, 4 mm and 6 mm thick."""
    classes = np.zeros((60, 60, 80), np.uint8)
    classes[10:50, 10:50, 5:40] = 7
    classes[20 : 20 + sheet, 15:45, 40:60] = 2
    classes[15:45, 15:45, 60:75] = 2
    found = cleanup.keep_largest(classes, (mm,) * 3)
    assert (found[:, :, 62:] > 0).any() == kept and (found == 7).sum() == (classes == 7).sum()


@pytest.mark.parametrize("mm", [0.5, 2.0])
def test_the_brains_box_has_its_margin_in_millimetres(network, mm):
    array = np.zeros((100, 110, 120), np.float32)
    brain = (slice(35, 70), slice(40, 75), slice(40, 75))
    array[brain] = 1
    array[80:82, 50:52, 60] = 1  # far smaller than 200 mm2
    coarse = Model(network, "coronal", structures(), (mm,) * 3)
    box = brain_region.brain_box(coarse, array, torch.device("cpu"), lambda: None)
    for axis, (there, found) in enumerate(zip(brain, box)):
        before, after = there.start - found.start, found.stop - there.stop
        if axis == View.CORONAL.axis:
            assert 0 <= before <= 16 / mm and 0 <= after <= 16 / mm
        else:
            # 8 mm, and what fills up to multiples of 16 pixels.
            assert 8 / mm <= before < 8 / mm + 16 and 8 / mm <= after < 8 / mm + 16
    head = head_region.head_box(array, spacing=(mm,) * 3)
    assert [there.start - found.start for there, found in zip(brain, head)] == [8 / mm] * 3


def test_a_users_network_of_brains_on_another_grid_is_checked_on_that(network, monkeypatch):
    seen = []
    monkeypatch.setattr(plausibility, "why_unlikely", lambda *evidence: seen.append(evidence) or "")
    own = Model(network, "coronal", structures(), (2.0, 2.0, 2.0))
    monkeypatch.setattr(user_models, "path_of", lambda model: model)
    monkeypatch.setattr(user_models, "load", lambda *_: own)
    matrix, size = GRIDS["RAS"]
    found = segment(phantom(centred(matrix, size), size), model="mine", device="cpu")
    labels, array, _, _, _, spacing, protocol = seen[0]
    assert labels.shape == array.shape and max(labels.shape) < 60
    assert spacing == (2.0, 2.0, 2.0) and protocol == ""
    # A thin stem and a small thalamus are there, too.
    for point, label in {(-14, 0, 8): 2, (20, -20, 5): 41, (12, 5, 4): 49, (-10, 0, -20): 16}.items():
        assert value_at_ras(found.labels, point) == label, point


def test_small_pieces_of_a_structure_are_dropped_and_large_ones_kept():
    classes = np.zeros((40, 40, 40), np.uint8)
    classes[2:12, 2:12, 2:12] = 5  # 1000 voxels
    classes[20:25, 20:25, 20:25] = 5  # 125, more than a tenth of it
    classes[30:33, 30:33, 30:41] = 5  # 90
    classes[12, 12, 12] = 5  # touches the first at a corner
    classes[36, 2, 2] = 7  # all there is of another structure
    kept = cleanup.keep_pieces(classes)
    expected = classes.copy()
    expected[30:33, 30:33, 30:41] = 0
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize(
    ("choice", "words"),
    [({"se": "bse"}, "scse"), ({"architecture": "vnet"}, "unet"), ({"view": "oblique"}, "coronal")],
)
def test_unknown_choices_name_the_known_ones(choice, words):
    with pytest.raises(SEBrainSegError, match=words):
        segment(sitk.Image([32, 32, 32], sitk.sitkInt16), **choice)


def test_a_device_that_is_not_there_is_named(network):
    if torch.cuda.device_count() > 7:
        pytest.skip("this machine has that many")
    with pytest.raises(SEBrainSegError, match="cuda:7"):
        segment(sitk.Image([32, 32, 32], sitk.sitkInt16), device="cuda:7")


def test_importing_the_library_does_not_import_torch_or_slicer():
    import subprocess
    import sys
    from pathlib import Path

    code = "import sys, SEBrainSegLib; print([m for m in ('torch', 'slicer', 'qt') if m in sys.modules])"
    library = Path(inference_run.__file__).resolve().parents[2]
    shown = subprocess.run([sys.executable, "-c", code], cwd=library, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
