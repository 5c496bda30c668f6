"""From a volume to its structures: conformed volume -> slices -> network -> labels -> the input's grid."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from . import devices, zoo
from .errors import Cancelled, SEBrainSegError
from .parameters import Parameters
from .structures import labels_of_classes, structures
from .volume import VIEWS, conform, head_box, normalise, restore

BATCH = {"cpu": 4, "mps": 8, "cuda": 16}
MULTIPLE = 16  # four max poolings halve a slice four times
SMALLEST_BRAIN = 100.0  # ml; far below any brain with its structures


@dataclass(frozen=True)
class Segmentation:
    """What was found in a volume.

    Attributes:
        labels: uint8 image of FreeSurfer ids on the input's grid, 0 elsewhere.
        volumes: ml of every structure by FreeSurfer id, measured on ``labels``.
        device: name of the device that the network ran on.
    """

    labels: sitk.Image
    volumes: dict[int, float]
    device: str


def segment(
    image, architecture="unet", se="scse", view="coronal", device="auto", progress=None, cancelled=None
) -> Segmentation:
    """Segment 31 brain structures in a T1-weighted MR volume.

    Args:
        image: scalar 3D ``SimpleITK.Image`` of a head or a skull-stripped brain; any orientation and spacing.
        architecture: ``"unet"``.
        se: ``"none"``, ``"cse"``, ``"sse"`` or ``"scse"``, in any case.
        view: ``"coronal"``: the direction of slicing.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        progress: called with a fraction in [0, 1] and a message.
        cancelled: asked at least once a batch; a true answer ends the run.

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

    chosen = Parameters(architecture, se, view, device).checked()
    step(0.0, "Preparing the volume")
    target = devices.choose(chosen.device)
    conformed = conform(image)
    array = normalise(sitk.GetArrayFromImage(conformed))
    step(0.1, "Loading the network")
    network = zoo.load(chosen.architecture, chosen.se, chosen.view)

    def batch_done(fraction):
        step(0.15 + 0.75 * fraction, f"Segmenting {chosen.view} slices on {target}")

    batch_done(0.0)
    box = head_box(array)
    classes = np.zeros(array.shape, np.uint8)
    try:
        classes[box] = classify(network, array[box], chosen.view, target, batch_done)
        full = False
    except RuntimeError as error:
        if target.type == "cpu" or not devices.is_out_of_memory(error):
            raise
        full = True
    # Outside of the clause above, whose traceback would keep the GPU's memory in use.
    if full:
        network.to("cpu")
        devices.release_memory(target)
        target = torch.device("cpu")
        step(0.15, "The GPU's memory is full, going on with the CPU")
        classes[box] = classify(network, array[box], chosen.view, target, batch_done)
    step(0.9, "Returning to the input's grid")
    labels = sitk.GetImageFromArray(labels_of_classes()[keep_largest(classes)])
    labels.CopyInformation(conformed)
    labels = restore(labels, image)
    volumes = volumes_of(labels)
    if sum(volumes.values()) < SMALLEST_BRAIN:
        raise SEBrainSegError(
            f"Only {sum(volumes.values()):.0f} ml of brain were found; "
            "choose a T1-weighted scan of a whole head and check that its orientation and voxel spacing are right."
        )
    step(1.0, "Done")
    return Segmentation(labels, volumes, str(target))


def classify(network, array, view, device, batch_done):
    """Return the class index of every voxel of a conformed array ``[S, A, R]``, uint8.

    Out of GPU memory, the batch is halved until one slice does not fit.
    """
    axis = VIEWS[view]
    slices = np.moveaxis(array, axis, 0)
    count, rows, columns = slices.shape
    padding = [(0, 0), (0, -rows % MULTIPLE), (0, -columns % MULTIPLE)]
    slices = np.pad(slices, padding)
    network = network.to(device, memory_format=torch.channels_last)
    found = np.zeros((count, rows, columns), np.uint8)
    first, size = 0, BATCH[device.type]
    with torch.inference_mode():
        while first < count:
            batch = torch.from_numpy(np.ascontiguousarray(slices[first : first + size]))[:, None]
            try:
                best = network(batch.to(device)).argmax(dim=1).to(torch.uint8)[:, :rows, :columns].cpu()
            except RuntimeError as error:
                if size == 1 or not devices.is_out_of_memory(error):
                    raise
                best = None
            if best is None:
                size //= 2
                devices.release_memory(device)
                continue
            found[first : first + len(best)] = best.numpy()
            first += len(best)
            batch_done(first / count)
    return np.moveaxis(found, 0, axis)


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


def volumes_of(labels):
    """Return the ml of every structure by FreeSurfer id of a label image."""
    counts = np.bincount(sitk.GetArrayViewFromImage(labels).ravel(), minlength=256)
    voxel = float(np.prod(labels.GetSpacing())) * abs(np.linalg.det(np.array(labels.GetDirection()).reshape(3, 3)))
    return {structure.label: float(counts[structure.label] * voxel / 1000) for structure in structures()}
