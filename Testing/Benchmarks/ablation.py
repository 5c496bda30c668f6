"""Which scSE: U-Nets that differ in aggregation, reduction ratio and placement, trained alike and scored.

    python Testing/Benchmarks/ablation.py DATA_DIR --steps N --minutes M --run DIR [--validation FOLDER]

Each is trained from scratch on coronal slices of DATA_DIR (malc/ and labelmaps/) for the same N batches in the same
order, without the two MALC scans that it is scored on. A trained one stays in DIR; the command goes on where it ended.
Prints the table and leaves it in DIR/steps-N (ablation.md), with every single value (values.csv). Needs the extra
"benchmark".
"""

import sys
from pathlib import Path

from scores import Values, find_scans, mean, spread, table
from SEBrainSegLib.choices.parameters import Variant
from SEBrainSegLib.choices.structures import structures
from trainings import WIDTH, Training, parser, run, scores_of

HELD_OUT = ("1017", "1036")

# The paper's choice, from which each configuration of scSE departs in one respect.
PAPER = {"se": "scse", "aggregation": "max", "reduction": 2, "placement": "both"}
CONFIGURATIONS = (
    *({**PAPER, "se": se} for se in ("none", "cse", "sse", "scse")),
    *({**PAPER, "aggregation": aggregation} for aggregation in ("addition", "multiplication", "concatenation")),
    *({**PAPER, "reduction": reduction} for reduction in (4, 8, 16)),
    *({**PAPER, "placement": placement} for placement in ("encoder", "decoder", "all")),
)

EXPLANATION = """\
U-Nets of width {width}, coronal slices, each trained from scratch for the same {steps} batches in the same order with
one seed. Mean Dice over the {structures} structures, ± standard deviation over the scans; HD95: 95th-percentile
Hausdorff distance of the MALC scans. MALC {held_out} (manual labels) were kept out of the training{validation}.
So short a training of one seed each tells large differences only.
"""


def name_of(configuration):
    """Name of a configuration, such as ``scse-max-r2-both``."""
    return "{se}-{aggregation}-r{reduction}-{placement}".format(**configuration)


def model_path(folder, configuration):
    """Where the trained network goes."""
    return folder / f"{name_of(configuration)}.pt"


def write_table(folder, steps, held_out, validation):
    """Score what is trained, print the table and write it."""
    kept, rows = Values(folder / "values.csv"), []
    header = [
        "SE",
        "aggregation",
        "r",
        "placement",
        "parameters",
        *(scan.name for scan in held_out),
        "MALC",
        "HD95 (mm)",
    ]
    if validation:
        header.append(", ".join(scan.name for scan in validation))
    for each in CONFIGURATIONS:
        path = model_path(folder, each)
        if not path.exists():
            continue
        found, count = scores_of(path, held_out, "manual", kept)
        dice, distance = ([mean(values) for values in found[..., measure]] for measure in (0, 1))
        has_channels, has_both = each["se"] in ("cse", "scse"), each["se"] == "scse"
        row = [
            Variant(each["se"]).label(),
            each["aggregation"] if has_both else "–",
            str(each["reduction"]) if has_channels else "–",
            each["placement"] if each["se"] != "none" else "–",
            f"{count:,}",
            *(f"{value:.3f}" for value in dice),
            spread(dice, 3),
            spread(distance, 2),
        ]
        if validation:
            others, _ = scores_of(path, validation, "freesurfer", kept)
            row.append(spread([mean(values) for values in others[..., 0]], 3))
        rows.append(row)
    text = EXPLANATION.format(
        width=WIDTH,
        steps=steps,
        structures=len(structures()),
        held_out=" and ".join(HELD_OUT),
        validation="; the last column are scans with FreeSurfer's labels" if validation else "",
    )
    text += "\n" + table(header, rows) + "\n"
    (folder / "ablation.md").write_text(text, encoding="utf-8")
    print(text)


def main(argv=None):
    """Run the benchmark; returns the exit status (0 done, 2 bad input, 3 out of time)."""
    arguments = parser(__doc__)
    arguments.add_argument("--validation", type=Path, help="folder of more scans to score on, with FreeSurfer's labels")
    chosen = arguments.parse_args(argv)

    def prepare(folder):
        scans = find_scans([chosen.data / "malc"])
        held_out = find_scans([chosen.data / "malc"], HELD_OUT)
        validation = find_scans([chosen.validation]) if chosen.validation else []
        names = [scan.name for scan in scans if scan.name not in HELD_OUT]
        trainings = [Training(model_path(folder, each), each, names) for each in CONFIGURATIONS]
        return trainings, lambda: write_table(folder, chosen.steps, held_out, validation)

    return run(chosen, prepare)


if __name__ == "__main__":
    sys.exit(main())
