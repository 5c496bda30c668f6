"""Segmentation of a volume, step by step: conformed volume, slices, networks, labels, the input's grid."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

import numpy as np
import SimpleITK as sitk
import torch

from ..analysis.volume_table import volumes_of
from ..choices.job import Job
from ..choices.parameters import Parameters
from ..choices.structures import Structure, selected
from ..errors import Cancelled, SEBrainSegError, UnlikelyError
from ..files.orientation import refuse_unknown, settled
from ..networks import bundled, user_models
from ..networks.classes import labels_of_classes
from ..networks.model_file import Model
from ..translation import tr as _
from . import devices, plausibility
from .brain_region import MeanConfidence, box_within, brain_box
from .cleanup import keep_largest, keep_pieces
from .geometry import BRAIN_SPACING, restore, without_single_axes
from .head_region import Box, head_box
from .label_resampling import labels_on_grid_of
from .preparation import prepare
from .result import Excitation, Segmentation
from .sides import part_sides
from .slices import Prediction, classify_volume

SMALLEST_BRAIN = 100.0  # ml; far below any brain with its structures


Report = Callable[[float, str], None]  # called with a fraction and a message; raises Cancelled


def segment(
    image: sitk.Image,
    architecture: str = "unet",
    se: str = "scse",
    view: str = "coronal",
    device: str = "auto",
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    protocol: str = "freesurfer",
    model: str = "",
    structures: str = "",
    confidence: bool = False,
    excitation: str = "",
    orientation: str = "",
    accept_unlikely: bool = False,
) -> Segmentation:
    """Segment 31 brain structures in a T1-weighted MR volume, or what a user's own network was trained for.

    Args:
        image: scalar 3D ``SimpleITK.Image`` of a head or a skull-stripped brain; any orientation and spacing. With a
            ``model``: whatever it was trained on, which may be 2D images, one or a stack of them.
        architecture: ``"unet"``, ``"sdnet"`` or ``"densenet"``.
        se: ``"none"``, ``"cse"``, ``"sse"`` or ``"scse"``, in any case.
        view: the direction of slicing, ``"coronal"``, ``"axial"`` or ``"sagittal"`` (whose sides are parted in the
            middle of the brain, see :mod:`.sides`), or ``"all"`` for their mean.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        progress: called with a fraction in [0, 1] and a message.
        cancelled: asked at least once a batch; a true answer ends the run.
        protocol: whose convention of drawing the structures to follow: ``"freesurfer"``, or ``"manual"`` for that of
            Neuromorphometrics' manual labels.
        model: name or path of a network that ``sebrainseg-train`` made, see :mod:`.user_models`, instead of the
            bundled one of that ``architecture``, ``se`` and ``view``.
        structures: those to keep, as in ``"Hippocampus, Left Amygdala"``; see :func:`.structures.selected`.
        confidence: whether to return the probability of the network's choice.
        excitation: name of the SE block whose excitation to return, as in ``"decoder 4"``.
        orientation: three letters as in ``"RAS"``, towards where the axes of ``image`` run, if its file did not say it;
            see :mod:`.orientation`. The labels are on a grid of this orientation, then.
        accept_unlikely: whether to return a result that is unlikely to be right, too; its
            ``implausibility`` says why.

    Returns:
        the labels on the grid of ``image``, the volumes in ml, and what else was asked for.

    Raises:
        SEBrainSegError: the volume or a choice is unusable, or no brain was found; the message says what to do.
        UnlikelyError: what was found is unlikely to be right, see :mod:`.plausibility`; a ``SEBrainSegError``, too.
        Cancelled: ``cancelled()`` was true.
    """
    parameters = Parameters(architecture, se, view, device, protocol, model, structures)
    image = settled(image, orientation, "The file")
    return run(image, Job((parameters,), confidence, excitation, accept_unlikely), progress, cancelled)[0]


def run(
    image: sitk.Image,
    job: Job,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Segmentation, ...]:
    """Segment a volume with one choice after the other; it is prepared once.

    Args:
        image, progress, cancelled: see :func:`segment`.
        job: the choices, and what to return besides the labels.

    Returns:
        a segmentation for every choice.

    Raises:
        SEBrainSegError, Cancelled: see :func:`segment`; nothing is returned for the choices before.
    """
    progress = progress or (lambda fraction, message: None)
    cancelled = cancelled or (lambda: False)
    image = without_single_axes(image)
    conformed: dict[tuple, _Conformed] = {}
    choices, segmentations = job.checked().choices, []
    for number, parameters in enumerate(choices):

        def report(fraction, message, number=number, title=parameters.title):
            if cancelled():
                raise Cancelled
            if len(choices) > 1:
                message = _("{title}: {message}").format(title=title, message=message)
            progress((number + fraction) / len(choices), message)

        try:
            segmentations.append(_segment_with(parameters, image, job, conformed, report))
        except SEBrainSegError as error:
            if len(choices) == 1:
                raise
            sentence = _("{title}: {sentence}").format(title=parameters.title, sentence=error.sentence)
            raise type(error)(sentence) from None
    return tuple(segmentations)


@dataclass(frozen=True)
class _Conformed:
    """A volume on the grid and with the intensities that networks take.

    Attributes:
        grid: image of that grid.
        array: normalised intensities, ``[S, A, R]``.
    """

    grid: sitk.Image
    array: np.ndarray

    def whole(self, part: np.ndarray, box: Box) -> np.ndarray:
        """Return an array of the whole grid, 0 but for a part."""
        array = np.zeros(self.array.shape, part.dtype)
        array[box] = part
        return array


@dataclass(frozen=True)
class _Classified:
    """The prediction for the part of a conformed volume where the brain is.

    Attributes:
        prediction: for that part.
        box: the part.
        confidence: mean probability of what is labelled, in [0, 1]; ``None`` if it is not known.
        device: where it was computed.
    """

    prediction: Prediction
    box: Box
    confidence: float | None
    device: torch.device


def _segment_with(
    parameters: Parameters, image: sitk.Image, job: Job, conformed_before: dict[tuple, _Conformed], report: Report
) -> Segmentation:
    """Segment a volume with one choice.

    Args:
        conformed_before: what was prepared for other choices, by spacing and window; added to.
    """
    started = time.monotonic()
    device = devices.choose(parameters.device)
    report(0.0, _("Loading the network"))
    models = _load_models(parameters)
    table, is_brain = models[0].structures, models[0].segments_brains
    kept = selected(parameters.structures, table)
    report(0.05, _("Preparing the volume"))
    conformed = _conform(image, models[0], conformed_before)
    implausibility = plausibility.why_no_scan(image) if is_brain else ""
    _refuse_implausible(implausibility, job)
    classified = _classify(models, conformed.array, device, job, report)
    report(0.9, _("Returning to the input's grid"))
    classes = conformed.whole(_clean_up(classified.prediction.classes, models), classified.box)
    conformed_labels = labels_of_classes(table)[classes]
    labels = _labels_on_input(conformed_labels, conformed.grid, image)
    volumes = volumes_of(labels, table)
    if is_brain:
        implausibility = implausibility or _why_implausible(
            image, conformed, conformed_labels, volumes, classified.confidence, parameters, models[0]
        )
        _refuse_implausible(implausibility, job)
    confidence, confidences = None, {}
    if classified.prediction.confidence is not None:
        probabilities = conformed.whole(classified.prediction.confidence, classified.box)
        confidences = _mean_by_label(probabilities, classes, table, kept)
        confidence = _on_input(probabilities, conformed.grid, image, sitk.sitkLinear)
    excitation = _excitation(job.excitation, classified, conformed, image) if job.excitation else None
    if kept != table:
        labels = _labels_of(kept, labels)
        volumes = {structure.label: volumes[structure.label] for structure in kept}
    report(1.0, _("Done"))
    return Segmentation(
        labels,
        volumes,
        str(classified.device),
        kept,
        parameters,
        time.monotonic() - started,
        confidences,
        confidence,
        excitation,
        implausibility,
        plausibility.cut_off(labels, kept) if is_brain else (),
    )


def _load_models(parameters: Parameters) -> list[Model]:
    """Load the networks of a choice: a user's own, or a bundled one for each of its views."""
    if parameters.model:
        return [user_models.load(parameters.model, parameters.protocol)]
    return [
        bundled.load(parameters.architecture, parameters.se, view, parameters.protocol) for view in parameters.views
    ]


