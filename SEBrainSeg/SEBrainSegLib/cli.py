"""``sebrainseg``: segment scans from the command line."""

import argparse
import os
import shlex
import sys
import traceback
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path

from . import user_models
from .errors import SEBrainSegError
from .parameters import Architecture, Parameters, Protocol, Variant, View, alternatives, values
from .reading import read
from .results import check_writable, refuse_existing, result_paths, stem, write_results


def parser():
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="sebrainseg",
        description="Segment 31 brain structures in T1-weighted MR scans, or what a model of your own was trained for, "
        "into .seg.nrrd, .nii.gz, .csv and .png files.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", type=Path, help="image file or DICOM folder")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="folder for results (default: beside each input)"
    )
    for name, subject, choices in (
        ("architecture", "network", values(Architecture)),
        ("se", "squeeze & excitation blocks", values(Variant)),
        ("view", "direction of slicing, or the mean of all three", values(View)),
        ("protocol", "whose convention of drawing the structures to follow", values(Protocol)),
    ):
        default = getattr(Parameters, name)
        parser.add_argument(f"--{name}", help=f"{subject}: {alternatives(choices)} (default: {default})")
    parser.add_argument(
        "--model", help="in place of all this, the name or .pt file of a model that sebrainseg-train made"
    )
    parser.add_argument(
        "--device", help=f"where it runs: auto, cpu, cuda, cuda:N or mps (default: {Parameters.device})"
    )
    parser.add_argument(
        "--list", nargs=0, action=ListNetworks, help="only print the options of all networks that there are"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
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
            print(f"--model {shlex.quote(name)}")
        parser.exit()


class ProgressLine:
    """Progress of one input on stderr: a line redrawn on a terminal, a line per message elsewhere."""

    def __init__(self, name, stream):
        self.name, self.stream, self.message = name, stream, None

    def __call__(self, fraction, message):
        if self.stream.isatty():
            filled = round(24 * fraction)
            bar = "#" * filled + "." * (24 - filled)
            self.stream.write(f"\r\x1b[K{self.name} [{bar}] {fraction:4.0%} {message}")
        elif message != self.message:
            self.stream.write(f"{self.name}: {fraction:4.0%} {message}\n")
        self.message = message
        self.stream.flush()

    def close(self):
        if self.stream.isatty() and self.message is not None:
            self.stream.write("\n")


def segment_file(path, paths, parameters, overwrite):
    """Read, segment and write one input; returns the :class:`~.inference.Segmentation`."""
    if not overwrite:
        refuse_existing(paths)
    line = ProgressLine(stem(path), sys.stderr)
    try:
        line(0.0, "Reading")
        image = read(path)
        check_writable(paths[".csv"].parent)
        from .inference import segment  # torch takes seconds to import, a wrong file name should not

        found = segment(image, progress=line, **asdict(parameters))
        write_results(image, found, paths, overwrite)
        return found
    finally:
        line.close()


def parameters_of(chosen):
    """Return the :class:`Parameters` of parsed arguments.

    Raises:
        SEBrainSegError: they are not valid, contradict each other or name no network that there is.
    """
    given = {field.name: getattr(chosen, field.name) for field in fields(Parameters)}
    given = {name: value for name, value in given.items() if value is not None}
    idle = [f"--{name}" for name in ("architecture", "se", "view", "protocol") if name in given]
    if chosen.model and idle:
        raise SEBrainSegError(f"A user-trained model settles these itself: leave out {alternatives(idle)}, or --model.")
    return Parameters(**given).checked()


def main(argv=None):
    """Run the command; returns 0 if every input was segmented, 1 if not, 2 for wrong arguments, 130 if interrupted."""
    chosen = parser().parse_args(argv)
    try:
        parameters = parameters_of(chosen)
    except SEBrainSegError as error:
        print(f"sebrainseg: {error}", file=sys.stderr)
        return 2
    failed, taken = [], {}
    for path in chosen.inputs:
        name = f"{stem(path)}_{parameters.name}"
        folder = chosen.output if chosen.output is not None else Path(os.path.abspath(path)).parent
        paths = result_paths(folder, name)
        try:
            if paths[".csv"] in taken:
                raise SEBrainSegError(f"Its results would replace those of {taken[paths['.csv']]}; use another -o.")
            found = segment_file(path, paths, parameters, chosen.overwrite)
            taken[paths[".csv"]] = path
            volume, count = sum(found.volumes.values()), len(found.structures)
            print(f"{path}: {volume:.1f} ml in {count} structures -> {paths['.seg.nrrd']}")
        except SEBrainSegError as error:
            print(f"sebrainseg: {path}: {error}", file=sys.stderr)
            failed.append(path)
        except Exception as error:  # whatever it was, the next input has a right to be segmented
            if chosen.debug:
                traceback.print_exc()
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"sebrainseg: {path}: unexpected failure ({reason}); --debug says where.", file=sys.stderr)
            failed.append(path)
        except KeyboardInterrupt:
            print("sebrainseg: interrupted; finished inputs are complete, the others were not begun.", file=sys.stderr)
            return 130
    if failed and len(chosen.inputs) > 1:
        print(f"sebrainseg: {len(failed)} of {len(chosen.inputs)} inputs were not segmented.", file=sys.stderr)
    return 1 if failed else 0
