"""The child process in which Slicer's module segments a volume.

``python -m SEBrainSegLib.subprocesses.worker FOLDER`` reads a volume and a :class:`~.job.Job` and writes
segmentations, all as in :mod:`.handover`. It tells how it goes in lines of JSON on stdout, one of

- ``{"progress": 0.3, "message": "..."}``,
- ``{"error": "..."}``, one sentence, with ``"unlikely": true`` if a job that accepts unlikely results would do,
  followed by exit status 1,
- ``{"segmentations": [...]}``, followed by exit status 0.

Messages and errors travel as :func:`.translation.parts` has them, so that Slicer can translate them.

Its stdin says that the parent lives: once that closes, the process ends. It is cancelled by killing it or, where a
launcher stands between, by killing that, which closes its stdin.
"""

import argparse
import json
import os
import sys
import threading
import traceback
from pathlib import Path

from ..choices.job import Job
from ..errors import SEBrainSegError, UnlikelyError
from ..inference import memory, threads
from ..translation import parts
from ..translation import tr as _


def parser():
    """Arguments of the process."""
    parser = argparse.ArgumentParser(prog="SEBrainSegLib.subprocesses.worker")
    parser.add_argument("folder", type=Path)
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


def read(folder):
    """Read the volume and the job that the parent wrote."""
    import SimpleITK as sitk

    from . import handover

    try:
        image = sitk.ReadImage(str(folder / handover.VOLUME))
        return image, Job.from_json((folder / handover.JOB).read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError, TypeError, KeyError):
        raise SEBrainSegError(
            _("What was handed over in {folder} cannot be read; segment the volume again.").format(folder=folder)
        ) from None


def write(folder, segmentations):
    """Write what was found; return what the parent needs to read it."""
    from . import handover

    try:
        return handover.write(folder, segmentations)
    except RuntimeError:
        raise SEBrainSegError(
            _("The labels cannot be written to {folder}; the disk may be full.").format(folder=folder)
        ) from None


def load_run():
    """Return the core's ``run``; importing it imports torch."""
    try:
        from ..inference.run import run
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise SEBrainSegError(_("PyTorch is not installed; install it in Slicer's module PyTorch Utils.")) from None
    return run


def segment(folder, tell):
    """Segment the volume in a folder; ``tell`` is called with what goes into a line.

    Raises:
        SEBrainSegError: something that the user can mend.
    """
    image, job = read(folder)
    job.checked()
    found = ()
    if job.choices:
        tell(progress=0.0, message=parts(_("Loading PyTorch")))
        # Comparing takes little, and comes at the end.
        share = 0.97 if job.compared else 1.0
        found = load_run()(
            image, job, progress=lambda fraction, message: tell(progress=share * fraction, message=parts(message))
        )
    if job.compared:
        compare(folder, job, found, tell)
    tell(segmentations=write(folder, found))


def compare(folder, job, found, tell):
    """Compare the segmentations that were found and those handed over, and write how they differ.

    Raises:
        SEBrainSegError: they cannot be compared, or the disk is full.
    """
    from ..analysis import comparison
    from . import handover

    segmentations = job.in_order(found, handover.read_known(folder))
    compared = comparison.compare(
        segmentations,
        lambda fraction: tell(progress=0.97 + 0.03 * fraction, message=parts(_("Comparing the segmentations"))),
    )
    try:
        handover.write_differences(folder, compared)
    except (OSError, RuntimeError):
        raise SEBrainSegError(
            _("The comparison cannot be written to {folder}; the disk may be full.").format(folder=folder)
        ) from None


def talk(work, argv=None):
    """Run a process that does ``work(folder, tell)``; returns its exit status. ``tell`` takes what goes into a line."""
    lines = take_stdout()
    end_with_parent()
    memory.keep_what_is_freed()
    threads.wait_passively()

    def tell(**fields):
        lines.write(json.dumps(fields) + "\n")
        lines.flush()

    try:
        work(parser().parse_args(argv).folder, tell)
    except SEBrainSegError as error:
        tell(error=parts(error.sentence), **{"unlikely": True} if isinstance(error, UnlikelyError) else {})
        return 1
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(str(error).split()) or "no reason given"
        sentence = _("The segmentation failed unexpectedly ({kind}: {reason}).")
        tell(error=parts(sentence.format(kind=type(error).__name__, reason=reason)))
        return 1
    return 0


def main(argv=None):
    """Run the process that segments; returns its exit status."""
    return talk(segment, argv)


if __name__ == "__main__":
    sys.exit(main())
