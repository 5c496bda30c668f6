"""The training loop: a fixed number of batches, a learning rate that decays to zero, checkpoints to resume from."""

import copy
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.optim import swa_utils
from torch.utils.data import DataLoader

from ..errors import SEBrainSegError
from ..files.atomic import replaced_whole
from ..inference.slices import logits_of_slices
from ..networks.architectures import NETWORKS
from .batches import Batches
from .losses import loss_named

CHECKPOINT_EVERY = 120  # seconds


WARM_UP = 100  # batches, a tenth of all if these are fewer than 1000


WEIGHT_DECAY = 1e-4


CURVE_EVERY = 25  # batches


VALIDATIONS = 20  # in all, about


ESTIMATE_AFTER = 4  # batches


STATISTICS_FROM = 60  # batches


class TimeUp(Exception):
    """The time budget ended before the batches did; the checkpoint is written.

    Attributes:
        network: the best one so far, in evaluation mode.
    """

    def __init__(self, message, network):
        super().__init__(message)
        self.network = network


def learning_rate(step, steps, peak):
    """Linear warm-up, then polynomial decay (power 0.9) to zero."""
    return peak * min((step + 1) / min(WARM_UP, steps / 10), (1 - step / steps) ** 0.9)


def save(content, path):
    """Write a checkpoint; an interruption leaves the last one whole."""
    with replaced_whole(path) as beside:
        torch.save(content, beside)


def read_checkpoint(path, settings, device, overwrite):
    """Read a checkpoint.

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


def of_protocol(logits, protocols, count):
    """Logits ``(N, classes, H, W)`` of each slice's own protocol, out of ``(N, count * classes, H, W)``."""
    logits = logits.unflatten(1, (count, -1))
    return logits[torch.arange(len(logits), device=logits.device), protocols.to(logits.device)]


def start_from(network, state_dict, protocols=1):
    """Copy the weights of a network that differs in its SE blocks or classes; return the names that start anew.

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


def validation_dice(network, slices, protocols, device):
    """Mean over the protocols of the mean Dice of the structures present in any of its slices, pooled.

    Args:
        slices: what a recipe's ``validation()`` gives.
        protocols: how many the network has.
    """
    network.eval()
    counts = {}
    for images, numbers, truth, protocol in slices:
        batches = logits_of_slices(network, images, torch.device(device), numbers=numbers)
        logits = (of_protocol(batch, torch.full((len(batch),), protocol), protocols) for _, batch in batches)
        found = []
        for batch in logits:
            found.append(batch.argmax(dim=1).cpu())
            classes = batch.shape[1]
        found, truth = torch.cat(found), truth.long()
        scored = truth < classes
        overlap = torch.bincount(truth[scored & (found == truth)], minlength=classes)
        volumes = torch.bincount(truth[scored], minlength=classes) + torch.bincount(found[scored], minlength=classes)
        counts[protocol] = counts.get(protocol, 0) + torch.stack((overlap, volumes))
    network.train()
    return float(np.mean([pooled_dice(*each) for each in counts.values()])) if counts else 1.0


def pooled_dice(overlap, volumes):
    """Mean Dice over the structures, from the voxels of every class that agree and those of both sides together."""
    present = volumes[1:] > 0
    return float((2 * overlap[1:][present] / volumes[1:][present]).mean()) if present.any() else 1.0


def reestimate_statistics(network, loader, device):
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


def has_fast_bfloat16(device):
    """Whether a device computes in bfloat16 faster than in float32; others emulate it, slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return False


