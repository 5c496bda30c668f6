"""The training loop: a fixed number of batches, a learning rate that decays to zero, checkpoints to resume from."""

import copy
import csv
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch
from torch.optim import swa_utils
from torch.utils.data import DataLoader

from ..errors import SEBrainSegError
from ..files.atomic import replaced_whole
from ..inference import devices
from ..inference.slices import logits_of_slices
from ..networks.architectures import network_class
from ..text import duration
from .batches import Batches, Recipe, ValidationSlices
from .losses import loss_named

CHECKPOINT_EVERY = 120  # seconds


WARM_UP = 100  # batches, a tenth of all if these are fewer than 1000


WEIGHT_DECAY = 1e-4


LARGEST_GRADIENT = 5.0  # norm that gradients are clipped to


CURVE_EVERY = 25  # batches


VALIDATIONS = 12  # in all, about; with five scans each takes as long as a hundred batches


ESTIMATE_AFTER = 4  # batches


STATISTICS_FROM = 60  # batches


class TimeUp(Exception):
    """The time budget ended before the batches did; the checkpoint is written.

    Attributes:
        network: the best one so far, in evaluation mode.
    """

    def __init__(self, message: str, network: torch.nn.Module) -> None:
        super().__init__(message)
        self.network = network


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a batch: a linear warm-up, then a polynomial decay (power 0.9) to zero."""
    return peak * min((step + 1) / min(WARM_UP, steps / 10), (1 - step / steps) ** 0.9)


def _save(content: dict, path: Path) -> None:
    """Write a checkpoint; an interruption leaves the last one whole."""
    with replaced_whole(path) as beside:
        torch.save(content, beside)


def read_checkpoint(path: Path, settings: dict, device: torch.device, overwrite: bool) -> Optional[dict]:
    """Read a checkpoint.

    Args:
        settings: of the training that is to go on from it.
        overwrite: whether one that cannot be gone on from is ignored.

    Returns:
        its content; ``None`` if there is none, or one to be overwritten: finished, unreadable or of other settings.

    Raises:
        SEBrainSegError: it cannot be read, or is one of other settings.
    """
    if not path.exists():
        return None
    try:
        stored = torch.load(path, map_location=device, weights_only=True)
        before, finished = stored["settings"], stored["step"] == settings["steps"]
    except Exception:  # torch raises whatever its parsers stumble over
        if overwrite:
            return None
        raise SEBrainSegError(f"The checkpoint {path} cannot be read; start anew with --overwrite.") from None
    changed = [name for name in settings if before.get(name) != settings[name]]
    if overwrite and (changed or finished):
        return None
    if changed:
        name, value = changed[0], settings[changed[0]]
        change = "" if isinstance(value, list) else f": {before.get(name)}, now {value}"
        raise SEBrainSegError(
            f"{path.parent} holds a training with other settings ({name}{change}); choose another --run or start "
            "anew with --overwrite."
        )
    return stored


def of_protocol(logits: torch.Tensor, protocols: torch.Tensor, count: int) -> torch.Tensor:
    """Return the logits ``(N, classes, H, W)`` of each slice's own protocol.

    Args:
        logits: of all protocols, ``(N, count * classes, H, W)``.
        protocols: number of each slice's protocol, ``(N,)``.
        count: how many protocols there are.
    """
    logits = logits.unflatten(1, (count, -1))
    return logits[torch.arange(len(logits), device=logits.device), protocols.to(logits.device)]


def start_from(network: torch.nn.Module, state_dict: dict[str, torch.Tensor], protocols: int = 1) -> list[str]:
    """Copy the weights of a network that differs in its SE blocks or classes; return the names that start anew.

    Args:
        protocols: of ``network``; a classifier of one protocol is copied to each of them.

    Raises:
        SEBrainSegError: nothing fits.
    """
    own = network.state_dict()
    for name in ("classifier.weight", "classifier.bias"):
        if name in state_dict and len(own[name]) == protocols * len(state_dict[name]):
            state_dict = {**state_dict, name: torch.cat([state_dict[name]] * protocols)}
    shared = {name: value for name, value in state_dict.items() if name in own and own[name].shape == value.shape}
    if not any(value.dim() > 1 for value in shared.values()):
        raise SEBrainSegError("No weight of the network to start from fits; choose its architecture and width.")
    network.load_state_dict({**own, **shared})
    return sorted(set(own) - set(shared))


def validation_dice(
    network: torch.nn.Module, slices: Iterable[ValidationSlices], protocols: int, device: Union[torch.device, str]
) -> float:
    """Return the mean over the protocols of the mean Dice of the structures present, their voxels pooled over scans.

    Args:
        network: left in training mode.
        slices: what a recipe's ``validation()`` yields.
        protocols: how many the network has classes for.
    """
    network.eval()
    counts: dict[int, torch.Tensor] = {}
    for images, numbers, truth, protocol in slices:
        found, classes = [], 0
        for _, logits in logits_of_slices(network, images, torch.device(device), numbers=numbers):
            own = of_protocol(logits, torch.full((len(logits),), protocol), protocols)
            found.append(own.argmax(dim=1).cpu())
            classes = own.shape[1]
        overlap_and_volumes = _overlap_and_volumes(torch.cat(found), truth.long(), classes)
        counts[protocol] = counts.get(protocol, torch.tensor(0)) + overlap_and_volumes
    network.train()
    return float(np.mean([_pooled_dice(*each) for each in counts.values()])) if counts else 1.0


def _overlap_and_volumes(found: torch.Tensor, truth: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the voxels of every class that agree and those of both sides together, ``(2, classes)``."""
    scored = truth < classes
    overlap = torch.bincount(truth[scored & (found == truth)], minlength=classes)
    volumes = torch.bincount(truth[scored], minlength=classes) + torch.bincount(found[scored], minlength=classes)
    return torch.stack((overlap, volumes))


