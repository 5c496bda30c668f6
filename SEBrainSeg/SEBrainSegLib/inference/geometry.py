"""Geometry of volumes: checks, RAS and LPS, the conformed grid, and the way back to the input's grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import SEBrainSegError
from ..lazy import sitk
from .intensities import air, finite, without_fill, without_hot_voxels

# SimpleITK's world is LPS; that of Slicer, of NIfTI and of the conformed grid is RAS. The change is its own inverse.
LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))


# The axes of an RAS grid in SimpleITK's world, row by row.
RAS_DIRECTION = tuple(float(each) for each in LPS_TO_RAS[:3, :3].ravel() + 0.0)


BRAIN_SPACING = (1.0, 1.0, 1.0)  # mm along [S, A, R]


# Beyond this many voxels a side or in all, a header is wrong rather than a patient large.
_LARGEST_SIDE = 2048


_LARGEST_VOLUME = 768**3


def voxel_to_ras(image: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    """Return the 4x4 affine from voxel indices ``(i, j, k)`` of a 3D image to RAS, in mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


def to_ras(points: np.ndarray) -> np.ndarray:
    """Return points or directions ``(..., 3)`` of LPS in RAS, or the other way round."""
    return points @ LPS_TO_RAS[:3, :3]


def check(image: sitk.Image) -> None:
    """Raise :class:`SEBrainSegError` unless ``image`` is a scalar volume."""
    if image.GetDimension() != 3:
        raise SEBrainSegError(
            f"The image has {image.GetDimension()} dimensions; choose a single 3D volume (one time point)."
        )
    check_scalar(image)
    if min(image.GetSize()) < 2:
        size = " x ".join(str(n) for n in image.GetSize())
        raise SEBrainSegError(f"The image is {size} voxels, a single slice or less; choose a whole volume.")
    if not np.all(np.isfinite(image.GetSpacing() + image.GetOrigin() + image.GetDirection())):
        raise SEBrainSegError("The image's position in space is not finite; repair its header.")
    direction = np.array(image.GetDirection()).reshape(3, 3)
    if abs(np.linalg.det(direction)) < 1e-3:
        raise SEBrainSegError("The image's axes do not span space (singular direction matrix); repair its header.")


def check_scalar(image: sitk.Image) -> None:
    """Raise :class:`SEBrainSegError` unless ``image`` has one real number per voxel."""
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise SEBrainSegError(
            "The image has several values per voxel (colour, vector or complex); choose a scalar volume."
        )
    if not all(image.GetSize()):
        raise SEBrainSegError("The image has no voxels; choose another.")


def without_single_axes(image: sitk.Image) -> sitk.Image:
    """Return an image without axes of length one beyond the third, and a scalar one for vectors of one component."""
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    found = image
    while found.GetDimension() > 3 and found.GetSize()[-1] == 1:
        found = found[(*[slice(None)] * (found.GetDimension() - 1), 0)]
    if "vector" in found.GetPixelIDTypeAsString() and found.GetNumberOfComponentsPerPixel() == 1:
        found = sitk.VectorIndexSelectionCast(found, 0)
    if found is not image:
        for key, value in fields.items():
            found.SetMetaData(key, value)
    return found


def corners(image: sitk.Image) -> np.ndarray:
    """Return the world positions (LPS, mm) of the centres of the 8 corner voxels, shape ``(8, 3)``."""
    last = [n - 1 for n in image.GetSize()]
    indices = [(i, j, k) for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])]
    return np.array([image.TransformIndexToPhysicalPoint(index) for index in indices])


def _without_aliasing(image: sitk.Image, spacing: Sequence[float]) -> sitk.Image:
    """Smooth the axes sampled more finely than ``spacing``, so that a sample stands for the tissue around it."""
    direction, sigmas = np.abs(np.array(image.GetDirection()).reshape(3, 3)), {}
    for axis, fine in enumerate(image.GetSpacing()):
        coarse = spacing[::-1][int(np.argmax(direction[:, axis]))]
        # The width that widens a voxel to one of the coarser grid; below a tenth of it, it changes nothing.
        sigma = math.sqrt(max(0.0, coarse**2 - fine**2)) / 2.355
        if sigma > 0.1 * coarse and image.GetSize()[axis] >= 4:
            sigmas[axis] = sigma
    if sigmas:
        image = without_hot_voxels(image)
    for axis, sigma in sigmas.items():
        image = sitk.RecursiveGaussian(image, sigma, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    return image


def conform(image: sitk.Image, spacing: Sequence[float] = BRAIN_SPACING, outside: float | None = None) -> sitk.Image:
    """Bring a volume to a grid along the patient's right, anterior and superior.

    The grid covers the whole input. An input that already has that spacing and is parallel to these axes is only
    reordered.

    Args:
        image: scalar 3D ``SimpleITK.Image`` of any orientation, spacing or obliquity.
        spacing: mm along ``[S, A, R]``.
        outside: what is outside of the input; ``None``: see :func:`air`.

    Returns:
        float32 image, intensities as in the input; not-a-number becomes 0.

    Raises:
        SEBrainSegError: not a usable volume.
    """
    check(image)
    ras = to_ras(corners(image))
    size = [int(n) for n in np.ceil(np.ptp(ras, axis=0) / spacing[::-1] - 1e-3) + 1]
    if max(size) > _LARGEST_SIDE or np.prod(size, dtype=float) > _LARGEST_VOLUME:
        raise SEBrainSegError(
            f"The image is {np.ptp(ras, axis=0).max():.0f} mm long, too large to be segmented; "
            "check the voxel spacing in its header."
        )
    origin = tuple(float(x) for x in to_ras(ras.min(axis=0)))
    image = finite(image)
    if outside is None:
        image = without_fill(image)
        outside = air(image)
    return sitk.Resample(
        _without_aliasing(image, spacing),
        size,
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear,
        origin,
        spacing[::-1],
        RAS_DIRECTION,
        outside,
        sitk.sitkFloat32,
    )


def restore(image: sitk.Image, reference: sitk.Image, interpolator: int | None = None) -> sitk.Image:
    """Bring an image back to the grid of ``reference``; 0 outside.

    Args:
        image: labels, or other values, on any grid.
        reference: the input volume whose size, spacing, origin and direction the result has.
        interpolator: of SimpleITK; ``None``: the nearest neighbour, as for labels.
    """
    interpolator = sitk.sitkNearestNeighbor if interpolator is None else interpolator
    return sitk.Resample(image, reference, sitk.Transform(3, sitk.sitkIdentity), interpolator, 0, image.GetPixelID())
