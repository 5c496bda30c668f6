"""The whole path with the bundled weights on the bundled scan, judged by anatomy."""

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from phantoms import rotation
from SEBrainSegLib import Segmentation, UnlikelyError, segment
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.choices.vocabulary import Variant, values
from SEBrainSegLib.files.reading import read
from SEBrainSegLib.inference import devices, plausibility
from SEBrainSegLib.inference import run as inference_run
from SEBrainSegLib.inference.preparation import prepare
from SEBrainSegLib.inference.slices import classify_volume
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.resources import resource

# ml that any healthy adult's structure lies in, generously (Colin27 is scaled to the large MNI space).
PLAUSIBLE = {
    "Cerebral White Matter": (150, 400),
    "Cerebral Cortex": (180, 450),
    "Lateral Ventricle": (2, 40),
    "Cerebellar White Matter": (6, 35),
    "Cerebellar Cortex": (35, 95),
    "Thalamus": (4, 13),
    "Caudate": (2, 8),
    "Putamen": (2.5, 10),
    "Pallidum": (0.8, 4),
    "Hippocampus": (2, 8),
    "Amygdala": (0.7, 4),
    "Accumbens Area": (0.15, 1.6),
    "Ventral DC": (2, 8),
    "Third Ventricle": (0.3, 4),
    "Fourth Ventricle": (0.5, 5),
    "Brain Stem": (14, 40),
}


@pytest.fixture(scope="module")
def scan():
    return read(resource("SampleData/colin27_t1.nii.gz"))


@pytest.fixture(scope="module")
def found(scan) -> Segmentation:
    return segment(scan, se="scse", device="cpu")


def test_every_structure_has_a_plausible_volume(found):
    for structure in structures():
        low, high = PLAUSIBLE.get(structure.unsided_name, (0.02, 5))
        assert low <= found.volumes[structure.label] <= high, structure.name


def test_left_is_left(scan, found):
    labels = sitk.GetArrayFromImage(found.labels)
    lps = np.array(scan.GetDirection()).reshape(3, 3) * scan.GetSpacing()
    middle = None
    for structure in structures():
        k, j, i = np.argwhere(labels == structure.label).mean(axis=0)
        right = -(lps @ (i, j, k) + scan.GetOrigin())[0]
        if structure.name == "Left Cerebral White Matter":
            middle = right + 30  # a hemisphere's white matter is centred some 25 to 35 mm beside the midline
        if structure.side == "left":
            assert right < middle - 2, structure.name
        if structure.side == "right":
            assert right > middle + 2, structure.name


def test_structures_lie_in_their_anatomical_order(found):
    labels = sitk.GetArrayFromImage(found.labels)  # the sample is stored in RAS order

    def at(name):
        label = next(structure.label for structure in structures() if structure.name == name)
        return np.argwhere(labels == label).mean(axis=0)

    assert at("Left Caudate")[1] > at("Left Thalamus")[1] > at("Left Cerebellar Cortex")[1]
    assert at("Left Lateral Ventricle")[0] > at("Left Hippocampus")[0] > at("Left Cerebellar Cortex")[0]
    assert abs(at("Left Putamen")[2] - at("Brain Stem")[2]) > abs(at("Left Pallidum")[2] - at("Brain Stem")[2])


@pytest.mark.slow
def test_the_scan_stored_in_another_orientation_gives_the_same_labels(scan, found):
    turned = sitk.DICOMOrient(scan, "LIA")
    labels = sitk.DICOMOrient(segment(turned, se="scse", device="cpu").labels, "RAS")
    expected, answer = sitk.GetArrayFromImage(found.labels), sitk.GetArrayFromImage(labels)
    assert (expected == answer).mean() > 0.9999


@pytest.mark.slow
def test_the_scan_on_an_oblique_left_handed_grid_gives_the_same_anatomy(scan, found):
    # A grid turned by 20 degrees, mirrored along its first axis, of 0.9 x 1 x 1.2 mm, around the same head.
    spacing, size = np.array((0.9, 1.0, 1.2)), (250, 250, 210)
    direction = rotation(20, (1, 2, 3)) * (-1.0, 1.0, 1.0)
    middle = np.array(scan.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in scan.GetSize()]))
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection(direction.ravel().tolist())
    grid.SetOrigin((middle - direction * spacing @ ((np.array(size) - 1) / 2)).tolist())
    turned = sitk.Resample(sitk.Cast(scan, sitk.sitkFloat32), grid, sitk.Transform(), sitk.sitkLinear, 0.0)
    answer = segment(turned, se="scse", device="cpu")
    back = sitk.Resample(answer.labels, found.labels, sitk.Transform(), sitk.sitkNearestNeighbor)
    expected, returned = sitk.GetArrayFromImage(found.labels), sitk.GetArrayFromImage(back)
    for structure in structures():
        if found.volumes[structure.label] > 3:
            here, there = expected == structure.label, returned == structure.label
            assert 2 * (here & there).sum() / (here.sum() + there.sum()) > 0.75, structure.name


