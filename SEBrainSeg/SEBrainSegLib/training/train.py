"""The training loop: a fixed number of batches, a learning rate that decays to zero, checkpoints to resume from."""

import csv
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..networks import NETWORKS
from ..structures import IGNORED, unsided_classes
from ..volume import VIEWS
from ..zoo import PROTOCOLS
from .batches import MANUAL, Batches
from .losses import combined_loss

CHECKPOINT_EVERY = 120  # seconds
WARM_UP = 100  # batches
WEIGHT_DECAY = 1e-4
CURVE_EVERY = 25  # batches


class TimeUp(Exception):
    """The time budget ended before the batches did; the checkpoint is written."""


def learning_rate(step, steps, peak):
    """Linear warm-up, then polynomial decay (power 0.9) to zero."""
    return peak * min((step + 1) / WARM_UP, (1 - step / steps) ** 0.9)


def save(content, path):
    """Write beside, then rename, so that an interruption leaves the last checkpoint whole."""
    beside = path.with_suffix(".part")
    torch.save(content, beside)
    os.replace(beside, path)


def of_protocol(logits, protocols):
    """Logits ``(N, classes, H, W)`` of each slice's own protocol, out of ``(N, protocols * classes, H, W)``."""
    logits = logits.unflatten(1, (len(PROTOCOLS), -1))
    return logits[torch.arange(len(logits), device=logits.device), protocols.to(logits.device)]


def start_from(network, state_dict):
    """Copy the weights of a network that differs in its SE blocks only; return the names that start anew."""
    own = network.state_dict()
    for name in ("classifier.weight", "classifier.bias"):
        if len(own[name]) == len(PROTOCOLS) * len(state_dict[name]):
            state_dict = {**state_dict, name: torch.cat([state_dict[name]] * len(PROTOCOLS))}
    shared = {name: value for name, value in state_dict.items() if name in own and own[name].shape == value.shape}
    network.load_state_dict({**own, **shared})
    return sorted(set(own) - set(shared))


def held_out_dice(network, scans, view, device, stride=8):
    """Mean Dice over the structures present in every ``stride``-th slice of ``scans``, pooled."""
    network.eval()
    overlap, volumes = np.zeros(256), np.zeros(256)
    for scan in scans:
        axis = VIEWS[view]
        images = scan.image.movedim(axis, 0)[::stride]
        truth = scan.classes.movedim(axis, 0)[::stride].numpy()
        if view == "sagittal":
            truth = unsided_classes()[truth]
        rows, columns = (n // 16 * 16 for n in images.shape[1:])
        with torch.no_grad():
            logits = [network(batch[:, None, :rows, :columns].to(device)) for batch in images.split(8)]
            manual = torch.full((8,), MANUAL)
            found = [of_protocol(batch, manual[: len(batch)]).argmax(dim=1).cpu() for batch in logits]
        found, truth = torch.cat(found).numpy(), truth[:, :rows, :columns]
        scored = truth != IGNORED
        overlap += np.bincount(truth[scored & (found == truth)], minlength=256)
        volumes += np.bincount(truth[scored], minlength=256) + np.bincount(found[scored], minlength=256)
    present = np.flatnonzero(volumes[1:IGNORED]) + 1
    network.train()
    return float((2 * overlap[present] / volumes[present]).mean())


def reestimate_statistics(network, loader, device):
    """Replace batch norm's running statistics by plain averages over the loader's batches."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    with torch.no_grad():
        for images, _, _ in loader:
            network(images.to(device))
    for norm in norms:
        norm.momentum = 0.1


def train(
    configuration,
    scans,
    heads,
    held_out,
    folder,
    steps,
    minutes,
    view="coronal",
    seed=0,
    peak=4e-3,
    device="cpu",
    initial=None,
    workers=1,
    echo=print,
):
    """Train one network; resumes from ``folder/checkpoint.pt`` if that exists.

    Args:
        configuration: ``architecture`` (a key of ``NETWORKS``) and the arguments of that network.
        scans, heads: see :class:`~.batches.Batches`.
        held_out: labelled scans to watch over-fitting on, never trained on.
        folder: where the checkpoint and ``curve.csv`` go.
        steps: batches in all; equal steps and seed give equal data in equal order.
        minutes: time budget of this call.
        initial: state dict to start from, see :func:`start_from`.

    Returns:
        the trained network, in evaluation mode.

    Raises:
        TimeUp: the time budget ended first.
    """
    started = time.monotonic()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    arguments = {key: value for key, value in configuration.items() if key != "architecture"}
    network = NETWORKS[configuration["architecture"]](**arguments)
    if initial is not None:
        echo(f"New in this network: {len(start_from(network, initial))} entries.")
    network = network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=peak, weight_decay=WEIGHT_DECAY)
    checkpoint, step = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        stored = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(stored["network"])
        optimiser.load_state_dict(stored["optimiser"])
        step = stored["step"]
        echo(f"Resumed at batch {step} of {steps}.")
    curve = folder / "curve.csv"
    rows = curve.read_text(encoding="utf-8").splitlines()[1:] if step and curve.exists() else []
    # What was noted after the checkpoint is noted again.
    rows = [row for row in rows if int(row.split(",")[0]) <= step]
    curve.write_text("\n".join(["step,minutes,learning_rate,loss,held_out_dice", *rows, ""]), encoding="utf-8")

    def loader(first, last):
        batches = Batches(scans, heads, view, steps, seed)
        return DataLoader(batches, batch_size=None, sampler=range(first, last), num_workers=workers)

    def store():
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
        save(state, checkpoint)

    def note(loss, dice=""):
        spent = (time.monotonic() - started) / 60
        rate = learning_rate(step, steps, peak)
        with open(curve, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([step, f"{spent:.2f}", f"{rate:.2e}", f"{loss:.4f}", dice])
        held = f", held-out Dice {dice}" if dice else ""
        echo(f"batch {step}/{steps}, {spent:.1f} min, loss {loss:.3f}{held}")

    network.train()
    losses, stored_at = [], time.monotonic()
    for images, classes, protocols in loader(step, steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        images = images.to(device, memory_format=torch.channels_last)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = network(images)
        loss = combined_loss(of_protocol(logits, protocols), classes.to(device))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        step += 1
        if step % CURVE_EVERY == 0 and step < steps:
            last = held_out and step % (40 * CURVE_EVERY) == 0
            note(np.mean(losses), f"{held_out_dice(network, held_out, view, device):.4f}" if last else "")
            losses = []
        if time.monotonic() - stored_at > CHECKPOINT_EVERY:
            store()
            stored_at = time.monotonic()
        if time.monotonic() - started > 60 * minutes and step < steps:
            store()
            raise TimeUp(f"{minutes} minutes ended at batch {step} of {steps}; run the same command to go on.")
    # The last batches once more: full slices, as at inference.
    reestimate_statistics(network, loader(max(steps - 60, 0), steps), device)
    dice = held_out_dice(network, held_out, view, device) if held_out else float("nan")
    if losses:
        note(np.mean(losses), f"{dice:.4f}" if held_out else "")
    store()
    return network.eval()
