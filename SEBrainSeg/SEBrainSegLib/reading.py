"""Reading volumes from disk: everything SimpleITK reads, FreeSurfer's MGH, and folders of DICOM."""

import gzip
import math
import os
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import SEBrainSegError
from .native_paths import by_native_path, native_folder

MGH_ENDINGS = (".mgh", ".mgz")

# How far the distances of DICOM slices may differ, in mm: rounding in their headers, but no missing slice.
TOLERANCE = 0.1
POSITION = "0020|0032"


@by_native_path
def read(path):
    """Read a volume.

    Args:
        path: an image file (NIfTI, NRRD, MetaImage, MGH, ...) or a folder that holds one DICOM series.

    Returns:
        ``SimpleITK.Image`` with the geometry of the file.

    Raises:
        SEBrainSegError: there is nothing there, or nothing that can be read as an image.
    """
    path = Path(path)
    if not path.exists():
        raise SEBrainSegError(f"{path} does not exist; check the name.")
    if path.is_dir():
        return read_dicom(path)
    if path.name.lower().endswith(MGH_ENDINGS):
        return read_mgh(path)
    try:
        with quietly():
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise SEBrainSegError(f"The axes of {path} are not at right angles; resample it first.") from None
        raise unreadable(path) from None
    if lacks_voxels(path, image):
        raise unreadable(path)
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


@contextmanager
def quietly():
    """Keep SimpleITK's readers from reporting an unfit file on the console: an exception or an answer is enough."""
    warned = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warned)


def is_dicom(folder):
    """Whether a folder holds slices of DICOM series."""
    with quietly(), native_folder(folder) as native:
        return bool(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(native)))


def read_dicom(folder):
    """Read the DICOM series of a folder; two series in one folder are refused, so that none is picked by chance."""
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise SEBrainSegError(f"{folder} holds no DICOM series; name a folder of DICOM slices or an image file.")
    if len(series) > 1:
        raise SEBrainSegError(f"{folder} holds {len(series)} DICOM series; put the T1 series into a folder of its own.")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series[0]))
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
    except RuntimeError:
        raise SEBrainSegError(f"The DICOM series in {folder} cannot be read as one volume; export it again.") from None
    if unevenness(reader, len(reader.GetFileNames())) > TOLERANCE:
        raise SEBrainSegError(f"The slices in {folder} are unevenly spaced: a slice is missing; export all of them.")
    return image


def unevenness(reader, count):
    """Return by how much, in mm, the distances between neighbouring slices of a series that was read differ."""
    if count < 3 or not all(reader.HasMetaDataKey(number, POSITION) for number in range(count)):
        return 0.0
    positions = np.array([reader.GetMetaData(number, POSITION).split("\\") for number in range(count)], float)
    return float(np.ptp(np.linalg.norm(np.diff(positions, axis=0), axis=1)))


def read_mgh(path):
    """Read FreeSurfer's format by nibabel and carry its RAS affine over to SimpleITK's LPS."""
    try:
        import nibabel
    except ImportError:
        raise SEBrainSegError(f"Reading {path.name} needs nibabel; run 'pip install nibabel' or convert it.") from None
    try:
        file = nibabel.load(path)
        voxels, affine = np.asanyarray(file.dataobj), file.affine
    except Exception:  # nibabel raises whatever its parsers stumble over
        raise unreadable(path) from None
    lps = np.diag((-1.0, -1.0, 1.0, 1.0)) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    # MGH is big-endian, SimpleITK takes the machine's order only.
    voxels = np.ascontiguousarray(voxels.T, dtype=voxels.dtype.newbyteorder("="))
    image = sitk.GetImageFromArray(voxels, isVector=False)
    if image.GetDimension() == 3:
        if not spacing.all():
            raise unreadable(path)
        image.SetSpacing([float(x) for x in spacing])
        image.SetOrigin([float(x) for x in lps[:3, 3]])
        try:
            image.SetDirection([float(x) for x in (lps[:3, :3] / spacing).ravel()])
        except RuntimeError:
            raise SEBrainSegError(f"The axes of {path} do not span space; repair its header.") from None
    return image
