"""``python -m SEBrainSegLib.training.queue RECIPE DATA_DIR --run DIR``: train every network of a recipe file.

A recipe file (JSON) has a list ``trainings``, each with a ``name`` and the settings of its own; the settings beside the
list hold for all of them. :class:`Plan` describes the settings. ``held_out`` has no default: every training says which
MALC scans it must not see. DATA_DIR holds ``malc``, ``freesurfer``, ``labelmaps`` and ``validation``; what no training
needs is not read.

What has no model file ``DIR/NAME.pt`` yet is trained, on a GPU if there is one, else in one process a core with one
thread each. The command can be stopped at any moment; the same one goes on. ``DIR/status.txt`` tells what is done, what
runs, what waits, and when all will be finished. ``--install`` makes the finished networks the bundled ones.
"""

import argparse
import csv
import heapq
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Optional, Union

import torch

from ..choices.structures import IGNORED, Structure, structures
from ..choices.vocabulary import Architecture, Variant, View, values
from ..errors import SEBrainSegError
from ..files.atomic import replaced_whole
from ..inference import devices, memory
from ..inference.geometry import BRAIN_SPACING
from ..networks.bundled import list_checksums, model_name
from ..networks.model_file import write_model
from ..resources import resource
from ..text import duration
from . import intensity_patterns
from .brain_recipe import BrainRecipe
from .general_recipe import GeneralRecipe, LabelledImage
from .losses import LOSSES
from .pairs import find_pairs
from .scans import HeadLabels, LabelledScan, head_labels, labelled_scans
from .training import fit

NETWORK_SETTINGS = ("architecture", "se", "aggregation", "reduction", "placement", "width", "slices")


LOOK_EVERY = 30.0  # seconds between two writings of the status file


PRINT_EVERY = 600.0  # seconds between two printed states in which nothing has changed


GPU_PROCESSES = 4  # trainings that share a GPU


# Time of a batch relative to U-Net's, to foretell an architecture of which no batch was trained yet.
RELATIVE_TIME = {"sdnet": 0.6, "densenet": 3.0}


@dataclass(frozen=True)
class Plan:
    """One training of a recipe file.

    Attributes:
        name: of the model file to make, without ``.pt``.
        held_out: names of the MALC scans that it is not trained on.
        validation: names of the scans with FreeSurfer's labels that, with those held out, the curve's Dice is measured
            on; none: the curve has no Dice.
        architecture, se, aggregation, reduction, placement, width, slices: arguments of the network.
        view: direction of slicing.
        steps: batches in all.
        seed: of the first weights and of the batches.
        learning_rate: peak of AdamW's learning rate.
        loss: one of :data:`.losses.LOSSES`.
        average: in [0, 1), see :func:`.training.fit`.
        data: ``"heads"``, the brain recipe, or ``"malc"``, its scans alone as in the paper, by the general recipe.
        real_share: in [0, 1], see :class:`.brain_recipe.BrainRecipe`.
    """

    name: str
    held_out: tuple[str, ...]
    validation: tuple[str, ...] = ()
    architecture: str = "unet"
    se: str = "none"
    aggregation: str = "max"
    reduction: int = 2
    placement: str = "both"
    width: int = 32
    slices: int = 1
    view: str = "coronal"
    steps: int = 1500
    seed: int = 0
    learning_rate: float = 4e-3
    loss: str = "plain"
    average: float = 0.0
    data: str = "heads"
    real_share: float = 0.0


def read_recipe(path: Path) -> list[Plan]:
    """Return the trainings of a recipe file.

    Raises:
        SEBrainSegError: the file is no recipe, or a training has no name, no ``held_out`` or an unknown setting.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        trainings = [{**content, **training} for training in content.pop("trainings")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SEBrainSegError(f"{path} is no recipe file ({error}).") from None
    plans = [_plan(path, training) for training in trainings]
    names = [plan.name for plan in plans]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SEBrainSegError(f"{path}: two trainings are called {twice[0]}; rename one of them.")
    return plans


def _plan(path: Path, settings: dict) -> Plan:
    """Return the :class:`Plan` of a training's settings; raises as :func:`read_recipe`."""
    name = settings.get("name")
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise SEBrainSegError(f"{path}: a training has no name, or one that cannot be a file's ({name}).")
    unknown = sorted(set(settings) - {each.name for each in fields(Plan)})
    if unknown:
        raise SEBrainSegError(f"{path}: the training {name} has the unknown setting {unknown[0]}.")
    if "held_out" not in settings:
        raise SEBrainSegError(f"{path}: the training {name} does not say which scans are held_out ([] for none).")
    for key in ("held_out", "validation"):
        settings = {**settings, key: tuple(settings.get(key, ()))}
    plan = Plan(**settings)
    allowed = {
        "architecture": values(Architecture),
        "se": values(Variant),
        "view": values(View.planes()),
        "loss": LOSSES,
        "data": ("heads", "malc"),
    }
    for key, known in allowed.items():
        if getattr(plan, key) not in known:
            choices = ", ".join(known)
            raise SEBrainSegError(f"{path}: the {key} of {name} is '{getattr(plan, key)}'; choose one of {choices}.")
    return plan


