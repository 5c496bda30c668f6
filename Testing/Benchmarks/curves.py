"""Learning curves of the SE variants, one picture a network: validation Dice against batches.

    python Testing/Benchmarks/curves.py --run DIR [--recipe recipes/bundled.json] [-o DIR]

Draws what the queue has noted so far in DIR/NAME/curve.csv, of the networks in coronal slices, on one scale. Leaves
curves-ARCHITECTURE.png and the numbers (curves.csv) in the output folder. Needs the extra "benchmark".
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from scores import mean
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.choices.parameters import Architecture, Variant, values
from SEBrainSegLib.files.results import check_writable
from SEBrainSegLib.training.queue import Plan, curve_path, read_recipe
from trained import RECIPES, RESULTS

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is missing; install it with: pip install '.[benchmark]'")

VIEW = "coronal"
# Told apart without colour, too. Any further variant takes the last look.
LOOKS = {
    "none": {"color": "#767676", "linestyle": "--", "marker": "o", "markerfacecolor": "white"},
    "cse": {"color": "#d98200", "linestyle": "-.", "marker": "^"},
    "sse": {"color": "#2a8f5b", "linestyle": ":", "marker": "s"},
    "scse": {"color": "#0b6fb8", "linestyle": "-", "marker": "D"},
}
OTHER_LOOK = {"color": "#8a4fbf", "linestyle": "-", "marker": "v"}


class Curve(NamedTuple):
    """Validation Dice of a training at some numbers of batches, both ``(n,)``."""

    plan: Plan
    steps: np.ndarray
    dice: np.ndarray


def read_curves(plans: Sequence[Plan], run: Path) -> list[Curve]:
    """Read the curves that have a validated batch at least."""
    curves = []
    for plan in plans:
        path = curve_path(run, plan)
        if not path.exists():
            continue
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["validation_dice"]]
        if rows:
            steps, dice = ([float(row[name]) for row in rows] for name in ("step", "validation_dice"))
            curves.append(Curve(plan, np.array(steps), np.array(dice)))
    return curves


def mean_curve(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return the batches at which all of some curves were validated, and the mean of their Dice there."""
    shared = sorted(set.intersection(*(set(curve.steps) for curve in curves)))
    means = [mean([curve.dice[curve.steps == step][0] for curve in curves]) for step in shared]
    return np.array(shared), np.array(means)


def draw(curves: Sequence[Curve], limits: tuple[float, float]) -> Figure:
    """Draw the variants of one architecture, the mean over seeds and each faintly, and what SE blocks bring.

    Args:
        limits: lowest and highest Dice of the picture.
    """
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    by_se = {se: [curve for curve in curves if curve.plan.se == se] for se in values(Variant)}
    means = {se: mean_curve(of_se) for se, of_se in by_se.items() if of_se}
    for se, (steps, dice) in means.items():
        look = {"markersize": 4, "linewidth": 1.6, **LOOKS.get(se, OTHER_LOOK)}
        above.plot(steps, dice, label=Variant(se).label(), **look)
        for curve in by_se[se] if len(by_se[se]) > 1 else ():
            above.plot(curve.steps, curve.dice, color=look["color"], linewidth=0.6, alpha=0.5)
        if se != "none" and "none" in means:
            shared, ours, theirs = np.intersect1d(steps, means["none"][0], return_indices=True)
            below.plot(shared, dice[ours] - means["none"][1][theirs], **look)
    above.set_title(f"{Architecture(curves[0].plan.architecture).label()}, {VIEW} slices", fontsize=11)
    above.set_ylabel("mean Dice of the scans held out")
    above.set_ylim(*limits)
    above.legend(loc="lower right", frameon=False)
    below.axhline(0, color=LOOKS["none"]["color"], linestyle="--", linewidth=1)
    below.set_ylabel("difference to no SE blocks")
    below.set_xlabel("batches")
    for axes in (above, below):
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


def write_curves(plans: Sequence[Plan], run: Path, output: Path) -> list[Path]:
    """Draw a picture a network and write the numbers; returns the pictures.

    Raises:
        SEBrainSegError: nothing was validated yet, or the folder cannot be written to.
    """
    curves = read_curves([plan for plan in plans if plan.view == VIEW], run)
    if not curves:
        raise SEBrainSegError(f"{run} has no curve with a validation Dice of these trainings.")
    check_writable(output)
    with open(output / "curves.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["training", "architecture", "se", "seed", "step", "validation_dice"])
        for curve in curves:
            plan = curve.plan
            for step, dice in zip(curve.steps, curve.dice):
                writer.writerow([plan.name, plan.architecture, plan.se, plan.seed, int(step), f"{dice:.4f}"])
    # The first batches know nothing; from a tenth of all on, the curves are told apart.
    late = np.concatenate([curve.dice[curve.steps >= 0.1 * curve.plan.steps] for curve in curves])
    late = late if late.size else np.concatenate([curve.dice for curve in curves])
    limits = max(0.0, float(late.min()) - 0.02), min(1.0, float(late.max()) + 0.02)
    pictures = []
    for architecture in dict.fromkeys(curve.plan.architecture for curve in curves):
        pictures.append(output / f"curves-{architecture}.png")
        own = [curve for curve in curves if curve.plan.architecture == architecture]
        draw(own, limits).savefig(pictures[-1], dpi=200)
    return pictures


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark; returns the exit status (0 done, 2 bad input)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, nargs="+", default=[RECIPES / "bundled.json"], metavar="FILE")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of the queue's curves")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="DIR")
    chosen = parser.parse_args(argv)
    try:
        plans = [plan for recipe in chosen.recipe for plan in read_recipe(recipe)]
        for path in write_curves(plans, chosen.run, chosen.output):
            print(path)
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
