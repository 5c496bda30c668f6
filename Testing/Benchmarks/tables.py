"""Every table and picture of the bundled networks, once they are trained and installed.

    python Testing/Benchmarks/tables.py DATA_DIR --run DIR [--seeds DIR] [--seconds] [-o DIR]

Compares the SE variants of the three networks in coronal slices (DATA_DIR/validation in FreeSurfer's protocol, the MALC
scans held out in the manual one), scores the other views of U-Net with scSE, draws the learning curves of the run and
fills Resources/Models/facts.csv from all that. Leaves comparison-PROTOCOL-VIEW/ and the curves in the output folder.
The same command goes on where it was interrupted. Needs the extra "benchmark".
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import comparison
import curves
import facts
from SEBrainSegLib import SEBrainSegError
from SEBrainSegLib.choices.parameters import View, values
from SEBrainSegLib.training.queue import read_recipe
from trained import RECIPES, RESULTS

BEST = ("unet", "scse")  # the network that there is in all views


def steps_of(chosen: argparse.Namespace, held_out: Sequence[str]) -> list[tuple]:
    """Return the benchmarks to run, each as its ``main`` and its arguments.

    Args:
        held_out: names of the MALC scans that no network was trained on.
    """
    output, steps, measured = chosen.output, [], {}
    scans = {"freesurfer": [chosen.data / "validation"], "manual": [chosen.data / "malc", "--names", *held_out]}
    for protocol, folder_and_names in scans.items():
        measured[protocol] = []
        for view in values(View):
            folder = output / f"comparison-{protocol}-{view}"
            measured[protocol].append(folder / "values.csv")
            arguments = [*folder_and_names, "--protocol", protocol, "--view", view, "-o", folder]
            if view != "coronal":
                arguments += ["--architectures", BEST[0], "--se", BEST[1]]
            if chosen.seeds and view == "coronal":
                arguments += ["--seeds", chosen.seeds]
            steps.append((comparison.main, arguments))
    steps.append((curves.main, ["--recipe", chosen.recipe, "--run", chosen.run, "-o", output]))
    arguments = [part for protocol, paths in measured.items() for part in (f"--{protocol}", *paths)]
    steps.append((facts.main, [*arguments, *(["--seconds"] if chosen.seconds else [])]))
    return steps


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmarks; returns the exit status (0 done, else that of the first one that ended otherwise)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("--recipe", type=Path, default=RECIPES / "bundled.json", metavar="FILE")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of the queue's curves")
    parser.add_argument("--seeds", type=Path, metavar="DIR", help="see comparison.py")
    parser.add_argument("--seconds", action="store_true", help="measure the CPU-seconds of every choice, too")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="DIR")
    chosen = parser.parse_args(argv)
    try:
        held_out = read_recipe(chosen.recipe)[0].held_out
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    for run, arguments in steps_of(chosen, held_out):
        code = run([str(argument) for argument in arguments])
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
