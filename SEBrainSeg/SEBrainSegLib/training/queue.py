"""``python -m SEBrainSegLib.training.queue RECIPE DATA_DIR --run DIR``: train every network of a recipe file.

A recipe file (JSON) names the MALC scans that are ``held_out`` and, if the curves are to be measured with them, the
scans of ``validation``; it has the settings that all its trainings share and a list ``trainings``, each with a ``name``
and what it has of its own; :data:`DEFAULTS` lists them. DATA_DIR holds ``malc``, ``freesurfer``, ``labelmaps`` and
``validation``; what no training needs is not read.

What has no model file ``DIR/NAME.pt`` yet is trained, on a GPU if there is one, else one process a core with one thread
each. The command can be stopped at any moment; the same one goes on.
"""

import argparse
import csv
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..choices.structures import IGNORED, structures
from ..errors import SEBrainSegError
from ..inference import devices, memory
from ..inference.geometry import BRAIN_SPACING
from ..networks.model_file import write_model
from ..text import duration
from . import intensity_patterns
from .brain_recipe import BrainRecipe
from .general_recipe import GeneralRecipe, LabelledImage
from .pairs import find_pairs
from .scans import head_labels, labelled_scans
from .training import fit

DEFAULTS = {
    "architecture": "unet",
    "se": "none",
    "aggregation": "max",
    "reduction": 2,
    "placement": "both",
    "width": 32,
    "slices": 1,
    "view": "coronal",
    "steps": 1500,
    "seed": 0,
    "learning_rate": 4e-3,
    "loss": "plain",
    "average": 0.0,
    "data": "heads",  # or "malc": its scans alone, as in the paper, by the general recipe
    "real_share": 0.0,
}


NETWORK = ("architecture", "se", "aggregation", "reduction", "placement", "width", "slices")


EVERY = 30  # seconds between two looks at what runs


GPU_PROCESSES = 4  # trainings that share a GPU


@dataclass
class Material:
    """What all trainings of a file learn from.

    Attributes:
        scans: labelled scans of both protocols to train on.
        heads: label maps, with patterns.
        held_out: labelled scans that the curves are measured with; nothing is chosen by them.
        images: the MALC scans to train on as the general recipe takes them.
    """

    scans: list = field(default_factory=list)
    heads: list = field(default_factory=list)
    held_out: list = field(default_factory=list)
    images: list = field(default_factory=list)


