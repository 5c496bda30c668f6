"""Reading volumes from disk: everything SimpleITK reads, FreeSurfer's MGH, NIfTI-2, and folders of DICOM."""

import gzip
import math
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Union

import numpy as np
import SimpleITK as sitk

from ..errors import SEBrainSegError
from ..inference.geometry import without_single_axes
from . import dicom, endings, nifti
from .native_paths import by_native_path, native_folder
from .orientation import UNSTATED, add_note, mark_unstated, settled


@by_native_path
def read(path: Union[str, Path], orientation: str = "", series: str = "") -> sitk.Image:
    """Read a volume.

    What its metadata tell besides: :func:`.orientation.problem` whether its orientation is known, without which no
    brain is segmented, and :func:`.orientation.notes` what a user should know.

    Args:
        path: an image file (NIfTI, NRRD, MetaImage, MGH, ...) or a folder of DICOM slices.
        orientation: three letters as in ``"RAS"``, towards where the axes run, for a file that does not say it or
            contradicts itself; see :mod:`.orientation`.
        series: of a folder that holds several DICOM series, the UID of the one to read.

    Returns:
        ``SimpleITK.Image`` with the geometry of the file; its axes may be sheared.

    Raises:
        SEBrainSegError: there is nothing there, or nothing that can be read as an image.
    """
    path = Path(path)
    if not path.exists():
        raise SEBrainSegError(f"{path} does not exist; check the name.")
    if path.is_dir():
        with quietly():
            image = dicom.read(path, series)
    elif series:
        raise SEBrainSegError(f"{path} is no folder of DICOM slices, from which --series chooses; leave it out.")
    elif path.name.lower().endswith(endings.MGH):
        image = read_mgh(path)
    else:
        image = read_file(path)
    return settled(without_single_axes(image), orientation, path)


def read_file(path):
    """Read a file by SimpleITK, or by nibabel what that cannot hold."""
    try:
        with quietly():
            image = sitk.ReadImage(str(path))
            mark_unstated(image, path)
    except RuntimeError:
        if path.name.lower().endswith((*endings.NIFTI, *endings.HEADERS_AND_VOXELS)):
            return read_nifti(path)
        raise unreadable(path) from None
    if lacks_voxels(path, image):
        raise unreadable(path)
    if nifti.fields_of(image):
        # Whatever nibabel raises, it is not needed: SimpleITK tells the header in fewer digits.
        with suppress(Exception):
            nifti.keep(image, nifti.header_of(path))
        nifti.correct(image)
        _note_disagreement(image)
    return image


def lacks_voxels(path, header):
    """Whether a NIfTI file ends before its last voxel: SimpleITK makes up the rest, and overlooks a full disk.

    Args:
        path: the file.
        header: what read it, or its image; of other formats, whose readers and writers are strict, nothing is said.
    """
    if not header.HasMetaDataKey("vox_offset"):
        return False
    sides = [max(1, int(header.GetMetaData(f"dim[{number}]"))) for number in range(1, 8)]
    needed = int(float(header.GetMetaData("vox_offset"))) + math.prod(sides) * int(header.GetMetaData("bitpix")) // 8
    if path.suffix.lower() == ".hdr":
        beside = [path.with_suffix(suffix) for suffix in (".img", ".img.gz", ".IMG")]
        path = next((each for each in beside if each.exists()), path)
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return os.path.getsize(path) < needed
        # gzip ends with the size of what it holds; only where that is another, it is worth to unpack all.
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(4), "little") == needed % 2**32:
            return False
    held = 0
    try:
        with gzip.open(path) as file:
            while piece := file.read(2**20):
                held += len(piece)
    except (EOFError, OSError, zlib.error):
        return True
    return held < needed


def unreadable(path):
    """The error for a file that no reader understands."""
    try:
        with open(path, "rb"):
            pass
    except OSError as refusal:
        return SEBrainSegError(f"{path} cannot be opened ({refusal.strerror}); check its permissions.")
    return SEBrainSegError(
        f"{path} is not an image that can be read, or it is damaged; export it again as NIfTI or NRRD."
    )


