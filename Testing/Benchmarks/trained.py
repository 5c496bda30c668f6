"""What the benchmarks share that score networks which ``SEBrainSegLib.training.queue`` trained by a recipe file."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import numpy as np

from scores import Scan, Values, digits, labels_found, mean, score
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.inference import plausibility
from SEBrainSegLib.networks.architectures import parameters
from SEBrainSegLib.networks.model_file import read_model
from SEBrainSegLib.training.queue import Plan

RECIPES = Path(__file__).with_name("recipes")
RESULTS = Path(__file__).with_name("results")

# What differs between trainings of one setting, or tells nothing of it.
NO_SETTINGS = ("name", "seed", "held_out", "validation")


def recipe_parser(description: str, recipe: str) -> argparse.ArgumentParser:
    """Return the arguments that these benchmarks share.

    Args:
        recipe: name of the recipe file that is the default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("--recipe", type=Path, default=RECIPES / recipe, metavar="FILE", help=f"default: {recipe}")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of the queue's model files")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="DIR")
    return parser


def settings_of(plan: Plan) -> dict:
    """Return what a training has in common with those that differ from it in their seeds only."""
    return {name: value for name, value in asdict(plan).items() if name not in NO_SETTINGS}


def by_setting(plans: Sequence[Plan]) -> list[list[Plan]]:
    """Put trainings together that differ in their seeds only, in the order of the recipe."""
    groups: dict[tuple, list[Plan]] = {}
    for plan in plans:
        groups.setdefault(tuple(settings_of(plan).items()), []).append(plan)
    return list(groups.values())


def differing_settings(plans: Sequence[Plan]) -> list[str]:
    """Return the names of the settings in which some trainings differ."""
    return [name for name in settings_of(plans[0]) if len({settings_of(plan)[name] for plan in plans}) > 1]


def scores_of(path: Path, scans: Sequence[Scan], protocol: str, kept: Values) -> np.ndarray:
    """Return the scores of a model file on scans, shape ``(scans, structures, 2)``, see :func:`scores.score`."""
    model_digits, found = digits(path.read_bytes()), []
    for scan in scans:
        key = path.stem, protocol, scan.name, (model_digits, scan.checksum())
        values = kept.get(*key)
        if values is None:
            image, truth = scan.read()
            # A model of one protocol, as of the paper's own setting, has no other to choose.
            labels = labels_found(image, f"{scan.name}, {path.stem}", model=str(path), protocol=protocol)
            values = kept.add(*key, score(labels, truth, image.GetSpacing()[::-1]))
            print(f"{scan.name}, {path.stem}: Dice {mean(values[:, 0]):.3f}", file=sys.stderr, flush=True)
        found.append(values)
    return np.array(found)


def parameters_of(path: Path, protocol: str) -> int:
    """Return the number of trainable parameters of a model file, its classifier those of one protocol."""
    return parameters(read_model(path.read_bytes(), protocol).network)


@contextmanager
def nothing_refused() -> Iterator[None]:
    """Score whatever a short training makes of a brain, however little it looks like one."""
    with patch.object(plausibility, "MOST_OUT_OF_PROPORTION", len(structures())):
        yield


def over_seeds(values: Sequence[float], places: int) -> str:
    """Write the mean over seeds and, of two or more, ± their standard deviation."""
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    if not known.size:
        return "–"
    deviation = f" ± {known.std(ddof=1):.{places}f}" if known.size > 1 else ""
    return f"{known.mean():.{places}f}{deviation}"