@dataclass
class Material:
    """What all trainings of a recipe file learn from; each leaves out the scans that it holds out.

    Attributes:
        scans: every MALC scan, manual protocol.
        freesurfer: real scans in FreeSurfer's protocol, to train on.
        heads: label maps of heads.
        patterns_without: the held-out scans of the training that the heads have their patterns for, if for one.
        validation: scans in FreeSurfer's protocol that the curves are measured with.
        images: every MALC scan as the general recipe takes it.
    """

    scans: list[LabelledScan] = field(default_factory=list)
    freesurfer: list[LabelledScan] = field(default_factory=list)
    heads: list[HeadLabels] = field(default_factory=list)
    patterns_without: Optional[tuple[str, ...]] = None
    validation: list[LabelledScan] = field(default_factory=list)
    images: list[LabelledImage] = field(default_factory=list)

    def add_patterns(self, held_out: tuple[str, ...]) -> None:
        """Give the heads the intensity patterns of all scans but those held out, unless they have them."""
        if self.patterns_without != held_out:
            intensity_patterns.add_patterns(self.heads, [scan for scan in self.scans if scan.name not in held_out])
            self.patterns_without = held_out


def load_material(data: Path, plans: Sequence[Plan]) -> Material:
    """Read what some trainings need from a folder, which takes a minute or two.

    Raises:
        SEBrainSegError: something is missing or unusable, or a scan to be held out is not there.
    """
    print(f"Reading {data}.", flush=True)
    material, pairs = Material(), find_pairs(data / "malc")
    for plan in plans:
        unknown = sorted(set(plan.held_out) - {pair.name for pair in pairs})
        if unknown:
            raise SEBrainSegError(f"{data / 'malc'} has no scan {unknown[0]}, which {plan.name} is to hold out.")
    with_heads = [plan for plan in plans if plan.data == "heads"]
    if len(with_heads) < len(plans):
        material.images = [LabelledImage(pair, structures(), BRAIN_SPACING, None, IGNORED) for pair in pairs]
    if with_heads:
        material.scans = labelled_scans(data / "malc")
        material.heads = head_labels(data / "labelmaps")
        # Here, for the first, the processes of all trainings that hold out the same share them.
        material.add_patterns(with_heads[0].held_out)
        if any(plan.real_share for plan in with_heads):
            material.freesurfer = labelled_scans(data / "freesurfer", protocol="freesurfer")
        names = {name for plan in with_heads for name in plan.validation}
        if names:
            material.validation = labelled_scans(data / "validation", names, "freesurfer")
    return material


def recipe_of(plan: Plan, material: Material) -> Union[BrainRecipe, GeneralRecipe]:
    """Return what a training draws its batches from."""
    if plan.data == "malc":
        images = [image for image in material.images if image.name not in plan.held_out]
        return GeneralRecipe(images, [], plan.view, structures(), BRAIN_SPACING, None)
    material.add_patterns(plan.held_out)
    scans = [scan for scan in material.scans if scan.name not in plan.held_out]
    if plan.real_share:
        scans = scans + material.freesurfer
    held_out = []
    if plan.validation:
        held_out = [scan for scan in material.scans if scan.name in plan.held_out]
        held_out += [scan for scan in material.validation if scan.name in plan.validation]
    return BrainRecipe(scans, material.heads, held_out, plan.view, plan.slices, plan.real_share)


