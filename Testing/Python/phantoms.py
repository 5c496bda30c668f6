"""What tests of several folders share: images made from formulas, and stand-ins for trained networks and models."""

import csv
import math

import numpy as np
import SimpleITK as sitk
import torch

from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.networks.architectures import UNet
from SEBrainSegLib.networks.classes import class_of_label
from SEBrainSegLib.networks.model_file import Model, write_model

# Images


def image_with_affine(array_ijk, affine_ras):
    """An image from an array indexed [i, j, k] and a NIfTI-like IJK-to-RAS matrix, by the definitions only."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array_ijk.transpose(2, 1, 0)))
    lps = np.array(affine_ras, float)
    lps[:2] *= -1
    spacing = np.sqrt((lps[:3, :3] ** 2).sum(axis=0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def value_at_ras(image, point):
    """Voxel of the image nearest to an RAS position, worked out without SimpleITK's transforms."""
    direction = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps = np.array(point) * (-1, -1, 1) - image.GetOrigin()
    i, j, k = np.rint(np.linalg.solve(direction, lps)).astype(int)
    return sitk.GetArrayFromImage(image)[k, j, i]


def rotation(degrees, axis):
    """Rotation about one axis, by Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.radians(degrees)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def phantom(affine, size):
    """A "head" in RAS millimetres: left half bright, right half less so, a dark stem below, a thalamus at the right."""
    ijk = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(ijk @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    array = np.zeros(size, np.float32)
    brain = (x / 30) ** 2 + (y / 38) ** 2 + (z / 28) ** 2 < 1
    array[brain & (x < 0)] = 1000
    array[brain & (x >= 0)] = 750
    array[brain & (z < -12)] = 350
    array[(x - 12) ** 2 + (y - 5) ** 2 + (z - 4) ** 2 < 49] = 550
    return image_with_affine(array, affine)


def centred(matrix, size):
    """The IJK-to-RAS affine with that matrix whose grid is centred on the origin."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = -np.asarray(matrix) @ (np.array(size) - 1) / 2
    return affine


GRIDS = {
    "RAS": (np.eye(3), (80, 96, 76)),
    "LIA": (np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]), (80, 76, 96)),
    "PIR": (np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, -1.0, 0]]), (96, 76, 80)),
    "oblique": (rotation(20, (1, 2, -1)), (96, 100, 96)),
    "left-handed": (rotation(-8, (0, 1, 1)) * (-1.0, 1.0, 1.0), (90, 100, 90)),
    "fine": (np.eye(3) * 0.6, (120, 150, 116)),
    "thick slices": (np.diag([1.0, 1.0, 3.0]), (80, 96, 26)),
}


# Networks and model files


# Normalised intensities at which the stand-in network changes its mind, and the FreeSurfer ids it then gives.
LEVELS = ((0.25, 16), (0.45, 49), (0.65, 41), (0.85, 2))


class ByIntensity(torch.nn.Module):
    """Stand-in for a trained network: the class of a pixel is a step function of its intensity."""

    slices = 1

    def __init__(self):
        super().__init__()
        self.batches = 0

    def forward(self, x):
        self.batches += 1
        classes = torch.zeros_like(x, dtype=torch.long)
        for level, label in LEVELS:
            classes[x > level] = class_of_label()[label]
        return torch.nn.functional.one_hot(classes[:, 0], 32).movedim(-1, 1).float()


def model(network, view="coronal"):
    """A brain model around a network."""
    return Model(network, view, structures())


def small_model(path, structures, **fields):
    """Write the model file of an untrained U-Net for a table of structures, as training would."""
    path.parent.mkdir(exist_ok=True)
    arguments = {"classes": len(structures) + 1, "width": 2, "kernel": 3, "depth": 2}
    torch.manual_seed(0)
    write_model(path, UNet(**arguments), {"architecture": "unet", **arguments}, "axial", table=structures, **fields)


# Files of images and tables


def dicom_series(folder, count, uid, image):
    """Write the first slices of an image as a DICOM series of that UID."""
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number in range(count):
        piece = sitk.Cast(image[:, :, number], sitk.sitkInt16)
        position = image.TransformIndexToPhysicalPoint((0, 0, number))
        for tag, value in {
            "0008|0060": "MR",
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{number + 1}",
            "0020|0013": str(number),
            "0020|0032": "\\".join(f"{x:.4f}" for x in position),
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0018|0050": "2",
        }.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}-{number:03d}.dcm"))
        writer.Execute(piece)


def write_table(path, names):
    """Write a table of structures, ``{label: name}``, as `sebrainseg-train` reads it."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("LabelValue", "Name"), *names.items()])
    return path


def write_pairs(folder, images, labels, ending=".nii.gz"):
    """Write pairs of arrays as NAME_image and NAME_labels; 1 mm."""
    folder.mkdir(exist_ok=True)
    for number, (image, label) in enumerate(zip(images, labels)):
        for kind, array in (("image", image), ("labels", label)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"s{number}_{kind}{ending}"))
    return folder