class _Silence:
    """How many are reading, and whether ITK warned before the first of them began."""

    lock = threading.Lock()
    readers = 0
    warned = False


@contextmanager
def quietly() -> Iterator[None]:
    """Keep ITK's and GDCM's readers from reporting an unfit file on the console: an exception or an answer is enough.

    ITK knows one switch for the whole process: the first of several threads that read turns it, the last one back.
    """
    with _Silence.lock:
        if not _Silence.readers:
            _Silence.warned = sitk.ProcessObject.GetGlobalWarningDisplay()
            sitk.ProcessObject.SetGlobalWarningDisplay(False)
        _Silence.readers += 1
    try:
        yield
    finally:
        with _Silence.lock:
            _Silence.readers -= 1
            if not _Silence.readers:
                sitk.ProcessObject.SetGlobalWarningDisplay(_Silence.warned)


def is_dicom(folder: Union[str, Path]) -> bool:
    """Whether a folder holds slices of DICOM series."""
    with quietly(), native_folder(folder) as native:
        return bool(dicom.series_of(native))


def read_nifti(path):
    """Read by nibabel what SimpleITK cannot hold: NIfTI-2, sheared axes."""
    file = by_nibabel(path)
    image = image_of(path, file)
    if image.GetDimension() == 3:
        nifti.keep(image, nifti.header_of(path))
        nifti.take_up(image)
        _note_disagreement(image)
    return image


def _note_disagreement(image):
    """Leave a note with an image whose header places it twice."""
    note = nifti.disagreement(image)
    if note:
        add_note(image, note)


def read_mgh(path):
    """Read FreeSurfer's format by nibabel."""
    file = by_nibabel(path)
    image = image_of(path, file)
    if image.GetDimension() == 3:
        nifti.set_geometry(image, file.affine, path)
        if not has_axes(path):
            image.SetMetaData(UNSTATED, f"{path} does not say which way the head lies")
    return image


def has_axes(path):
    """Whether an MGH file says which way its axes run; without, nibabel takes coronal slices for granted."""
    with gzip.open(path) if starts_as_gzip(path) else open(path, "rb") as file:
        return file.read(30)[28:] != b"\0\0"


def starts_as_gzip(path):
    """Whether a file begins as what gzip packed."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def by_nibabel(path):
    """Open a file by nibabel."""
    try:
        import nibabel
    except ImportError:
        raise SEBrainSegError(f"Reading {path.name} needs nibabel; run 'pip install nibabel' or convert it.") from None
    try:
        with nibabel.imageglobals.LoggingOutputSuppressor():
            if not path.name.lower().endswith(".mgh.gz"):
                return nibabel.load(path)
            with gzip.open(path) as file:
                return nibabel.MGHImage.from_bytes(file.read())
    except Exception:  # nibabel raises whatever its parsers stumble over
        raise unreadable(path) from None


def image_of(path, file):
    """Return the voxels of an image of nibabel as a ``SimpleITK.Image`` without a place."""
    try:
        voxels = np.asanyarray(file.dataobj)
    except Exception:  # see above
        raise unreadable(path) from None
    if voxels.dtype.fields:
        raise SEBrainSegError(f"{path} has several values per voxel (colour); choose a scalar volume.")
    while voxels.ndim > 3 and 1 in voxels.shape[3:]:
        voxels = voxels.squeeze(3 + voxels.shape[3:].index(1))
    kind = voxels.dtype.newbyteorder("=")  # MGH is big-endian, SimpleITK takes the machine's order only
    if kind.itemsize > 8 and kind.kind == "f":
        kind = np.dtype(np.float64)
    try:
        return sitk.GetImageFromArray(np.ascontiguousarray(voxels.T, dtype=kind), isVector=False)
    except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError):
        raise unreadable(path) from None
