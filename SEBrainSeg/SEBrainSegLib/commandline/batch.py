"""One scan, and many: how one is segmented, which of many are left to do, and what became of each."""

import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from ..choices.parameters import Parameters
from ..errors import SEBrainSegError, UnlikelyError
from ..files.endings import stem
from ..files.names import shown
from ..files.orientation import notes
from ..files.reading import read
from ..files.results import check_writable, refuse_existing, write_results
from ..text import duration
from .inputs import Scan, results_name
from .summary import FAILED, SEGMENTED, SKIPPED, read_rows, remarks_in, row_of, update, volumes_in

Progress = Callable[[float, str], None]  # called with a fraction in [0, 1] and a message


PRINTED_REMARKS = 8  # on one scan; all stand in its table


@dataclass(frozen=True)
class Work:
    """What is done with each scan; it travels to other processes and machines.

    Attributes:
        parameters: the choice of network.
        confidence: whether a volume of confidences is written, too.
        overwrite: whether results that exist are replaced.
        orientation: that of scans whose files state none, as :func:`.reading.read` takes it.
        series: the DICOM series to read of a folder that holds several.
        accept_unlikely: whether a result that is unlikely to be right is written all the same.
    """

    parameters: Parameters
    confidence: bool = False
    overwrite: bool = False
    orientation: str = ""
    series: str = ""
    accept_unlikely: bool = False


class Outcome(NamedTuple):
    """What became of a scan.

    Attributes:
        reason: one sentence that says why it was not segmented; ``""`` if it was.
        seconds: wall time that it took; ``None`` if it was not begun.
        details: the traceback of an unexpected failure.
        notes: sentences on the scan that a user should know, segmented or not.
    """

    reason: str
    seconds: Optional[float]
    details: str = ""
    notes: tuple[str, ...] = ()


def segment_scan(
    scan: Scan,
    work: Work,
    progress: Optional[Progress] = None,
    noted: Optional[Callable[[tuple[str, ...]], object]] = None,
    read: Callable[..., Any] = read,
) -> None:
    """Read, segment and write one scan in this process.

    Args:
        scan: a :class:`~.inputs.Scan`.
        work: a :class:`Work`.
        progress: called with a fraction in [0, 1] and a message.
        noted: called with a tuple of sentences on the scan, if there is one.
        read: what reads it, as :func:`.reading.read`.

    Raises:
        SEBrainSegError: something that the user can mend.
    """
    progress = progress or (lambda fraction, message: None)
    refuse_existing(scan.paths, work.overwrite)
    progress(0.0, "Reading")
    image = read(scan.path, work.orientation, work.series)
    if noted is not None and notes(image):
        noted(notes(image))
    check_writable(scan.table.parent)
    from ..inference.run import segment  # torch takes seconds to import, a wrong file name should not

    chosen = asdict(work.parameters)
    found = segment(
        image, progress=progress, confidence=work.confidence, accept_unlikely=work.accept_unlikely, **chosen
    )
    write_results(image, found, scan.paths, work.overwrite, scan.writers(work.parameters))


def attempt(scan: Scan, work: Work, progress: Optional[Progress] = None, read: Callable[..., Any] = read) -> Outcome:
    """Segment one scan as :func:`segment_scan` and return what became of it; no exception ends a run over many."""
    began, reason, details = time.monotonic(), "", ""
    noted: list[str] = []
    try:
        segment_scan(scan, work, progress, noted.extend, read)
    except UnlikelyError as error:
        reason = f"{one_line(error)} To see the result all the same, add --accept-unlikely."
    except SEBrainSegError as error:
        reason = one_line(error)
    except Exception as error:  # whatever it was, the next scan has a right to be segmented
        details = traceback.format_exc()
        reason = f"unexpected failure ({one_line(error)}); --debug says where."
    return Outcome(reason, time.monotonic() - began, details, tuple(noted))


