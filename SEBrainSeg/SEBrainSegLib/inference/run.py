"""From a volume to its structures: conformed volume -> slices -> network -> labels -> the input's grid."""

import time

import numpy as np
import SimpleITK as sitk
import torch

from ..analysis.volume_table import volumes_of
from ..choices.job import Job
from ..choices.parameters import Parameters
from ..choices.structures import selected
from ..errors import Cancelled, SEBrainSegError, UnlikelyError
from ..files.orientation import refuse_unknown, settled
from ..networks import bundled, user_models
from ..networks.classes import labels_of_classes
from . import devices, plausibility
from .brain_region import Sureness, brain_box, inside
from .cleanup import keep_largest, keep_pieces
from .geometry import plain, restore
from .head_region import head_box
from .preparation import prepare
from .result import Excitation, Segmentation
from .sides import part_sides
from .slices import look

SMALLEST_BRAIN = 100.0  # ml; far below any brain with its structures


def segment(
    image,
    architecture="unet",
    se="scse",
    view="coronal",
    device="auto",
    progress=None,
    cancelled=None,
    protocol="freesurfer",
    model="",
    structures="",
    confidence=False,
    excitation="",
    orientation="",
    accept_unlikely=False,
) -> Segmentation:
    """Segment 31 brain structures in a T1-weighted MR volume, or what a network of the user's was trained for.

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
        confidence: whether to tell the probability of the network's choice.
        excitation: name of the SE block whose excitation to tell, as in ``"decoder 4"``.
        orientation: three letters as in ``"RAS"``, towards where the axes of ``image`` run, if its file did not say it;
            see :mod:`.orientation`. The labels are on a grid of this orientation, then.
        accept_unlikely: whether to return a result that is unlikely to be right, too; its ``doubt`` says why.

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


def run(image, job, progress=None, cancelled=None) -> tuple[Segmentation, ...]:
    """Segment a volume with one choice after the other; it is prepared once.

    Args:
        image, progress, cancelled: see :func:`segment`.
        job: a :class:`~.job.Job`.

    Returns:
        a segmentation for every choice.

    Raises:
        SEBrainSegError, Cancelled: see :func:`segment`; nothing is returned for the choices before.
    """
    progress = progress or (lambda fraction, message: None)
    cancelled = cancelled or (lambda: False)
    image = plain(image)
    prepared: dict[object, tuple] = {}
    choices, found = job.checked().choices, []
    for number, parameters in enumerate(choices):

        def step(fraction, message, number=number, title=parameters.title):
            if cancelled():
                raise Cancelled
            which = f"{title}: " if len(choices) > 1 else ""
            progress((number + fraction) / len(choices), which + message)

        try:
            found.append(run_choice(image, job, parameters, prepared, step))
        except SEBrainSegError as error:
            if len(choices) == 1:
                raise
            raise type(error)(f"{parameters.title}: {error}") from None
    return tuple(found)


def run_choice(image, job, parameters, prepared, step):
    """Segment a volume with one choice.

    Args:
        job: what to tell besides the labels.
        prepared: what other choices have prepared, by what their networks take; added to.
        step: called with a fraction and a message; raises :class:`Cancelled`.
    """
    started = time.monotonic()
    target = devices.choose(parameters.device)
    step(0.0, "Loading the network")
    if parameters.model:
        models = [user_models.load(parameters.model, parameters.protocol)]
    else:
        models = [
            bundled.load(parameters.architecture, parameters.se, view, parameters.protocol) for view in parameters.views
        ]
    kept, brain = selected(parameters.structures, models[0].structures), models[0].segments_brains
    step(0.05, "Preparing the volume")
    needs = models[0].spacing, models[0].window
    if models[0].spacing is not None:
        refuse_unknown(image)
    if needs not in prepared:
        prepared[needs] = prepare(image, *needs)
    grid, array = prepared[needs]
    doubt = plausibility.why_no_scan(image) if brain else ""
    refuse_unlikely(doubt, job)
    box = head_box(array) if brain else (slice(None),) * 3
    views = " and ".join(each.view for each in models)
    sureness = Sureness()

    def batch_done(fraction):
        step(0.15 + 0.75 * fraction, f"Segmenting {views} slices on {target}")

    def found_on(device):
        # To the device once, and the result back once.
        volume, within = torch.as_tensor(array[box]).to(device), box
        if brain:
            part = brain_box(models[0], volume, device, lambda: batch_done(0.0), sureness)
            volume, within = volume[part], inside(box, part)
        return within, look(models, volume, device, batch_done, job.confidence, job.excitation)

    batch_done(0.0)
    try:
        box, found = found_on(target)
    except RuntimeError as error:
        if target.type == "cpu" or not devices.is_out_of_memory(error):
            raise
        found = None
    # Outside of the clause above, whose traceback would keep the GPU's memory in use.
    if found is None:
        for each in models:
            each.network.to("cpu")
        devices.release_memory(target)
        target = torch.device("cpu")
        step(0.15, "The GPU's memory is full, going on with the CPU")
        box, found = found_on(target)
    step(0.9, "Returning to the input's grid")

    def whole(part):
        volume = np.zeros(array.shape, part.dtype)
        volume[box] = part
        return volume

    classes = found.classes
    if brain:
        classes = keep_largest(classes)
        classes = keep_pieces(part_sides(classes) if [each.view for each in models] == ["sagittal"] else classes)
    classes = whole(classes)
    conformed = labels_of_classes(models[0].structures)[classes]
    labels = on_grid_of(conformed, grid, image)
    volumes = volumes_of(labels, models[0].structures)
    if brain:
        total = sum(volumes.values())
        if total < SMALLEST_BRAIN:
            few = f"Only {total:.0f} ml of brain were found; {plausibility.why_none(image, array)}."
            if not total:
                raise SEBrainSegError(few)
            doubt = doubt or few
        doubt = doubt or plausibility.why_unlikely(conformed, array, volumes, sureness.mean, parameters)
        refuse_unlikely(doubt, job)
    confidence, confidences = None, {}
    if job.confidence:
        confidence = whole(found.confidence)
        confidences = mean_by_label(confidence, classes, models[0].structures, kept)
        confidence = on_grid_of(confidence, grid, image, sitk.sitkLinear)
    excitation = None
    if job.excitation:
        spatial, channels = found.spatial, () if found.channels is None else found.channels
        excitation = Excitation(
            job.excitation,
            None if spatial is None else on_grid_of(whole(spatial), grid, image),
            tuple(float(value) for value in np.mean(channels, axis=0)) if len(channels) else (),
            tuple(float(value) for value in np.std(channels, axis=0)) if len(channels) else (),
        )
    if kept != models[0].structures:
        labels = only(labels, kept)
        volumes = {structure.label: volumes[structure.label] for structure in kept}
    step(1.0, "Done")
    return Segmentation(
        labels,
        volumes,
        str(target),
        kept,
        parameters,
        time.monotonic() - started,
        confidences,
        confidence,
        excitation,
        doubt,
        plausibility.cut_off(labels, kept) if brain else (),
    )


def refuse_unlikely(doubt, job):
    """Raise :class:`UnlikelyError` if there is a doubt about the result, unless the job accepts it."""
    if doubt and not job.accept_unlikely:
        raise UnlikelyError(doubt)


def mean_by_label(values, classes, table, kept):
    """Return the mean of values over the voxels of every structure that was found, by label, of those to keep."""
    labelled = classes > 0
    sums = np.bincount(classes[labelled], weights=values[labelled], minlength=len(table) + 1)
    counts = np.bincount(classes[labelled], minlength=len(table) + 1)
    means = {each.label: (sums[index], counts[index]) for index, each in enumerate(table, start=1) if each in kept}
    return {label: float(total / count) for label, (total, count) in means.items() if count}


def only(labels, structures):
    """Return a label image without the labels of other structures."""
    voxels = sitk.GetArrayViewFromImage(labels)
    kept = np.zeros(int(voxels.max()) + 1, voxels.dtype)
    for structure in structures:
        if structure.label < len(kept):
            kept[structure.label] = structure.label
    image = sitk.GetImageFromArray(kept[voxels])
    image.CopyInformation(labels)
    return image


def on_grid_of(array, grid, image, interpolator=sitk.sitkNearestNeighbor):
    """Return an array on ``grid`` as an image on the grid of ``image``, which may be 2D."""
    found = sitk.GetImageFromArray(array)
    found.CopyInformation(grid)
    if image.GetDimension() == 2:
        found = found[:, :, 0]
        found.CopyInformation(image)
        return found
    return restore(found, image, interpolator)
