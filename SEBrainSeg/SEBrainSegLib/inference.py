"""From a volume to its structures: conformed volume -> slices -> network -> labels -> the input's grid."""

import contextlib
import time
from dataclasses import dataclass
from typing import Optional

import numpy as np
import SimpleITK as sitk
import torch
from torch.nn import functional

from . import devices, no_brain, plausibility, user_models, zoo
from .errors import Cancelled, SEBrainSegError, UnlikelyError
from .excitation import Recorder
from .job import Job
from .networks import Unpooling
from .orientation import refuse_unknown, settled
from .parameters import Parameters
from .segmentation import Excitation, Segmentation
from .sides import part_sides
from .structures import labels_of_classes, selected, unsided_classes
from .volume import VIEWS, head_box, plain, prepare, restore
from .volumes import volumes_of

MULTIPLE = 16  # four max poolings halve a slice four times
# Where the brain is, every 16th slice tells: its pieces of at least 200 mm2, with 8 mm around them.
APART, LEAST, MARGIN = 16, 200, 8
# A view's log-probabilities go into the mean of three in steps of 0.1, from -8.5 on, so that a byte holds their sum.
STEP, STEPS = 0.1, 85
SMALLEST_PIECE = 0.1  # of a structure's largest piece
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
    choices, prepared, found = job.checked().choices, {}, []
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
            zoo.load(parameters.architecture, parameters.se, view, parameters.protocol) for view in parameters.views
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
            few = f"Only {total:.0f} ml of brain were found; {no_brain.why_none(image, array)}."
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


class Sureness:
    """The mean probability that a network gives to what it labels, of those of its slices that are taken."""

    def __init__(self):
        self.total, self.count = 0.0, 0

    def take(self, logits, labelled):
        """Add slices: logits ``(n, classes, H, W)``, and where they are labelled, ``(n, H, W)``."""
        # Of these pixels only, which are few: a softmax of all would cost as much as a tenth of the network.
        some = logits.movedim(1, -1)[labelled].float()
        self.total += float((some.amax(dim=1) - some.logsumexp(dim=1)).exp().sum())
        self.count += len(some)

    @property
    def mean(self):
        """In [0, 1]; ``None`` if nothing was labelled."""
        return self.total / self.count if self.count else None


def brain_box(model, array, device, batch_done, sureness=None):
    """Return the box ``[S, A, R]`` of a conformed array that holds the brain; all of it if none is seen.

    The networks look at nothing else: face and neck take time and tell nothing.

    Args:
        model: the :class:`~.model.Model` that is asked.
        batch_done: called after every batch.
        sureness: a :class:`Sureness` that takes the slices that are looked at.
    """
    axis, slices = VIEWS[model.view], slices_of(array, model.view)
    low, high = np.array(slices.shape), np.zeros(3, int)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    probed = range(0, len(slices), APART)
    for first, logits in logits_of_slices(model.network, slices, device, model.smoothing, probed):
        mask = logits.argmax(dim=1) > 0
        if sureness is not None:
            sureness.take(logits, mask)
        for number, labelled in enumerate(mask.to(torch.uint8).cpu().numpy(), start=first):
            shapes.Execute(sitk.ConnectedComponent(sitk.GetImageFromArray(labelled)))
            for piece in shapes.GetLabels():
                if shapes.GetNumberOfPixels(piece) >= LEAST:
                    column, row, columns, rows = shapes.GetBoundingBox(piece)
                    low = np.minimum(low, (APART * (number - 1), row - MARGIN, column - MARGIN))
                    high = np.maximum(high, (APART * (number + 1), row + rows + MARGIN, column + columns + MARGIN))
        batch_done()
    if (low >= high).any():
        return tuple(slice(0, side) for side in array.shape)
    box = []
    for start, stop, side in zip(low, high, slices.shape):
        start, stop = max(0, start), min(stop, side)
        if box:
            # From a multiple of 16, so that poolings meet the same pixels as without a box, and filled up with what is
            # there to what a slice would be padded to with zeros.
            start -= start % MULTIPLE
            stop = min(start + padded((stop - start,))[0], side)
        box.append(slice(int(start), int(stop)))
    box.insert(axis, box.pop(0))
    return tuple(box)


def slices_of(array, view):
    """Return the slices of an array or tensor ``[S, A, R]`` in a direction, a tensor ``(N, H, W)``, without copying."""
    return torch.as_tensor(array).movedim(VIEWS[view], 0)


def inside(box, other):
    """Return the box that ``other`` within ``box`` is."""
    return tuple(slice(outer.start + inner.start, outer.start + inner.stop) for outer, inner in zip(box, other))


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


