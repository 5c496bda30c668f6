"""Batches of slices through a network, and what three views say together."""

import contextlib
from dataclasses import dataclass
from typing import Optional

import numpy as np
import torch
from torch.nn import functional

from ..choices.vocabulary import View
from ..networks.architectures import Unpooling
from ..networks.classes import unsided_classes
from . import devices
from .excitation_recorder import Recorder

MULTIPLE = 16  # four max poolings halve a slice four times


# A view's log-probabilities go into the mean of three in steps of 0.1, from -8.5 on, so that a byte holds their sum.
STEP, STEPS = 0.1, 85


def slices_of(array, view):
    """Return the slices of an array or tensor ``[S, A, R]`` in a direction, a tensor ``(N, H, W)``, without copying."""
    return torch.as_tensor(array).movedim(View(view).axis, 0)


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
        models: a list of one :class:`~.model_file.Model`, or of three, one for each view.
        batch_done: called with the fraction of the slices that are done.
        confidence: whether to find the probability of every voxel's class.
        excitation: name of an SE block of the first network, or ``""``.
    """
    axis = View(models[0].view).axis
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
        smoothing: see :class:`~.model_file.Model`.
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
        model: a :class:`~.model_file.Model`.
        batch_done: called with the fraction of the slices that are done.
        confidence: whether to return the probability of that class, too; else ``None`` stands for it.
        recorder: an :class:`~.excitation_recorder.Recorder` of the network, or ``None``.

    Returns:
        ``(classes, confidence)``.
    """
    axis, slices = View(model.view).axis, slices_of(array, model.view)
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
        recorder: an :class:`~.excitation_recorder.Recorder` of the first network, or ``None``.

    Returns:
        ``(classes, confidence)``.
    """
    classes = len(models[0].structures) + 1
    votes = torch.zeros((classes, *array.shape), dtype=torch.uint8, device=device)
    unsided = torch.from_numpy(unsided_classes()[:classes].astype(np.int64)).to(device)
    for number, model in enumerate(models):
        in_slices, slices = votes.movedim(View(model.view).axis + 1, 0), slices_of(array, model.view)
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