def _pooled_dice(overlap: torch.Tensor, volumes: torch.Tensor) -> float:
    """Return the mean Dice over the structures, from what :func:`_overlap_and_volumes` returns."""
    present = volumes[1:] > 0
    return float((2 * overlap[1:][present] / volumes[1:][present]).mean()) if present.any() else 1.0


def reestimate_statistics(network: torch.nn.Module, loader: Iterable, device: Union[torch.device, str]) -> None:
    """Replace batch norm's running statistics by plain averages over the loader's batches."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    with torch.no_grad():
        for images, _, _ in loader:
            network(images.to(device))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def estimate(seconds: float, left: int, budget: float) -> str:
    """Say how long ``left`` batches of some seconds each will take, and whether that fits into ``budget`` seconds."""
    text = f"About {duration(seconds * left)} for {left} batches at {seconds:.2g} s each"
    if seconds * left <= budget:
        return f"{text}."
    return f"{text}; the time left is enough for some {max(0, math.floor(budget / seconds))} of them."


class Training:
    """One network in training: its weights, their average, the optimiser, and the files that tell of it.

    Attributes:
        network: the one whose weights are optimised.
        averaged: its moving average, or ``None``.
        step: batches done.
        best: Dice, step and weights of the best validation so far, or ``None``.
        settings: what must be the same for a checkpoint to be gone on from.
    """

    def __init__(
        self,
        configuration: dict[str, Any],
        recipe: Recipe,
        folder: Path,
        steps: int,
        seed: int,
        peak: float,
        device: Union[torch.device, str],
        loss: str,
        average: float,
    ) -> None:
        self.recipe, self.steps, self.seed, self.peak = recipe, steps, seed, peak
        self.device = torch.device(device)
        self.protocols = max(1, len(recipe.protocols))
        self.checkpoint, self.curve = folder / "checkpoint.pt", folder / "curve.csv"
        arguments = {key: value for key, value in configuration.items() if key != "architecture"}
        self.network: torch.nn.Module = network_class(configuration["architecture"])(**arguments)
        if self.network.slices != recipe.slices:
            raise ValueError(f"The network takes {self.network.slices} slices, the recipe gives {recipe.slices}.")
        self.settings = {**configuration, "steps": steps, "seed": seed, "learning rate": peak, "loss": loss}
        self.settings.update(recipe.description(), average=average)
        self.loss = loss_named(loss, recipe.class_counts)
        self.averaged: Optional[swa_utils.AveragedModel] = None
        self.step = 0
        self.best: Optional[dict[str, Any]] = None
        self._average, self._minutes_before, self._started = average, 0.0, time.monotonic()

    def prepare(self) -> None:
        """Bring the network to its device, and make the optimiser and the average, which follow its weights."""
        self.network = self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=self.peak, weight_decay=WEIGHT_DECAY)
        if self._average:
            follow = swa_utils.get_ema_multi_avg_fn(self._average)
            self.averaged = swa_utils.AveragedModel(self.network, multi_avg_fn=follow, use_buffers=True)

    @property
    def result(self) -> torch.nn.Module:
        """The network that is validated and exported: the averaged one if there is one."""
        return self.averaged.module if self.averaged else self.network

    @property
    def minutes(self) -> float:
        """Minutes that the training has taken, earlier calls included."""
        return self._minutes_before + (time.monotonic() - self._started) / 60

    def resume(self, stored: dict[str, Any]) -> None:
        """Go on from a checkpoint's content."""
        self.network.load_state_dict(stored["network"])
        self.optimiser.load_state_dict(stored["optimiser"])
        if self.averaged:
            self.averaged.load_state_dict(stored["average"])
        self.step, self._minutes_before, self.best = stored["step"], stored["minutes"], stored["best"]

    def save_checkpoint(self) -> None:
        """Write what :meth:`resume` needs."""
        state = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "step": self.step}
        if self.averaged:
            state["average"] = self.averaged.state_dict()
        content = {**state, "minutes": self.minutes, "best": self.best, "settings": self.settings}
        _save(content, self.checkpoint)

    def start_curve(self) -> None:
        """Write the curve's head and its rows up to the checkpoint; later ones are recorded again."""
        rows = self.curve.read_text(encoding="utf-8").splitlines()[1:] if self.step and self.curve.exists() else []
        rows = [row for row in rows if int(row.split(",")[0]) <= self.step]
        header = "step,minutes,learning_rate,loss,validation_dice"
        self.curve.write_text("\n".join([header, *rows, ""]), encoding="utf-8")

    def batches(self, first: int, last: int, workers: int) -> DataLoader:
        """Return a loader of the batches from ``first`` to ``last``, this excluded; processes make them, if any."""
        batches = Batches(self.recipe, self.steps, self.seed)
        return DataLoader(batches, batch_size=None, sampler=range(first, last), num_workers=workers)

    def train_batch(self, images: torch.Tensor, classes: torch.Tensor, protocols: torch.Tensor) -> float:
        """Take one step of the optimiser; returns the loss.

        Args:
            images, classes, protocols: see :class:`~.batches.Batches`.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.peak)
        images = images.to(self.device, memory_format=torch.channels_last)
        reduced = torch.bfloat16 if devices.has_fast_bfloat16(self.device) else torch.float32
        with devices.computing_in(reduced, self.device):
            logits = self.network(images)
        loss = self.loss(of_protocol(logits, protocols, self.protocols), classes.to(self.device))
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimiser.step()
        if self.averaged:
            self.averaged.update_parameters(self.network)
        self.step += 1
        return float(loss.detach())

    def validate(self) -> str:
        """Return the Dice of the scans held out, as text, and remember the best; ``""`` if there are none."""
        if not self.recipe.held_out:
            return ""
        dice = validation_dice(self.result, self.recipe.validation(), self.protocols, self.device)
        if self.best is None or dice >= self.best["dice"]:
            self.best = {"dice": dice, "step": self.step, "weights": copy.deepcopy(self.result.state_dict())}
        return f"{dice:.4f}"

    def record(self, losses: Sequence[float], dice: str, echo: Callable[[str], Any]) -> None:
        """Add a row to the curve and say it.

        Args:
            losses: since the last row.
            dice: of the validation, or ``""``.
        """
        rate, loss = learning_rate(self.step, self.steps, self.peak), float(np.mean(losses))
        with open(self.curve, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([self.step, f"{self.minutes:.2f}", f"{rate:.2e}", f"{loss:.4f}", dice])
        validated = f", validation Dice {dice}" if dice else ""
        echo(f"batch {self.step}/{self.steps}, {self.minutes:.1f} min, loss {loss:.3f}{validated}")

    def exported(self, choose_best: bool) -> torch.nn.Module:
        """Return the network to export, in evaluation mode: with the best weights, if that is wanted and known."""
        if choose_best and self.best is not None:
            self.result.load_state_dict(self.best["weights"])
        return self.result.eval()


class _Pace:
    """Says once, after some batches, how long the others will take.

    Args:
        training: what is timed.
        deadline: when its time budget ends, by ``time.monotonic``.
    """

    def __init__(self, training: Training, deadline: float, echo: Callable[[str], Any]) -> None:
        self.training, self.deadline, self.echo = training, deadline, echo
        self.first_step, self.second_at = training.step, 0.0

    def batch_done(self) -> None:
        """Count a batch."""
        done, now = self.training.step - self.first_step, time.monotonic()
        # The first batch is slow, whatever the others are.
        if done == 1:
            self.second_at = now
        if done == ESTIMATE_AFTER:
            each = (now - self.second_at) / (ESTIMATE_AFTER - 1)
            self.echo(estimate(each, self.training.steps - self.training.step, self.deadline - now))


def _train_batches(
    training: Training, minutes: float, deadline: float, workers: int, choose_best: bool, echo: Callable[[str], Any]
) -> list[float]:
    """Train the batches that are left; returns the losses since the last row of the curve.

    Raises:
        TimeUp: the deadline came first.
    """
    steps = training.steps
    validate_every = CURVE_EVERY * max(1, round(steps / VALIDATIONS / CURVE_EVERY))
    losses: list[float] = []
    pace, saved_at = _Pace(training, deadline, echo), time.monotonic()
    training.network.train()
    for batch in training.batches(training.step, steps, workers):
        losses.append(training.train_batch(*batch))
        pace.batch_done()
        step = training.step
        if step % CURVE_EVERY == 0 and step < steps:
            training.record(losses, training.validate() if step % validate_every == 0 else "", echo)
            losses = []
        if time.monotonic() - saved_at > CHECKPOINT_EVERY:
            training.save_checkpoint()
            saved_at = time.monotonic()
        if time.monotonic() > deadline and step < steps:
            training.save_checkpoint()
            message = f"{minutes:g} minutes ended at batch {step} of {steps}; run the same command to go on."
            raise TimeUp(message, training.exported(choose_best))
    return losses


def _finish(training: Training, losses: Sequence[float], workers: int, echo: Callable[[str], Any]) -> None:
    """Re-estimate the statistics with the last batches, which are full slices as at inference; validate and save."""
    first = max(training.steps - STATISTICS_FROM, 0)
    for network in {training.network, training.result}:
        reestimate_statistics(network, training.batches(first, training.steps, workers), training.device)
    training.record(losses, training.validate(), echo)
    training.save_checkpoint()


def fit(
    configuration: dict[str, Any],
    recipe: Recipe,
    folder: Union[Path, str],
    steps: int,
    minutes: float,
    seed: int = 0,
    peak: float = 4e-3,
    device: Union[torch.device, str] = "cpu",
    initial: Optional[dict[str, torch.Tensor]] = None,
    workers: int = 1,
    loss: str = "plain",
    average: float = 0.0,
    choose_best: bool = True,
    overwrite: bool = False,
    echo: Callable[[str], Any] = print,
) -> torch.nn.Module:
    """Train one network; resumes from ``folder/checkpoint.pt`` if that exists.

    Args:
        configuration: ``architecture``, a value of :class:`~.vocabulary.Architecture`, and arguments of the network.
        recipe: what it is trained on.
        folder: where the checkpoint and ``curve.csv`` go.
        steps: batches in all; equal steps and seed give equal data in equal order.
        minutes: time budget of this call.
        seed: of the first weights and of the batches.
        peak: of the learning rate.
        initial: state dict to start from, see :func:`start_from`.
        workers: processes that make batches; 0: none but this one.
        loss: one of ``losses.LOSSES``.
        average: in [0, 1): the share of its past in an exponential moving average of the weights, which is what is
            validated and returned; 0: the weights themselves.
        choose_best: return the network that was best in validation, not the last one.
        overwrite: start anew if the checkpoint is finished or one of other settings.
        echo: called with every line that is said.

    Returns:
        the network chosen, the last one if none was validated, in evaluation mode.

    Raises:
        TimeUp: the time budget ended first.
        SEBrainSegError: the folder holds a training with other settings.
    """
    deadline, folder = time.monotonic() + 60 * minutes, Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    training = Training(configuration, recipe, folder, steps, seed, peak, device, loss, average)
    if initial is not None:
        echo(f"New in this network: {len(start_from(training.network, initial, training.protocols))} entries.")
    training.prepare()
    stored = read_checkpoint(training.checkpoint, training.settings, training.device, overwrite)
    if stored:
        training.resume(stored)
        echo(f"Resumed at batch {training.step} of {steps}.")
    if training.step < steps:
        training.start_curve()
        losses = _train_batches(training, minutes, deadline, workers, choose_best, echo)
        _finish(training, losses, workers, echo)
        if choose_best and training.best is not None:
            echo(f"Best in validation: Dice {training.best['dice']:.4f} at batch {training.best['step']}.")
    return training.exported(choose_best)
