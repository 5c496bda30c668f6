"""Runs the segmentation in a child process (:mod:`.worker`) and tells what becomes of it, without Slicer and Qt."""

import json
import logging
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import SimpleITK as sitk

from .errors import SEBrainSegError
from .structures import table_of

# The folder from which the child can import SEBrainSegLib.
MODULE_FOLDER = Path(__file__).resolve().parent.parent

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
        finished: called with the path of a label image, which is deleted when it returns, the tuple of
            :class:`~.structures.Structure` that its labels mean, and the device's name.
        failed: called with one sentence.
        cancelled: called without arguments once a cancelled run is over.

    After :meth:`start`, exactly one of the last three is called, once; by then the run is over and may be started anew.
    """

    def __init__(self, factory, python, progress, finished, failed, cancelled):
        self.factory, self.python = factory, python
        self.progress, self.finished, self.failed, self.cancelled = progress, finished, failed, cancelled
        self.process = None

    @property
    def running(self):
        """Whether a child process is at work."""
        return self.process is not None

    def start(self, image, parameters):
        """Start segmenting a ``SimpleITK.Image`` with :class:`~.parameters.Parameters`.

        Raises:
            SEBrainSegError: a segmentation is running already, a parameter is invalid, or the disk is full.
        """
        if self.running:
            raise SEBrainSegError("A segmentation is running already; wait for it or cancel it first.")
        parameters.checked()
        self.folder = Path(tempfile.mkdtemp(prefix="SEBrainSeg-"))
        self.unread, self.errors = b"", b""
        self.error, self.device, self.structures, self.was_cancelled = "", "", (), False
        try:
            sitk.WriteImage(image, str(self.folder / "volume.nrrd"))
        except RuntimeError:
            self.clean()
            raise SEBrainSegError(
                "The volume cannot be handed over; the disk of temporary files may be full."
            ) from None
        arguments = ["-m", "SEBrainSegLib.worker", str(self.folder / "volume.nrrd"), str(self.folder / "labels.nrrd")]
        arguments += [f"--{name}={value}" for name, value in asdict(parameters).items()]
        paths = [str(MODULE_FOLDER), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.process = self.factory(self.on_output, self.on_errors, self.on_end)
        self.process.start(str(self.python), arguments, environment)

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
            self.progress(float(fields["progress"]), str(fields.get("message", "")))
        self.error = str(fields.get("error", self.error))
        self.device = str(fields.get("device", self.device))
        self.structures = table_of(fields.get("structures", self.structures))

    def on_errors(self, content):
        """Keep the last of what the child wrote to stderr."""
        self.errors = (self.errors + bytes(content))[-KEPT_ERRORS:]

    def on_end(self, status):
        """Tell the outcome; ``status`` is ``None`` if the child was killed, crashed or never started."""
        if not self.running:
            return
        self.on_output(b"\n")
        self.process = None
        try:
            labels = self.folder / "labels.nrrd"
            if self.was_cancelled:
                self.cancelled()
            elif status == 0 and self.device and labels.is_file():
                self.finished(labels, self.structures, self.device)
            else:
                logging.error("SEBrainSeg's process: %s", self.errors.decode("utf-8", "replace") or "no messages")
                self.failed(self.error or self.why_it_ended(status))
        finally:
            self.clean()

    def why_it_ended(self, status):
        """One sentence for an end that the child did not explain."""
        if status is None:
            return "The segmentation process could not run or was ended from outside, perhaps because memory ran out."
        # A launcher's answer for a Python that was killed; of its own accord the child gives 1 only with a reason.
        cause = ", perhaps because memory ran out" if status in (1, 137) else ""
        return f"The segmentation process ended unexpectedly (exit status {status}){cause}; see the application log."

    def clean(self):
        """Delete the files of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)
