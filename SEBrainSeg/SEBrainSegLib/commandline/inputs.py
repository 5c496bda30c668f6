"""What the command line is to segment: files, folders and patterns become scans with a place for their results."""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Union

from ..choices.parameters import Parameters
from ..choices.vocabulary import Architecture, Protocol, Variant, View, values
from ..errors import SEBrainSegError
from ..files import results
from ..files.endings import IMAGES, PICTURES, split_ending, stem
from ..files.names import shown
from ..files.reading import is_dicom
from ..files.results import CONFIDENCE, result_paths

DERIVATIVE = "sebrainseg"  # what BIDS calls our results in their names


BIDS_DESCRIPTION = "dataset_description.json"  # at the root of every dataset


LONGEST_SELECTION = 60  # letters in a file name


# A letter alone is a drive of Windows.
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True)
class Scan:
    """A scan to segment.

    Attributes:
        path: an image file or a folder with one DICOM series.
        name: what it is called in messages.
        paths: where its results go, by ending, as of :func:`~.results.result_paths`.
    """

    path: Path
    name: str
    paths: dict[str, Path]

    @property
    def entry(self) -> str:
        """What it is called in a summary, wherever the command was typed."""
        return shown(os.path.abspath(self.path))

    @property
    def segmentation(self) -> Path:
        """The path of the result to open first."""
        return self.paths[".seg.nrrd"]

    @property
    def table(self) -> Path:
        """The path of its table of volumes."""
        return self.paths[".csv"]

    def writers(self, parameters: Parameters) -> dict[str, Callable[..., Any]]:
        """Return what writes its results, by ending, as :data:`.results.WRITERS`."""
        return results.WRITERS

    def is_done(self, parameters: Parameters) -> bool:
        """Whether all of its results are there.

        Raises:
            SEBrainSegError: see :func:`.results.existing`.
        """
        return len(results.existing(self.paths)) == len(self.paths)


def results_name(parameters: Parameters) -> str:
    """Return the part of a result's name that says what made it, as in ``unet-scse-all_hippocampus``."""
    chosen = "-".join(re.findall(r"[^\W_]+", parameters.structures.lower()))
    return f"{parameters.name}_{chosen[:LONGEST_SELECTION]}" if chosen else parameters.name


def local(text: str) -> str:
    """Return a path as text, with ``~`` replaced where no shell has done that, as in quotes or after ``--output=``.

    Raises:
        SEBrainSegError: it is an address such as ``https://...``.
    """
    if os.path.lexists(text):
        return text
    if ADDRESS.match(text):
        raise SEBrainSegError("This is an address and no path; keep what is there on this computer and name its path.")
    return os.path.expanduser(text)


def is_result(path: Union[str, Path]) -> bool:
    """Return whether an image is a result: called like one, or beside a table and a segmentation of its name."""
    if str(path).lower().endswith(".seg.nrrd"):
        return True
    name = stem(path).removesuffix(CONFIDENCE.removesuffix(".nii.gz"))
    beside = (Path(path).parent / f"{name}{ending}" for ending in (".seg.nrrd", ".csv"))
    # Not exists(), which raises an error for a name that is too long.
    return _is_result_name(name) or all(os.path.exists(each) for each in beside)


def _is_result_name(name: str) -> bool:
    """Return whether a name without ending is that of a bundled network's result, in whichever folder."""
    architecture, se, view = ("|".join(values(choices)) for choices in (Architecture, Variant, View))
    protocol = "|".join(f"-{each}" for each in values(Protocol))
    pattern = rf"_({architecture})-({se})-({view})({protocol})?(_[^_]+)?$|_desc-{DERIVATIVE}_"
    return re.search(pattern, name) is not None


def is_image(path: str, flat: bool) -> bool:
    """Return whether a file that nobody named is to be taken for a scan, by its name; ``flat``: or for a 2D image."""
    name = os.path.basename(path).lower()
    if name.startswith(".") or not os.path.isfile(path):
        return False
    beginning, ending = split_ending(os.path.basename(path))
    # Pictures in a folder are scans to a model that was trained on such, else pictures of something.
    if ending in PICTURES and not flat:
        return False
    if ending in (".img", ".img.gz") and os.path.exists(os.path.join(os.path.dirname(path), f"{beginning}.hdr")):
        return False
    return ending in IMAGES


