"""Several scans at a time on one machine: processes that may die, and do not outlive the one that started them."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from os import PathLike
from pathlib import Path
from typing import Any, Optional

from ..errors import SEBrainSegError
from ..files import endings
from ..files.reading import read
from ..inference import memory
from .batch import Outcome, Work, attempt
from .inputs import Scan

TRIES = 2  # of a scan whose process dies


PATIENCE = 2.0  # seconds that a process may take to tidy up before it is killed


def in_processes(scans: "deque[Scan]", work: Work, jobs: int) -> Iterator[tuple[Scan, Outcome]]:
    """Segment scans in processes, each of which takes one after the other; yields each scan with its outcome.

    A scan whose process dies is tried a second time.

    Args:
        scans: a deque of :class:`~.inputs.Scan`, emptied; more may be added meanwhile.
        work: a :class:`~.batch.Work`.
        jobs: how many processes there are; threads are shared out among them.
    """
    jobs = min(jobs, len(scans))
    workers: list[Worker] = []
    tries: dict[Path, int] = {}
    try:
        while True:
            for worker in [worker for worker in workers if worker.scan is None]:
                if scans:
                    worker.begin(scans.popleft())
                else:
                    workers.remove(worker)
                    worker.end(PATIENCE)
            while scans and len(workers) < jobs:
                workers.append(Worker(work, jobs))
                workers[-1].begin(scans.popleft())
            if not workers:
                return
            ready = connection.wait([worker.connection for worker in workers])
            for worker in [worker for worker in workers if worker.connection in ready]:
                scan = worker.scan
                outcome = worker.outcome()
                if outcome is None:
                    workers.remove(worker)
                    ended = worker.end(PATIENCE)
                    tries[scan.table] = tries.get(scan.table, 1) + 1
                    if tries[scan.table] <= TRIES:
                        scans.append(scan)
                        continue
                    outcome = Outcome(
                        f"Its process died {TRIES} times ({ended}), perhaps for want of memory; "
                        "try it with fewer --jobs.",
                        worker.seconds,
                    )
                yield scan, outcome
    finally:
        for worker in workers:
            worker.process.terminate()
        deadline = time.monotonic() + PATIENCE
        for worker in workers:
            worker.end(max(0.0, deadline - time.monotonic()))


class Worker:
    """A process that segments one scan at a time.

    Attributes:
        scan: what it is busy with, or ``None``.
    """

    def __init__(self, work, jobs):
        # Spawned on every system: a fork of a process that runs threads, such as torch's, may hang.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve_scans, args=(theirs, work, jobs), daemon=True)
        with _interrupts_held_back():
            self.process.start()
        theirs.close()
        self.scan: Any = None
        self.began = 0.0

    @property
    def seconds(self) -> float:
        """How long it has been busy with its scan."""
        return time.monotonic() - self.began

    def begin(self, scan: Scan) -> None:
        """Let the process segment a scan."""
        self.scan, self.began = scan, time.monotonic()
        try:
            self.connection.send(scan)
        except OSError:
            pass  # it died, which outcome() tells

    def outcome(self) -> Optional[Outcome]:
        """Return what became of the scan, once there is something to read; ``None`` if the process died."""
        try:
            outcome = self.connection.recv()
        except (EOFError, OSError):
            return None
        self.scan = None
        return outcome

    def end(self, patience: float) -> str:
        """End the process, by force after some seconds, and return how it ended."""
        self.connection.close()
        self.process.join(patience)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


class Reader:
    """Reads scans in a process of its own where that may crash, so that it costs one scan and not the run.

    NIfTI and MGH are read here: their readers bore every damaged file that was tried, and the process takes a second
    to start.
    """

    def __init__(self):
        self.process: Any = None
        self.connection: Any = None

    def read(self, path: PathLike, orientation: str = "", series: str = "") -> Any:
        """Read as :func:`.reading.read`; a crash is a :class:`SEBrainSegError`, too."""
        if str(path).lower().endswith((*endings.NIFTI, *endings.MGH)):
            return read(path, orientation, series)
        if self.process is None:
            self.start()
        try:
            self.connection.send((path, orientation, series))
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.close()
            raise SEBrainSegError(
                f"{path} made the process that read it crash: it is damaged; export it again as NIfTI or NRRD."
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def start(self) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve_images, args=(theirs,), daemon=True)
        with _interrupts_held_back():
            self.process.start()
        theirs.close()

    def close(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.connection.close()
            self.process.kill()
            self.process.join()
            self.process = None


def _serve_images(theirs):
    """What the process of a :class:`Reader` does until nobody is at the other end: what to read in, images out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            request = theirs.recv()
            try:
                answer = read(*request)
            except Exception as error:  # whatever it was, it is told where it was asked for
                answer = error if isinstance(error, SEBrainSegError) else RuntimeError(str(error))
            theirs.send(answer)
        except (EOFError, OSError):
            return


@contextmanager
def _interrupts_held_back():
    """Start processes here: Ctrl-C in a terminal reaches all, but is the business of this one alone."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve_scans(theirs, work, jobs):
    """What a process of :func:`in_processes` does until nobody is at the other end: scans in, outcomes out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Ended in an orderly way, it removes its temporary files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    memory.keep_what_is_freed()
    _share_threads(jobs)
    while True:
        try:
            scan = theirs.recv()
            theirs.send(attempt(scan, work))
        except (EOFError, OSError):
            return


def _end_with_parent():
    """End this process as soon as the one that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _share_threads(jobs):
    """Let this process use its share of the processors, and at least one."""
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(
        max(1, sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() // jobs)
    )
