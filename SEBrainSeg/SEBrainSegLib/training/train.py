"""The training loop: a fixed number of batches, a learning rate that decays to zero, checkpoints to resume from."""

import copy
import csv
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..errors import SEBrainSegError
from ..inference import logits_of_slices
from ..networks import NETWORKS
from .batches import Batches
from .losses import loss_named
from .recipes import BrainRecipe

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
    """Write beside, then rename, so that an interruption leaves the last checkpoint whole."""
    beside = path.with_suffix(".part")
    torch.save(content, beside)
    os.replace(beside, path)


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
    """Mean Dice over the structures present in any of the slices, pooled; of the first of ``protocols`` protocols.

    Args:
        slices: pairs of images and classes, ``(N, H, W)`` each.
    """
    network.eval()
    overlap, volumes = 0, 0
    for images, truth in slices:
        batches = logits_of_slices(network, images, torch.device(device))
        logits = (of_protocol(batch, torch.zeros(len(batch), dtype=torch.long), protocols) for _, batch in batches)
        found = []
        for batch in logits:
            found.append(batch.argmax(dim=1).cpu())
            classes = batch.shape[1]
        found, truth = torch.cat(found), truth.long()
        scored = truth < classes
        overlap += torch.bincount(truth[scored & (found == truth)], minlength=classes)
        volumes += torch.bincount(truth[scored], minlength=classes) + torch.bincount(found[scored], minlength=classes)
    network.train()
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


def train(
    configuration,
    scans,
    heads,
    held_out,
    folder,
    steps,
    minutes,
    view="coronal",
    **options,
):
    """Train a network for brains; see :class:`~.recipes.BrainRecipe`, and :func:`fit` for all else.

    Args:
        scans, heads, held_out, view: see :class:`~.recipes.BrainRecipe`.
    """
    return fit(configuration, BrainRecipe(scans, heads, held_out, view), folder, steps, minutes, **options)


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
    overwrite=False,
    echo=print,
):
    """Train one network; resumes from ``folder/checkpoint.pt`` if that exists.

    Args:
        configuration: ``architecture`` (a key of ``NETWORKS``) and the arguments of that network.
        recipe: what it is trained on, see :mod:`.recipes`.
        folder: where the checkpoint and ``curve.csv`` go.
        steps: batches in all; equal steps and seed give equal data in equal order.
        minutes: time budget of this call.
        initial: state dict to start from, see :func:`start_from`.
        loss: one of ``losses.LOSSES``.
        overwrite: start anew if the checkpoint is finished or one of other settings.

    Returns:
        the network that was best in validation, the last one if there is none, in evaluation mode.

    Raises:
        TimeUp: the time budget ended first.
        SEBrainSegError: the folder holds a training with other settings.
    """
    started, device, folder = time.monotonic(), torch.device(device), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    arguments = {key: value for key, value in configuration.items() if key != "architecture"}
    network = NETWORKS[configuration["architecture"]](**arguments)
    protocols = max(1, len(recipe.protocols))
    if initial is not None:
        echo(f"New in this network: {len(start_from(network, initial, protocols))} entries.")
    network = network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=peak, weight_decay=WEIGHT_DECAY)
    settings = {**configuration, "steps": steps, "seed": seed, "learning rate": peak, "loss": loss}
    settings.update(recipe.description())
    checkpoint, step, spent_before, best = folder / "checkpoint.pt", 0, 0.0, None
    stored = read_checkpoint(checkpoint, settings, device, overwrite)
    if stored:
        network.load_state_dict(stored["network"])
        optimiser.load_state_dict(stored["optimiser"])
        step, spent_before, best = stored["step"], stored["minutes"], stored["best"]
        echo(f"Resumed at batch {step} of {steps}.")
        if step == steps:
            return chosen_network(network, best)
    curve = folder / "curve.csv"
    rows = curve.read_text(encoding="utf-8").splitlines()[1:] if step and curve.exists() else []
    # What was noted after the checkpoint is noted again.
    rows = [row for row in rows if int(row.split(",")[0]) <= step]
    curve.write_text("\n".join(["step,minutes,learning_rate,loss,validation_dice", *rows, ""]), encoding="utf-8")

    def loader(first, last):
        return DataLoader(
            Batches(recipe, steps, seed), batch_size=None, sampler=range(first, last), num_workers=workers
        )

    def spent():
        return spent_before + (time.monotonic() - started) / 60

    def store():
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
        save({**state, "minutes": spent(), "best": best, "settings": settings}, checkpoint)

    def validate():
        nonlocal best
        if not recipe.held_out:
            return ""
        dice = validation_dice(network, recipe.validation(), protocols, device)
        if best is None or dice >= best["dice"]:
            best = {"dice": dice, "step": step, "weights": copy.deepcopy(network.state_dict())}
        return f"{dice:.4f}"

    def note(value, dice=""):
        rate = learning_rate(step, steps, peak)
        with open(curve, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([step, f"{spent():.2f}", f"{rate:.2e}", f"{value:.4f}", dice])
        validated = f", validation Dice {dice}" if dice else ""
        echo(f"batch {step}/{steps}, {spent():.1f} min, loss {value:.3f}{validated}")

    network.train()
    compare = loss_named(loss, recipe.counts)
    validate_every = CURVE_EVERY * max(1, round(steps / VALIDATIONS / CURVE_EVERY))
    losses, first_step, stored_at, second_at = [], step, time.monotonic(), 0.0
    for images, classes, which in loader(step, steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        images = images.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            logits = network(images)
        value = compare(of_protocol(logits, which, protocols), classes.to(device))
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        losses.append(float(value.detach()))
        step += 1
        # The first batch is slow, whatever the others are.
        if step == first_step + 1:
            second_at = time.monotonic()
        if step == first_step + ESTIMATE_AFTER:
            each = (time.monotonic() - second_at) / (ESTIMATE_AFTER - 1)
            echo(estimate(each, steps - step, 60 * minutes - (time.monotonic() - started)))
        if step % CURVE_EVERY == 0 and step < steps:
            note(np.mean(losses), validate() if step % validate_every == 0 else "")
            losses = []
        if time.monotonic() - stored_at > CHECKPOINT_EVERY:
            store()
            stored_at = time.monotonic()
        if time.monotonic() - started > 60 * minutes and step < steps:
            store()
            message = f"{minutes:g} minutes ended at batch {step} of {steps}; run the same command to go on."
            raise TimeUp(message, chosen_network(network, best))
    # The last batches once more: full slices, as at inference.
    reestimate_statistics(network, loader(max(steps - STATISTICS_FROM, 0), steps), device)
    note(np.mean(losses), validate())
    if best is not None:
        echo(f"Best in validation: Dice {best['dice']:.4f} at batch {best['step']}.")
    store()
    return chosen_network(network, best)


def chosen_network(network, best):
    """Give a network the best weights, if there are any; in evaluation mode."""
    if best is not None:
        network.load_state_dict(best["weights"])
    return network.eval()
