"""BIDS datasets: which scans there are, and derivatives that follow the specification.

A segmentation of ``sub-01/anat/sub-01_T1w.nii.gz`` goes to ``sub-01/anat/sub-01_desc-sebrainseg_dseg.nii.gz``, with its
lookup table (``.tsv``) and its metadata (``.json``). What BIDS has no name for is listed in ``.bidsignore``.
"""

import csv
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union

from ..analysis import volume_table
from ..choices.parameters import Parameters
from ..errors import SEBrainSegError
from ..files import results
from ..files.atomic import replaced_whole
from ..files.names import shown
from ..files.results import CONFIDENCE, WRITERS, result_paths
from ..resources import version
from .inputs import BIDS_DESCRIPTION, DERIVATIVE, Scan, looks_like_bids, results_name
from .summary import FILE

PathLike = Union[str, Path]


LEVELS = ("participant", "group")


VERSION = "1.10.0"  # of the specification


CODE = "https://github.com/SEBrainSeg/SEBrainSeg"


PAPER = "https://doi.org/10.1109/TMI.2018.2867261"


IGNORED = ("*_dseg.seg.nrrd", "*_dseg.png", "*_volumes.tsv", f"*{CONFIDENCE}", FILE)


VOLUMES = "_volumes.tsv"


# A T1-weighted scan, or what MP2RAGE makes one from; its name's entities are key-label, with underscores.
IMAGE = re.compile(r"_(T1w|UNIT1)\.nii(\.gz)?$")


# Why an image is not segmented, by what of its name tells: not of a scanner, or no T1-weighted magnitude.
NOT_TAKEN = (
    (re.compile(r"_(desc|space|res|den|label)-"), "derived, by desc- or space- in its name"),
    (re.compile(r"_part-(?!mag)"), "no magnitude, by part- in its name"),
    (re.compile(r"_UNIT1\."), "of MP2RAGE, whose air is noise"),
)


@dataclass(frozen=True)
class BidsScan(Scan):
    """A T1-weighted scan of a BIDS dataset, of which ``name`` is the path in the dataset, with slashes."""

    @property
    def entry(self) -> str:
        return self.name

    @property
    def segmentation(self) -> Path:
        return self.paths["_dseg.seg.nrrd"]

    @property
    def table(self) -> Path:
        return self.paths[VOLUMES]

    def writers(self, parameters: Parameters) -> dict[str, Callable[..., Any]]:
        def write_metadata(image, found, path):
            implausibility = {"Implausibility": found.implausibility} if found.implausibility else {}
            _write_json(path, {**self.metadata(parameters), "Device": found.device, **implausibility})

        return {
            "_dseg.seg.nrrd": WRITERS[".seg.nrrd"],
            VOLUMES: _write_volumes,
            "_dseg.tsv": lambda image, found, path: _write_lookup(found.structures, path),
            "_dseg.json": write_metadata,
            "_dseg.png": WRITERS[".png"],
            CONFIDENCE: WRITERS[CONFIDENCE],
            "_dseg.nii.gz": WRITERS[".nii.gz"],
        }

    def metadata(self, parameters: Parameters) -> dict[str, Any]:
        """Return what the sidecar of the label map says of how it came about."""
        source = f"bids:raw:{self.name}"
        return {
            "Description": f"Structures of the brain, segmented by {shown(parameters.title)} of SEBrainSeg",
            "Sources": [source],
            "SpatialReference": source,
            "Manual": False,
            "Network": shown(results_name(parameters)),
        }

    def is_done(self, parameters: Parameters) -> bool:
        """Whether all of its results are there.

        Raises:
            SEBrainSegError: they are, but another network made them.
        """
        if not super().is_done(parameters):
            return False
        made_by = _read_json(self.paths["_dseg.json"]).get("Network")
        if made_by != shown(results_name(parameters)):
            raise SEBrainSegError(
                f"Its results in {self.table.parent} are of {made_by or 'something else'}; "
                "choose another output folder, or --overwrite."
            )
        return True


