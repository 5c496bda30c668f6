"""Every MALC scan, scored by a U-Net with scSE that never saw it: cross-validation.

    python Testing/Benchmarks/crossvalidation.py DATA_DIR --steps N --minutes M --run DIR [--folds 5]

The scans of DATA_DIR/malc are dealt out to the folds. For each fold a network is trained from scratch, N batches of
coronal slices of all other scans and of the label maps in DATA_DIR/labelmaps; then it labels the fold's scans, which
chose nothing of it. Prints the table and leaves it in DIR/steps-N (crossvalidation.md), with every single value
(values.csv). A trained network stays there; the command goes on where it ended. Needs the extra "benchmark".
"""

import sys

from scores import Values, find_scans, mean, spread, table
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.choices.structures import structures
from trainings import Training, parser, run, scores_of

# The paper's 27 structures are ours less these: inferior lateral ventricles and accumbens areas.
NOT_IN_PAPER = (5, 44, 26, 58)

EXPLANATION = """\
U-Net with scSE, coronal slices: {folds} networks, each trained from scratch for {steps} batches without the scans that
it is scored on (manual labels); ± standard deviation over the scans. HD95: 95th-percentile Hausdorff distance.
"""


def folds_of(scans, count):
    """Deal scans out to ``count`` folds, one after the other."""
    return [scans[number::count] for number in range(count)]


def trainings(data, folder, count):
    """Return the :class:`~trainings.Training` of every fold, each with the scans that it is to be scored on.

    Raises:
        SEBrainSegError: there are no scans, or more folds than scans.
    """
    scans = find_scans([data / "malc"])
    if count > len(scans):
        raise SEBrainSegError(f"{count} folds are more than the {len(scans)} scans; choose fewer with --folds.")
    return [
        (
            Training(folder / f"fold-{number}.pt", {"se": "scse"}, [each.name for each in scans if each not in fold]),
            fold,
        )
        for number, fold in enumerate(folds_of(scans, count), start=1)
    ]


def write_table(folder, steps, folds):
    """Score what is trained, print the table and write it."""
    kept, rows = Values(folder / "values.csv"), []
    in_paper = [each.label not in NOT_IN_PAPER for each in structures()]
    for number, (training, scans) in enumerate(folds, start=1):
        if training.path.exists():
            found, _ = scores_of(training.path, scans, "manual", kept)
            rows += [
                (scan.name, number, mean(values[:, 0]), mean(values[in_paper, 0]), mean(values[:, 1]))
                for scan, values in zip(scans, found)
            ]
    rows.sort()
    text = EXPLANATION.format(folds=len(folds), steps=steps)
    lines = [[name, str(fold), f"{dice:.3f}", f"{paper:.3f}", f"{far:.2f}"] for name, fold, dice, paper, far in rows]
    if rows:
        _, _, *columns = zip(*rows)
        lines.append([f"all {len(rows)}", "–", *(spread(values, digits) for values, digits in zip(columns, (3, 3, 2)))])
    header = ["scan", "fold", f"Dice, {len(in_paper)} structures", f"Dice, the paper's {sum(in_paper)}", "HD95 (mm)"]
    text += "\n" + table(header, lines) + "\n"
    (folder / "crossvalidation.md").write_text(text, encoding="utf-8")
    print(text)


def main(argv=None):
    """Run the benchmark; returns the exit status (0 done, 2 bad input, 3 out of time)."""
    arguments = parser(__doc__)
    arguments.add_argument("--folds", type=int, default=5, help="networks to train, 2 or more (default 5)")
    chosen = arguments.parse_args(argv)
    if chosen.folds < 2:
        arguments.error("--folds takes a number of at least 2.")

    def prepare(folder):
        folds = trainings(chosen.data, folder, chosen.folds)
        return [training for training, _ in folds], lambda: write_table(folder, chosen.steps, folds)

    return run(chosen, prepare)


if __name__ == "__main__":
    sys.exit(main())
