"""Which setting: networks of a recipe file that differ in a few settings, scored, ± over seeds.

    python Testing/Benchmarks/ablation.py DATA_DIR --run DIR [--recipe recipes/ablation.json] [--validation] [-o DIR]

Scores what the queue has trained so far:

    python -m SEBrainSegLib.training.queue Testing/Benchmarks/recipes/ablation.json DATA_DIR --run DIR

Likewise for ``malc_only.json``, the paper's own setting, and ``noise.json``, further seeds. The scans are the MALC ones
that the trainings held out, with --validation those of DATA_DIR/validation, too. Prints the table and leaves it in the
output folder (NAME.md and NAME.csv, after the recipe); every single value goes to the run's folder. Needs the extra
"benchmark".
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from scores import Scan, Values, find_scans, mean, table
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.files.results import check_writable
from SEBrainSegLib.training.queue import Plan, is_done, model_path, read_recipe
from trained import (
    by_setting,
    differing_settings,
    nothing_refused,
    over_seeds,
    parameters_of,
    recipe_parser,
    scores_of,
    settings_of,
)

EXPLANATION = """\
{recipe}: {trained} of {all} trainings of {steps} batches, each from scratch. Mean Dice over the {structures}
structures, ± standard deviation over seeds; HD95: 95th-percentile Hausdorff distance of the MALC scans (manual labels),
which were kept out of the training.
"""


def setting_row(
    group: Sequence[Plan],
    names: Sequence[str],
    run: Path,
    scans: Sequence[Scan],
    others: Sequence[Scan],
    kept: Values,
) -> list[str]:
    """Return the row of the trainings of one setting.

    Args:
        names: of the settings to tell.
        scans: MALC scans.
        others: scans with FreeSurfer's labels; none of networks that know one protocol only.
    """
    paths = [model_path(run, plan) for plan in group]
    # Seeds, scans, structures, measures.
    found = np.stack([scores_of(path, scans, "manual", kept) for path in paths])
    dice, distance = (
        np.array([[mean(of_scan) for of_scan in of_seed] for of_seed in found[..., measure]]) for measure in (0, 1)
    )
    settings = settings_of(group[0])
    row = [str(settings[name]) for name in names]
    row += [f"{parameters_of(paths[0], 'manual'):,}", str(len(group))]
    row += [f"{mean(of_scan):.3f}" for of_scan in dice.T]
    row += [over_seeds(dice.mean(axis=1), 3), over_seeds(distance.mean(axis=1), 2)]
    if others:
        of_others = [scores_of(path, others, "freesurfer", kept)[..., 0] for path in paths]
        row.append(over_seeds([mean([mean(of_scan) for of_scan in of_seed]) for of_seed in of_others], 3))
    return row


def write_table(plans: Sequence[Plan], chosen) -> None:
    """Score what is trained, print the table and write it.

    Raises:
        SEBrainSegError: nothing is trained yet, the scans are unusable, or the trainings held out different ones.
    """
    held_out = {plan.held_out for plan in plans}
    if () in held_out:
        raise SEBrainSegError(f"A training of {chosen.recipe} held out no scan, so there is none to score it on.")
    if len(held_out) > 1:
        raise SEBrainSegError(f"The trainings of {chosen.recipe} held out different scans; use crossvalidation.py.")
    scans = find_scans([chosen.data / "malc"], held_out.pop())
    knows_freesurfer = all(plan.data == "heads" for plan in plans)
    others = find_scans([chosen.data / "validation"]) if chosen.validation and knows_freesurfer else []
    trained = [plan for plan in plans if is_done(chosen.run, plan)]
    if not trained:
        raise SEBrainSegError(f"{chosen.run} has no network of {chosen.recipe} yet; train them with the queue.")
    check_writable(chosen.output)
    kept, names = Values(chosen.run / f"{chosen.recipe.stem}-values.csv"), differing_settings(plans)
    header = [*names, "parameters", "seeds", *(scan.name for scan in scans), "MALC", "HD95 (mm)"]
    if others:
        header.append(", ".join(scan.name for scan in others))
    rows = [setting_row(group, names, chosen.run, scans, others, kept) for group in by_setting(trained)]
    steps = " or ".join(sorted({f"{plan.steps:,}" for plan in plans}))
    text = EXPLANATION.format(
        recipe=chosen.recipe.name, trained=len(trained), all=len(plans), steps=steps, structures=len(structures())
    )
    if others:
        text += "The last column are scans with FreeSurfer's labels.\n"
    text += "\n" + table(header, rows) + "\n"
    (chosen.output / f"{chosen.recipe.stem}.md").write_text(text, encoding="utf-8")
    with open(chosen.output / f"{chosen.recipe.stem}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    print(text)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark; returns the exit status (0 done, 2 bad input)."""
    parser = recipe_parser(__doc__, "ablation.json")
    parser.add_argument("--validation", action="store_true", help="score the scans of DATA_DIR/validation, too")
    chosen = parser.parse_args(argv)
    try:
        with nothing_refused():
            write_table(read_recipe(chosen.recipe), chosen)
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