def scans_of(
    bids_dir: PathLike,
    output_dir: PathLike,
    labels: Iterable[str] = (),
    sessions: Iterable[str] = (),
    confidence: bool = False,
    unchecked: bool = False,
) -> tuple[list[BidsScan], str]:
    """Find the T1-weighted scans of a dataset, in every session.

    Of ``.nii`` and ``.nii.gz`` of one name, the latter is taken.

    Args:
        bids_dir: its root.
        output_dir: root of the derivatives.
        labels: subjects, with or without ``sub-``; all if there are none.
        sessions: sessions, with or without ``ses-``; all, and scans without one, if there are none.
        confidence: whether a volume of confidences is among the results.
        unchecked: whether it may lack its description.

    Returns:
        a list of :class:`BidsScan`, and a sentence about images that are left out, or ``""``.

    Raises:
        SEBrainSegError: this is no BIDS dataset, it lacks one of the subjects or sessions, or there is no scan.
    """
    root = Path(bids_dir)
    if not (unchecked and root.is_dir()):
        _check_description(root)
    subjects = sorted(path.name for path in root.glob("sub-*") if path.is_dir())
    if not subjects:
        raise SEBrainSegError(f"{bids_dir} has no subjects, which would be folders named sub-<label>.")
    wanted = _folders_named(subjects, "sub-", labels, bids_dir)
    there = sorted({path.name for subject in wanted for path in (root / subject).glob("ses-*") if path.is_dir()})
    if sessions:
        patterns = [f"{session}/anat" for session in _folders_named(there, "ses-", sessions, bids_dir)]
    else:
        patterns = ["anat", "ses-*/anat"]
    found = {}
    for subject in wanted:
        for pattern in patterns:
            images = sorted((root / subject).glob(f"{pattern}/{subject}_*.nii*"))
            # Sorted, .nii.gz comes after its twin and takes its place.
            found.update({IMAGE.sub(r"_\1", str(path)): path for path in images if IMAGE.search(path.name)})
    reasons = {path: _why_left_out(path.name) for path in found.values()}
    taken = [path for path, reason in reasons.items() if not reason]
    told = _sentence_on({path.name: reason for path, reason in reasons.items() if reason})
    if not taken:
        raise SEBrainSegError(f"{bids_dir} has no T1-weighted scan (*_T1w.nii.gz) of {_listed(wanted)}. {told}".strip())
    endings = ["_dseg.seg.nrrd", VOLUMES, "_dseg.tsv", "_dseg.json", "_dseg.png", CONFIDENCE, "_dseg.nii.gz"]
    if not confidence:
        endings.remove(CONFIDENCE)
    scans = []
    for path in taken:
        place = path.relative_to(root)
        name = f"{IMAGE.sub('', path.name)}_desc-{DERIVATIVE}"
        paths = result_paths(Path(output_dir) / place.parent, name, endings)
        scans.append(BidsScan(path, shown(place.as_posix()), paths))
    return scans, told


def _check_description(root: Path) -> None:
    if not (root / BIDS_DESCRIPTION).is_file():
        hint = "; --skip-bids-validation takes it all the same" if looks_like_bids(root) else ""
        raise SEBrainSegError(f"{root} is no BIDS dataset: it has no {BIDS_DESCRIPTION}{hint}.")
    _read_json(root / BIDS_DESCRIPTION)


def _folders_named(there: list[str], prefix: str, labels: Iterable[str], bids_dir: PathLike) -> list[str]:
    """Return the folders of subjects or sessions that labels name, with or without their prefix; all without labels.

    Raises:
        SEBrainSegError: there is no such folder.
    """
    chosen = sorted({f"{prefix}{label.removeprefix(prefix)}" for label in labels}) or there
    missing = sorted(set(chosen).difference(there))
    if missing:
        known = f"there are {_listed(there)}" if there else "there is none"
        raise SEBrainSegError(f"{bids_dir} has no {', '.join(missing)}; {known}.")
    return chosen


