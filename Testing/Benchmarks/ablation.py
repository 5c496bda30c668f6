"""Which scSE: U-Nets that differ in aggregation, reduction ratio and placement, trained alike and scored.

    python Testing/Benchmarks/ablation.py DATA_DIR --steps N --minutes M --run DIR [--validation FOLDER]

Each is trained from scratch on coronal slices of DATA_DIR (malc/ and labelmaps/) for the same N batches in the same
order, without the two MALC scans that it is scored on. A trained one stays in DIR; the command goes on where it ended.
Prints the table and leaves it in DIR/steps-N (ablation.md), with every single value (values.csv). Needs the extra
"benchmark".
"""

import argparse
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from scores import Values, digits, find_scans, labels_found, mean, score, spread, table
from SEBrainSegLib import SEBrainSegError, no_brain
from SEBrainSegLib.model import read_model, write_model
from SEBrainSegLib.networks import parameters
from SEBrainSegLib.parameters import Variant
from SEBrainSegLib.results import check_writable
from SEBrainSegLib.structures import structures
from SEBrainSegLib.training.scans import head_labels, labelled_scans
from SEBrainSegLib.training.train import TimeUp, train
from SEBrainSegLib.zoo import PROTOCOLS

HELD_OUT = ("1017", "1036")
WIDTH, VIEW, SEED = 32, "coronal", 0

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


def train_missing(data, folder, steps, minutes):
    """Train the configurations that ``folder`` has no model file of; what it has a checkpoint of goes on from there.

    Raises:
        TimeUp: the time budget ended first.
        SEBrainSegError: there is nothing to train on.
    """
    started = time.monotonic()
    missing = [each for each in CONFIGURATIONS if not model_path(folder, each).exists()]
    if not missing:
        return
    names = [scan.name for scan in find_scans([data / "malc"]) if scan.name not in HELD_OUT]
    scans, heads = labelled_scans(data / "malc", names), head_labels(data / "labelmaps")
    for each in missing:
        print(f"{name_of(each)}:", file=sys.stderr)
        configuration = {"architecture": "unet", "classes": len(PROTOCOLS) * (len(structures()) + 1), "width": WIDTH}
        configuration.update(each)
        network = train(
            configuration,
            scans,
            heads,
            [],
            folder / name_of(each),
            steps,
            minutes - (time.monotonic() - started) / 60,
            view=VIEW,
            seed=SEED,
            device="cuda" if torch.cuda.is_available() else "cpu",
            echo=lambda text: print(text, file=sys.stderr, flush=True),
        )
        write_model(model_path(folder, each), network, configuration, VIEW, PROTOCOLS)


def model_path(folder, configuration):
    """Where the trained network goes."""
    return folder / f"{name_of(configuration)}.pt"


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("--steps", type=int, required=True, help="batches for each configuration")
    parser.add_argument("--minutes", type=float, required=True, help="time budget in all; the same command resumes")
    parser.add_argument("--run", type=Path, required=True, help="folder for the networks and the table")
    parser.add_argument("--validation", type=Path, help="folder of more scans to score on, with FreeSurfer's labels")
    chosen = parser.parse_args(argv)
    # One folder a budget: networks of different ones are not to be compared.
    folder, status = chosen.run / f"steps-{chosen.steps}", 0
    try:
        held_out = find_scans([chosen.data / "malc"], HELD_OUT)
        validation = find_scans([chosen.validation]) if chosen.validation else []
        check_writable(folder)
        try:
            train_missing(chosen.data, folder, chosen.steps, chosen.minutes)
        except TimeUp:
            print(f"{chosen.minutes:g} minutes ended; run the same command to go on.", file=sys.stderr)
            status = 3
        # What so short a training makes of a brain is scored, however little it looks like one.
        with patch.object(no_brain, "MOST_OUT_OF_PROPORTION", len(structures())):
            write_table(folder, chosen.steps, held_out, validation)
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