def train(plan: Plan, material: Material, run: Path, device: torch.device, threads: int, workers: int) -> None:
    """Train one network and write its model file.

    Args:
        run: folder for the model file; checkpoint, curve and log go into its folder ``plan.name``.
        threads: that torch may use.
        workers: processes that make batches; 0: none but this one.
    """
    torch.set_num_threads(threads)
    memory.keep_what_is_freed()
    folder = run / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    recipe = recipe_of(plan, material)
    protocols = recipe.protocols
    table: Optional[tuple[Structure, ...]] = None if plan.data == "heads" else structures()
    configuration = {name: getattr(plan, name) for name in NETWORK_SETTINGS}
    configuration["classes"] = max(1, len(protocols)) * (len(structures()) + 1)
    with open(folder / "log", "a", encoding="utf-8") as log:
        network = fit(
            configuration,
            recipe,
            folder,
            plan.steps,
            minutes=float("inf"),
            seed=plan.seed,
            peak=plan.learning_rate,
            device=device,
            workers=workers,
            loss=plan.loss,
            average=plan.average,
            choose_best=False,
            echo=lambda text: print(text, file=log, flush=True),
        )
    # First the settings: a model file without them would count as trained with any.
    _settings_path(run, plan).write_text(json.dumps(asdict(plan)), encoding="utf-8")
    write_model(model_path(run, plan), network, configuration, plan.view, protocols, table)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """End this process as soon as the one that started it is gone."""
    parent.join()
    os._exit(1)


def _train_in_process(plan: Plan, material: Material, run: Path, device: torch.device, workers: int) -> None:
    """Train in a process of its own, which dies with its parent and leaves what went wrong in the training's log."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        train(plan, material, run, device, 1, workers)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        with open(run / plan.name / "log", "a", encoding="utf-8") as log:
            print(error if isinstance(error, SEBrainSegError) else traceback.format_exc(), file=log)
        sys.exit(1)


def model_path(run: Path, plan: Plan) -> Path:
    """Return where the model file of a training goes."""
    return run / f"{plan.name}.pt"


def _settings_path(run: Path, plan: Plan) -> Path:
    """Return the file of the settings that a model file was trained with."""
    return run / plan.name / "settings.json"


def is_done(run: Path, plan: Plan) -> bool:
    """Whether a training has left its model file.

    Raises:
        SEBrainSegError: it has, but with other settings.
    """
    path = model_path(run, plan)
    if not path.exists():
        return False
    try:
        before = json.loads(_settings_path(run, plan).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    now = json.loads(json.dumps(asdict(plan)))
    # Scans of the curve change nothing of the network.
    changed = [name for name in now if name != "validation" and name in before and before[name] != now[name]]
    if changed:
        name = changed[0]
        raise SEBrainSegError(
            f"{path} was trained with other settings ({name}: {before[name]}, now {now[name]}); choose another --run "
            "or remove it."
        )
    return True


def curve_path(run: Path, plan: Plan) -> Path:
    """Return the file of a training's learning curve."""
    return run / plan.name / "curve.csv"


