"""Many machines: scans become tasks of an existing Dask cluster, which tries them again where a worker dies."""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import SEBrainSegError
from ..networks import user_models
from .batch import Outcome, Work, attempt, one_line
from .inputs import Scan

TIMEOUT = 10  # seconds until a scheduler that does not answer is given up


def on_cluster(scans: "deque[Scan]", work: Work, address: str) -> Iterator[tuple[Scan, Outcome]]:
    """Segment scans on the workers of a cluster, which see the same folders; yields each scan with its outcome.

    What is queued is cancelled if this ends early; a worker then still finishes the scan it is at.

    Args:
        scans: a deque of :class:`~.inputs.Scan`, emptied; more may be added.
        work: a :class:`~.batch.Work`.
        address: of the scheduler, as in ``tcp://node1:8786``.

    Raises:
        SEBrainSegError: there is no such cluster.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise SEBrainSegError("--dask needs dask.distributed; run 'pip install distributed'.") from None
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # its time-out is an OSError
        raise SEBrainSegError(f"No Dask scheduler answers at {address} ({one_line(error)}).") from None
    if work.parameters.model:
        path = user_models.path_of(work.parameters.model).resolve()
        work = replace(work, parameters=replace(work.parameters, model=str(path)))
    running: dict[Any, Scan] = {}
    with client:
        done = as_completed(loop=client.loop)
        try:
            while scans or running:
                while scans:
                    scan = scans.popleft()
                    # Not pure: what it makes are files, and those of an earlier run may be gone.
                    future = client.submit(attempt, _absolute(scan), work, pure=False)
                    running[future] = scan
                    done.add(future)
                future = next(done)
                scan = running.pop(future)
                try:
                    outcome = future.result()
                except Exception as error:  # the cluster's own, of many kinds
                    outcome = Outcome(f"The cluster could not segment it ({one_line(error)}).", None)
                yield scan, outcome
        finally:
            client.cancel(list(running))


def _absolute(scan: Scan) -> Scan:
    """Return the scan as a process with another working directory finds it."""
    paths = {ending: Path(os.path.abspath(path)) for ending, path in scan.paths.items()}
    return replace(scan, path=Path(os.path.abspath(scan.path)), paths=paths)
