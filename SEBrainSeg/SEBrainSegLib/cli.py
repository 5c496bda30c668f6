"""``sebrainseg``: segment scans from the command line."""

import argparse
import os
import sys
import traceback
from pathlib import Path

from .errors import SEBrainSegError
from .parameters import Parameters
from .reading import read
from .results import check_writable, refuse_existing, result_paths, stem, write_results


def parser():
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="sebrainseg",
        description="Segment 31 brain structures in T1-weighted MR scans into .seg.nrrd, .nii.gz, .csv and .png files.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", type=Path, help="image file or DICOM folder")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="folder for results (default: beside each input)"
    )
    parser.add_argument("--architecture", default="unet", help="network (default: unet)")
    parser.add_argument("--se", default="scse", help="none, cse, sse or scse (default: scse)")
    parser.add_argument("--view", default="coronal", help="direction of slicing (default: coronal)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an unexpected failure")
    return parser


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

        found = segment(
            image, parameters.architecture, parameters.se, parameters.view, parameters.device, progress=line
        )
        write_results(image, found, paths, overwrite)
        return found
    finally:
        line.close()


def main(argv=None):
    """Run the command; returns 0 if every input was segmented, 1 if not, 2 for wrong arguments, 130 if interrupted."""
    chosen = parser().parse_args(argv)
    parameters = Parameters(chosen.architecture, chosen.se, chosen.view, chosen.device)
    if parameters.problem():
        print(f"sebrainseg: {parameters.problem()}", file=sys.stderr)
        return 2
    failed, taken = [], {}
    for path in chosen.inputs:
        name = f"{stem(path)}_{parameters.model}"
        folder = chosen.output if chosen.output is not None else Path(os.path.abspath(path)).parent
        paths = result_paths(folder, name)
        try:
            if paths[".csv"] in taken:
                raise SEBrainSegError(f"Its results would replace those of {taken[paths['.csv']]}; use another -o.")
            found = segment_file(path, paths, parameters, chosen.overwrite)
            taken[paths[".csv"]] = path
            print(f"{path}: {sum(found.volumes.values()):.0f} ml in 31 structures -> {paths['.seg.nrrd']}")
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
