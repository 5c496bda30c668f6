"""Which way the head lies in an image: whether its file says so without contradiction, and how a user states it.

An orientation is three letters of R or L, A or P, S or I: towards where in the patient the first, second and third axis
run. ``RAS`` is an image whose first axis runs to the patient's right, second to the front and third to the top.
"""

import re

import SimpleITK as sitk

from ..errors import SEBrainSegError
from ..inference.geometry import voxel_to_ras
from . import nifti

# What the readers leave in an image's metadata: why its orientation is not known, and what to tell a user besides.
UNSTATED, NOTE = "SEBrainSeg.Unstated", "SEBrainSeg.Note"


# Formats whose files always state an orientation. Of NIfTI, NRRD, MetaImage and DICOM it is to be seen in the file; all
# others that SimpleITK reads (GIPL, VTK, TIFF, MRC, ...) hold none.
STATING = ("HDF5ImageIO", "MINCImageIO", "Bruker2dseqImageIO", "GE4ImageIO", "GE5ImageIO")


ANATOMICAL = re.compile(
    rb"^space:\s*((left|right)-(anterior|posterior)-(superior|inferior)(-time)?|[RL][AP][SI]T?)\s*$", re.I | re.M
)


# DICOM files of many slices say in another place where each lies; GDCM reads it there.
ENHANCED_DICOM = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(2\.[12]|4\.[134]|128\.1|130)$")


HEADER_BYTES = 65536


def valid_letters(letters):
    """Return an orientation in capitals.

    Raises:
        SEBrainSegError: it is none.
    """
    letters = letters.strip().upper()
    if not any(sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation(letters)):
        raise SEBrainSegError(
            f"'{letters}' is no orientation: write three letters of R or L, A or P, S or I, "
            "towards where the three axes run, as in RAS."
        )
    return letters


def letters_of(image):
    """Return the orientation of a volume, that of the nearest axes if it is oblique."""
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())


def oriented(image, letters):
    """Return a volume with its axes along the patient's as stated, its middle at the origin.

    What its file said of its place is left out, its voxel spacing is kept.

    Args:
        image: ``SimpleITK.Image``; another than a volume is returned as it is.
        letters: an orientation, as in ``"RAS"``.

    Raises:
        SEBrainSegError: it is none.
    """
    letters = valid_letters(letters)
    if image.GetDimension() != 3:
        return image
    image = sitk.Image(image)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    image.SetDirection(sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation(letters))
    image.SetOrigin((0.0, 0.0, 0.0))
    middle = image.TransformContinuousIndexToPhysicalPoint([(side - 1) / 2 for side in image.GetSize()])
    image.SetOrigin([-x for x in middle])
    return image


def settled(image, letters, name):
    """Return a volume with the orientation that a user stated, if its file does not state one of its own.

    Args:
        image: ``SimpleITK.Image`` as it was read.
        letters: an orientation, or ``""``.
        name: of the file.
    """
    if not letters or image.GetDimension() != 3:
        return image
    letters = valid_letters(letters)
    if problem(image):
        return oriented(image, letters)
    if letters_of(image) != letters:
        add_note(image, f"{name} states its orientation itself, {letters_of(image)}; {letters} was left aside.")
    return image


def problem(image):
    """Return why the orientation of an image is not known, or ``""`` if it is.

    Args:
        image: ``SimpleITK.Image`` as :func:`.reading.read` or ``SimpleITK.ReadImage`` returned it; one without
            metadata, which somebody made, is taken at its word.
    """
    if image.HasMetaDataKey(UNSTATED):
        return image.GetMetaData(UNSTATED)
    fields = nifti.fields_of(image)
    return nifti.problem(fields) if fields else ""


def refuse_unknown(image):
    """Raise :class:`SEBrainSegError` if the orientation of a volume is not known."""
    why = problem(image) if image.GetDimension() == 3 else ""
    if why:
        raise SEBrainSegError(
            f"{why}; state it with --orientation (in Python orientation=), such as RAS if its axes run to the "
            "patient's right, front and top."
        )


def mark_unstated(image, path):
    """Leave in the metadata of an image that was read whether its file states no orientation.

    NIfTI needs no mark: its metadata say it.
    """
    if image.GetDimension() == 3 and not states_one(path, image):
        image.SetMetaData(UNSTATED, f"{path} does not say which way the head lies")


def doubt_of(path):
    """Return why the orientation of an image in a file is not known, or ``""``; and the 4x4 affine to RAS that is read.

    Raises:
        RuntimeError: SimpleITK cannot read it.
    """
    header = sitk.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    if header.GetDimension() != 3:
        return "", None
    fields = nifti.fields_of(header)
    why = nifti.problem(fields) if fields else ""
    if not states_one(path, header):
        why = f"{path} does not say which way the head lies"
    return why, voxel_to_ras(header)


def states_one(path, header):
    """Whether a file says which way the head lies; of NIfTI, nothing is said.

    Args:
        path: the file.
        header: the image read from it, or what read its header.
    """
    kind = sitk.ImageFileReader.GetImageIOFromFileName(str(path))
    if kind == "NiftiImageIO" or kind in STATING:
        return True
    if kind == "NrrdImageIO":
        head = header_of(path, b"\n\n")
        return bool(ANATOMICAL.search(head) and re.search(rb"^space directions:", head, re.I | re.M))
    if kind == "MetaImageIO":
        head = header_of(path, b"ElementDataFile")
        return bool(re.search(rb"^\s*(TransformMatrix|Orientation|Rotation)\s*=", head, re.M))
    if kind == "GDCMImageIO":
        sop_class = header.GetMetaData("0008|0016").strip(" \0") if header.HasMetaDataKey("0008|0016") else ""
        return header.HasMetaDataKey("0020|0037") or bool(ENHANCED_DICOM.match(sop_class))
    return False


def header_of(path, end):
    """Return the text at the beginning of a file, to where it ends."""
    with open(path, "rb") as file:
        return file.read(HEADER_BYTES).replace(b"\r\n", b"\n").split(end)[0]


def add_note(image, text):
    """Leave one more sentence for the user in the metadata of an image."""
    image.SetMetaData(NOTE, "\n".join([*notes(image), text]))


def notes(image):
    """Return the sentences for the user that reading an image left."""
    return tuple(image.GetMetaData(NOTE).split("\n")) if image.HasMetaDataKey(NOTE) else ()
