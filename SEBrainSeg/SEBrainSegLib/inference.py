"""From a volume to its structures: conformed volume -> slices -> network -> labels -> the input's grid."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from . import devices, user_models, zoo
from .errors import Cancelled, SEBrainSegError
from .parameters import Parameters
from .structures import Structure, labels_of_classes, unsided_classes
from .volume import VIEWS, head_box, prepare, restore

BATCH = {"cpu": 4, "mps": 8, "cuda": 16}
MULTIPLE = 16  # four max poolings halve a slice four times
# How much each view counts among all three; the sagittal one cannot tell the sides.
VIEW_WEIGHTS = {"coronal": 0.4, "axial": 0.4, "sagittal": 0.2}
SMALLEST_PIECE = 0.1  # of a structure's largest piece
SMALLEST_BRAIN = 100.0  # ml; far below any brain with its structures


@dataclass(frozen=True)
class Segmentation:
    """What was found in a volume.

    Attributes:
        labels: image of labels on the input's grid, 0 elsewhere; FreeSurfer ids with a bundled network. uint8, or
            uint16 if a label exceeds 255.
        volumes: ml of every structure by label, measured on ``labels``; a 2D image counts as 1 mm thick.
        device: name of the device that the network ran on.
        structures: what the labels are.
    """

    labels: sitk.Image
    volumes: dict[int, float]
    device: str
    structures: tuple[Structure, ...] = ()


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
) -> Segmentation:
    """Segment 31 brain structures in a T1-weighted MR volume, or what a network of the user's was trained for.

    Args:
        image: scalar 3D ``SimpleITK.Image`` of a head or a skull-stripped brain; any orientation and spacing. With a
            ``model``: whatever it was trained on, which may be 2D images, one or a stack of them.
        architecture: ``"unet"``, ``"sdnet"`` or ``"densenet"``.
        se: ``"none"``, ``"cse"``, ``"sse"`` or ``"scse"``, in any case.
        view: the direction of slicing, ``"coronal"``, ``"axial"`` or ``"sagittal"``, or ``"all"`` for their mean.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        progress: called with a fraction in [0, 1] and a message.
        cancelled: asked at least once a batch; a true answer ends the run.
        protocol: whose convention of drawing the structures to follow: ``"freesurfer"``, or ``"manual"`` for that of
            Neuromorphometrics' manual labels.
        model: name or path of a network that ``sebrainseg-train`` made, see :mod:`.user_models`, instead of the
            bundled one of that ``architecture``, ``se`` and ``view``.

    Returns:
        the labels on the grid of ``image`` and the volumes in ml.

    Raises:
        SEBrainSegError: the volume or a choice is unusable, or no brain was found; the message says what to do.
        Cancelled: ``cancelled()`` was true.
    """
    progress = progress or (lambda fraction, message: None)
    cancelled = cancelled or (lambda: False)

    def step(fraction, message):
        if cancelled():
            raise Cancelled
        progress(fraction, message)

    chosen = Parameters(architecture, se, view, device, protocol, model).checked()
    target = devices.choose(chosen.device)
    step(0.0, "Loading the network")
    if chosen.model:
        models = [user_models.load(chosen.model, chosen.protocol)]
    else:
        models = [zoo.load(chosen.architecture, chosen.se, view, chosen.protocol) for view in chosen.views]
    brain = models[0].segments_brains
    step(0.05, "Preparing the volume")
    grid, array = prepare(image, models[0].spacing, models[0].window)
    views = " and ".join(each.view for each in models)

    def batch_done(fraction):
        step(0.15 + 0.75 * fraction, f"Segmenting {views} slices on {target}")

    def classes_on(device):
        if len(models) > 1:
            return classify_in_views(models, array[box], device, batch_done)
        return classify(models[0], array[box], device, batch_done)

    batch_done(0.0)
    box = head_box(array) if brain else (slice(None),) * 3
    classes = np.zeros(array.shape, class_numbers(models[0]))
    try:
        classes[box] = classes_on(target)
        full = False
    except RuntimeError as error:
        if target.type == "cpu" or not devices.is_out_of_memory(error):
            raise
        full = True
    # Outside of the clause above, whose traceback would keep the GPU's memory in use.
    if full:
        for each in models:
            each.network.to("cpu")
        devices.release_memory(target)
        target = torch.device("cpu")
        step(0.15, "The GPU's memory is full, going on with the CPU")
        classes[box] = classes_on(target)
    step(0.9, "Returning to the input's grid")
    labels = labels_of_classes(models[0].structures)[keep_pieces(keep_largest(classes)) if brain else classes]
    labels = on_grid_of(labels, grid, image)
    volumes = volumes_of(labels, models[0].structures)
    if brain and sum(volumes.values()) < SMALLEST_BRAIN:
        raise SEBrainSegError(
            f"Only {sum(volumes.values()):.0f} ml of brain were found; "
            "choose a T1-weighted scan of a whole head and check that its orientation and voxel spacing are right."
        )
    step(1.0, "Done")
    return Segmentation(labels, volumes, str(target), models[0].structures)


def on_grid_of(labels, grid, image):
    """Return an array of labels on ``grid`` as an image on the grid of ``image``, which may be 2D."""
    labels = sitk.GetImageFromArray(labels)
    labels.CopyInformation(grid)
    if image.GetDimension() == 2:
        labels = labels[:, :, 0]
        labels.CopyInformation(image)
        return labels
    return restore(labels, image)


def class_numbers(model):
    """The type that holds the class indices of a model."""
    return np.min_scalar_type(len(model.structures))


def logits_of_slices(network, slices, device):
    """Yield ``(first, logits)`` for successive batches of slices ``(N, H, W)``; logits ``(n, classes, H, W)``.

    Out of GPU memory, the batch is halved until one slice does not fit.
    """
    count, rows, columns = slices.shape
    slices = np.pad(slices, [(0, 0), (0, -rows % MULTIPLE), (0, -columns % MULTIPLE)])
    network = network.to(device, memory_format=torch.channels_last)
    first, size = 0, BATCH[device.type]
    while first < count:
        batch = torch.from_numpy(np.ascontiguousarray(slices[first : first + size]))[:, None]
        try:
            with torch.inference_mode():
                logits = network(batch.to(device))[:, :, :rows, :columns]
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


def classify(model, array, device, batch_done):
    """Return the class index of every voxel of a conformed array ``[S, A, R]`` by one network.

    Args:
        model: a :class:`~.model.Model`.
        batch_done: called with the fraction of the slices that are done.
    """
    axis = VIEWS[model.view]
    slices = np.moveaxis(array, axis, 0)
    found = np.zeros(slices.shape, class_numbers(model))
    for first, logits in logits_of_slices(model.network, slices, device):
        last = first + len(logits)
        found[first:last] = logits.argmax(dim=1).cpu().numpy()
        batch_done(last / len(slices))
    return np.moveaxis(found, 0, axis)


def classify_in_views(models, array, device, batch_done):
    """Return the class of the largest weighted mean of the probabilities of several views, uint8 ``[S, A, R]``.

    The sagittal network knows no sides: what it gives to a structure of the left counts for that of the right as well,
    and the other two views decide between them.
    """
    classes = len(models[0].structures) + 1
    # Probabilities times weight in steps of 1 / 255: a byte a class and voxel.
    votes = np.zeros((classes, *array.shape), np.uint8)
    unsided = torch.from_numpy(unsided_classes()[:classes].astype(np.int64))
    for number, model in enumerate(models):
        axis = VIEWS[model.view]
        in_slices = np.moveaxis(votes, axis + 1, 0)
        for first, logits in logits_of_slices(model.network, np.moveaxis(array, axis, 0), device):
            last = first + len(logits)
            probabilities = logits.softmax(dim=1) * (255 * VIEW_WEIGHTS[model.view])
            if model.view == "sagittal":
                probabilities = probabilities[:, unsided.to(probabilities.device)]
            in_slices[first:last] += probabilities.to(torch.uint8).cpu().numpy()
            batch_done((number + last / len(in_slices)) / len(models))
    return votes.argmax(axis=0).astype(np.uint8)


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


def volumes_of(labels, structures):
    """Return the ml of every structure by label of a label image."""
    side = labels.GetDimension()
    counts = np.bincount(sitk.GetArrayViewFromImage(labels).ravel())
    voxel = float(np.prod(labels.GetSpacing())) * abs(
        np.linalg.det(np.array(labels.GetDirection()).reshape(side, side))
    )
    counts = np.pad(counts, (0, max(structure.label for structure in structures) + 1))
    return {structure.label: float(counts[structure.label] * voxel / 1000) for structure in structures}
