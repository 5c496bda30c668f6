"""Runs the segmentation in a child process (:mod:`.worker`) and tells what becomes of it, without Slicer and Qt."""

import json
import logging
import os
from pathlib import Path
from typing import Any, Protocol

from ..errors import SEBrainSegError
from ..lazy import sitk
from ..translation import joined
from ..translation import tr as _
from . import handover, run_folder, surfaces

# The folder from which the child can import SEBrainSegLib.
MODULE_FOLDER = Path(__file__).resolve().parents[2]


# Of what the child writes to stderr, this much is kept for the log.
KEPT_ERRORS = 20000


class Process(Protocol):
    """A child process.

    It is made by ``factory(on_output, on_errors, on_end)`` and calls, in the thread that started it, ``on_output`` and
    ``on_errors`` with bytes as they arrive and, after the last of them, ``on_end`` once, with the exit status or with
    ``None`` if it was killed, crashed or never started.
    """

    def start(self, program, arguments, environment):
        """Start it; ``environment`` maps names to values and is added to this process's own."""

    def kill(self):
        """End it at once and return when it is gone; ``on_end`` is called before that.

        What it started in its turn, such as Python by the launcher PythonSlicer, is not waited for.
        """


class BackgroundSegmentation:
    """One segmentation at a time in a child process.

    Args:
        factory: makes a :class:`Process`.
        python: path of the Python interpreter of the child.
        progress: called with a fraction in [0, 1] and a message.
        finished: called with a tuple of :class:`~.result.Segmentation`, one for every choice of the job; with the
            :class:`~.comparison.Differences` of a job that compares; or with the surfaces of :func:`.surfaces.read`.
        failed: called with one sentence, and with true if a job that accepts unlikely results would do.
        cancelled: called without arguments once a cancelled run is over.

    After :meth:`start` or :meth:`start_surfaces`, exactly one of the last three is called, once; by then the run is
    over and may be started anew.
    """

    def __init__(self, factory, python, progress, finished, failed, cancelled):
        self.factory, self.python = factory, python
        self.progress, self.finished, self.failed, self.cancelled = progress, finished, failed, cancelled
        self.process: Any = None
        self.answer: Any = None
        run_folder.remove_abandoned()

    @property
    def running(self):
        """Whether a child process is at work."""
        return self.process is not None

    def start(self, image, job, known=()):
        """Start segmenting a ``SimpleITK.Image`` as a :class:`~.job.Job` says.

        Args:
            known: the segmentations that the job compares and were made before, in its order.

        Raises:
            SEBrainSegError: a segmentation is running already, a choice is invalid, or the disk is full.
        """
        job.checked()
        known = tuple(known)

        def write(folder):
            sitk.WriteImage(image, str(folder / handover.VOLUME))
            (folder / handover.JOB).write_text(job.to_json(), encoding="utf-8")
            if job.compared:
                handover.write_known(folder, known)

        def read(folder):
            found = handover.read(folder, self.answer["segmentations"])
            return handover.read_differences(folder, job.in_order(found, known)) if job.compared else found

        self.begin("SEBrainSegLib.subprocesses.worker", write, read)

    def start_surfaces(self, labelmaps, settings):
        """Start making surfaces; see :func:`.surfaces.write_request`.

        Raises:
            SEBrainSegError: something is running already, or the disk is full.
        """
        self.begin(
            "SEBrainSegLib.subprocesses.surfaces",
            lambda folder: surfaces.write_request(folder, labelmaps, settings),
            lambda folder: surfaces.read(folder, self.answer["surfaces"]),
        )

    def begin(self, module, write, read):
        """Start a child process.

        Args:
            module: what it runs.
            write: called with the folder of the run, writes what is handed over.
            read: called with it at the end, returns what was found.
        """
        if self.running:
            raise SEBrainSegError(_("A segmentation is running already; wait for it or cancel it first."))
        self.read = read
        run_folder.remove_abandoned()
        self.folder = run_folder.create()
        self.unread, self.errors = b"", b""
        self.error, self.unlikely, self.answer, self.was_cancelled = "", False, None, False
        try:
            write(self.folder)
        except (OSError, RuntimeError):
            self.clean()
            raise SEBrainSegError(
                _("The volume cannot be handed over; the disk of temporary files may be full.")
            ) from None
        paths = [str(MODULE_FOLDER), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.process = self.factory(self.on_output, self.on_errors, self.on_end)
        self.process.start(str(self.python), ["-m", module, str(self.folder)], environment)

    def cancel(self):
        """End the run, if there is one; its files are deleted and the child is gone when this returns.

        Where the child is a launcher, Python itself notices that its stdin closed and ends soon after.
        """
        if self.running:
            self.was_cancelled = True
            self.process.kill()

    def on_output(self, content):
        """Take what the child wrote to stdout, in whatever pieces it comes."""
        *lines, self.unread = (self.unread + bytes(content)).split(b"\n")
        for line in lines:
            self.on_line(line)

    def on_line(self, line):
        """Take one line; what is not one of :mod:`.worker`'s is passed over."""
        try:
            fields = json.loads(line.decode("utf-8"))
        except ValueError:
            return
        if not isinstance(fields, dict) or self.was_cancelled:
            return
        if "progress" in fields:
            self.progress(float(fields["progress"]), str(joined(fields.get("message", ""))))
        self.error = str(joined(fields.get("error", self.error)))
        self.unlikely = bool(fields.get("unlikely", self.unlikely))
        if "segmentations" in fields or "surfaces" in fields:
            self.answer = fields

    def on_errors(self, content):
        """Keep the last of what the child wrote to stderr."""
        self.errors = (self.errors + bytes(content))[-KEPT_ERRORS:]

    def on_end(self, status):
        """Tell the outcome; ``status`` is ``None`` if the child was killed, crashed or never started."""
        if not self.running:
            return
        self.on_output(b"\n")
        self.process, found = None, None
        try:
            if status == 0 and self.answer is not None and not self.was_cancelled:
                found = self.read(self.folder)
        except (IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError):
            logging.exception("SEBrainSeg's results cannot be read")
        finally:
            self.read = None
            self.clean()
        if self.was_cancelled:
            self.cancelled()
        elif found is not None:
            self.finished(found)
        else:
            logging.error("SEBrainSeg's process: %s", self.errors.decode("utf-8", "replace") or "no messages")
            self.failed(self.error or self.why_it_ended(status), *[True] * self.unlikely)

    def why_it_ended(self, status):
        """One sentence for an end that the child did not explain."""
        if status is None:
            return _(
                "The segmentation process could not run or was ended from outside, perhaps because memory ran out."
            )
        # A launcher's answer for a Python that was killed; of its own accord the child gives 1 only with a reason.
        if status in (1, 137):
            text = _(
                "The segmentation process ended unexpectedly (exit status {status}), perhaps because memory ran out; "
                "see the application log."
            )
        else:
            text = _("The segmentation process ended unexpectedly (exit status {status}); see the application log.")
        return text.format(status=status)

    def clean(self):
        """Delete the files of the run."""
        run_folder.remove(self.folder)
