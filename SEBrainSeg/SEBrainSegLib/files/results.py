"""The files that a segmented scan leaves behind: segmentation, label map, volumes and picture."""

import csv
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Union

import SimpleITK as sitk

from ..analysis import volume_table
from ..errors import SEBrainSegError
from . import nifti, picture, seg_nrrd
from .atomic import hidden_folder
from .folder_lock import locked_folder
from .native_paths import native_folder
from .reading import lacks_voxels

# In the order in which they appear: an image comes after what tells that it is a result.
ENDINGS = (".seg.nrrd", ".csv", ".nii.gz", ".png")


CONFIDENCE = "_confidence.nii.gz"


END_OF_PNG = b"IEND\xaeB`\x82"  # the last chunk of any PNG file: its name and its checksum


def result_paths(folder: Union[str, Path], name: str, endings: Iterable[str] = ENDINGS) -> dict[str, Path]:
    """Map every ending to the path of that result."""
    return {ending: Path(folder) / f"{name}{ending}" for ending in endings}


def existing(paths: dict[str, Path]) -> list[Path]:
    """Return the paths of those results that are there.

    Raises:
        SEBrainSegError: their names are longer than file names can be, or their folder cannot be looked into.
    """
    try:
        return [path for path in paths.values() if path.exists()]
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            folder = next(iter(paths.values())).parent
            raise SEBrainSegError(f"{folder} cannot be opened ({error.strerror}); check its permissions.") from None
        raise SEBrainSegError(
            f"The names of the results would be too long ({next(iter(paths.values())).name[:40]}...); "
            "rename the scan, or link to it by a shorter name."
        ) from None


def refuse_existing(paths: dict[str, Path], overwrite: bool = False) -> None:
    """Raise :class:`SEBrainSegError` if there cannot be such results, or are already and must not be replaced."""
    there = existing(paths)
    if there and not overwrite:
        raise SEBrainSegError(f"{there[0]} exists; choose another folder with -o or replace it with --overwrite.")


def refuse_file_in_the_way(folder: Union[str, Path], option: str = "-o") -> None:
    """Refuse a folder that cannot be made because a file has its name, or that of a parent.

    Args:
        folder: path of the folder.
        option: what it was named by.

    Raises:
        SEBrainSegError: there is such a file.
    """
    for path in (Path(folder), *Path(folder).parents):
        if os.path.lexists(path) and not os.path.isdir(path):
            raise SEBrainSegError(
                f"{path} is in the way: it is a file, where a folder is needed; choose another with {option}."
            )


def check_writable(folder: Union[str, Path]) -> None:
    """Make the folder if need be; better to learn before a segmentation than after that nothing can be written there.

    Raises:
        SEBrainSegError: nothing can be written to it.
    """
    refuse_file_in_the_way(folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with hidden_folder(folder):
            pass
    except OSError as error:
        raise SEBrainSegError(
            f"Nothing can be written to {folder} ({error.strerror}); choose another with -o."
        ) from None


def write_volumes(segmentation, path):
    """Write the rows of :func:`.volume_table.rows`; ml and confidences with three digits, percent with one."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, volume_table.COLUMNS)
        writer.writeheader()
        writer.writerows(volume_table.texts(row) for row in volume_table.rows(segmentation))


def write_nifti(image, path, scan):
    """Write an image as NIfTI, with the qform and the sform of the scan whose grid it has, if that came from NIfTI.

    Raises:
        RuntimeError: not all of it could be written, which SimpleITK itself overlooks.
    """
    fields = nifti.fields_of(scan)
    if image.GetDimension() == 3 and (fields or nifti.is_sheared(image)):
        # SimpleITK writes one affine, and no sheared one.
        nifti.write(image, path, fields)
        return
    sitk.WriteImage(image, str(path))
    header = sitk.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    if lacks_voxels(path, header):
        raise RuntimeError("not all voxels were written")


def write_picture(image, labels, table, path, remarks=()):
    """Write a picture of labels over a scan, see :func:`.picture.write`.

    Raises:
        RuntimeError: not all of it could be written, which SimpleITK overlooks if little is missing.
    """
    picture.write(image, labels, table, path, remarks)
    if not Path(path).read_bytes().endswith(END_OF_PNG):
        raise RuntimeError("not all of the picture was written")


# How each result is written, from the scan and its segmentation.
WRITERS = {
    ".seg.nrrd": lambda image, found, path: seg_nrrd.write(found.labels, found.structures, path),
    ".csv": lambda image, found, path: write_volumes(found, path),
    ".nii.gz": lambda image, found, path: write_nifti(found.labels, path, image),
    ".png": lambda image, found, path: write_picture(
        image, found.labels, found.structures, path, volume_table.remark_lines(found)
    ),
    CONFIDENCE: lambda image, found, path: write_nifti(found.confidence, path, image),
}


def write_results(image, segmentation, paths, overwrite=False, writers=WRITERS):
    """Write all results, or none: they are made in a hidden folder beside and then renamed.

    Those of an earlier run go before the first of the new ones comes, and runs take turns at that: at any moment, what
    is there is of one run, and should this one be killed between two renamings, at least one result is missing.

    Args:
        image: the scan that was segmented.
        segmentation: a :class:`~.result.Segmentation` of it, with its confidence if that has a path.
        paths: as of :func:`result_paths`.
        overwrite: whether results that exist may be replaced.
        writers: what writes each result, by ending, as :data:`WRITERS`.

    Raises:
        SEBrainSegError: a result exists, or the folder cannot be written to.
    """
    folder = next(iter(paths.values())).parent
    check_writable(folder)
    try:
        with hidden_folder(folder) as hidden:
            written = {ending: hidden / f"result{ending}" for ending in paths}
            with native_folder(hidden) as native:
                for ending, path in written.items():
                    writers[ending](image, segmentation, native / path.name)
            with locked_folder(folder):
                refuse_existing(paths, overwrite)
                for path in reversed(paths.values()):
                    path.unlink(missing_ok=True)
                for ending, path in paths.items():
                    os.replace(written[ending], path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the disk may be full"
        raise SEBrainSegError(f"The results could not be written to {folder} ({reason}).") from None
