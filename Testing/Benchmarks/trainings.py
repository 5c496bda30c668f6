"""What the benchmarks that train share: networks trained from scratch with equal budgets, and their scores."""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch

from scores import digits, labels_found, mean, score
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.choices.vocabulary import Protocol
from SEBrainSegLib.files.results import check_writable
from SEBrainSegLib.inference import plausibility
from SEBrainSegLib.networks.architectures import parameters
from SEBrainSegLib.networks.model_file import read_model, write_model
from SEBrainSegLib.training import intensity_patterns
from SEBrainSegLib.training.brain_recipe import BrainRecipe
from SEBrainSegLib.training.scans import head_labels, labelled_scans
from SEBrainSegLib.training.training import TimeUp, fit

WIDTH, VIEW, SEED = 32, "coronal", 0


class Training(NamedTuple):
    """A U-Net to train from scratch.

    Attributes:
        path: the model file to make; the checkpoint goes beside it, into the folder of its name.
        configuration: the network's arguments but its width and its classes.
        names: of the MALC scans to train on.
    """

    path: Path
    configuration: dict
    names: list


def train_missing(trainings, data, steps, minutes):
    """Train what has no model file yet; what has a checkpoint goes on from there.

    Raises:
        TimeUp: the time budget ended first.
        SEBrainSegError: there is nothing to train on.
    """
    started = time.monotonic()
    missing = [each for each in trainings if not each.path.exists()]
    if not missing:
        return
    scans = labelled_scans(data / "malc", {name for each in missing for name in each.names})
    heads = head_labels(data / "labelmaps")
    for path, chosen, names in missing:
        print(f"{path.stem}:", file=sys.stderr)
        classes = len(Protocol) * (len(structures()) + 1)
        configuration = {"architecture": "unet", "classes": classes, "width": WIDTH}
        configuration.update(chosen)
        chosen_scans = [scan for scan in scans if scan.name in names]
        intensity_patterns.lay_over(heads, chosen_scans)
        network = fit(
            configuration,
            BrainRecipe(chosen_scans, heads, [], VIEW),
            path.with_suffix(""),
            steps,
            minutes - (time.monotonic() - started) / 60,
            seed=SEED,
            device="cuda" if torch.cuda.is_available() else "cpu",
            echo=lambda text: print(text, file=sys.stderr, flush=True),
        )
        write_model(path, network, configuration, VIEW, Protocol.in_rows())


def scores_of(path, scans, protocol, kept):
    """Return the scores of a model file on scans, ``(scans, structures, 2)``, and its number of parameters."""
    content, found = path.read_bytes(), []
    for scan in scans:
        key = path.stem, protocol, scan.name, (digits(content), scan.checksum())
        values = kept.get(*key)
        if values is None:
            image, truth = scan.read()
            labels = labels_found(image, f"{scan.name}, {path.stem}", model=str(path), protocol=protocol)
            values = kept.add(*key, score(labels, truth, image.GetSpacing()[::-1]))
            print(f"{scan.name}, {path.stem}: Dice {mean(values[:, 0]):.3f}", file=sys.stderr, flush=True)
        found.append(values)
    return np.array(found), parameters(read_model(content, protocol).network)


def parser(description):
    """The arguments that these benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("--steps", type=int, required=True, help="batches for each network")
    parser.add_argument("--minutes", type=float, required=True, help="time budget in all; the same command resumes")
    parser.add_argument("--run", type=Path, required=True, help="folder for the networks and the table")
    return parser


def run(chosen, prepare):
    """Train and score.

    Args:
        chosen: what :func:`parser` took.
        prepare: given the folder of this budget, returns the list of :class:`Training` and a function that writes the
            table of those that have a model file.

    Returns:
        the exit status (0 done, 2 bad input, 3 out of time).
    """
    # One folder a budget: networks of different ones are not to be compared.
    folder, status = chosen.run / f"steps-{chosen.steps}", 0
    try:
        trainings, write_table = prepare(folder)
        check_writable(folder)
        try:
            train_missing(trainings, chosen.data, chosen.steps, chosen.minutes)
        except TimeUp:
            print(f"{chosen.minutes:g} minutes ended; run the same command to go on.", file=sys.stderr)
            status = 3
        # What so short a training makes of a brain is scored, however little it looks like one.
        with patch.object(plausibility, "MOST_OUT_OF_PROPORTION", len(structures())):
            write_table()
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    return status
