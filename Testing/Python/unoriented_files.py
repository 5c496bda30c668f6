"""Files that leave open which way the head lies, in every format that can."""

import struct

import nibabel
import numpy as np
import SimpleITK as sitk

from phantoms import centred

SIZE = (80, 96, 76)
HEAD = centred(np.diag((1.0, 1.0, 1.0)), SIZE)  # RAS


def saved(path, voxels, qform=None, sform=None, codes=(1, 1), kind=nibabel.Nifti1Image, **fields):
    """Write a NIfTI file with these affines as they are; ``fields`` go into its header."""
    image = kind(voxels, None)
    header = image.header
    if qform is not None:
        image.set_qform(qform, codes[0])
    if sform is not None:
        image.set_sform(sform, codes[1])
        if qform is None:
            header["pixdim"][1:4] = np.linalg.norm(sform[:3, :3], axis=0)
    for name, value in fields.items():
        header[name] = value
    if hasattr(image, "to_file_map") and path.suffix in (".hdr", ".img"):
        nibabel.save(image, path)
        return path
    with open(path, "wb") as file:
        header["magic"] = header.pair_magic if path.suffix == ".hdr" else header.single_magic
        header["vox_offset"] = header.single_vox_offset
        header.write_to(file)
        file.write(bytes(int(header["vox_offset"]) - file.tell()))
        file.write(voxels.astype(header.get_data_dtype()).tobytes(order="F"))
    return path


def negative(path, voxels):
    saved(path, voxels, sform=HEAD)
    content = bytearray(path.read_bytes())
    content[80:84] = struct.pack("<f", -1.0)
    path.write_bytes(content)


def analyze(path, voxels):
    nibabel.save(nibabel.AnalyzeImage(voxels, HEAD), path)


def analyze_of_spm(path, voxels):
    """With the origin of SPM, which stands where NIfTI has its codes."""
    analyze(path, voxels)
    content = bytearray(path.read_bytes())
    content[253:259] = struct.pack("<3h", 257, 258, 259)
    path.write_bytes(content)


def by_sitk(path, voxels):
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    sitk.WriteImage(image, str(path))


def text_header(path, voxels, lines):
    path.write_bytes("\n".join(lines).encode() + voxels.tobytes(order="F"))


def nrrd(*lines):
    def write(path, voxels):
        sizes = "sizes: " + " ".join(map(str, voxels.shape))
        head = ["NRRD0005", "type: short", "dimension: 3", sizes, *lines, "endian: little", "encoding: raw", "", ""]
        text_header(path, voxels, head)

    return write


def meta(*lines):
    def write(path, voxels):
        sizes = "DimSize = " + " ".join(map(str, voxels.shape))
        head = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False", *lines, sizes]
        text_header(path, voxels, [*head, "ElementType = MET_SHORT", "ElementDataFile = LOCAL", ""])

    return write


def mgh(path, voxels):
    nibabel.save(nibabel.MGHImage(voxels, HEAD), path)
    content = bytearray(path.read_bytes())
    content[28:30] = struct.pack(">h", 0)
    path.write_bytes(content)


def dicom_without_orientation(path, voxels):
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T).astype(np.uint16))
    image.SetMetaData("0008|0060", "OT")
    sitk.WriteImage(image, str(path))


MIRRORED = np.diag((-1.0, 1.0, 1.0, 1.0)) @ HEAD


AXES = "space directions: (1,0,0) (0,1,0) (0,0,1)"


# How files leave open which way the head lies; the voxels of all run to the right, front and top.
UNKNOWN = {
    "codes 0": ("a.nii", lambda path, voxels: saved(path, voxels)),
    "codes 0 and rubbish": (
        "a.nii",
        lambda path, voxels: saved(path, voxels, quatern_b=0.7, qoffset_x=3, srow_x=[9, 9, 9, 9], srow_y=[1, 2, 3, 4]),
    ),
    "codes below 0": (
        "a.nii",
        lambda path, voxels: saved(path, voxels, HEAD, HEAD, qform_code=-1, sform_code=-1),
    ),
    "no rotation": ("a.nii", lambda path, voxels: saved(path, voxels, HEAD, quatern_b=0.9, quatern_c=0.9)),
    "NIfTI-2 with codes 0": ("a.nii", lambda path, voxels: saved(path, voxels, kind=nibabel.Nifti2Image)),
    "pair with codes 0": ("a.hdr", lambda path, voxels: saved(path, voxels, kind=nibabel.Nifti1Pair)),
    "Analyze": ("a.hdr", analyze),
    "Analyze of SPM": ("a.hdr", analyze_of_spm),
    "negative spacing": ("a.nii", negative),
    "qform against sform": ("a.nii", lambda path, voxels: saved(path, voxels, HEAD, MIRRORED)),
    "qfac against sform": ("a.nii", lambda path, voxels: saved(path, voxels, HEAD, HEAD, pixdim=[-1, *[1] * 7])),
    "pixdim against sform": ("a.nii", lambda path, voxels: saved(path, voxels, None, HEAD, pixdim=[1, 1.02, *[1] * 6])),
    "GIPL": ("a.gipl", by_sitk),
    "VTK": ("a.vtk", by_sitk),
    "TIFF": ("a.tif", by_sitk),
    "MRC": ("a.mrc", by_sitk),
    "NRRD without space": ("a.nrrd", nrrd("spacings: 1 1 1")),
    "NRRD of a dimension": ("a.nrrd", nrrd("space dimension: 3", AXES)),
    "NRRD of a scanner": ("a.nrrd", nrrd("space: scanner-xyz", AXES)),
    "NRRD left-handed": ("a.nrrd", nrrd("space: 3D-left-handed", AXES)),
    "MetaImage without axes": ("a.mha", meta("ElementSpacing = 1 1 1")),
    "MetaImage in words only": ("a.mha", meta("AnatomicalOrientation = RAS", "ElementSpacing = 1 1 1")),
    "MGH without axes": ("a.mgh", mgh),
    "DICOM without axes": ("a.dcm", dicom_without_orientation),
}
