"""The files that a segmented scan leaves behind: segmentation, label map, volumes and picture."""

import csv
import os
import shutil
import tempfile
from pathlib import Path

import SimpleITK as sitk

from . import picture, seg_nrrd, volumes
from .errors import SEBrainSegError

# In the order in which they appear: an image comes after what tells that it is a result.
ENDINGS = (".seg.nrrd", ".csv", ".nii.gz", ".png")
CONFIDENCE = "_confidence.nii.gz"
IMAGE_ENDINGS = (
    ".nii.gz",
    ".seg.nrrd",
    ".nii",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".mgz",
    ".mgh",
    ".hdr",
    ".img",
    ".dcm",
    ".png",
    ".jpg",
    ".jpeg",
    ".tif",
    ".tiff",
    ".bmp",
)


def stem(path):
    """The name of an input without its folder and image ending; a DICOM folder's own name."""
    # Not resolve(): a link's own name and place are the user's, those of its target an archive's.
    name = os.path.basename(os.path.abspath(path))
    for ending in IMAGE_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def result_paths(folder, name, endings=ENDINGS):
    """Map every ending to the path of that result."""
    return {ending: Path(folder) / f"{name}{ending}" for ending in endings}


def refuse_existing(paths):
    """Raise :class:`SEBrainSegError` if any of the results is there already."""
    existing = [str(path) for path in paths.values() if path.exists()]
    if existing:
        raise SEBrainSegError(f"{existing[0]} exists; choose another folder with -o or replace it with --overwrite.")


def check_writable(folder):
    """Make the folder if need be; better to learn before a segmentation than after that nothing can be written there.

    Raises:
        SEBrainSegError: nothing can be written to it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".sebrainseg-", dir=folder):
            pass
    except OSError as error:
        raise SEBrainSegError(
            f"Nothing can be written to {folder} ({error.strerror}); choose another with -o."
        ) from None


def write_volumes(segmentation, path):
    """Write the rows of :func:`.volumes.rows`; ml and confidences with three digits, percent with one."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, volumes.COLUMNS)
        writer.writeheader()
        writer.writerows(volumes.texts(row) for row in volumes.rows(segmentation))


# How each result is written, from the scan and its segmentation.
WRITERS = {
    ".seg.nrrd": lambda image, found, path: seg_nrrd.write(found.labels, found.structures, path),
    ".csv": lambda image, found, path: write_volumes(found, path),
    ".nii.gz": lambda image, found, path: sitk.WriteImage(found.labels, str(path)),
    ".png": lambda image, found, path: picture.write(image, found.labels, found.structures, path),
    CONFIDENCE: lambda image, found, path: sitk.WriteImage(found.confidence, str(path)),
}


def write_results(image, segmentation, paths, overwrite=False, writers=WRITERS):
    """Write all results, or none: they are made in a hidden folder beside and then renamed.

    Should it end between two renamings, at least one result is missing, even if there was one before.

    Args:
        image: the scan that was segmented.
        segmentation: a :class:`~.segmentation.Segmentation` of it, with its confidence if that has a path.
        paths: as of :func:`result_paths`.
        overwrite: whether results that exist may be replaced.
        writers: what writes each result, by ending, as :data:`WRITERS`.

    Raises:
        SEBrainSegError: a result exists, or the folder cannot be written to.
    """
    *_, last = paths.values()
    folder = last.parent
    check_writable(folder)
    beside = Path(tempfile.mkdtemp(prefix=".sebrainseg-", dir=folder))
    try:
        made = {ending: beside / f"result{ending}" for ending in paths}
        for ending, path in made.items():
            writers[ending](image, segmentation, path)
        if not overwrite:
            refuse_existing(paths)
        last.unlink(missing_ok=True)
        for ending, path in paths.items():
            os.replace(made[ending], path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the disk may be full"
        raise SEBrainSegError(f"The results could not be written to {folder} ({reason}).") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