def duration(seconds):
    """A time in words."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def estimate(seconds, left, budget):
    """Say how long ``left`` batches of some seconds each will take, and whether that fits into ``budget`` seconds."""
    text = f"About {duration(seconds * left)} for {left} batches at {seconds:.2g} s each"
    if seconds * left <= budget:
        return f"{text}."
    return f"{text}; the time left is enough for some {max(0, math.floor(budget / seconds))} of them."


class Training:
    """One network in training: its weights, their average, the optimiser, and the files that tell of it.

    Attributes:
        step: batches done.
        best: Dice, step and weights of the best validation so far, or ``None``.
    """

    def __init__(self, configuration, recipe, folder, steps, seed, peak, device, loss, average):
        self.recipe, self.steps, self.peak, self.device = recipe, steps, peak, torch.device(device)
        self.protocols = max(1, len(recipe.protocols))
        self.checkpoint, self.curve = folder / "checkpoint.pt", folder / "curve.csv"
        arguments = {key: value for key, value in configuration.items() if key != "architecture"}
        self.network = NETWORKS[configuration["architecture"]](**arguments)
        if self.network.slices != recipe.slices:
            raise ValueError(f"The network takes {self.network.slices} slices, the recipe gives {recipe.slices}.")
        self.settings = {**configuration, "steps": steps, "seed": seed, "learning rate": peak, "loss": loss}
        self.settings.update(recipe.description(), average=average)
        self.average_by = average
        self.compare = loss_named(loss, recipe.counts)
        self.step, self.best, self.spent_before, self.started = 0, None, 0.0, time.monotonic()

    def place(self):
        """Bring the network to its device; make what follows its weights."""
        self.network = self.network.to(self.device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=self.peak, weight_decay=WEIGHT_DECAY)
        self.averaged = None
        if self.average_by:
            follow = swa_utils.get_ema_multi_avg_fn(self.average_by)
            self.averaged = swa_utils.AveragedModel(self.network, multi_avg_fn=follow, use_buffers=True)

    @property
    def result(self):
        """The network that is validated and exported: the averaged one if there is one."""
        return self.averaged.module if self.averaged else self.network

    @property
    def spent(self):
        """Minutes that the training has taken, earlier calls included."""
        return self.spent_before + (time.monotonic() - self.started) / 60

    def resume(self, stored):
        """Go on from a checkpoint's content."""
        self.network.load_state_dict(stored["network"])
        self.optimiser.load_state_dict(stored["optimiser"])
        if self.averaged:
            self.averaged.load_state_dict(stored["average"])
        self.step, self.spent_before, self.best = stored["step"], stored["minutes"], stored["best"]

    def start_curve(self):
        """Write the curve's head and what was noted before the checkpoint; what was noted after it is noted again."""
        rows = self.curve.read_text(encoding="utf-8").splitlines()[1:] if self.step and self.curve.exists() else []
        rows = [row for row in rows if int(row.split(",")[0]) <= self.step]
        header = "step,minutes,learning_rate,loss,validation_dice"
        self.curve.write_text("\n".join([header, *rows, ""]), encoding="utf-8")

    def store(self):
        """Write the checkpoint."""
        state = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "step": self.step}
        if self.averaged:
            state["average"] = self.averaged.state_dict()
        save({**state, "minutes": self.spent, "best": self.best, "settings": self.settings}, self.checkpoint)

    def learn(self, images, classes, protocols):
        """One step of the optimiser; returns the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.peak)
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device)):
            logits = self.network(images)
        loss = self.compare(of_protocol(logits, protocols, self.protocols), classes.to(self.device))
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        if self.averaged:
            self.averaged.update_parameters(self.network)
        self.step += 1
        return float(loss.detach())

    def validate(self):
        """Return the Dice of the scans held out, as text, and remember the best; nothing if there are none."""
        if not self.recipe.held_out:
            return ""
        dice = validation_dice(self.result, self.recipe.validation(), self.protocols, self.device)
        if self.best is None or dice >= self.best["dice"]:
            self.best = {"dice": dice, "step": self.step, "weights": copy.deepcopy(self.result.state_dict())}
        return f"{dice:.4f}"

    def note(self, loss, dice, echo):
        """Add a line to the curve and say it."""
        rate = learning_rate(self.step, self.steps, self.peak)
        with open(self.curve, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([self.step, f"{self.spent:.2f}", f"{rate:.2e}", f"{loss:.4f}", dice])
        validated = f", validation Dice {dice}" if dice else ""
        echo(f"batch {self.step}/{self.steps}, {self.spent:.1f} min, loss {loss:.3f}{validated}")

    def chosen(self, choose_best):
        """Return the network to export, in evaluation mode: with the best weights, if that is wanted and known."""
        if choose_best and self.best is not None:
            self.result.load_state_dict(self.best["weights"])
        return self.result.eval()


def fit(
    configuration,
    recipe,
    folder,
    steps,
    minutes,
    seed=0,
    peak=4e-3,
    device="cpu",
    initial=None,
    workers=1,
    loss="plain",
    average=0.0,
    choose_best=True,
    overwrite=False,
    echo=print,
):
    """Train one network; resumes from ``folder/checkpoint.pt`` if that exists.

    Args:
        configuration: ``architecture`` (a key of ``NETWORKS``) and the arguments of that network.
        recipe: what it is trained on, see :mod:`.brain_recipe`.
        folder: where the checkpoint and ``curve.csv`` go.
        steps: batches in all; equal steps and seed give equal data in equal order.
        minutes: time budget of this call.
        initial: state dict to start from, see :func:`start_from`.
        loss: one of ``losses.LOSSES``.
        average: in [0, 1): the share of its past in an exponential moving average of the weights, which is what is
            validated and returned; 0: the weights themselves.
        choose_best: return the network that was best in validation, not the last one.
        overwrite: start anew if the checkpoint is finished or one of other settings.

    Returns:
        the network chosen, the last one if none was validated, in evaluation mode.

    Raises:
        TimeUp: the time budget ended first.
        SEBrainSegError: the folder holds a training with other settings.
    """
    started, folder = time.monotonic(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    training = Training(configuration, recipe, folder, steps, seed, peak, device, loss, average)
    if initial is not None:
        echo(f"New in this network: {len(start_from(training.network, initial, training.protocols))} entries.")
    training.place()
    stored = read_checkpoint(training.checkpoint, training.settings, training.device, overwrite)
    if stored:
        training.resume(stored)
        echo(f"Resumed at batch {training.step} of {steps}.")
        if training.step == steps:
            return training.chosen(choose_best)
    training.start_curve()

    def loader(first, last):
        batches = Batches(recipe, steps, seed)
        return DataLoader(batches, batch_size=None, sampler=range(first, last), num_workers=workers)

    training.network.train()
    validate_every = CURVE_EVERY * max(1, round(steps / VALIDATIONS / CURVE_EVERY))
    losses, first_step, stored_at, second_at = [], training.step, time.monotonic(), 0.0
    for batch in loader(training.step, steps):
        losses.append(training.learn(*batch))
        step = training.step
        # The first batch is slow, whatever the others are.
        if step == first_step + 1:
            second_at = time.monotonic()
        if step == first_step + ESTIMATE_AFTER:
            each = (time.monotonic() - second_at) / (ESTIMATE_AFTER - 1)
            echo(estimate(each, steps - step, 60 * minutes - (time.monotonic() - started)))
        if step % CURVE_EVERY == 0 and step < steps:
            training.note(np.mean(losses), training.validate() if step % validate_every == 0 else "", echo)
            losses = []
        if time.monotonic() - stored_at > CHECKPOINT_EVERY:
            training.store()
            stored_at = time.monotonic()
        if time.monotonic() - started > 60 * minutes and step < steps:
            training.store()
            message = f"{minutes:g} minutes ended at batch {step} of {steps}; run the same command to go on."
            raise TimeUp(message, training.chosen(choose_best))
    # The last batches once more: full slices, as at inference.
    for network in {training.network, training.result}:
        reestimate_statistics(network, loader(max(steps - STATISTICS_FROM, 0), steps), training.device)
    training.note(np.mean(losses), training.validate(), echo)
    if choose_best and training.best is not None:
        echo(f"Best in validation: Dice {training.best['dice']:.4f} at batch {training.best['step']}.")
    training.store()
    return training.chosen(choose_best)
