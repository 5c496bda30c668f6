"""Volume nodes: what can be segmented, and the way to a ``SimpleITK.Image``."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from ..errors import SEBrainSegError
from ..inference.geometry import LPS_TO_RAS
from ..lazy import sitk
from ..translation import tr as _

# How far axes may be from right angles (dot products of unit vectors): rounding in headers, but no gantry tilt.
SKEW = 1e-3


# How far a voxel may seem to have moved (mm) by the rounding of a header that was written and read.
MOVED = 1e-2


def ijk_to_ras(volume: slicer.vtkMRMLVolumeNode) -> vtk.vtkMatrix4x4:
    """Return the matrix from the IJK of a volume node to RAS, in mm; the parent transform is not part of it."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def array_of_matrix(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """Return a matrix of VTK as an array, 4x4."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def array_of_image(data: vtk.vtkImageData) -> np.ndarray:
    """Return the voxels of an image with one value each, ``(k, j, i)``; the array shares their memory."""
    return vtk_to_numpy(data.GetPointData().GetScalars()).reshape(data.GetDimensions()[::-1])


def set_voxels(data: vtk.vtkImageData, voxels: np.ndarray, start: Sequence[int] = (0, 0, 0)) -> None:
    """Copy an array into an image of VTK.

    Args:
        data: the image.
        voxels: ``(k, j, i)``.
        start: the i, j, k of its first voxel.
    """
    ends = np.add(start, voxels.shape[::-1]) - 1
    data.SetExtent(*(int(limit) for pair in zip(start, ends) for limit in pair))
    scalars = numpy_to_vtk(np.ascontiguousarray(voxels).ravel(), deep=True)
    scalars.SetName("ImageScalars")
    data.GetPointData().SetScalars(scalars)


def voxel_to_ras(volume):
    """Return the 4x4 matrix from the voxel indices of a volume node's array (i, j, k, from 0) to RAS, in mm.

    The parent transform is not part of it.
    """
    matrix = array_of_matrix(ijk_to_ras(volume))
    # A cropped image may count its voxels from elsewhere than 0.
    start = volume.GetImageData().GetExtent()[::2]
    matrix[:3, 3] += matrix[:3, :3] @ start
    return matrix


def problem(volume, bundled=True):
    """Return one sentence on why a volume node cannot be segmented, or ``""`` if it can.

    Args:
        volume: the volume node, or ``None``.
        bundled: whether a bundled network is to segment it, which needs a head; user-trained ones take slices, too.
    """
    if volume is None:
        return _("Choose a T1-weighted MR volume of a head.") if bundled else _("Choose a volume.")
    image, name = volume.GetImageData(), volume.GetName()
    if image is None or image.GetPointData().GetScalars() is None:
        return _("The volume '{name}' has no voxels; choose another.").format(name=name)
    if bundled and min(image.GetDimensions()) < 2:
        return _("The volume '{name}' is a single slice; choose a volume of a whole head.").format(name=name)
    if image.GetNumberOfScalarComponents() != 1:
        return _("The volume '{name}' has several values per voxel; choose a scalar volume.").format(name=name)
    axes = voxel_to_ras(volume)[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or spacing.min() <= 0:
        return _("The volume '{name}' has no valid voxel spacing; repair its header.").format(name=name)
    directions = axes / spacing
    if np.abs(directions.T @ directions - np.eye(3)).max() > SKEW:
        return _(
            "The axes of the volume '{name}' are not at right angles (such as after a gantry tilt); "
            "resample it with the module Resample Scalar/Vector/DWI Volume first."
        ).format(name=name)
    return ""


def first_usable(scene):
    """Return the first volume node of a scene that users see and a bundled network can segment, or ``None``."""
    kind = "vtkMRMLScalarVolumeNode"
    nodes = (scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind)))
    # Label maps and volumes of colours or vectors are scalar volumes too, by inheritance.
    shown = (node for node in nodes if node.GetClassName() == kind and not node.GetHideFromEditors())
    return next((node for node in shown if not problem(node)), None)


def doubt(volume):
    """Return one sentence if the file of a volume node leaves open which way the head lies, or ``""``.

    Nothing is said of a node whose axes are no longer those of its file, since somebody has set them.

    Args:
        volume: the volume node, or ``None``.
    """
    storage = None if volume is None or volume.GetImageData() is None else volume.GetStorageNode()
    path = storage.GetFullNameFromFileName() if storage is not None else ""
    try:
        why, affine = doubt_of_file(path, os.stat(path).st_mtime_ns) if path else ("", None)
    except (OSError, RuntimeError):
        return ""
    if not why:
        return ""
    axes = affine[:3, :3].copy()
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1
    if not np.allclose(right_handed(volume)[:3, :3], axes, atol=MOVED):
        return ""
    return _(
        "Its file does not say for certain which way the head lies: left and right may be exchanged. "
        "If you know better, turn it with the module Transforms and harden that."
    )


@functools.lru_cache(maxsize=32)
def doubt_of_file(path, time):
    """Return :func:`.orientation.doubt_of` a file that was last changed then."""
    # Files are read by SimpleITK, for which nobody should wait as the panel opens.
    from ..files.orientation import doubt_of
    from ..files.reading import quietly

    with quietly():
        return doubt_of(path)


def refuse_unusable(volume, bundled=False):
    """Raise SEBrainSegError for a volume node with a :func:`problem`; any that is an image will do by default."""
    reason = problem(volume, bundled)
    if reason:
        raise SEBrainSegError(reason)


def is_left_handed(volume):
    """Whether the axes of a volume node are left-handed."""
    return np.linalg.det(voxel_to_ras(volume)[:3, :3]) < 0


def right_handed(volume):
    """Return :func:`voxel_to_ras` as it will be once the volume was saved and read again, 4x4.

    Slicer turns the last axis of a left-handed volume, and its voxels with it.
    """
    matrix = voxel_to_ras(volume)
    if is_left_handed(volume):
        matrix[:3, 3] += matrix[:3, 2] * (volume.GetImageData().GetDimensions()[2] - 1)
        matrix[:3, 2] *= -1
    return matrix


def image_of(volume):
    """Copy a volume node to a ``SimpleITK.Image``.

    Voxels, spacing, origin and directions are the node's own; its parent transform is left out, as the result will
    follow the same transform.

    Raises:
        SEBrainSegError: see :func:`problem`.
    """
    refuse_unusable(volume)
    data = volume.GetImageData()
    image = sitk.GetImageFromArray(array_of_image(data))
    matrix = LPS_TO_RAS @ voxel_to_ras(volume)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    return image