def one_line(error: BaseException) -> str:
    """Return the message of an exception in one line, or its name if it has none."""
    return shown(" ".join(str(error).split())) or type(error).__name__


def one_after_another(
    scans: "deque[Scan]", work: Work, progress_line: Callable[[str], Any], read: Callable[..., Any] = read
) -> Iterator[tuple[Scan, Outcome]]:
    """Segment scans one after the other in this process; yields each with its outcome.

    Args:
        scans: a deque of :class:`~.inputs.Scan`, emptied; more may be added meanwhile.
        work: a :class:`Work`.
        progress_line: called with the name of a scan; returns what is called with its progress and closed at its end.
        read: what reads a scan, as :func:`.reading.read`.
    """
    while scans:
        scan = scans.popleft()
        line = progress_line(stem(scan.path))
        try:
            outcome = attempt(scan, work, line, read)
        finally:
            line.close()
        yield scan, outcome


class Batch:
    """A run over many scans, or one: what is there is skipped, what happens is reported and kept in a summary.

    Args:
        scans: what to segment.
        work: a :class:`Work`.
        summary: path of the summary; ``None`` for one scan alone, whose results are never skipped.
        report: called with a line to show, and whether it is about a failure.
        parallel: how many scans are segmented at a time, if that is known.
        again: whether scans that are done are done again.
        debug: whether tracebacks are reported, too.

    Attributes:
        count: the number of scans.
        finished: how many are segmented, skipped or failed so far.
        failed: how many were not segmented.
    """

    def __init__(
        self,
        scans: list[Scan],
        work: Work,
        summary: Optional[Path],
        report: Callable[[str, bool], object],
        parallel: int = 1,
        again: bool = False,
        debug: bool = False,
    ):
        self.work, self.summary, self.report, self.again, self.debug = work, summary, report, again, debug
        self.parallel, self.busy = parallel, 0.0
        self.network = shown(results_name(work.parameters))
        self.count, self.finished, self.segmented, self.failed = len(scans), 0, 0, 0
        self.began, self.trouble = time.monotonic(), ""
        self.unsaved: list[dict[str, str]] = []
        # Scans whose results would have the same names; the first that can be segmented gets them.
        self.competing: dict[Path, deque[Scan]] = {}
        for scan in scans:
            self.competing.setdefault(scan.table, deque()).append(scan)

    def run(self, engine: Callable[..., Any]) -> None:
        """Segment what is left to do.

        Args:
            engine: called with a deque of scans and the work, as :func:`one_after_another`, :func:`.in_processes` and
                :func:`.dask_cluster.on_cluster` are; yields each scan with its outcome.

        Raises:
            SEBrainSegError: there is something wrong that concerns all scans.
        """
        scans = self._pending()
        if scans:
            with closing(engine(scans, self.work)) as outcomes:
                for scan, outcome in outcomes:
                    scans.extend(self._record(scan, outcome))

    def _pending(self) -> "deque[Scan]":
        """Return the scans that are left to do; report the others."""
        earlier = read_rows(self.summary) if self.summary else {}
        left: deque[Scan] = deque()
        for scans in self.competing.values():
            try:
                done = self.summary and not self.again and scans[0].is_done(self.work.parameters)
            except SEBrainSegError as error:
                self._fail_all(scans, str(error))
                continue
            if not done:
                left.append(scans.popleft())
                continue
            statuses = [earlier.get((scan.entry, self.network), {}).get("status") for scan in scans]
            winner = statuses.index(SEGMENTED) if SEGMENTED in statuses else 0
            scans.rotate(-winner)
            self._skip(scans.popleft(), statuses[winner] in (SEGMENTED, SKIPPED))
        self._save()
        return left

    def _skip(self, scan: Scan, known: bool) -> None:
        """Report that a scan is done; put what is there of it into the summary unless it knows the scan."""
        self.finished += 1
        self.report(f"{self._counted()}{scan.name}: skipped, its results are there: {shown(scan.segmentation)}", False)
        if not known:
            try:
                volumes, remarks = volumes_in(scan.table), remarks_in(scan.table)
                self.unsaved.append(row_of(scan, self.network, SKIPPED, volumes=volumes, remarks=remarks))
            except SEBrainSegError as error:
                self.unsaved.append(row_of(scan, self.network, SKIPPED, reason=str(error)))
        self._refuse_competing(scan)

    def _record(self, scan: Scan, outcome: Outcome) -> list[Scan]:
        """Report and keep what became of a scan; return those that may now be tried in its place."""
        for note in outcome.notes:
            self.report(f"{scan.name}: {note}", True)
        try:
            if outcome.reason:
                raise SEBrainSegError(outcome.reason)
            volumes, remarks = volumes_in(scan.table), remarks_in(scan.table)
        except SEBrainSegError as error:
            self._fail(scan, outcome._replace(reason=str(error)))
            others = self.competing[scan.table]
            following = [others.popleft()] if others else []
        else:
            self._succeed(scan, outcome.seconds or 0.0, volumes, remarks)
            following = []
        self._save()
        return following

    def _succeed(self, scan: Scan, seconds: float, volumes: dict[str, float], remarks: list[str]) -> None:
        """Report and keep that a scan was segmented."""
        self.finished += 1
        self.segmented += 1
        self.busy += seconds
        self.unsaved.append(row_of(scan, self.network, SEGMENTED, seconds, volumes=volumes, remarks=remarks))
        self._save()
        found, count = sum(ml > 0 for ml in volumes.values()), len(volumes)
        counted = f"{count} structures" if found == count else f"{found} of {count} structures"
        text = f"{sum(volumes.values()):.1f} ml in {counted} -> {shown(scan.segmentation)}"
        left_out = len(remarks) - PRINTED_REMARKS
        more = [f"... and {left_out} more, in the table"] if left_out > 0 else []
        lines = [f"{self._counted()}{scan.name}: {text}{self._time_left()}", *remarks[:PRINTED_REMARKS], *more]
        self.report("\n    ".join(lines), False)
        self._refuse_competing(scan)

    def _fail(self, scan: Scan, outcome: Outcome) -> None:
        """Report and keep that a scan was not segmented."""
        self.failed += 1
        self.finished += 1
        if self.debug and outcome.details:
            self.report(outcome.details.rstrip(), True)
        self.report(f"{self._counted()}{scan.name}: {outcome.reason}", True)
        self.unsaved.append(row_of(scan, self.network, FAILED, outcome.seconds, outcome.reason))

    def _fail_all(self, scans: "deque[Scan]", reason: str) -> None:
        """Report and keep that scans were not even begun."""
        while scans:
            self._fail(scans.popleft(), Outcome(reason, None))

    def _refuse_competing(self, winner: Scan) -> None:
        """Report which scans are not segmented because another scan's results have their names."""
        self._fail_all(
            self.competing[winner.table], f"Its results would replace those of {winner.name}; use another -o, or none."
        )

    def _save(self) -> None:
        """Write the rows that are new to the summary; one that cannot be written is no reason to stop."""
        if not self.summary or not self.unsaved:
            return
        try:
            update(self.summary, self.unsaved)
            self.unsaved = []
        except SEBrainSegError as error:
            if str(error) != self.trouble:
                self.report(str(error), True)
            self.trouble = str(error)

    def _counted(self) -> str:
        """Return ``[3/12] `` for the third of twelve, nothing for one alone."""
        return f"[{self.finished}/{self.count}] " if self.count > 1 else ""

    def _time_left(self) -> str:
        """Return ``, 4 min left``, from how long scans took and how many ran at a time; ``""`` at the end."""
        left = self.count - self.finished
        if not left:
            return ""
        parallel = max(self.parallel, self.busy / (time.monotonic() - self.began))
        return f", {duration(self.busy / self.segmented * left / parallel)} left"
