"""NIfTI headers: the two places in which they say how voxels lie (qform, sform), and whether these agree.

Headers are dictionaries of the names that SimpleITK gives their fields in an image's metadata.
"""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import SEBrainSegError
from ..inference.geometry import LPS_TO_RAS, voxel_to_ras

ROWS = ("srow_x", "srow_y", "srow_z")


NUMBERS = (
    *(f"pixdim[{number}]" for number in range(4)),
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    "xyzt_units",
)


# How far, in mm, two affines may put a voxel apart before they are two.
APART = 0.1


# How far axes may be from right angles (dot products of unit vectors): rounding in headers.
SHEARED = 1e-4


# How far the sizes of voxels may differ, as a share.
ALIKE = 0.01


def fields_of(image):
    """Return the header of the NIfTI or Analyze file that an image was read from; ``None`` for another image."""
    if not image.HasMetaDataKey("sform_code"):
        return None
    return {name: image.GetMetaData(name) for name in (*NUMBERS, *ROWS, "nifti_type") if image.HasMetaDataKey(name)}


def header_of(path):
    """Read the header of a NIfTI-1 or NIfTI-2 file as it is; nibabel mends it when it reads the file."""
    import nibabel

    path = Path(path)
    if ".img" in path.name.lower()[-7:]:
        beside = [path.with_name(path.name[: path.name.lower().rindex(".img")] + end) for end in (".hdr", ".hdr.gz")]
        path = next((each for each in beside if each.exists()), path)
    with nibabel.openers.Opener(path) as file:
        start = file.read(nibabel.Nifti2Header.sizeof_hdr)
    is_second = nibabel.Nifti2Header.sizeof_hdr in (int.from_bytes(start[:4], order) for order in ("little", "big"))
    kind = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
    return kind(start[: kind.sizeof_hdr], check=False)


def keep(image, header):
    """Leave a header of nibabel in the metadata of an image, in all its digits."""
    values = {name: header[name] for name in NUMBERS if not name.startswith("pixdim")}
    values.update({f"pixdim[{number}]": header["pixdim"][number] for number in range(4)})
    if not header["magic"].item().startswith(b"n"):
        # Analyze, which has something else in these places.
        values.update(dict.fromkeys(("qform_code", "sform_code", "xyzt_units", "nifti_type"), 0))
    for name, value in values.items():
        image.SetMetaData(name, repr(float(value)))
    for name in ROWS:
        image.SetMetaData(name, " ".join(repr(float(value)) for value in header[name]))


def number(fields, name):
    """A field as a number; 0 if it is none."""
    try:
        return float(fields.get(name, 0))
    except ValueError:
        return 0.0


def spacing(fields):
    """The size of voxels that a header states beside the sform, in its units."""
    return np.array([number(fields, f"pixdim[{axis}]") for axis in (1, 2, 3)])


def sform(fields):
    """Return the 4x4 affine to RAS of the sform, ``None`` if there is none."""
    if number(fields, "sform_code") <= 0:
        return None
    return np.array([*([float(value) for value in fields[name].split()] for name in ROWS), [0.0, 0.0, 0.0, 1.0]])


def qform(fields):
    """Return the 4x4 affine to RAS of the qform, ``None`` if there is none, or none that is a rotation."""
    b, c, d = (number(fields, f"quatern_{each}") for each in "bcd")
    rest = 1 - b * b - c * c - d * d
    if number(fields, "qform_code") <= 0 or not rest > -1e-5:
        return None
    rotation = np.array(sitk.VersorTransform((b, c, d, max(0.0, rest) ** 0.5)).GetMatrix()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.abs(spacing(fields))
    if number(fields, "pixdim[0]") < 0:
        affine[:3, 2] *= -1
    affine[:3, 3] = [number(fields, f"qoffset_{each}") for each in "xyz"]
    return affine


def spans(affine):
    """Whether there is an affine, and its axes span space."""
    return affine is not None and bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) > 1e-12


def apart(affine, other, size):
    """Return how far two affines put the same voxel apart, at most, in an image of so many voxels."""
    ends = np.array(np.meshgrid(*((0, side - 1) for side in size), [1], indexing="ij")).reshape(4, -1)
    return float(np.linalg.norm(((affine - other) @ ends)[:3], axis=0).max())


def problem(fields):
    """Return why a header leaves open which way the head lies, or ``""``."""
    if "nifti_type" in fields and number(fields, "nifti_type") == 0:
        return "The file is Analyze's, which does not say which way the head lies"
    first, second, sides = qform(fields), sform(fields), spacing(fields)
    size = " x ".join(f"{side:g}" for side in sides)
    if first is None and second is None:
        return "The header does not say which way the head lies (it has neither a valid qform nor a valid sform)"
    if (sides < 0).any():
        return f"The header contradicts itself: its voxels are {size} mm, less than nothing"
    if first is not None and second is not None and np.linalg.det(first[:3, :3]) * np.linalg.det(second[:3, :3]) < 0:
        return "The header contradicts itself: its qform and its sform exchange left and right"
    if first is None and (sides > 0).all():
        columns = np.linalg.norm(second[:3, :3], axis=0)
        if (columns > 0).all() and (np.abs(columns / sides - 1) > ALIKE).any():
            other = " x ".join(f"{side:g}" for side in columns.round(3))
            return f"The header contradicts itself: its voxels are {size} mm by pixdim, {other} mm by the sform"
    return ""