def _conform(image: sitk.Image, model: Model, conformed_before: dict[tuple, _Conformed]) -> _Conformed:
    """Bring a volume to the grid and the intensities of a model, unless that was done for another."""
    if model.spacing is not None:
        refuse_unknown(image)
    needs = model.spacing, model.window
    if needs not in conformed_before:
        conformed_before[needs] = _Conformed(*prepare(image, *needs))
    return conformed_before[needs]


def _refuse_implausible(implausibility: str, job: Job) -> None:
    """Raise :class:`UnlikelyError` if a result is unlikely to be right, unless the job accepts it."""
    if implausibility and not job.accept_unlikely:
        raise UnlikelyError(implausibility)


def _classify(
    models: Sequence[Model], array: np.ndarray, device: torch.device, job: Job, report: Report
) -> _Classified:
    """Classify a conformed array on a device, or on the CPU where the device cannot."""
    note = ""
    if not all(devices.can_run(model.network, device) for model in models):
        note = _(", as the GPU ({device}) lacks an operation of this network").format(device=device)
        device = torch.device("cpu")
    try:
        return _classify_on(device, models, array, job, report, note)
    except RuntimeError as error:
        if device.type == "cpu" or not devices.is_out_of_memory(error):
            raise
    # Outside of the clause above, whose traceback would keep the GPU's memory in use.
    for model in models:
        model.network.to("cpu")
    devices.release_memory(device)
    report(0.15, _("The GPU's memory is full, going on with the CPU"))
    return _classify_on(torch.device("cpu"), models, array, job, report)


