"""``python -m SEBrainSegLib.training``, also ``sebrainseg-train``: train one network of the zoo."""

import argparse
import sys
from pathlib import Path

import torch

from ..model import full_precision, write_model
from ..networks import NETWORKS
from ..recalibration import VARIANTS
from ..structures import structures
from ..volume import VIEWS
from ..zoo import PROTOCOLS, list_checksums, model_name
from .scans import head_labels, labelled_scans
from .train import TimeUp, train

# Two scans kept out of training, to watch over-fitting.
HELD_OUT = ("1017", "1036")


def parser():
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog="sebrainseg-train", description=__doc__.split(": ")[1])
    parser.add_argument("data", type=Path, help="folder with malc/ (scans and labels) and labelmaps/ (heads)")
    parser.add_argument("--architecture", default="unet", choices=sorted(NETWORKS))
    parser.add_argument("--se", default="scse", choices=VARIANTS)
    parser.add_argument("--view", default="coronal", choices=sorted(VIEWS))
    parser.add_argument("--width", type=int, default=32, help="channels of every level (default 32)")
    parser.add_argument("--steps", type=int, default=2500, help="batches in all; equal for networks to be compared")
    parser.add_argument("--minutes", type=float, default=600.0, help="time budget; the same command resumes")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="peak of AdamW's learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--start-from", type=Path, help="model file whose weights to start from; SE blocks may differ")
    parser.add_argument("--run", type=Path, required=True, help="folder for the checkpoint and the curve")
    parser.add_argument("--models", type=Path, required=True, help="folder that the model file goes to")
    return parser


def main(argv=None):
    """Run the command; returns the exit status (0 trained, 3 out of time)."""
    chosen = parser().parse_args(argv)
    scans = labelled_scans(chosen.data / "malc")
    held_out = [scan for scan in scans if scan.name in HELD_OUT]
    scans = [scan for scan in scans if scan.name not in HELD_OUT]
    heads = head_labels(chosen.data / "labelmaps")
    print(f"{len(scans)} scans to train on, {len(held_out)} held out, {len(heads)} label maps.", flush=True)
    configuration = {
        "architecture": chosen.architecture,
        "classes": len(PROTOCOLS) * (len(structures()) + 1),
        "width": chosen.width,
        "se": chosen.se,
    }
    initial = None
    if chosen.start_from:
        stored = torch.load(chosen.start_from, map_location="cpu", weights_only=True)["weights"]
        initial = full_precision(stored)
    try:
        network = train(
            configuration,
            scans,
            heads,
            held_out,
            chosen.run,
            steps=chosen.steps,
            minutes=chosen.minutes,
            view=chosen.view,
            seed=chosen.seed,
            peak=chosen.learning_rate,
            device=chosen.device,
            initial=initial,
            workers=chosen.workers,
            echo=lambda text: print(text, flush=True),
        )
    except TimeUp as stop:
        print(stop)
        return 3
    chosen.models.mkdir(parents=True, exist_ok=True)
    path = chosen.models / model_name(chosen.architecture, chosen.se, chosen.view)
    write_model(path, network, configuration, chosen.view, PROTOCOLS)
    list_checksums(chosen.models)
    return 0


if __name__ == "__main__":
    sys.exit(main())
