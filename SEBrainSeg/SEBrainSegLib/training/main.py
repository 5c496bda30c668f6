"""``python -m SEBrainSegLib.training``, also ``sebrainseg-train``: train a network on images with label maps."""

import argparse
import hashlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

import torch

from ..choices.structures import LARGEST_LABEL, Structure, read_structures, structures
from ..choices.vocabulary import Architecture, Variant, View, values
from ..commandline.arguments import at_least_one, local_path
from ..commandline.console import steady
from ..errors import SEBrainSegError
from ..files.names import shown
from ..files.results import refuse_file_in_the_way
from ..inference import devices, memory
from ..networks import user_models
from ..networks.bundled import list_checksums, model_name
from ..networks.model_file import UNREADABLE, full_precision, write_model
from . import intensity_patterns
from .brain_recipe import BrainRecipe
from .dataset_survey import (
    PairSurvey,
    are_flat,
    check_classes,
    check_labels,
    hounsfield_window,
    ignored_label,
    median_spacing,
    report,
    split,
    survey_pair,
)
from .general_recipe import GeneralRecipe, LabelledImage
from .losses import LOSSES
from .pairs import LAYOUT, find_pairs
from .scans import LabelledScan, head_labels
from .training import TimeUp, fit

EXPORTED = "exported.sha256"  # in the folder of a run: the model file that it made


def _non_negative_number(text: str) -> float:
    """A number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of at least 0")
    return value


def _local_text(text: str) -> str:
    """A path as :func:`~.arguments.local_path` gives it, or a name, as text."""
    return str(local_path(text))


def parser() -> argparse.ArgumentParser:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(prog="sebrainseg-train", description=__doc__.split(": ")[1])
    parser.add_argument("data", metavar="DATA_DIR", type=local_path, help=f"folder of {LAYOUT}; 3D or 2D images")
    parser.add_argument("--structures", metavar="TABLE", type=local_path, help="CSV with columns LabelValue and Name")
    parser.add_argument("--architecture", default="unet", choices=values(Architecture))
    parser.add_argument("--se", default="scse", type=str.lower, choices=values(Variant))
    parser.add_argument(
        "--view", default="coronal", choices=values(View.planes()), help="direction of slicing of 3D volumes"
    )
    parser.add_argument(
        "--output",
        metavar="MODEL",
        type=_local_text,
        help="name, or path ending in .pt, of the model file to make",
    )
    parser.add_argument(
        "--models", metavar="DIR", type=local_path, help="make DIR/unet-scse-coronal.pt and such instead"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model file that exists, and start anew")
    parser.add_argument(
        "--validation", metavar="SCAN", nargs="+", help="number or names of the scans to validate with (default: 1/5)"
    )
    parser.add_argument(
        "--ignore", metavar="LABEL", type=int, help="label that counts nowhere (default: 255 if it is in no table)"
    )
    parser.add_argument(
        "--window",
        metavar=("LOW", "HIGH"),
        nargs=2,
        type=float,
        help="intensities that become 0 and 1 (default: Hounsfield units are recognised, others scaled scan by scan)",
    )
    parser.add_argument("--loss", default="plain", choices=LOSSES, help="the paper's are weighted, dice and both")
    parser.add_argument("--width", type=at_least_one, default=32, help="channels of every level (default 32)")
    parser.add_argument(
        "--steps", type=at_least_one, default=2500, help="batches in all; equal for networks to be compared"
    )
    parser.add_argument(
        "--minutes", type=_non_negative_number, default=600.0, help="time budget; the same command resumes"
    )
    parser.add_argument(
        "--learning-rate", type=_non_negative_number, default=4e-3, help="peak of AdamW's learning rate"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--start-from", type=local_path, help="model file to start from; SE blocks may differ")
    parser.add_argument("--label-maps", metavar="DIR", type=local_path, help="heads to make scans of: the brain recipe")
    parser.add_argument("--run", type=local_path, help="folder of checkpoint and curve (default: beside the model)")
    return parser


def output_path(chosen: argparse.Namespace) -> Path:
    """Return the model file that is to be made."""
    if chosen.models and chosen.output:
        raise SEBrainSegError("--output and --models exclude each other; leave one of them out.")
    if chosen.models:
        return chosen.models / model_name(chosen.architecture, chosen.se, chosen.view)
    if chosen.output and chosen.output.endswith(".pt"):
        return Path(chosen.output)
    name = chosen.output or f"{chosen.data.resolve().name}-{chosen.architecture}-{chosen.se}-{chosen.view}"
    if Path(name).name != name:
        raise SEBrainSegError(f"'{name}' is neither a name nor a path that ends in .pt; choose another --output.")
    return user_models.folder() / f"{name}.pt"


def _checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refuse_existing(path: Path, folder: Path) -> None:
    """Refuse to replace a model file, unless the run in ``folder`` made it.

    Raises:
        SEBrainSegError: the file is there.
    """
    exported = folder / EXPORTED
    if path.exists() and not (exported.exists() and exported.read_text(encoding="ascii") == _checksum(path)):
        raise SEBrainSegError(f"{path} exists; choose another --output or replace it with --overwrite.")


def make_folders(*folders: Path) -> None:
    """Make folders.

    Raises:
        SEBrainSegError: one cannot be made.
    """
    for folder in folders:
        refuse_file_in_the_way(folder, "--output")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SEBrainSegError(f"The folder {folder} cannot be made ({error.strerror}).") from None


def initial_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a model file as a state dict."""
    try:
        return full_precision(torch.load(path, map_location="cpu", weights_only=True)["weights"])
    except OSError as error:
        raise SEBrainSegError(f"{path} cannot be read ({error.strerror}).") from None
    except UNREADABLE:
        raise SEBrainSegError(f"{path} is no model file of SEBrainSeg.") from None