def read_recipe(path):
    """Return the trainings of a recipe file, each with all its settings, and the names of the scans held out.

    Raises:
        SEBrainSegError: it is no recipe file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        own = content.pop("trainings")
        held_out, validation = content.pop("held_out"), content.pop("validation", [])
        trainings = [{**DEFAULTS, **content, **each} for each in own]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SEBrainSegError(f"{path} is no recipe file ({error}).") from None
    for each in trainings:
        unknown = sorted(set(each) - set(DEFAULTS) - {"name"})
        if unknown or "name" not in each:
            raise SEBrainSegError(f"{path}: a training has no name or an unknown setting {unknown}.")
    return trainings, held_out, validation


def load_material(data, trainings, held_out, validation):
    """Read what the trainings need from a folder; said as it takes a minute or two."""
    print(f"Reading {data}.", flush=True)
    material, kinds = Material(), {each["data"] for each in trainings}
    if "malc" in kinds:
        pairs = [pair for pair in find_pairs(data / "malc") if pair.name not in held_out]
        material.images = [LabelledImage(pair, structures(), BRAIN_SPACING, None, IGNORED) for pair in pairs]
    if "heads" in kinds:
        scans = labelled_scans(data / "malc")
        material.scans = [scan for scan in scans if scan.name not in held_out]
        material.heads = head_labels(data / "labelmaps")
        intensity_patterns.lay_over(material.heads, material.scans)
        if any(each["real_share"] for each in trainings):
            material.scans += labelled_scans(data / "freesurfer", protocol="freesurfer")
        if validation:
            material.held_out = [scan for scan in scans if scan.name in held_out]
            material.held_out += labelled_scans(data / "validation", validation, "freesurfer")
    return material


def recipe_of(training, material):
    """Return what a training draws its batches from, and the protocols and the table that its model file names."""
    if training["data"] == "malc":
        recipe = GeneralRecipe(material.images, [], training["view"], structures(), BRAIN_SPACING, None)
        return recipe, (), structures()
    recipe = BrainRecipe(
        material.scans, material.heads, material.held_out, training["view"], training["slices"], training["real_share"]
    )
    return recipe, recipe.protocols, None


def train(training, material, run, device, threads, workers):
    """Train one network and write its model file."""
    torch.set_num_threads(threads)
    memory.keep_what_is_freed()
    folder = run / training["name"]
    folder.mkdir(parents=True, exist_ok=True)
    recipe, protocols, table = recipe_of(training, material)
    configuration = {name: training[name] for name in NETWORK}
    configuration["classes"] = max(1, len(protocols)) * (len(structures()) + 1)
    with open(folder / "log", "a", encoding="utf-8") as log:
        network = fit(
            configuration,
            recipe,
            folder,
            training["steps"],
            minutes=float("inf"),
            seed=training["seed"],
            peak=training["learning_rate"],
            device=device,
            workers=workers,
            loss=training["loss"],
            average=training["average"],
            choose_best=False,
            echo=lambda text: print(text, file=log, flush=True),
        )
    write_model(run / f"{training['name']}.pt", network, configuration, training["view"], protocols, table)


def progress(run, training):
    """Return the batches that a training has done and the minutes it took, as its curve tells."""
    try:
        with open(run / training["name"] / "curve.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return int(rows[-1]["step"]), float(rows[-1]["minutes"])
    except (OSError, IndexError, KeyError, ValueError, TypeError):
        return 0, 0.0


def is_done(run, training):
    """Whether the training has left its model file."""
    return (run / f"{training['name']}.pt").exists()


def status(run, trainings, running, processes):
    """Say, in a line each, what is done, what runs and what waits, and when all will be finished."""
    lines, left, known = [], 0.0, {}
    for each in trainings:
        step, minutes = progress(run, each)
        kind = each["architecture"], each["se"]
        if step:
            known.setdefault(kind, []).append(minutes / step)
        state = "done" if is_done(run, each) else "runs" if each["name"] in running else "waits"
        lines.append(f"{each['name']:32} {state:5} {step:6}/{each['steps']} {minutes:6.1f} min")
    paces = [sum(each) / len(each) for each in known.values()]
    for each in trainings:
        if not is_done(run, each) and paces:
            pace = known.get((each["architecture"], each["se"]), paces)
            left += (each["steps"] - progress(run, each)[0]) * sum(pace) / len(pace)
    if paces:
        finished = time.strftime("%H:%M", time.localtime(time.time() + 60 * left / processes))
        lines.append(f"{duration(60 * left / processes)} left, finished at about {finished}.")
    return "\n".join(lines)


def run_all(trainings, material, run, device, processes):
    """Train what is missing, some processes at a time; returns whether all was trained."""
    # Forked processes share what was read; elsewhere each gets a copy.
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    waiting = [each for each in trainings if not is_done(run, each)]
    running, failed, told = {}, [], 0.0
    workers = max(1, (os.cpu_count() or 1) // processes - 1) if device.type == "cuda" else 0
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                each = waiting.pop(0)
                child = context.Process(target=train, args=(each, material, run, device, 1, workers))
                child.start()
                running[each["name"]] = child
            time.sleep(1)
            for name, child in list(running.items()):
                if not child.is_alive():
                    failed += [name] if child.exitcode else []
                    del running[name]
            if time.monotonic() - told > EVERY:
                told = time.monotonic()
                text = status(run, trainings, running, processes)
                (run / "status.txt").write_text(text + "\n", encoding="utf-8")
                print(text, flush=True)
    finally:
        for child in running.values():
            child.terminate()
    for name in failed:
        print(f"{name} failed; see {run / name / 'log'}.", file=sys.stderr)
    return not failed


def main(argv=None):
    """Run the command; returns the exit status (0 all trained, 1 one failed, 2 unusable input, 130 interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m SEBrainSegLib.training.queue", description=__doc__)
    parser.add_argument("recipe", type=Path, metavar="RECIPE")
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and model files")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--processes", type=int, help="trainings at a time (default: one a core, or 4 on a GPU)")
    chosen = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        trainings, held_out, validation = read_recipe(chosen.recipe)
        device = devices.choose(chosen.device)
        processes = chosen.processes or (GPU_PROCESSES if device.type == "cuda" else os.cpu_count() or 1)
        torch.set_num_threads(1)
        material = load_material(chosen.data, trainings, held_out, validation)
        chosen.run.mkdir(parents=True, exist_ok=True)
        return 0 if run_all(trainings, material, chosen.run, device, processes) else 1
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from the last checkpoints.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
