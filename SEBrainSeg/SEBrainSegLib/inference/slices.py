"""Slices of a volume through networks, in batches, and three views put together."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Callable, Optional, Union

import numpy as np
import torch
from torch.nn import functional

from ..choices.vocabulary import slice_axis
from ..networks.architectures import Unpooling
from ..networks.classes import unsided_classes
from ..networks.model_file import Model
from . import devices
from .excitation_recorder import Recorder

MULTIPLE = 16  # four max poolings halve a slice four times


# A view's log-probabilities go into the mean of three in steps of 0.1, from -8.5 on, so that a byte holds their sum.
_STEP, _STEPS = 0.1, 85


Array = Union[np.ndarray, torch.Tensor]


@dataclass(frozen=True)
class Prediction:
    """The classes that networks give to a conformed array ``[S, A, R]``.

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


def slices_of(array: Array, view: str) -> torch.Tensor:
    """Return the slices of an array or tensor ``[S, A, R]`` in a direction, a tensor ``(N, H, W)``, without copying."""
    return torch.as_tensor(array).movedim(slice_axis(view), 0)


def padded_size(size: Sequence[int]) -> tuple[int, ...]:
    """Return rows and columns of a slice as a network is given it, multiples of :data:`MULTIPLE`."""
    return tuple(side + -side % MULTIPLE for side in size)


def classify_volume(
    models: Sequence[Model],
    array: Array,
    device: torch.device,
    batch_done: Callable[[float], None],
    confidence: bool = False,
    excitation: str = "",
) -> Prediction:
    """Classify every voxel of a conformed array by one network, or by three together.

    Args:
        models: one model, or three, one for each view.
        array: array or tensor ``[S, A, R]``, wherever it is.
        device: where to compute.
        batch_done: called with the fraction of the slices that are done.
        confidence: whether to compute the probability of every voxel's class.
        excitation: name of the SE block of the first network whose excitation to record, or ``""``.

    Returns:
        the prediction for the whole of ``array``.

    Raises:
        SEBrainSegError: the network has no such SE block.
    """
    axis = slice_axis(models[0].view)
    shape = tuple(slices_of(array, models[0].view).shape)
    recorder = Recorder(models[0].network, excitation, shape) if excitation else None
    with recorder or contextlib.nullcontext():
        if len(models) == 1:
            classes, probabilities = classify_in_view(models[0], array, device, batch_done, confidence, recorder)
        else:
            classes, probabilities = classify_in_views(models, array, device, batch_done, confidence, recorder)
    if recorder is None:
        return Prediction(classes, probabilities)
    spatial = None if recorder.spatial is None else np.moveaxis(recorder.spatial, 0, axis)
    return Prediction(classes, probabilities, spatial, recorder.channels)


def classify_in_view(
    model: Model,
    array: Array,
    device: torch.device,
    batch_done: Callable[[float], None],
    confidence: bool = False,
    recorder: Optional[Recorder] = None,
) -> tuple[np.ndarray, Optional[np.ndarray]]:
    """Return the class index of every voxel of a conformed array ``[S, A, R]`` by one network.

    Args:
        model: the network.
        array, device, batch_done: see :func:`classify_volume`.
        confidence: whether to return the probability of that class, too; else ``None`` stands for it.
        recorder: of the network's excitation, or ``None``.

    Returns:
        ``(classes, confidence)``, both ``[S, A, R]``.
    """
    axis, slices = slice_axis(model.view), slices_of(array, model.view)
    classes = torch.zeros(slices.shape, dtype=_class_dtype(model), device=device)
    probabilities = torch.zeros(slices.shape, device=device) if confidence else None
    for first, logits in logits_of_slices(model.network, slices, device, model.smoothing):
        last = first + len(logits)
        if recorder is not None:
            recorder.record(first, padded_size(slices.shape[1:]))
        classes[first:last] = logits.argmax(dim=1)
        if probabilities is not None:
            probabilities[first:last] = largest_probability(logits.float())
        batch_done(last / len(slices))
    found = classes.movedim(0, axis).cpu().numpy()
    return found, None if probabilities is None else probabilities.movedim(0, axis).cpu().numpy()