@dataclass(frozen=True)
class Found:
    """What networks say of a conformed array ``[S, A, R]``.

    Attributes:
        classes: class index of every voxel.
        confidence: probability of that class in [0, 1], or ``None``.
        spatial: spatial excitation of one SE block in [0, 1], or ``None``.
        channels: its channel excitation, ``(slices, C)``, or ``None``.
    """

    classes: np.ndarray
    confidence: Optional[np.ndarray] = None
    spatial: Optional[np.ndarray] = None
    channels: Optional[np.ndarray] = None


def look(models, array, device, batch_done, confidence=False, excitation=""):
    """Return what one network says of a conformed array, or three together, as :class:`Found`.

    Args:
        array: array or tensor ``[S, A, R]``, wherever it is.
        models: a list of one :class:`~.model.Model`, or of three, one for each view.
        batch_done: called with the fraction of the slices that are done.
        confidence: whether to find the probability of every voxel's class.
        excitation: name of an SE block of the first network, or ``""``.
    """
    axis = VIEWS[models[0].view]
    shape = tuple(slices_of(array, models[0].view).shape)
    recorder = Recorder(models[0].network, excitation, shape) if excitation else None
    with recorder or contextlib.nullcontext():
        if len(models) == 1:
            classes, probabilities = classify(models[0], array, device, batch_done, confidence, recorder)
        else:
            classes, probabilities = classify_in_views(models, array, device, batch_done, confidence, recorder)
    if recorder is None:
        return Found(classes, probabilities)
    spatial = None if recorder.spatial is None else np.moveaxis(recorder.spatial, 0, axis)
    return Found(classes, probabilities, spatial, recorder.channels)


def on_grid_of(array, grid, image, interpolator=sitk.sitkNearestNeighbor):
    """Return an array on ``grid`` as an image on the grid of ``image``, which may be 2D."""
    found = sitk.GetImageFromArray(array)
    found.CopyInformation(grid)
    if image.GetDimension() == 2:
        found = found[:, :, 0]
        found.CopyInformation(image)
        return found
    return restore(found, image, interpolator)


def class_numbers(model):
    """The type that holds the class indices of a model."""
    return torch.uint8 if len(model.structures) < 256 else torch.int32


def logits_of_slices(network, slices, device, smoothing=(), numbers=None):
    """Yield ``(first, logits)`` for successive batches of slices ``(N, H, W)``; logits ``(n, classes, H, W)``.

    A network that takes several slices gets the neighbours of each; beyond the first and the last, these are repeated.

    They are computed in the device's :func:`.devices.precision`, but for networks that unpool: rounding moves maxima
    whose positions they use. Out of GPU memory, the batch is halved until one slice does not fit.

    Args:
        slices: tensor on any device.
        smoothing: see :class:`~.model.Model`.
        numbers: of the slices to compute; ``None``: all. ``first`` counts among them.
    """
    slices = slices.to(device)
    last_slice, rows, columns = len(slices) - 1, *slices.shape[1:]
    reach = network.slices // 2
    neighbours = torch.arange(-reach, reach + 1, device=device)
    numbers = torch.arange(len(slices), device=device) if numbers is None else torch.tensor(numbers, device=device)
    count = len(numbers)
    last_row, last_column = padded((rows, columns))
    network = network.to(device, memory_format=torch.channels_last)
    first, size = 0, devices.batch(device, last_row * last_column)
    precision = torch.float32 if isinstance(network, Unpooling) else devices.precision(device)
    reduced = torch.autocast(device.type, precision, enabled=precision != torch.float32)
    while first < count:
        try:
            wanted = (numbers[first : first + size, None] + neighbours).clamp(0, last_slice)
            batch = slices[wanted.flatten()]
            batch = smoothed(batch, batch.new_tensor(smoothing)) if smoothing else batch
            batch = functional.pad(batch, (0, last_column - columns, 0, last_row - rows))
            with torch.inference_mode(), reduced:
                logits = network(batch.unflatten(0, wanted.shape).contiguous())[:, :, :rows, :columns]
        except RuntimeError as error:
            if size == 1 or not devices.is_out_of_memory(error):
                raise
            logits = None
        if logits is None:
            size //= 2
            devices.release_memory(device)
            continue
        yield first, logits
        first += len(logits)


