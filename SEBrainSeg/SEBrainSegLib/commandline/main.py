"""``sebrainseg``: segment scans from the command line."""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Callable, Optional

from ..choices.parameters import Parameters
from ..choices.vocabulary import Architecture, Choice, Device, Protocol, Variant, View, alternatives, values
from ..errors import SEBrainSegError
from ..files.names import shown
from ..files.orientation import valid_letters
from ..files.results import refuse_file_in_the_way
from ..inference import memory, threads
from ..networks import user_models
from ..resources import version
from ..text import duration
from . import bids, summary
from .arguments import at_least_one, local_path
from .batch import Batch, Work, one_after_another
from .console import SILENCE, Pulse, is_lost, steady
from .inputs import Scan, find_scans, local
from .local_processes import Reader, in_processes

# The options that choose a bundled network, what each is about and what there is to choose from.
NETWORK_OPTIONS: dict[str, tuple[str, type[Choice]]] = {
    "architecture": ("network", Architecture),
    "se": ("squeeze & excitation blocks", Variant),
    "view": ("direction of slicing, or the mean of all three", View),
    "protocol": ("whose convention of drawing the structures to follow", Protocol),
}


BIDS_OPTIONS = ("participant_label", "session_label", "skip_bids_validation")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="sebrainseg",
        description="Segment 31 brain structures in T1-weighted MR scans, or what a model of your own was trained for, "
        "into .seg.nrrd, .nii.gz, .csv and .png files. As a BIDS app: sebrainseg BIDS_DIR OUTPUT_DIR participant.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image file, folder of one DICOM series or of images, or quoted pattern such as 'study/**/*_T1w.nii.gz'",
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=local_path, help="folder for results (default: beside each input)"
    )
    for name, (subject, choices) in NETWORK_OPTIONS.items():
        default = getattr(Parameters, name)
        parser.add_argument(f"--{name}", help=f"{subject}: {alternatives(values(choices))} (default: {default})")
    parser.add_argument(
        "--model",
        type=local_path,
        help="in place of all this, the name or .pt file of a model that sebrainseg-train made",
    )
    parser.add_argument(
        "--structures", metavar="NAMES", help='only these, as in "Hippocampus, Left Amygdala" or "Ventricles"'
    )
    parser.add_argument(
        "--confidence", action="store_true", help="write a volume of the winning probabilities and their means, too"
    )
    parser.add_argument(
        "--orientation",
        metavar="LETTERS",
        default="",
        help="towards where the three axes run, as in RAS (right, anterior, superior), in scans whose files state it "
        "not at all or in contradiction; others keep theirs",
    )
    parser.add_argument(
        "--series", metavar="UID", default="", help="the DICOM series to segment of a folder that holds several"
    )
    parser.add_argument(
        "--device", help=f"where it runs: {alternatives(Device.spellings())} (default: {Parameters.device})"
    )
    parser.add_argument(
        "--list", nargs=0, action=ListNetworks, help="only print the options of all networks that there are"
    )
    parser.add_argument(
        "--accept-unlikely", action="store_true", help="write a result that is unlikely to be right, too, with a remark"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument(
        "--jobs", metavar="N", type=at_least_one, default=1, help="segment N scans at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="segment on the Dask cluster with this scheduler, as in tcp://node1:8786"
    )
    parser.add_argument(
        "--participant-label",
        "--participant_label",
        metavar="LABEL",
        nargs="+",
        default=[],
        help="only these subjects of a BIDS dataset, with or without sub-",
    )
    parser.add_argument(
        "--session-label",
        "--session_label",
        metavar="LABEL",
        nargs="+",
        default=[],
        help="only these sessions of a BIDS dataset, with or without ses-",
    )
    parser.add_argument(
        "--skip-bids-validation",
        "--skip_bids_validation",
        action="store_true",
        help="take a BIDS dataset without dataset_description.json, too",
    )
    parser.add_argument("--version", nargs=0, action=ShowVersion, help="only print the version")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an unexpected failure")
    return parser


class ListNetworks(argparse.Action):
    """Prints the options of every network that there is, a line for each."""

    def __call__(self, parser, *_):
        bundled = (Parameters(*choice) for choice in product(values(Architecture), values(Variant), values(View)))
        try:
            for each in bundled:
                if not each.absence():
                    print(f"--architecture {each.architecture} --se {each.se} --view {each.view}")
        except SEBrainSegError as error:
            parser.exit(1, f"sebrainseg: {error}\n")
        for name in user_models.names():
            print(f"--model {shown(shlex.quote(name))}")
        sys.stdout.flush()
        parser.exit(1 if is_lost(sys.stdout) else 0)


class ShowVersion(argparse.Action):
    """Prints the version."""

    def __call__(self, parser, *_):
        print(f"sebrainseg {version() or '(a checkout that is not installed)'}")
        parser.exit()


class ProgressLine:
    """Progress of one input: a line redrawn on a terminal; elsewhere one per message, and one in :data:`.SILENCE`.

    Args:
        name: of the input.
        stream: where it goes.
    """

    def __init__(self, name, stream):
        self.name, self.stream, self.message, self.fraction = shown(name), stream, "", 0.0
        self.began, self.is_drawn = time.monotonic(), stream.isatty()
        self.pulse = None if self.is_drawn else Pulse(self._write_line)

    def __call__(self, fraction, message):
        is_new, self.fraction, self.message = message != self.message, fraction, message
        if self.is_drawn:
            filled = round(24 * fraction)
            bar = "#" * filled + "." * (24 - filled)
            self.stream.write(f"\r\x1b[K{self.name} [{bar}] {fraction:4.0%} {message}")
            self.stream.flush()
        elif is_new:
            if self.pulse is not None:
                self.pulse.beat()
            self._write_line()

    def _write_line(self):
        seconds = time.monotonic() - self.began
        after = f" ({duration(seconds)})" if seconds >= SILENCE else ""
        self.stream.write(f"{self.name}: {self.fraction:4.0%} {self.message}{after}\n")
        self.stream.flush()

    def close(self) -> None:
        """End the line."""
        if self.pulse:
            self.pulse.close()
        elif self.message:
            self.stream.write("\n")


def parameters_of(chosen: argparse.Namespace) -> Parameters:
    """Return the :class:`Parameters` of parsed arguments.

    Raises:
        SEBrainSegError: they are not valid, contradict each other or name no network that there is.
    """
    given = {field.name: getattr(chosen, field.name) for field in fields(Parameters)}
    given = {name: value for name, value in given.items() if value is not None}
    idle = [f"--{name}" for name in NETWORK_OPTIONS if name in given]
    if chosen.model and idle:
        raise SEBrainSegError(f"A user-trained model settles these itself: leave out {alternatives(idle)}, or --model.")
    return Parameters(**given).checked()


def check_bids(chosen: argparse.Namespace) -> bool:
    """Return whether the arguments are those of a BIDS app.

    Raises:
        SEBrainSegError: they are, but do not fit together.
    """
    is_bids = len(chosen.inputs) == 3 and chosen.inputs[2] in bids.LEVELS
    if is_bids and chosen.inputs[2] != "participant":
        raise SEBrainSegError("There is no analysis of groups; the analysis level is participant.")
    if is_bids and chosen.output is not None:
        raise SEBrainSegError("The second argument of a BIDS app is its output folder; leave out -o.")
    for option in BIDS_OPTIONS:
        if getattr(chosen, option) and not is_bids:
            option = option.replace("_", "-")
            raise SEBrainSegError(f"--{option} goes with 'sebrainseg BIDS_DIR OUTPUT_DIR participant'.")
    return is_bids


@dataclass(frozen=True)
class Request:
    """What a command line asks for, checked before anything is read.

    Attributes:
        parameters: the choice of network.
        is_bids: whether it is that of a BIDS app.
        orientation: three letters, or ``""``.
    """

    parameters: Parameters
    is_bids: bool
    orientation: str


def request_of(chosen: argparse.Namespace) -> Request:
    """Return what parsed arguments ask for.

    Raises:
        SEBrainSegError: they are not valid or contradict each other.
    """
    parameters, is_bids = parameters_of(chosen), check_bids(chosen)
    orientation = valid_letters(chosen.orientation) if chosen.orientation else ""
    if chosen.dask and chosen.jobs > 1:
        raise SEBrainSegError("With --dask the workers of the cluster share out the scans; leave out --jobs.")
    return Request(parameters, is_bids, orientation)


@dataclass(frozen=True)
class Findings:
    """What there is to segment.

    Attributes:
        scans: what to segment.
        folder: where the summary goes.
        problems: a sentence for each argument that yielded no scan.
        single: whether it is one scan only that the user named, and no batch.
    """

    scans: list[Scan]
    folder: Path
    problems: dict[str, str]
    single: bool


def find(chosen: argparse.Namespace, request: Request) -> Findings:
    """Find the scans that the arguments name; say what is left out or cannot be found.

    Raises:
        SEBrainSegError: the output folder or the BIDS dataset is unusable.
    """
    if request.is_bids:
        return Findings(*_bids_scans(chosen), problems={}, single=False)
    if chosen.output:
        refuse_file_in_the_way(chosen.output)
    scans, problems, left_out, single = find_scans(chosen.inputs, chosen.output, request.parameters, chosen.confidence)
    if left_out:
        print_line(f"{left_out} of the images are results of earlier runs and left out.", True)
    for argument, problem in problems.items():
        print_line(f"{argument}: {problem}", True)
    return Findings(scans, chosen.output or Path(), problems, single and not chosen.dask)


def _bids_scans(chosen: argparse.Namespace) -> tuple[list[Scan], Path]:
    """Return the scans of a BIDS dataset and the folder of its derivatives, which is made; say what is left out."""
    source, folder = (local(each) for each in chosen.inputs[:2])
    refuse_file_in_the_way(folder)
    scans, left_out = bids.scans_of(
        source, folder, chosen.participant_label, chosen.session_label, chosen.confidence, chosen.skip_bids_validation
    )
    bids.describe(source, folder, chosen.overwrite)
    if left_out:
        print_line(left_out, True)
    return [*scans], Path(folder)


def batch_of(chosen: argparse.Namespace, request: Request, found: Findings) -> Batch:
    """Return the run over what was found."""
    work = Work(
        request.parameters,
        chosen.confidence,
        overwrite=chosen.overwrite or not found.single,
        orientation=request.orientation,
        series=chosen.series,
        accept_unlikely=chosen.accept_unlikely,
    )
    table = None if found.single or not found.scans else found.folder / summary.FILE
    return Batch(found.scans, work, table, print_line, chosen.jobs, again=chosen.overwrite, debug=chosen.debug)


def engine_of(chosen: argparse.Namespace, single: bool, reader: Reader) -> Callable[..., Any]:
    """Return what segments the scans: this process, which has a :class:`~.Reader`, several or a cluster."""
    if chosen.dask:
        from .dask_cluster import on_cluster

        return partial(on_cluster, address=chosen.dask)
    if chosen.jobs > 1 and not single:
        return partial(in_processes, jobs=chosen.jobs)
    progress_line = partial(ProgressLine, stream=sys.stderr)
    return partial(one_after_another, progress_line=progress_line, read=reader.read)


def print_line(line: str, failure: bool) -> None:
    """Print a line about a scan, what failed to stderr."""
    line = "\n".join(map(shown, line.split("\n")))
    print(f"sebrainseg: {line}" if failure else line, file=sys.stderr if failure else sys.stdout, flush=True)


@contextmanager
def signs_of_life(batch: Batch) -> Iterator[None]:
    """Say every :data:`.SILENCE` how far scans in other processes are, where no terminal shows when a line came."""
    began = time.monotonic()

    def say() -> None:
        print_line(f"{batch.finished} of {batch.count} inputs done ({duration(time.monotonic() - began)}).", True)

    pulse = None if sys.stderr.isatty() else Pulse(say)
    try:
        yield
    finally:
        if pulse:
            pulse.close()


def main(argv: Optional[list[str]] = None) -> int:
    """Run the command; return 0 if all is segmented, 1 if not, 2 for wrong arguments, 130 if interrupted."""
    with steady("sebrainseg"):
        return _run(parser().parse_args(argv))


def _run(chosen: argparse.Namespace) -> int:
    """Run the command once nothing that it prints can end it."""
    memory.keep_what_is_freed()
    threads.wait_passively()
    try:
        request = request_of(chosen)
    except SEBrainSegError as error:
        print_line(str(error), True)
        return 2
    try:
        found = find(chosen, request)
        batch = batch_of(chosen, request, found)
        elsewhere = chosen.dask or chosen.jobs > 1
        with signs_of_life(batch) if elsewhere else nullcontext(), closing(Reader()) as reader:
            batch.run(engine_of(chosen, found.single, reader))
    except SEBrainSegError as error:
        print_line(str(error), True)
        return 1
    except KeyboardInterrupt:
        print_line("interrupted; finished scans are complete, and the same command goes on with the others.", True)
        return 130
    failed, count = batch.failed + len(found.problems), batch.count + len(found.problems)
    if failed and count > 1:
        print_line(f"{failed} of {count} inputs were not segmented.", True)
    return 1 if failed else 0