def disagreement(image):
    """Return a sentence if the qform and sform of the file of an image differ, which of them was read; else ``""``."""
    fields = fields_of(image)
    first, second = (qform(fields), sform(fields)) if fields and not problem(fields) else (None, None)
    if not spans(first) or not spans(second):
        return ""
    first, second = (np.diag((*[unit(fields)] * 3, 1.0)) @ affine for affine in (first, second))
    distance = apart(first, second, image.GetSize())
    if distance <= APART:
        return ""
    is_first = apart(voxel_to_ras(image), first, image.GetSize()) < apart(voxel_to_ras(image), second, image.GetSize())
    return (
        f"The header places the scan twice, up to {distance:.1f} mm apart: the {'qform' if is_first else 'sform'} was "
        "read, and the NIfTI label map has both."
    )


def best(fields):
    """Return the 4x4 affine to RAS, in mm, that nibabel takes: the sform of a header, else its qform, else ``None``."""
    affine = sform(fields)
    if not spans(affine):
        first = qform(fields)
        affine = affine if first is None else first
    return None if affine is None else np.diag((*[unit(fields)] * 3, 1.0)) @ affine


def unit(fields):
    """The millimetres of a header's unit of length."""
    return {1: 1000.0, 3: 0.001}.get(int(number(fields, "xyzt_units")) & 7, 1.0)


def take_up(image):
    """Give an image that was read without a place that of the header in its metadata."""
    fields = fields_of(image)
    affine = best(fields)
    if affine is None:
        affine = np.diag((*np.abs(spacing(fields)) * unit(fields), 1.0))
    set_geometry(image, affine)


def correct(image):
    """Give an image that SimpleITK read the affine of its header if it has neither that of qform nor that of sform.

    SimpleITK sets slightly sheared axes upright.
    """
    fields = fields_of(image)
    if image.GetDimension() != 3 or problem(fields):
        return
    affines = [affine for affine in (qform(fields), sform(fields)) if spans(affine)]
    found, to_mm = voxel_to_ras(image), np.diag((*[unit(fields)] * 3, 1.0))
    if all(not apart(found, to_mm @ affine, image.GetSize()) <= APART for affine in affines):
        set_geometry(image, best(fields))


def is_sheared(image):
    """Whether the axes of an image are not at right angles."""
    axes = np.array(image.GetDirection()).reshape([image.GetDimension()] * 2)
    return bool(np.abs(axes.T @ axes - np.eye(len(axes))).max() > SHEARED)


def set_geometry(image, affine, name="the image"):
    """Give an image a 4x4 affine to RAS in mm, which may be sheared.

    Raises:
        SEBrainSegError: its axes do not span space.
    """
    lps = LPS_TO_RAS @ affine
    sides = np.linalg.norm(lps[:3, :3], axis=0)
    try:
        if not (sides > 0).all():
            raise RuntimeError
        image.SetSpacing([float(side) for side in sides])
        image.SetOrigin([float(x) for x in lps[:3, 3]])
        image.SetDirection([float(x) for x in (lps[:3, :3] / sides).ravel()])
    except RuntimeError:
        raise SEBrainSegError(f"The axes of {name} do not span space; repair its header.") from None


def write(image, path, fields=None):
    """Write an image with the qform, the sform and the codes of a header, or with a sform of its own, sheared or not.

    Args:
        image: 3D ``SimpleITK.Image``.
        path: ends in ``.nii`` or ``.nii.gz``.
        fields: a header, as :func:`fields_of` returned it.
    """
    import nibabel

    header = nibabel.Nifti1Header()
    voxels = sitk.GetArrayFromImage(image).T
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    if fields is None:
        header.set_xyzt_units("mm")
        header.set_sform(voxel_to_ras(image), 1)
        header["pixdim"][1:4] = image.GetSpacing()
    else:
        for name in NUMBERS:
            if not name.startswith("pixdim"):
                header[name] = number(fields, name)
        header["pixdim"][0] = -1 if number(fields, "pixdim[0]") < 0 else 1
        header["pixdim"][1:4] = spacing(fields)
        for name in ROWS:
            header[name] = [float(value) for value in fields[name].split()]
        if not spans(sform(fields)):
            header["sform_code"] = 0
    nibabel.save(nibabel.Nifti1Image(voxels, None, header), path)
