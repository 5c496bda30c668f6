"""BIDS datasets: which scans there are, and derivatives that follow the specification.

A segmentation of ``sub-01/anat/sub-01_T1w.nii.gz`` goes to ``sub-01/anat/sub-01_desc-sebrainseg_dseg.nii.gz``, with its
lookup table (``.tsv``) and its metadata (``.json``). What BIDS has no name for is listed in ``.bidsignore``.
"""

import csv
import json
import os
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from . import results
from .errors import SEBrainSegError
from .inputs import Scan, results_name
from .results import CONFIDENCE, WRITERS, result_paths
from .summary import FILE

LEVELS = ("participant", "group")
VERSION = "1.10.0"  # of the specification
DESCRIPTION = "dataset_description.json"
NAME = "sebrainseg"
CODE = "https://github.com/SEBrainSeg/SEBrainSeg"
PAPER = "https://doi.org/10.1109/TMI.2018.2867261"
IGNORED = ("*_dseg.seg.nrrd", "*_dseg.png", "*_volumes.tsv", f"*{CONFIDENCE}", FILE)
VOLUMES = "_volumes.tsv"
SUFFIX = re.compile(r"_T1w\.nii(\.gz)?$")


@dataclass(frozen=True)
class BidsScan(Scan):
    """A T1-weighted scan of a BIDS dataset, of which ``name`` is the path in the dataset, with slashes."""

    @property
    def entry(self):
        return self.name

    @property
    def segmentation(self):
        return self.paths["_dseg.seg.nrrd"]

    @property
    def table(self):
        return self.paths[VOLUMES]

    def writers(self, parameters):
        def write_metadata(image, found, path):
            doubt = {"Doubt": found.doubt} if found.doubt else {}
            write_json(path, {**self.metadata(parameters), "Device": found.device, **doubt})

        return {
            "_dseg.seg.nrrd": WRITERS[".seg.nrrd"],
            VOLUMES: write_volumes,
            "_dseg.tsv": lambda image, found, path: write_lookup(found.structures, path),
            "_dseg.json": write_metadata,
            "_dseg.png": WRITERS[".png"],
            CONFIDENCE: WRITERS[CONFIDENCE],
            "_dseg.nii.gz": WRITERS[".nii.gz"],
        }

    def metadata(self, parameters):
        """Return what the sidecar of the label map says of how it came about."""
        source = f"bids:raw:{self.name}"
        return {
            "Description": f"Structures of the brain, segmented by {parameters.title} of SEBrainSeg",
            "Sources": [source],
            "SpatialReference": source,
            "Manual": False,
            "Network": results_name(parameters),
        }

    def is_done(self, parameters):
        """Whether all of its results are there.

        Raises:
            SEBrainSegError: they are, but another network made them.
        """
        if not super().is_done(parameters):
            return False
        made_by = read_json(self.paths["_dseg.json"]).get("Network")
        if made_by != results_name(parameters):
            raise SEBrainSegError(
                f"Its results in {self.table.parent} are of {made_by or 'something else'}; "
                "choose another output folder, or --overwrite."
            )
        return True


def scans_of(bids_dir, output_dir, labels=(), confidence=False):
    """Return the T1-weighted scans of a dataset, in every session, as a list of :class:`BidsScan`.

    Args:
        bids_dir: its root.
        output_dir: root of the derivatives.
        labels: subjects, with or without ``sub-``; all if there are none.
        confidence: whether a volume of confidences is among the results.

    Raises:
        SEBrainSegError: this is no BIDS dataset, it lacks one of the subjects, or there is no scan.
    """
    root = Path(bids_dir)
    if not (root / DESCRIPTION).is_file():
        raise SEBrainSegError(f"{bids_dir} is no BIDS dataset: it has no {DESCRIPTION}.")
    read_json(root / DESCRIPTION)
    subjects = sorted(path.name for path in root.glob("sub-*") if path.is_dir())
    if not subjects:
        raise SEBrainSegError(f"{bids_dir} has no subjects, which would be folders named sub-<label>.")
    wanted = [f"sub-{label.removeprefix('sub-')}" for label in labels] or subjects
    missing = sorted(set(wanted).difference(subjects))
    if missing:
        raise SEBrainSegError(f"{bids_dir} has no {', '.join(missing)}; there are {listed(subjects)}.")
    found = []
    for subject in sorted(set(wanted)):
        for pattern in ("anat", "ses-*/anat"):
            images = (root / subject).glob(f"{pattern}/{subject}_*T1w.nii*")
            found += sorted(path for path in images if SUFFIX.search(path.name))
    if not found:
        raise SEBrainSegError(f"{bids_dir} has no T1-weighted scan (*_T1w.nii.gz) of {listed(sorted(set(wanted)))}.")
    endings = ["_dseg.seg.nrrd", VOLUMES, "_dseg.tsv", "_dseg.json", "_dseg.png", CONFIDENCE, "_dseg.nii.gz"]
    if not confidence:
        endings.remove(CONFIDENCE)
    scans = []
    for path in found:
        place = path.relative_to(root)
        name = f"{SUFFIX.sub('', path.name)}_desc-{NAME}"
        scans.append(BidsScan(path, place.as_posix(), result_paths(Path(output_dir) / place.parent, name, endings)))
    return scans