def _in_folder(folder: str, flat: bool) -> list[str]:
    """Return the images of a folder without DICOM, results of ours included.

    Raises:
        SEBrainSegError: there is none.
    """
    found = sorted(path for path in map(str, Path(folder).iterdir()) if is_image(path, flat))
    if found:
        return found
    if looks_like_bids(folder):
        raise SEBrainSegError("This is a BIDS dataset; type 'sebrainseg BIDS_DIR OUTPUT_DIR participant'.")
    raise SEBrainSegError(
        "This folder holds no DICOM series and no image; for folders within, quote 'FOLDER/**/*.nii*'."
    )


def looks_like_bids(folder: Union[str, Path]) -> bool:
    """Return whether a folder is the root of a BIDS dataset, or called and filled like one."""
    root = Path(folder)
    anatomy = (each for pattern in ("sub-*/anat", "sub-*/ses-*/anat") for each in root.glob(pattern))
    return (root / BIDS_DESCRIPTION).is_file() or any(each.is_dir() for each in anatomy)


def _of_pattern(pattern: str, flat: bool) -> list[str]:
    """Return the images and DICOM folders that fit a pattern, results of ours included.

    Raises:
        SEBrainSegError: there is none.
    """
    matches = sorted(set(map(os.path.normpath, glob.glob(pattern, recursive=True))))
    series = {path for path in matches if os.path.isdir(path) and is_dicom(path)}
    found = [
        path
        for path in matches
        if path in series or is_image(path, flat) and (os.path.dirname(path) or os.curdir) not in series
    ]
    if not found:
        raise SEBrainSegError("No scan fits this pattern; check it.")
    return found


def _folder_before_wildcards(pattern: str) -> Path:
    """Return the folders of a pattern before the first wildcard, below which its matches keep their folders."""
    parts = Path(pattern).parts[:-1]
    count = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:count])


def find_scans(
    arguments: Sequence[str], output: Optional[Path], parameters: Parameters, confidence: bool = False
) -> tuple[list[Scan], dict[str, str], int, bool]:
    """Find out what the arguments of the command line mean.

    Args:
        arguments: files, folders and patterns; they may overlap.
        output: folder for results, or ``None`` for that of each scan. What a pattern finds in subfolders gets
            subfolders of the same names in it.
        parameters: a :class:`~.parameters.Parameters`.
        confidence: whether a volume of confidences is among the results.

    Returns:
        the scans; the sentence that says what is wrong, by argument that yielded none; how many results of earlier runs
        were left out; and whether it is one scan only, named by the user, and not a batch.
    """
    scans, problems, left_out = {}, {}, 0
    endings = (*results.ENDINGS, CONFIDENCE) if confidence else results.ENDINGS
    single = len(arguments) == 1
    for argument in arguments:
        base = None
        try:
            path = local(argument)
            if _is_pattern(path):
                found, base, single = _of_pattern(path, bool(parameters.model)), _folder_before_wildcards(path), False
            elif os.path.isdir(path) and not is_dicom(path):
                found, single = _in_folder(path, bool(parameters.model)), False
            else:
                found = [path]
        except SEBrainSegError as error:
            problems[argument] = str(error)
            continue
        except OSError as error:
            problems[argument] = f"{argument} cannot be opened ({error.strerror}); check its permissions."
            continue
        for path in found:
            # Not resolve(): a link's own name and place are the user's.
            absolute = Path(os.path.abspath(path))
            if not single and os.path.isfile(path) and is_result(path):
                left_out += 1
            elif absolute not in scans:
                folder = absolute.parent
                if output is not None:
                    folder = Path(output)
                    folder /= os.path.relpath(absolute.parent, os.path.abspath(base)) if base is not None else ""
                name = f"{stem(path)}_{results_name(parameters)}"
                scans[absolute] = Scan(Path(path), shown(path), result_paths(folder, name, endings))
    return list(scans.values()), problems, left_out, single


def _is_pattern(argument: str) -> bool:
    """Return whether an argument is a pattern, and no file that merely is called like one."""
    return glob.has_magic(argument) and not os.path.lexists(argument)