def _why_left_out(name: str) -> str:
    """Return why an image of this name is not segmented, ``""`` if it is."""
    return next((reason for pattern, reason in NOT_TAKEN if pattern.search(name)), "")


def _sentence_on(reasons: dict[str, str]) -> str:
    """Return a sentence about images that are left out, ``""`` if there are none; ``reasons`` are by name."""
    if not reasons:
        return ""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    texts = [f"{each[0]}{f' and {len(each) - 1} more' if each[1:] else ''} ({why})" for why, each in names.items()]
    return f"Left out: {', '.join(texts)}; to segment one all the same, type 'sebrainseg FILE -o DIR'."


def _listed(subjects: list[str]) -> str:
    """Return subjects with commas, a long list with its beginning and end."""
    return ", ".join(subjects if len(subjects) < 12 else [*subjects[:9], "...", subjects[-1]])


def describe(bids_dir: PathLike, output_dir: PathLike, overwrite: bool = False) -> None:
    """Make the folder of derivatives with its description and its list of files that are not BIDS.

    Raises:
        SEBrainSegError: it is another dataset's, or nothing can be written there.
    """
    output, raw = Path(output_dir), _link_to(bids_dir, output_dir)
    path = output / BIDS_DESCRIPTION
    if path.exists():
        there = _read_json(path)
        generators = there.get("GeneratedBy") or [{}]
        if there.get("DatasetType") != "derivative" or generators[0].get("Name") != DERIVATIVE:
            raise SEBrainSegError(f"{output_dir} holds another dataset; choose a folder of its own for the results.")
        if there.get("DatasetLinks", {}).get("raw") != raw and not overwrite:
            raise SEBrainSegError(
                f"{output_dir} holds the results of another dataset, {there.get('DatasetLinks', {}).get('raw')}; "
                "choose another folder, or --overwrite."
            )
    original = Path(bids_dir) / BIDS_DESCRIPTION
    source = _read_json(original) if original.exists() else {}
    generator = {"Name": DERIVATIVE, "CodeURL": CODE}
    if version():
        generator["Version"] = version()
    origin = {"URL": Path(os.path.abspath(bids_dir)).as_uri()}
    if source.get("DatasetDOI"):
        origin["DOI"] = source["DatasetDOI"]
    description = {
        "Name": f"Structures of the brain in {source.get('Name') or shown(Path(os.path.abspath(bids_dir)).name)}",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [generator],
        "SourceDatasets": [origin],
        "DatasetLinks": {"raw": raw},
        "HowToAcknowledge": f"Please cite {PAPER}",
    }
    results.check_writable(output)
    try:
        _write_json(path, description)
        (output / ".bidsignore").write_text("".join(f"{pattern}\n" for pattern in IGNORED), encoding="utf-8")
    except OSError as error:
        raise SEBrainSegError(f"{path} cannot be written ({error.strerror}).") from None


def _link_to(bids_dir: PathLike, output_dir: PathLike) -> str:
    """Return where a dataset is, seen from its derivatives: a relative path if they lie within, else a URI."""
    root, output = os.path.abspath(bids_dir), os.path.abspath(output_dir)
    if output.startswith(os.path.join(root, "")):
        return Path(os.path.relpath(root, output)).as_posix()
    return Path(root).as_uri()


def _write_lookup(structures, path):
    """Write what the labels of a label map mean."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "name", "color"])
        for structure in structures:
            writer.writerow([structure.label, structure.name, "#{:02x}{:02x}{:02x}".format(*structure.color)])


def _write_volumes(image, found, path):
    """Write the table of volumes with tabs, and ``n/a`` where there is nothing, as BIDS has it."""
    rows = (volume_table.texts(row) for row in volume_table.rows(found))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(volume_table.COLUMNS)
        writer.writerows([row[column] or "n/a" for column in volume_table.COLUMNS] for row in rows)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary, in whole or not at all."""
    with replaced_whole(path) as beside:
        beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    """Read a dictionary.

    Raises:
        SEBrainSegError: there is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise SEBrainSegError(f"{path} cannot be read, or is no JSON object; mend it.")
    return content