def _classify_on(
    device: torch.device, models: Sequence[Model], array: np.ndarray, job: Job, report: Report, note: str = ""
) -> _Classified:
    """Find the brain in a conformed array and classify its voxels.

    Args:
        note: goes with the messages.
    """
    model, confidence = models[0], MeanConfidence()
    views = " and ".join(each.view for each in models)

    def batch_done(fraction: float) -> None:
        text = _("Segmenting {views} slices on {device}{note}")
        report(0.15 + 0.75 * fraction, text.format(views=views, device=device, note=note))

    batch_done(0.0)
    box: Box = (slice(None),) * 3
    if model.segments_brains:
        box = head_box(array, spacing=model.spacing or BRAIN_SPACING)
    # To the device once, and the result back once.
    volume = torch.as_tensor(array[box]).to(device)
    if model.segments_brains:
        part = brain_box(model, volume, device, lambda: batch_done(0.0), confidence)
        volume, box = volume[part], box_within(box, part)
    prediction = classify_volume(models, volume, device, batch_done, job.confidence, job.excitation)
    return _Classified(prediction, box, confidence.value, device)


def _clean_up(classes: np.ndarray, models: Sequence[Model]) -> np.ndarray:
    """Remove what is apart from the brain or from its structure; part the sides of sagittal slices."""
    if not models[0].segments_brains:
        return classes
    spacing = models[0].spacing or BRAIN_SPACING
    classes = keep_largest(classes, spacing)
    if [model.view for model in models] == ["sagittal"]:
        classes = part_sides(classes, spacing)
    return keep_pieces(classes)


def _why_implausible(
    image: sitk.Image,
    conformed: _Conformed,
    labels: np.ndarray,
    volumes: dict[int, float],
    confidence: float | None,
    parameters: Parameters,
    model: Model,
) -> str:
    """Return a sentence on why a segmented brain is unlikely to be right; ``""`` if it may be.

    Args:
        labels: on the conformed grid.
        volumes: ml by label.
        confidence: see :class:`_Classified`.

    Raises:
        SEBrainSegError: no brain was found.
    """
    total = sum(volumes.values())
    if total < SMALLEST_BRAIN:
        few = f"Only {total:.0f} ml of brain were found; {plausibility.why_none(image, conformed.array)}."
        if not total:
            raise SEBrainSegError(few)
        return few
    evidence = labels, conformed.array, volumes, confidence, parameters
    if not parameters.model:
        return plausibility.why_unlikely(*evidence)
    # A user's network follows a protocol of the table only if its file says so.
    return plausibility.why_unlikely(*evidence, model.spacing or BRAIN_SPACING, model.protocol)


def _mean_by_label(
    values: np.ndarray, classes: np.ndarray, table: Sequence[Structure], kept: Sequence[Structure]
) -> dict[int, float]:
    """Return the mean of values over the voxels of every structure that was found, by label, of those to keep."""
    labelled = classes > 0
    sums = np.bincount(classes[labelled], weights=values[labelled], minlength=len(table) + 1)
    counts = np.bincount(classes[labelled], minlength=len(table) + 1)
    means = {each.label: (sums[index], counts[index]) for index, each in enumerate(table, start=1) if each in kept}
    return {label: float(total / count) for label, (total, count) in means.items() if count}


def _excitation(block: str, classified: _Classified, conformed: _Conformed, image: sitk.Image) -> Excitation:
    """Return the excitation of an SE block, its map on the input's grid."""
    spatial, channels = classified.prediction.spatial, classified.prediction.channels
    return Excitation(
        block,
        None if spatial is None else _on_input(conformed.whole(spatial, classified.box), conformed.grid, image),
        () if channels is None else tuple(float(value) for value in np.mean(channels, axis=0)),
        () if channels is None else tuple(float(value) for value in np.std(channels, axis=0)),
    )


def _labels_of(kept: Sequence[Structure], labels: sitk.Image) -> sitk.Image:
    """Return a label image without the labels of other structures."""
    voxels = sitk.GetArrayViewFromImage(labels)
    label_of = np.zeros(int(voxels.max()) + 1, voxels.dtype)
    for structure in kept:
        if structure.label < len(label_of):
            label_of[structure.label] = structure.label
    image = sitk.GetImageFromArray(label_of[voxels])
    image.CopyInformation(labels)
    return image


def _labels_on_input(labels: np.ndarray, grid: sitk.Image, image: sitk.Image) -> sitk.Image:
    """Return labels on the conformed grid as labels on the grid of the input."""
    if image.GetDimension() == 2:
        return _on_input(labels, grid, image)
    return labels_on_grid_of(_image_on(grid, labels), image)


def _on_input(
    array: np.ndarray, grid: sitk.Image, image: sitk.Image, interpolator: int = sitk.sitkNearestNeighbor
) -> sitk.Image:
    """Return an array on the conformed grid as an image on the grid of the input, which may be 2D."""
    conformed = _image_on(grid, array)
    if image.GetDimension() == 2:
        conformed = conformed[:, :, 0]
        conformed.CopyInformation(image)
        return conformed
    return restore(conformed, image, interpolator)


def _image_on(grid: sitk.Image, array: np.ndarray) -> sitk.Image:
    """Return an array as an image on a grid."""
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(grid)
    return image