def listed(subjects):
    """Write subjects with commas, a long list with its beginning and end."""
    return ", ".join(subjects if len(subjects) < 12 else [*subjects[:9], "...", subjects[-1]])


def describe(bids_dir, output_dir, overwrite=False):
    """Make the folder of derivatives with its description and its list of files that are not BIDS.

    Raises:
        SEBrainSegError: it is another dataset's, or nothing can be written there.
    """
    output, raw = Path(output_dir), link(bids_dir, output_dir)
    path = output / DESCRIPTION
    if path.exists():
        there = read_json(path)
        generators = there.get("GeneratedBy") or [{}]
        if there.get("DatasetType") != "derivative" or generators[0].get("Name") != NAME:
            raise SEBrainSegError(f"{output_dir} holds another dataset; choose a folder of its own for the results.")
        if there.get("DatasetLinks", {}).get("raw") != raw and not overwrite:
            raise SEBrainSegError(
                f"{output_dir} holds the results of another dataset, {there.get('DatasetLinks', {}).get('raw')}; "
                "choose another folder, or --overwrite."
            )
    source = read_json(Path(bids_dir) / DESCRIPTION)
    generator = {"Name": NAME, "CodeURL": CODE}
    try:
        generator["Version"] = metadata.version("sebrainseg")
    except metadata.PackageNotFoundError:
        pass  # a checkout that was not installed
    origin = {"URL": Path(os.path.abspath(bids_dir)).as_uri()}
    if source.get("DatasetDOI"):
        origin["DOI"] = source["DatasetDOI"]
    description = {
        "Name": f"Structures of the brain in {source.get('Name') or Path(os.path.abspath(bids_dir)).name}",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [generator],
        "SourceDatasets": [origin],
        "DatasetLinks": {"raw": raw},
        "HowToAcknowledge": f"Please cite {PAPER}",
    }
    results.check_writable(output)
    try:
        write_json(path, description)
        (output / ".bidsignore").write_text("".join(f"{pattern}\n" for pattern in IGNORED), encoding="utf-8")
    except OSError as error:
        raise SEBrainSegError(f"{path} cannot be written ({error.strerror}).") from None


def link(bids_dir, output_dir):
    """Where a dataset is, seen from its derivatives: a relative path if they lie within, else a URI."""
    root, output = os.path.abspath(bids_dir), os.path.abspath(output_dir)
    if output.startswith(os.path.join(root, "")):
        return Path(os.path.relpath(root, output)).as_posix()
    return Path(root).as_uri()


def write_lookup(structures, path):
    """Write what the labels of a label map mean."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "name", "color"])
        for structure in structures:
            writer.writerow([structure.label, structure.name, "#{:02x}{:02x}{:02x}".format(*structure.color)])


def write_volumes(image, found, path):
    """Write the table of volumes with tabs, and ``n/a`` where there is nothing, as BIDS has it."""
    plain = path.with_suffix(".csv")
    WRITERS[".csv"](image, found, plain)
    with open(plain, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    plain.unlink()
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([value or "n/a" for value in row] for row in rows)


def write_json(path, content):
    """Write a dictionary, in whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


def read_json(path):
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
