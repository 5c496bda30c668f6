"""The endings of image files, in lower case."""

import os
from typing import Union

NIFTI = (".nii.gz", ".nii")


# Analyze, and NIfTI with its voxels in another file.
HEADERS_AND_VOXELS = (".hdr", ".img", ".img.gz")


MGH = (".mgh.gz", ".mgh", ".mgz")


SEGMENTATION = ".seg.nrrd"  # Slicer's


# Of pictures, which hold 2D images and are often no scans.
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


# All of them; those that end as another does come before that.
IMAGES = (
    *NIFTI,
    *HEADERS_AND_VOXELS,
    *MGH,
    SEGMENTATION,
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".dcm",
    *PICTURES,
)


def split_ending(name: str) -> tuple[str, str]:
    """Return a file's name without its image ending, and that in lower case; ``""`` if it has none of :data:`IMAGES`.

    Examples:
        >>> split_ending("Scan.T1.NII.gz")
        ('Scan.T1', '.nii.gz')
    """
    for ending in IMAGES:
        if name.lower().endswith(ending):
            return name[: -len(ending)], ending
    return name, ""


def stem(path: Union[str, os.PathLike]) -> str:
    """Return the name of an input without its folder and image ending; a DICOM folder's own name."""
    # Not resolve(): a link's own name and place are the user's, those of its target an archive's.
    return split_ending(os.path.basename(os.path.abspath(path)))[0]