def brain_recipe(
    chosen: argparse.Namespace, training: Sequence[PairSurvey], validation: Sequence[PairSurvey]
) -> BrainRecipe:
    """Return the recipe that made the bundled networks."""
    scans, held_out = ([LabelledScan(each.pair) for each in surveys] for surveys in (training, validation))
    heads = head_labels(chosen.label_maps)
    intensity_patterns.add_patterns(heads, scans)
    print(f"{len(heads)} label maps of heads: the brain recipe.")
    return BrainRecipe(scans, heads, held_out, chosen.view)


def general_recipe(
    chosen: argparse.Namespace,
    training: list[PairSurvey],
    validation: list[PairSurvey],
    table: tuple[Structure, ...],
    ignored: Optional[int],
) -> GeneralRecipe:
    """Return the recipe for all else; says what it makes of grids and intensities."""
    flat = are_flat(training + validation)
    view = "axial" if flat else chosen.view
    spacing = None if flat else median_spacing(training, view)
    window = tuple(chosen.window) if chosen.window else None if flat else hounsfield_window(training)
    scans, held_out = (
        [LabelledImage(each.pair, table, spacing, window, ignored) for each in surveys]
        for surveys in (training, validation)
    )
    if spacing:
        millimetres = " x ".join(f"{value:g}" for value in spacing[::-1])
        print(f"Slices: {view}, of volumes of {millimetres} mm a voxel.")
    else:
        print("Slices: the 2D images as they are.")
    print(f"Intensities: {f'from {window[0]:g} to {window[1]:g}' if window else 'scaled image by image'}.")
    return GeneralRecipe(scans, held_out, view, table, spacing, window)


def choose_recipe(chosen: argparse.Namespace) -> Union[BrainRecipe, GeneralRecipe]:
    """Survey the data, say what is there, and return the recipe to train on it.

    Raises:
        SEBrainSegError: the data cannot be trained on.
    """
    if chosen.window and not chosen.window[0] < chosen.window[1]:
        raise SEBrainSegError("The first number of --window must be the smaller one.")
    if chosen.ignore is not None and not 0 < chosen.ignore <= LARGEST_LABEL:
        raise SEBrainSegError(f"--ignore takes a label from 1 to {LARGEST_LABEL}.")
    if chosen.label_maps and (chosen.structures or chosen.window or chosen.ignore):
        raise SEBrainSegError(
            "--label-maps is for the 31 brain structures as the bundled networks know them; leave out --structures, "
            "--window and --ignore."
        )
    table = read_structures(chosen.structures) if chosen.structures else structures()
    pairs = find_pairs(chosen.data)
    print(f"{chosen.data}: reading {len(pairs)} pairs of an image and a label map.", flush=True)
    surveys = [survey_pair(pair) for pair in pairs]
    are_flat(surveys)
    ignored = ignored_label(surveys, table, chosen.ignore)
    check_labels(surveys, table, ignored)
    training, validation = split(surveys, chosen.validation, chosen.seed)
    print("\n".join(report(training, validation, table, ignored)), flush=True)
    check_classes(training, table)
    if chosen.label_maps:
        return brain_recipe(chosen, training, validation)
    return general_recipe(chosen, training, validation, table, ignored)


def run(chosen: argparse.Namespace) -> int:
    """Train as chosen; returns the exit status (0 trained, 3 out of time).

    Raises:
        SEBrainSegError: the data or a choice is unusable.
    """
    path = output_path(chosen)
    folder = chosen.run or path.with_suffix(".run")
    device = devices.choose(chosen.device)
    initial = initial_weights(chosen.start_from) if chosen.start_from else None
    if not chosen.overwrite:
        refuse_existing(path, folder)
    recipe = choose_recipe(chosen)
    make_folders(path.parent, folder)
    configuration = {
        "architecture": chosen.architecture,
        "classes": max(1, len(recipe.protocols)) * (len(recipe.table) + 1),
        "width": chosen.width,
        "se": chosen.se,
    }
    status = 0
    memory.keep_what_is_freed()
    try:
        network = fit(
            configuration,
            recipe,
            folder,
            chosen.steps,
            chosen.minutes,
            seed=chosen.seed,
            peak=chosen.learning_rate,
            device=device,
            initial=initial,
            workers=chosen.workers,
            loss=chosen.loss,
            overwrite=chosen.overwrite,
            echo=lambda text: print(text, flush=True),
        )
    except TimeUp as stop:
        print(stop)
        network, status = stop.network, 3
    bundled = isinstance(recipe, BrainRecipe)
    own: dict[str, Any] = {} if bundled else {"table": recipe.table, "spacing": recipe.spacing, "window": recipe.window}
    try:
        write_model(path, network, configuration, recipe.view, recipe.protocols, **own)
    except ValueError as error:
        raise SEBrainSegError(str(error)) from None
    (folder / EXPORTED).write_text(_checksum(path), encoding="ascii")
    if chosen.models:
        list_checksums(chosen.models)
    print(f"Made {path}.")
    return status


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns the exit status (0 trained, 2 unusable input, 3 out of time, 130 interrupted)."""
    with steady("sebrainseg-train"):
        return _run_command(argv)


def _run_command(argv: Optional[Sequence[str]]) -> int:
    """Run the command once nothing that it prints can end it; returns as :func:`main`."""
    chosen = parser().parse_args(argv)
    try:
        return run(chosen)
    except SEBrainSegError as error:
        print(f"sebrainseg-train: {shown(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sebrainseg-train: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
