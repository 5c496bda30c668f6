"""Every MALC scan, scored by a network that never saw it: cross-validation.

    python Testing/Benchmarks/crossvalidation.py DATA_DIR --run DIR [--recipe recipes/crossvalidation.json] [-o DIR]

Scores what the queue has trained so far; each network on the scans that its training held out, which chose nothing of
it:

    python -m SEBrainSegLib.training.queue Testing/Benchmarks/recipes/crossvalidation.json DATA_DIR --run DIR

Prints the table and leaves it in the output folder (crossvalidation.md); every single value goes to the run's folder.
Needs the extra "benchmark".
"""

import sys
from collections.abc import Sequence
from typing import Optional

from scores import Values, find_scans, mean, spread, table
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.files.results import check_writable
from SEBrainSegLib.training.queue import Plan, is_done, model_path, read_recipe
from trained import nothing_refused, recipe_parser, scores_of

# The paper's 27 structures are ours less these: inferior lateral ventricles and accumbens areas.
NOT_IN_PAPER = (5, 44, 26, 58)

EXPLANATION = """\
{trained} of {all} networks, each trained from scratch for {steps} batches without the scans that it is scored on
(manual labels); ± standard deviation over the scans. HD95: 95th-percentile Hausdorff distance.
"""


def write_table(plans: Sequence[Plan], chosen) -> None:
    """Score what is trained, print the table and write it.

    Raises:
        SEBrainSegError: nothing is trained yet, or a scan was held out by two trainings or by none.
    """
    held_out = [name for plan in plans for name in plan.held_out]
    twice = sorted({name for name in held_out if held_out.count(name) > 1})
    if twice:
        raise SEBrainSegError(
            f"Two trainings of {chosen.recipe} held out the scan {twice[0]}; it is to be scored once."
        )
    scans = {scan.name: scan for scan in find_scans([chosen.data / "malc"], held_out)}
    trained = [plan for plan in plans if is_done(chosen.run, plan)]
    if not trained:
        raise SEBrainSegError(f"{chosen.run} has no network of {chosen.recipe} yet; train them with the queue.")
    check_writable(chosen.output)
    kept, rows = Values(chosen.run / "crossvalidation-values.csv"), []
    in_paper = [each.label not in NOT_IN_PAPER for each in structures()]
    for plan in trained:
        of_fold = [scans[name] for name in plan.held_out]
        found = scores_of(model_path(chosen.run, plan), of_fold, "manual", kept)
        for scan, values in zip(of_fold, found):
            dice, paper = mean(values[:, 0]), mean(values[in_paper, 0])
            rows.append((scan.name, plan.name, dice, paper, mean(values[:, 1])))
    rows.sort()
    steps = " or ".join(sorted({f"{plan.steps:,}" for plan in plans}))
    text = EXPLANATION.format(trained=len(trained), all=len(plans), steps=steps)
    lines = [[name, fold, f"{dice:.3f}", f"{paper:.3f}", f"{far:.2f}"] for name, fold, dice, paper, far in rows]
    _, _, *columns = zip(*rows)
    lines.append([f"all {len(rows)}", "–", *(spread(values, digits) for values, digits in zip(columns, (3, 3, 2)))])
    header = ["scan", "network", f"Dice, {len(in_paper)} structures", f"Dice, the paper's {sum(in_paper)}", "HD95 (mm)"]
    text += "\n" + table(header, lines) + "\n"
    (chosen.output / "crossvalidation.md").write_text(text, encoding="utf-8")
    print(text)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark; returns the exit status (0 done, 2 bad input)."""
    chosen = recipe_parser(__doc__, "crossvalidation.json").parse_args(argv)
    try:
        with nothing_refused():
            write_table(read_recipe(chosen.recipe), chosen)
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