def smoothed(slices, taps):
    """Return slices ``(N, H, W)`` convolved with an odd number of taps along rows and columns; borders go on beyond."""
    stack = functional.pad(slices[:, None], (len(taps) // 2,) * 4, mode="replicate")
    stack = functional.conv2d(stack, taps[None, None, :, None])
    return functional.conv2d(stack, taps[None, None, None, :])[:, 0]


def padded(size):
    """Rows and columns of a slice as a network is given it."""
    return tuple(side + -side % MULTIPLE for side in size)


def classify(model, array, device, batch_done, confidence=False, recorder=None):
    """Return the class index of every voxel of a conformed array ``[S, A, R]`` by one network.

    Args:
        model: a :class:`~.model.Model`.
        batch_done: called with the fraction of the slices that are done.
        confidence: whether to return the probability of that class, too; else ``None`` stands for it.
        recorder: an :class:`~.excitation.Recorder` of the network, or ``None``.

    Returns:
        ``(classes, confidence)``.
    """
    axis, slices = VIEWS[model.view], slices_of(array, model.view)
    found = torch.zeros(slices.shape, dtype=class_numbers(model), device=device)
    sure = torch.zeros(slices.shape, device=device) if confidence else None
    for first, logits in logits_of_slices(model.network, slices, device, model.smoothing):
        last = first + len(logits)
        if recorder is not None:
            recorder.take(first, padded(slices.shape[1:]))
        found[first:last] = logits.argmax(dim=1)
        if confidence:
            # The largest softmax probability, without the others.
            logits = logits.float()
            sure[first:last] = (logits.amax(dim=1) - logits.logsumexp(dim=1)).exp()
        batch_done(last / len(slices))
    return tuple(None if each is None else each.movedim(0, axis).cpu().numpy() for each in (found, sure))


def classify_in_views(models, array, device, batch_done, confidence=False, recorder=None):
    """Return the class of the largest mean of the log-probabilities of three views, uint8 ``[S, A, R]``.

    The sagittal network knows no sides: what it gives to a structure of the left counts for that of the right as well,
    and the other two views decide between them.

    Args:
        confidence: whether to return the probability of that class by the mean, too; else ``None`` stands for it.
        recorder: an :class:`~.excitation.Recorder` of the first network, or ``None``.

    Returns:
        ``(classes, confidence)``.
    """
    classes = len(models[0].structures) + 1
    votes = torch.zeros((classes, *array.shape), dtype=torch.uint8, device=device)
    unsided = torch.from_numpy(unsided_classes()[:classes].astype(np.int64)).to(device)
    for number, model in enumerate(models):
        in_slices, slices = votes.movedim(VIEWS[model.view] + 1, 0), slices_of(array, model.view)
        for first, logits in logits_of_slices(model.network, slices, device, model.smoothing):
            last = first + len(logits)
            if recorder is not None and number == 0:
                recorder.take(first, padded(slices.shape[1:]))
            steps = logits.float().log_softmax(dim=1).div_(STEP).add_(STEPS).clamp_(min=0).round_().to(torch.uint8)
            in_slices[first:last] += steps[:, unsided] if model.view == "sagittal" else steps
            batch_done((number + last / len(slices)) / len(models))
    found = votes.argmax(dim=0).to(torch.uint8).cpu().numpy()
    return found, probability_of_most(votes, STEP / len(models)) if confidence else None


def probability_of_most(votes, step):
    """Return the probability of the class with most votes, ``[S, A, R]`` in [0, 1].

    Args:
        votes: uint8 ``(classes, S, A, R)``, logarithms of probabilities but for a constant.
        step: of these logarithms.
    """
    # Plane by plane: as numbers of 4 bytes all would take much memory.
    planes = (step * votes[:, number].float() for number in range(votes.shape[1]))
    return torch.stack([(plane.amax(dim=0) - plane.logsumexp(dim=0)).exp() for plane in planes]).cpu().numpy()


def keep_largest(classes):
    """Keep the largest piece of all that is labelled, and nothing that hangs on it by a sheet of under 5 mm.

    A brain is one piece; labels apart from it, or joined to it by a film of scalp, are not brain.
    """
    labelled = sitk.GetImageFromArray((classes > 0).astype(np.uint8))
    pieces = sitk.ConnectedComponent(sitk.BinaryErode(labelled, [2, 2, 2]))
    sizes = np.bincount(sitk.GetArrayViewFromImage(pieces).ravel())
    if len(sizes) < 2:
        return classes
    brain = sitk.BinaryDilate(pieces == 1 + int(np.argmax(sizes[1:])), [4, 4, 4])
    return classes * sitk.GetArrayViewFromImage(brain)


def keep_pieces(classes, share=SMALLEST_PIECE):
    """Keep the largest piece of every structure, and others that are not much smaller; touching corners connect.

    Args:
        classes: class indices ``[S, A, R]``, 0 where there is none.
        share: of the largest piece's voxels, in [0, 1]; pieces of fewer go to the background.
    """
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(sitk.GetImageFromArray(classes))
    kept = np.zeros_like(classes)
    for index in shapes.GetLabels():
        start, size = np.reshape(shapes.GetBoundingBox(index), (2, 3))[:, ::-1]
        box = tuple(slice(first, first + count) for first, count in zip(start, size))
        own = sitk.GetImageFromArray((classes[box] == index).astype(np.uint8))
        pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(own, True))
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        kept[box][(sizes >= max(1, share * sizes.max()))[pieces]] = index
    return kept
