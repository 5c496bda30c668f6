"""One scan, and many: how one is segmented, which of many are left to do, and what became of each."""

import time
import traceback
from collections import deque
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import NamedTuple, Optional

from ..choices.parameters import Parameters
from ..errors import SEBrainSegError, UnlikelyError
from ..files.endings import stem
from ..files.names import shown
from ..files.orientation import notes
from ..files.reading import read
from ..files.results import check_writable, refuse_existing, write_results
from .inputs import results_name
from .summary import FAILED, SEGMENTED, SKIPPED, read_rows, remarks_in, row_of, update, volumes_in

TOLD = 8  # remarks on a scan that are printed; all stand in its table


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


def segment_scan(scan, work, progress=None, noted=None, read=read):
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


def attempt(scan, work, progress=None, read=read):
    """Segment one scan, whatever happens, as :func:`segment_scan`; returns an :class:`Outcome`."""
    began, reason, details, noted = time.monotonic(), "", "", []
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


def one_line(error):
    """The message of an exception, or its name if it has none, in one line."""
    return shown(" ".join(str(error).split())) or type(error).__name__


def in_turn(scans, work, progress_line, read=read):
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
    """A run over many scans, or one: what is there is skipped, what happens is told and kept in a summary.

    Args:
        scans: what to segment.
        work: a :class:`Work`.
        summary: path of the summary; ``None`` for one scan alone, whose results are never skipped.
        told: called with a line to show, and whether it is about a failure.
        at_once: how many scans are segmented at a time, if that is known.
        again: whether scans that are done are done again.
        debug: whether tracebacks are told, too.

    Attributes:
        failed: how many scans were not segmented.
    """

    def __init__(self, scans, work, summary, told, at_once=1, again=False, debug=False):
        self.work, self.summary, self.told, self.again, self.debug = work, summary, told, again, debug
        self.at_once, self.busy = at_once, 0.0
        self.network = shown(results_name(work.parameters))
        self.count, self.finished, self.segmented, self.failed = len(scans), 0, 0, 0
        self.began, self.rows, self.trouble = time.monotonic(), [], ""
        # Scans whose results would have the same names; the first that can be segmented gets them.
        self.rivals = {}
        for scan in scans:
            self.rivals.setdefault(scan.table, deque()).append(scan)

    def run(self, engine):
        """Segment what is left to do.

        Args:
            engine: called with a deque of scans and the work, as :func:`in_turn`, :func:`.in_processes` and
                :func:`.dask_cluster.on_cluster` are; yields each scan with its outcome.

        Raises:
            SEBrainSegError: there is something wrong that concerns all scans.
        """
        scans = self.pending()
        if scans:
            with closing(engine(scans, self.work)) as outcomes:
                for scan, outcome in outcomes:
                    scans.extend(self.take(scan, outcome))

    def pending(self):
        """Return the scans that are left to do; tells about the others."""
        earlier = read_rows(self.summary) if self.summary else {}
        left = deque()
        for rivals in self.rivals.values():
            try:
                done = self.summary and not self.again and rivals[0].is_done(self.work.parameters)
            except SEBrainSegError as error:
                self.fail_all(rivals, str(error))
                continue
            if not done:
                left.append(rivals.popleft())
                continue
            statuses = [earlier.get((scan.entry, self.network), {}).get("status") for scan in rivals]
            winner = statuses.index(SEGMENTED) if SEGMENTED in statuses else 0
            rivals.rotate(-winner)
            self.skip(rivals.popleft(), statuses[winner] in (SEGMENTED, SKIPPED))
        self.keep()
        return left

    def skip(self, scan, known):
        """Tell that a scan is done, and keep what is there of it unless the summary knows it."""
        self.finished += 1
        self.told(f"{self.counted()}{scan.name}: skipped, its results are there: {shown(scan.segmentation)}", False)
        if not known:
            try:
                volumes, remarks = volumes_in(scan.table), remarks_in(scan.table)
                self.rows.append(row_of(scan, self.network, SKIPPED, volumes=volumes, remarks=remarks))
            except SEBrainSegError as error:
                self.rows.append(row_of(scan, self.network, SKIPPED, reason=str(error)))
        self.refuse_rivals(scan)

    def take(self, scan, outcome):
        """Tell and keep what became of a scan; returns those that may now be tried in its place."""
        following = []
        for note in outcome.notes:
            self.told(f"{scan.name}: {note}", True)
        try:
            if outcome.reason:
                raise SEBrainSegError(outcome.reason)
            volumes, remarks = volumes_in(scan.table), remarks_in(scan.table)
        except SEBrainSegError as error:
            self.fail(scan, outcome._replace(reason=str(error)))
            rivals = self.rivals[scan.table]
            following = [rivals.popleft()] if rivals else []
        else:
            self.finished += 1
            self.segmented += 1
            self.busy += outcome.seconds
            row = row_of(scan, self.network, SEGMENTED, outcome.seconds, volumes=volumes, remarks=remarks)
            self.rows.append(row)
            self.keep()
            found, count = sum(ml > 0 for ml in volumes.values()), len(volumes)
            counted = f"{count} structures" if found == count else f"{found} of {count} structures"
            text = f"{sum(volumes.values()):.1f} ml in {counted} -> {shown(scan.segmentation)}"
            more = [f"... and {len(remarks) - TOLD} more, in the table"] if len(remarks) > TOLD else []
            lines = [f"{self.counted()}{scan.name}: {text}{self.time_left()}", *remarks[:TOLD], *more]
            self.told("\n    ".join(lines), False)
            self.refuse_rivals(scan)
        self.keep()
        return following

    def fail(self, scan, outcome):
        """Tell and keep that a scan was not segmented."""
        self.failed += 1
        self.finished += 1
        if self.debug and outcome.details:
            self.told(outcome.details.rstrip(), True)
        self.told(f"{self.counted()}{scan.name}: {outcome.reason}", True)
        self.rows.append(row_of(scan, self.network, FAILED, outcome.seconds, outcome.reason))

    def fail_all(self, scans, reason):
        """Tell and keep that scans were not even begun."""
        while scans:
            self.fail(scans.popleft(), Outcome(reason, None))

    def refuse_rivals(self, winner):
        """Tell which scans do not get the results that are another's."""
        self.fail_all(
            self.rivals[winner.table], f"Its results would replace those of {winner.name}; use another -o, or none."
        )

    def keep(self):
        """Write the rows that are new to the summary; one that cannot be written is no reason to stop."""
        if not self.summary or not self.rows:
            return
        try:
            update(self.summary, self.rows)
            self.rows = []
        except SEBrainSegError as error:
            if str(error) != self.trouble:
                self.told(str(error), True)
            self.trouble = str(error)

    def counted(self):
        """``[3/12] `` for the third of twelve, nothing for one alone."""
        return f"[{self.finished}/{self.count}] " if self.count > 1 else ""

    def time_left(self):
        """``, 4 min left``, from how long the scans of this run took and how many ran at a time; nothing at its end."""
        left = self.count - self.finished
        if not left:
            return ""
        at_once = max(self.at_once, self.busy / (time.monotonic() - self.began))
        return f", {duration(self.busy / self.segmented * left / at_once)} left"


def duration(seconds):
    """Write a time span as ``40 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
