"""The choice of the recipe: what each setting of short equal trainings brings, and each correction afterwards.

    python Testing/Benchmarks/recipe_study.py DATA_DIR --run DIR [--recipe recipes/recipe_study.json] [-o DIR]

Scores what the queue has trained so far:

    python -m SEBrainSegLib.training.queue Testing/Benchmarks/recipes/recipe_study.json DATA_DIR --run DIR

Each network is scored with its last weights and, if it has one, with their average; with slices as they are and
smoothed; FreeSurfer's protocol with and without its two corrections. The scans are the MALC ones held out (manual
protocol) and those of DATA_DIR/validation; of each every fourth slice, on the grid of the networks and without
post-processing, so that Dice is to be compared within this table only.

Prints the table and leaves it in the output folder (recipe_study.md and .csv); every single value goes to the run's
folder (recipe_study-values.csv), and what is there is not computed again. Needs the extra "benchmark".
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
import torch

from scores import digits, mean, table
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.files.results import check_writable
from SEBrainSegLib.inference import memory
from SEBrainSegLib.inference.brain_region import head_box
from SEBrainSegLib.inference.slices import logits_of_slices, slices_of
from SEBrainSegLib.networks.architectures import NETWORKS
from SEBrainSegLib.networks.classes import class_of_label
from SEBrainSegLib.training.brain_recipe import BrainRecipe
from SEBrainSegLib.training.queue import NETWORK_SETTINGS, Plan, is_done, model_path, read_recipe
from SEBrainSegLib.training.scans import LabelledScan, labelled_scans
from trained import by_setting, over_seeds, recipe_parser

STRIDE = 4  # mm between the slices that are scored
SMOOTHINGS: dict[str, tuple[float, ...]] = {"no": (), "yes": (0.2, 0.6, 0.2)}
WEIGHTS = ("average", "last")
# The corrections under trial. "mean": both protocols' logits are averaged where they draw a structure alike. "shift":
# is added to logits, by label (0: background).
DRAWN_ALIKE = (2, 41, 4, 43, 7, 46, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53)
SHIFTS = {0: 0.5, 5: -2.0, 44: -2.0}
CORRECTIONS = ("none", "mean", "shift", "mean and shift")

COLUMNS = ("training", "model_sha256", "weights", "smoothing", "correction", "scan", "structure", "dice")

EXPLANATION = """\
{recipe}: {trained} of {all} trainings of {steps} batches. Mean Dice over the structures present, of every {stride}th
slice; ± standard deviation over seeds. FreeSurfer: mean of {others}; MALC: mean of {scans} (manual labels; what
corrects FreeSurfer's protocol does not concern them).
"""


class Score(NamedTuple):
    """Dice of a structure of a scan by one network in one way of using it."""

    training: str
    model_digits: str
    weights: str
    smoothing: str
    correction: str
    scan: str
    structure: str
    dice: float


def read_scores(path: Path) -> list[Score]:
    """Read the file of every single value; empty if there is none."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [Score(*list(row.values())[:-1], float(row["dice"])) for row in csv.DictReader(file)]  # type: ignore


def add_scores(path: Path, scores: Sequence[Score]) -> None:
    """Add to the file of every single value."""
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerows([*each[:-1], f"{each.dice:.5f}"] for each in scores)


def networks_of(plan: Plan, run: Path) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the networks of a training by the name of their weights, in evaluation mode."""
    stored = torch.load(run / plan.name / "checkpoint.pt", map_location="cpu", weights_only=True)
    classes = len(BrainRecipe.protocols) * (len(structures()) + 1)
    arguments = {name: getattr(plan, name) for name in NETWORK_SETTINGS if name != "architecture"}
    for name, key, prefix in (("average", "average", "module."), ("last", "network", "")):
        if key in stored:
            network = NETWORKS[plan.architecture](classes=classes, **arguments)
            weights = {each[len(prefix) :]: value for each, value in stored[key].items() if each.startswith(prefix)}
            network.load_state_dict(weights)
            yield name, network.eval()


def corrected(logits: torch.Tensor, manual: torch.Tensor, correction: str) -> torch.Tensor:
    """Return the logits of FreeSurfer's protocol ``(n, classes, H, W)`` after a correction.

    Args:
        manual: those of the manual protocol, same shape.
        correction: one of :data:`CORRECTIONS`.
    """
    classes, logits = {0: 0, **class_of_label()}, logits.clone()
    if correction.startswith("mean"):
        alike = [classes[label] for label in DRAWN_ALIKE]
        logits[:, alike] = (logits[:, alike] + manual[:, alike]) / 2
    if correction.endswith("shift"):
        for label, shift in SHIFTS.items():
            logits[:, classes[label]] += shift
    return logits


def score_network(
    network: torch.nn.Module, scan: LabelledScan, view: str, taps: tuple[float, ...]
) -> dict[str, dict[str, float]]:
    """Return the Dice of every structure present in the scan's slices, by correction and name.

    Args:
        taps: of the smoothing, see :func:`logits_of_slices`.
    """
    box, count = head_box(scan.image.numpy()), len(structures()) + 1
    slices, truth = slices_of(scan.image[box], view), slices_of(scan.classes[box], view)
    numbers = range(STRIDE // 2, len(slices), STRIDE)
    corrections = CORRECTIONS if scan.protocol == "freesurfer" else CORRECTIONS[:1]
    found: dict[str, list[torch.Tensor]] = {name: [] for name in corrections}
    for _, logits in logits_of_slices(network, slices, torch.device("cpu"), taps, numbers):
        manual, freesurfer = logits.float().unflatten(1, (len(BrainRecipe.protocols), count)).unbind(1)
        own = manual if scan.protocol == "manual" else freesurfer
        for name in corrections:
            found[name].append(corrected(own, manual, name).argmax(dim=1))
    truth = truth[list(numbers)].long()
    return {name: dice_by_name(torch.cat(classes), truth) for name, classes in found.items()}


def dice_by_name(found: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Return the Dice of the structures present in either; what the truth ignores does not count."""
    count = len(structures()) + 1
    scored = truth < count
    found, truth = found[scored], truth[scored]
    overlap = torch.bincount(truth[found == truth], minlength=count)
    volumes = torch.bincount(truth, minlength=count) + torch.bincount(found, minlength=count)
    names = enumerate((structure.name for structure in structures()), start=1)
    return {name: float(2 * overlap[index] / volumes[index]) for index, name in names if volumes[index] > 0}


def score_training(plan: Plan, run: Path, scans: Sequence[LabelledScan], path: Path) -> list[Score]:
    """Return all scores of a training, those that are missing in the file of values after adding them to it."""
    model_digits = digits(model_path(run, plan).read_bytes())
    kept = [each for each in read_scores(path) if (each.training, each.model_digits) == (plan.name, model_digits)]
    done = {(each.weights, each.smoothing) for each in kept}
    ways = [(weights, smoothing) for weights in WEIGHTS for smoothing in SMOOTHINGS]
    if set(ways if plan.average else ways[len(SMOOTHINGS) :]) <= done:
        return kept
    for weights, network in networks_of(plan, run):
        for smoothing, taps in SMOOTHINGS.items():
            if (weights, smoothing) in done:
                continue
            new = [
                Score(plan.name, model_digits, weights, smoothing, correction, scan.name, structure, dice)
                for scan in scans
                for correction, by_name in score_network(network, scan, plan.view, taps).items()
                for structure, dice in by_name.items()
            ]
            add_scores(path, new)
            kept += new
            dice = mean([each.dice for each in new if each.correction == "none"])
            print(
                f"{plan.name}, {weights} weights, smoothed: {smoothing}: Dice {dice:.4f}", file=sys.stderr, flush=True
            )
    return kept


def mean_dice(scores: Sequence[Score], scan: str, weights: str, smoothing: str, correction: str) -> float:
    """Return the mean Dice over the structures of a scan."""
    wanted = scan, weights, smoothing, correction
    return mean([each.dice for each in scores if (each.scan, each.weights, each.smoothing, each.correction) == wanted])


def summary_rows(
    plans: Sequence[Plan], scores: dict[str, list[Score]], scans: Sequence[str], others: Sequence[str]
) -> Iterator[list[str]]:
    """Yield the rows of the trainings of one setting: one for each way of using their networks.

    Args:
        scores: by name of training.
        scans: names of the MALC scans.
        others: names of the scans with FreeSurfer's labels.
    """
    setting = plans[0].name.removesuffix(f"-seed{plans[0].seed}")
    ways = dict.fromkeys(
        (each.weights, each.smoothing, each.correction) for plan in plans for each in scores[plan.name]
    )

    def dice_of(names: Sequence[str], *way: str) -> np.ndarray:
        """Mean Dice over the structures, ``(seeds, scans)``."""
        return np.array([[mean_dice(scores[plan.name], name, *way) for name in names] for plan in plans])

    for weights, smoothing, correction in ways:
        of_others = dice_of(others, weights, smoothing, correction)
        of_malc = dice_of(scans, weights, smoothing, "none")
        row = [setting, str(len(plans)), weights, smoothing, correction]
        row += [f"{mean(column):.4f}" for column in of_others.T] + [over_seeds(of_others.mean(axis=1), 4)]
        row += [f"{mean(column):.4f}" for column in of_malc.T] + [over_seeds(of_malc.mean(axis=1), 4)]
        yield row


def write_study(chosen) -> None:
    """Score what is trained, print the table and write it.

    Raises:
        SEBrainSegError: nothing is trained yet, or the data or the recipe is unusable.
    """
    plans = read_recipe(chosen.recipe)
    trained = [plan for plan in plans if is_done(chosen.run, plan)]
    if not trained:
        raise SEBrainSegError(f"{chosen.run} has no network of {chosen.recipe} yet; train them with the queue.")
    if any(plan.data != "heads" or plan.held_out != plans[0].held_out for plan in plans):
        raise SEBrainSegError(f"The trainings of {chosen.recipe} are not of heads with the same scans held out.")
    check_writable(chosen.output)
    held_out = labelled_scans(chosen.data / "malc", plans[0].held_out)
    others = labelled_scans(chosen.data / "validation", protocol="freesurfer")
    path = chosen.run / "recipe_study-values.csv"
    scores = {plan.name: score_training(plan, chosen.run, [*held_out, *others], path) for plan in trained}
    names, other_names = ([scan.name for scan in scans] for scans in (held_out, others))
    header = ["setting", "seeds", "weights", "smoothed", "correction", *other_names, "FreeSurfer", *names, "MALC"]
    rows = [row for group in by_setting(trained) for row in summary_rows(group, scores, names, other_names)]
    text = EXPLANATION.format(
        recipe=chosen.recipe.name,
        trained=len(trained),
        all=len(plans),
        steps=" or ".join(sorted({f"{plan.steps:,}" for plan in plans})),
        stride=STRIDE,
        others=", ".join(other_names),
        scans=", ".join(names),
    )
    text += "\n" + table(header, rows) + "\n"
    (chosen.output / "recipe_study.md").write_text(text, encoding="utf-8")
    with open(chosen.output / "recipe_study.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    print(text)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark; returns the exit status (0 done, 2 bad input)."""
    chosen = recipe_parser(__doc__, "recipe_study.json").parse_args(argv)
    torch.set_num_threads(1)  # trainings may run beside
    memory.keep_what_is_freed()
    try:
        write_study(chosen)
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
