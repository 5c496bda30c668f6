"""The table of a run over many scans: one row a scan, complete at any moment."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ..analysis.volume_table import WHOLE
from ..errors import SEBrainSegError
from ..files.atomic import replaced_whole
from ..files.folder_lock import locked_folder

if TYPE_CHECKING:
    from .inputs import Scan

FILE = "sebrainseg.csv"


COLUMNS = ("input", "network", "status", "seconds", "reason")


SEGMENTED, SKIPPED, FAILED = "segmented", "skipped", "failed"


def volumes_in(table: Path) -> dict[str, float]:
    """Return ml by structure of a table that :func:`~.results.write_volumes` wrote, or its counterpart with tabs.

    Raises:
        SEBrainSegError: it cannot be read, or is something else.
    """
    volumes = {}
    for row in _rows_of(table):
        try:
            sides = {side: row[f"{side}_ml"] for side in ("left", "right") if row[f"{side}_ml"] not in ("", "n/a")}
            if row["structure"] == WHOLE:
                continue
            if not sides:
                volumes[row["structure"]] = float(row["total_ml"])
            for side, ml in sides.items():
                volumes[f"{side.capitalize()} {row['structure']}"] = float(ml)
        except (KeyError, TypeError, ValueError):
            raise SEBrainSegError(f"The table {table} cannot be read (it is no table of volumes).") from None
    return volumes


def remarks_in(table: Path) -> list[str]:
    """Return the remarks of such a table, a text for each structure that has one.

    Raises:
        SEBrainSegError: it cannot be read.
    """
    remarks = ((row.get("structure"), row.get("remark")) for row in _rows_of(table))
    return [f"{structure}: {remark}" for structure, remark in remarks if remark not in (None, "", "n/a")]


def _rows_of(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table of volumes.

    Raises:
        SEBrainSegError: it cannot be read.
    """
    try:
        with open(table, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, delimiter="\t" if Path(table).suffix == ".tsv" else ","))
    except FileNotFoundError:
        raise SEBrainSegError(f"{table} was written out of sight; choose a folder that all machines share.") from None
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no table of volumes"
        raise SEBrainSegError(f"The table {table} cannot be read ({reason}).") from None


def row_of(
    scan: "Scan",
    network: str,
    status: str,
    seconds: Optional[float] = None,
    reason: str = "",
    volumes: Optional[dict[str, float]] = None,
    remarks: Iterable[str] = (),
) -> dict[str, str]:
    """Return the row of a scan.

    Args:
        scan: a :class:`~.inputs.Scan`.
        network: what segmented it, as :func:`.inputs.results_name`.
        status: :data:`SEGMENTED`, :data:`SKIPPED` or :data:`FAILED`.
        seconds: wall time that it took; ``None`` if it was not begun.
        reason: one sentence that says why it failed.
        volumes: ml by structure.
        remarks: what is unusual about the result.
    """
    row = {
        "input": scan.entry,
        "network": network,
        "status": status,
        "seconds": "" if seconds is None else f"{seconds:.1f}",
        "reason": reason,
        "remarks": "; ".join(remarks),
    }
    row.update({f"{structure} (ml)": f"{ml:.3f}" for structure, ml in (volumes or {}).items()})
    return row


def read_rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Return the rows of a summary by input and network; none if there is no such file.

    Raises:
        SEBrainSegError: it cannot be read, or is something else.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ())[: len(COLUMNS)] != COLUMNS:
                raise SEBrainSegError(f"{path} is no summary of SEBrainSeg; move it away.")
            return {(row["input"], row["network"]): row for row in reader}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no CSV file in UTF-8"
        raise SEBrainSegError(f"The summary {path} cannot be read ({reason}).") from None


def update(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Put rows into a summary, in the place of those of the same scans and network; the others stay.

    The file is read again each time, and runs take turns, so that several may share it.

    Raises:
        SEBrainSegError: it cannot be read or written, or is something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_folder(path.parent):
            kept = read_rows(path)
            for row in rows:
                kept[row["input"], row["network"]] = row
            _rewrite(path, kept.values())
    except OSError as error:
        raise SEBrainSegError(f"The summary {path} cannot be written ({error.strerror}).") from None


def _rewrite(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write a summary anew, in whole or not at all."""
    columns = dict.fromkeys(COLUMNS)
    for row in rows:
        columns.update(dict.fromkeys(row))
    with replaced_whole(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows)
