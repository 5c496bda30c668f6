"""The child process in which Slicer's module segments a volume.

``python -m SEBrainSegLib.worker INPUT OUTPUT --architecture=unet --se=scse ...``, with an option for every field of
:class:`~.parameters.Parameters`, reads a volume and writes its labels. It tells how it goes in lines of JSON on stdout,
one of

- ``{"progress": 0.3, "message": "..."}``,
- ``{"error": "..."}``, one sentence, followed by exit status 1,
- ``{"done": true, "device": "cpu", "structures": [...]}``, what the labels mean in the rows of
  :func:`~.structures.rows_of`, followed by exit status 0.

Its stdin says that the parent lives: once that closes, the process ends. It is cancelled by killing it or, where a
launcher stands between, by killing that, which closes its stdin.
"""

import argparse
import json
import os
import sys
import threading
import traceback
from dataclasses import asdict, fields
from pathlib import Path

from .errors import SEBrainSegError
from .parameters import Parameters
from .structures import rows_of


def parser():
    """Arguments of the process."""
    parser = argparse.ArgumentParser(prog="SEBrainSegLib.worker")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    for field in fields(Parameters):
        parser.add_argument(f"--{field.name}", default=field.default)
    return parser


def take_stdout():
    """Return stdout as a text stream of our own; what libraries print goes to stderr from here on."""
    lines = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return lines


def end_with_parent():
    """End this process once its stdin closes: soon, but not before a library lets Python's other threads run."""

    def watch():
        # os.read and not sys.stdin: a lock held on sys.stdin would abort the interpreter at its ordinary end.
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def read(path):
    """Read the volume that the parent wrote."""
    import SimpleITK as sitk

    try:
        return sitk.ReadImage(str(path))
    except RuntimeError:
        raise SEBrainSegError(f"The volume handed over in {path} cannot be read.") from None


def write(labels, path):
    """Write labels under another name first, so that a file called ``path`` is always complete."""
    import SimpleITK as sitk

    beside = path.with_name(f"part-{path.name}")
    try:
        sitk.WriteImage(labels, str(beside))
        os.replace(beside, path)
    except (OSError, RuntimeError):
        raise SEBrainSegError(f"The labels cannot be written to {path.parent}; the disk may be full.") from None


def load_segment():
    """Return the core's ``segment``; importing it imports torch."""
    try:
        from .inference import segment
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise SEBrainSegError("PyTorch is not installed; install it in Slicer's module PyTorch Utils.") from None
    return segment


def run(chosen, tell):
    """Segment one volume; ``tell`` is called with what goes into a line.

    Raises:
        SEBrainSegError: something that the user can mend.
    """
    parameters = Parameters(**{field.name: getattr(chosen, field.name) for field in fields(Parameters)}).checked()
    tell(progress=0.0, message="Loading PyTorch")
    segment = load_segment()
    found = segment(
        read(chosen.input),
        progress=lambda fraction, message: tell(progress=fraction, message=message),
        **asdict(parameters),
    )
    write(found.labels, chosen.output)
    tell(done=True, device=found.device, structures=rows_of(found.structures))


def main(argv=None):
    """Run the process; returns its exit status."""
    lines = take_stdout()
    end_with_parent()

    def tell(**fields):
        lines.write(json.dumps(fields) + "\n")
        lines.flush()

    try:
        run(parser().parse_args(argv), tell)
    except SEBrainSegError as error:
        tell(error=str(error))
        return 1
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(str(error).split()) or "no reason given"
        tell(error=f"The segmentation failed unexpectedly ({type(error).__name__}: {reason}).")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