def classify_in_views(
    models: Sequence[Model],
    array: Array,
    device: torch.device,
    batch_done: Callable[[float], None],
    confidence: bool = False,
    recorder: Optional[Recorder] = None,
) -> tuple[np.ndarray, Optional[np.ndarray]]:
    """Return the class of the largest mean of the log-probabilities of three views, uint8 ``[S, A, R]``.

    The sagittal network knows no sides: what it gives to a structure of the left counts for that of the right as well,
    and the other two views decide between them.

    Args:
        models: one network a view.
        array, device, batch_done: see :func:`classify_volume`.
        confidence: whether to return the probability of that class by the mean, too; else ``None`` stands for it.
        recorder: of the excitation of the first network, or ``None``.

    Returns:
        ``(classes, confidence)``.
    """
    count = len(models[0].structures) + 1
    votes = torch.zeros((count, *array.shape), dtype=torch.uint8, device=device)
    unsided = torch.from_numpy(unsided_classes()[:count].astype(np.int64)).to(device)
    for number, model in enumerate(models):
        in_slices, slices = votes.movedim(slice_axis(model.view) + 1, 0), slices_of(array, model.view)
        for first, logits in logits_of_slices(model.network, slices, device, model.smoothing):
            last = first + len(logits)
            if recorder is not None and number == 0:
                recorder.record(first, padded_size(slices.shape[1:]))
            steps = logits.float().log_softmax(dim=1).div_(_STEP).add_(_STEPS).clamp_(min=0).round_().to(torch.uint8)
            in_slices[first:last] += steps[:, unsided] if model.view == "sagittal" else steps
            batch_done((number + last / len(slices)) / len(models))
    classes = votes.argmax(dim=0).to(torch.uint8).cpu().numpy()
    return classes, _probability_of_most_votes(votes, _STEP / len(models)) if confidence else None


def logits_of_slices(
    network: torch.nn.Module,
    slices: torch.Tensor,
    device: torch.device,
    smoothing: Sequence[float] = (),
    numbers: Optional[Sequence[int]] = None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield ``(first, logits)`` for successive batches of slices ``(N, H, W)``; logits ``(n, classes, H, W)``.

    A network that takes several slices gets the neighbours of each; beyond the first and the last, these are repeated.

    They are computed in the device's :func:`.devices.precision`, but for networks that unpool: rounding moves maxima
    whose positions they use. Out of GPU memory, the batch is halved until one slice does not fit.

    Args:
        network: in evaluation mode.
        slices: tensor on any device.
        device: where to compute.
        smoothing: see :class:`~.model_file.Model`.
        numbers: of the slices to compute; ``None``: all. ``first`` counts among them.
    """
    slices = slices.to(device)
    last_slice, (rows, columns) = len(slices) - 1, slices.shape[1:]
    reach = int(network.slices) // 2  # type: ignore[arg-type]
    neighbours = torch.arange(-reach, reach + 1, device=device)
    wanted = torch.tensor(range(len(slices)) if numbers is None else numbers, device=device)
    count = len(wanted)
    padded_rows, padded_columns = padded_size((rows, columns))
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    first, size = 0, devices.batch_size(device, padded_rows * padded_columns)
    precision = torch.float32 if isinstance(network, Unpooling) else devices.precision(device)
    while first < count:
        try:
            entering = (wanted[first : first + size, None] + neighbours).clamp(0, last_slice)
            batch = slices[entering.flatten()]
            batch = smoothed(batch, batch.new_tensor(smoothing)) if smoothing else batch
            batch = functional.pad(batch, (0, padded_columns - columns, 0, padded_rows - rows))
            with torch.inference_mode(), devices.computing_in(precision, device):
                logits = network(batch.unflatten(0, entering.shape).contiguous())[:, :, :rows, :columns]
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


def smoothed(slices: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Return slices ``(N, H, W)`` convolved with an odd number of taps along rows and columns; borders go on beyond."""
    stack = functional.pad(slices[:, None], (len(taps) // 2,) * 4, mode="replicate")
    stack = functional.conv2d(stack, taps[None, None, :, None])
    return functional.conv2d(stack, taps[None, None, None, :])[:, 0]


def largest_probability(logits: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """Return the largest softmax probability along the dimension of the classes, without the others."""
    return (logits.amax(dim=dim) - logits.logsumexp(dim=dim)).exp()


def _class_dtype(model: Model) -> torch.dtype:
    """Return the type that holds the class indices of a model."""
    return torch.uint8 if len(model.structures) < 256 else torch.int32


def _probability_of_most_votes(votes: torch.Tensor, step: float) -> np.ndarray:
    """Return the probability of the class with most votes, ``[S, A, R]`` in [0, 1].

    Args:
        votes: uint8 ``(classes, S, A, R)``, logarithms of probabilities but for a constant.
        step: of these logarithms.
    """
    # Plane by plane: as numbers of 4 bytes all would take much memory.
    planes = (largest_probability(step * votes[:, number].float(), dim=0) for number in range(votes.shape[1]))
    return torch.stack(list(planes)).cpu().numpy()