def progress(run: Path, plan: Plan) -> tuple[int, float]:
    """Return the batches that a training has done and the minutes that they took, as its curve tells."""
    try:
        with open(curve_path(run, plan), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return int(rows[-1]["step"]), float(rows[-1]["minutes"])
    except (OSError, IndexError, KeyError, ValueError, TypeError):
        return 0, 0.0


def minutes_left(run: Path, plans: Sequence[Plan], processes: int) -> Optional[float]:
    """Return in how many minutes all will be trained; ``None`` before the first batches are."""
    done = {plan.name: progress(run, plan) for plan in plans}
    # Minutes a batch: of trainings alike, of the same architecture, or of any.
    exact: dict[tuple, list[float]] = {}
    scaled: list[float] = []
    for plan in plans:
        step, minutes = done[plan.name]
        if step:
            exact.setdefault((plan.architecture, plan.width, plan.slices), []).append(minutes / step)
            scaled.append(minutes / step / RELATIVE_TIME.get(plan.architecture, 1.0))
    if not scaled:
        return None
    free_at = [0.0] * processes
    # What is under way first, then in the order of the recipe, each on the process that is free first.
    for plan in sorted(plans, key=lambda each: not 0 < done[each.name][0]):
        if is_done(run, plan):
            continue
        known = exact.get((plan.architecture, plan.width, plan.slices))
        estimate = sum(scaled) / len(scaled) * RELATIVE_TIME.get(plan.architecture, 1.0)
        each = sum(known) / len(known) if known else estimate
        heapq.heappush(free_at, heapq.heappop(free_at) + (plan.steps - done[plan.name][0]) * each)
    return max(free_at)


def status(
    run: Path, plans: Sequence[Plan], running: Sequence[str] = (), failed: Sequence[str] = (), processes: int = 1
) -> str:
    """Say what is done, what runs, what waits, a line each, and when all will be finished.

    Args:
        running, failed: names of trainings.
        processes: trainings at a time.
    """
    lines, states = [], []
    for plan in plans:
        step, minutes = progress(run, plan)
        under_way = "failed" if plan.name in failed else "running" if plan.name in running else "waiting"
        states.append("done" if is_done(run, plan) else under_way)
        lines.append(f"{plan.name:32} {states[-1]:7} {step:6}/{plan.steps} batches {minutes:7.1f} min")
    counts = {state: states.count(state) for state in ("done", "running", "waiting", "failed")}
    text = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    left = minutes_left(run, [plan for plan in plans if plan.name not in failed], processes)
    if left:
        finished = time.strftime("%a %H:%M", time.localtime(time.time() + 60 * left))
        text += f"; {duration(60 * left)} left, finished at about {finished}"
    return "\n".join([*lines, f"{len(plans)} trainings: {text}."])


def train_all(plans: Sequence[Plan], material: Material, run: Path, device: torch.device, processes: int) -> list[str]:
    """Train what is missing, some at a time.

    Returns:
        the names of those that failed; what went wrong stands in their logs.
    """
    # Forked processes share what was read; elsewhere each gets a copy.
    methods = multiprocessing.get_all_start_methods()
    context: multiprocessing.context.BaseContext = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    waiting = [plan for plan in plans if not is_done(run, plan)]
    running: dict[str, multiprocessing.process.BaseProcess] = {}
    failed: list[str] = []
    workers = max(1, (os.cpu_count() or 1) // processes - 1) if device.type == "cuda" else 0
    written = printed = -float("inf")
    try:
        while waiting or running:
            changed = False
            for name, process in list(running.items()):
                if not process.is_alive():
                    failed += [name] if process.exitcode else []
                    del running[name]
                    changed = True
            while waiting and len(running) < processes:
                plan = waiting.pop(0)
                child = context.Process(  # type: ignore[attr-defined]  # every context has it
                    target=_train_in_process, args=(plan, material, run, device, workers)
                )
                (run / plan.name).mkdir(parents=True, exist_ok=True)
                child.start()
                running[plan.name], changed = child, True
            now = time.monotonic()
            if changed or now - written > LOOK_EVERY:
                text = status(run, plans, list(running), failed, processes)
                (run / "status.txt").write_text(text + "\n", encoding="utf-8")
                written = now
                if changed or now - printed > PRINT_EVERY:
                    print(text, flush=True)
                    printed = now
            time.sleep(0.2)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()
    return failed


def check_installable(plans: Sequence[Plan]) -> None:
    """Refuse to install networks that are not called as bundled networks are, such as those of a study.

    Raises:
        SEBrainSegError: there are some.
    """
    for plan in plans:
        name = model_name(plan.architecture, plan.se, plan.view)
        if f"{plan.name}.pt" != name:
            raise SEBrainSegError(f"{plan.name} is not to be installed: a bundled network is called like {name[:-3]}.")


def install(plans: Sequence[Plan], run: Path, models: Path) -> None:
    """Make finished networks the bundled ones: copy their files and list the checksums.

    Args:
        models: the folder of the bundled networks.
    """
    for plan in plans:
        with replaced_whole(models / f"{plan.name}.pt") as path:
            shutil.copyfile(model_path(run, plan), path)
    list_checksums(models)
    print(f"{models}: {len(plans)} networks and their checksums.")


def _parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m SEBrainSegLib.training.queue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE")
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and model files")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--processes", type=int, help="trainings at a time (default: one a core, or 4 on a GPU)")
    parser.add_argument("--install", action="store_true", help="at the end, replace the bundled networks by these")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns the exit status (0 all trained, 1 one failed, 2 unusable input, 130 interrupted)."""
    chosen = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # The usual look for a GPU would spoil it for forked processes.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    try:
        plans, failed = read_recipe(chosen.recipe), []
        if chosen.install:
            check_installable(plans)
        missing = [plan for plan in plans if not is_done(chosen.run, plan)]
        if missing:
            device = devices.choose(chosen.device)
            processes = chosen.processes or (GPU_PROCESSES if device.type == "cuda" else os.cpu_count() or 1)
            torch.set_num_threads(1)
            material = load_material(chosen.data, missing)
            chosen.run.mkdir(parents=True, exist_ok=True)
            failed = train_all(plans, material, chosen.run, device, processes)
        else:
            print(status(chosen.run, plans))
        for name in failed:
            print(f"{name} failed; see {chosen.run / name / 'log'}.", file=sys.stderr)
        if chosen.install and not failed:
            install(plans, chosen.run, resource("Models/checksums.csv").parent)
        return 1 if failed else 0
    except SEBrainSegError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from the last checkpoints.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