@pytest.mark.slow
def test_looking_at_the_brain_alone_changes_hardly_a_label(scan, found, monkeypatch):
    monkeypatch.setattr(
        inference_run, "brain_box", lambda model, array, *_: tuple(slice(0, side) for side in array.shape)
    )
    expected = sitk.GetArrayFromImage(segment(scan, se="scse", device="cpu").labels)
    same = sitk.GetArrayFromImage(found.labels) == expected
    assert 0.996 < same.mean() < 1 and same[expected > 0].mean() > 0.98


def test_a_head_that_is_cut_off_is_segmented_as_far_as_it_goes(scan, found):
    # Through the middle of the cerebellum, which leaves neither neck nor jaw.
    lowest = np.argwhere(sitk.GetArrayViewFromImage(found.labels) == 8)[:, 0]
    cut = int((lowest.min() + lowest.max()) / 2)
    answer = sitk.GetArrayFromImage(segment(scan[:, :, cut:], se="scse", device="cpu").labels)
    expected = sitk.GetArrayFromImage(found.labels)[cut:]
    agreed = 2 * ((expected == answer) & (expected > 0)).sum() / ((expected > 0).sum() + (answer > 0).sum())
    assert agreed > 0.9


def test_a_head_upside_down_is_refused(scan):
    image = sitk.Flip(scan, [False, False, True])
    image.CopyInformation(scan)
    with pytest.raises(UnlikelyError, match="upside down"):
        segment(image, se="scse", device="cpu")


def test_what_was_found_lies_as_in_a_person_in_one_of_24_orientations(scan, found):
    """Its labels turned as a whole, as if a network had recognised everything in a head that lies otherwise."""
    labels = sitk.GetArrayFromImage(found.labels)
    head = prepare(scan)[1]
    assert head.shape == labels.shape and found.implausibility == ""
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        if np.linalg.det(np.eye(3)[list(order)] * signs) < 0:
            continue
        turned, tissue = (
            np.ascontiguousarray(np.transpose(each, order)[tuple(slice(None, None, sign) for sign in signs)])
            for each in (labels, head)
        )
        said = plausibility.why_unlikely(turned, tissue, found.volumes, 0.92, found.parameters)
        upright = (order, signs) == ((0, 1, 2), (1, 1, 1))
        assert said == "" if upright else "does not lie as in a person" in said, (order, signs)


def test_another_sequence_than_t1_is_refused_and_shown_if_it_is_accepted(scan, found):
    """With the contrast of T2: fluid bright, white matter dark, air and bone black."""
    array, labels = sitk.GetArrayFromImage(scan).astype(np.float32), sitk.GetArrayFromImage(found.labels)
    fluid, grey, white = (np.median(array[labels == label]) for label in (4, 3, 2))
    array = np.interp(array, [0, fluid / 2, fluid, grey, white, 1.5 * white], [0, 0.15, 1, 0.6, 0.38, 0.75])
    image = sitk.GetImageFromArray(1000 * array)
    image.CopyInformation(scan)
    answer = segment(image, device="cpu", accept_unlikely=True)
    assert "check that it is T1-weighted" in answer.implausibility
    assert sum(answer.volumes.values()) > 100


@pytest.mark.slow
@pytest.mark.parametrize("se", [variant for variant in values(Variant) if variant != "scse"])
def test_the_other_variants_agree_with_scse_on_most_of_the_brain(scan, found, se):
    expected = sitk.GetArrayFromImage(found.labels)
    answer = sitk.GetArrayFromImage(segment(scan, se=se, device="cpu").labels)
    agreed = 2 * ((expected == answer) & (expected > 0)).sum() / ((expected > 0).sum() + (answer > 0).sum())
    assert 0.8 < agreed < 0.9999


def test_bfloat16_changes_hardly_a_label(scan, monkeypatch):
    # Through the deep structures, where most boundaries are.
    array = np.ascontiguousarray(prepare(scan)[1][:, 100:106])
    agreement = {}
    for architecture in ("unet", "sdnet"):
        model, found = bundled.load(architecture, "scse", "coronal"), []
        for precision in (torch.float32, torch.bfloat16):
            monkeypatch.setattr(devices, "precision", lambda device, precision=precision: precision)
            found.append(classify_volume([model], array, torch.device("cpu"), lambda fraction: None).classes)
        agreement[architecture] = (found[0] == found[1]).mean()
    assert 0.997 < agreement["unet"] < 1  # if it were 1, nothing was computed in bfloat16
    assert agreement["sdnet"] == 1  # unpooling does not bear it
