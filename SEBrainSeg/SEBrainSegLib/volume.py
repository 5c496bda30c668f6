"""Volumes and their geometry: the conformed volume (1 mm, RAS), its slices, and the way back to the input's grid.

A volume is a ``SimpleITK.Image`` all the way, so that spacing, origin and direction travel with the voxels. Arrays of
a conformed volume are indexed ``[S, A, R]``: the last index grows towards the patient's right, the middle one
towards anterior, the first one towards superior.
"""

import math

import numpy as np
import SimpleITK as sitk

from .errors import SEBrainSegError

# The array axis along which the slices of a view are stacked.
VIEWS = {"coronal": 1, "axial": 0, "sagittal": 2}

# SimpleITK's world is LPS, so the axes of an RAS grid point along -x, -y and +z.
RAS_DIRECTION = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)

# Beyond this many voxels of 1 mm a side, a header is wrong rather than a head large.
LARGEST_SIDE = 768


def check(image):
    """Raise :class:`SEBrainSegError` unless ``image`` is a scalar volume that can hold a brain."""
    if image.GetDimension() != 3:
        raise SEBrainSegError(
            f"The image has {image.GetDimension()} dimensions; choose a single 3D volume (one time point)."
        )
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise SEBrainSegError(
            "The image has several values per voxel (colour, vector or complex); choose a scalar volume."
        )
    if min(image.GetSize()) < 2:
        size = " x ".join(str(n) for n in image.GetSize())
        raise SEBrainSegError(f"The image is {size} voxels, a single slice or less; choose a whole-head T1 volume.")
    if not np.all(np.isfinite(image.GetSpacing() + image.GetOrigin() + image.GetDirection())):
        raise SEBrainSegError("The image's position in space is not finite; repair its header.")
    direction = np.array(image.GetDirection()).reshape(3, 3)
    if abs(np.linalg.det(direction)) < 1e-3:
        raise SEBrainSegError("The image's axes do not span space (singular direction matrix); repair its header.")


def corners(image):
    """Return the world positions (LPS, mm) of the centres of the 8 corner voxels, shape ``(8, 3)``."""
    last = [n - 1 for n in image.GetSize()]
    indices = [(i, j, k) for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])]
    return np.array([image.TransformIndexToPhysicalPoint(index) for index in indices])


def without_aliasing(image):
    """Smooth the axes sampled more finely than 1 mm, so that 1 mm samples stand for the tissue between them."""
    # The width that widens a voxel of that spacing to one of 1 mm; below 0.1 mm it changes nothing.
    sigmas = [math.sqrt(max(0.0, 1.0 - spacing**2)) / 2.355 for spacing in image.GetSpacing()]
    for axis, sigma in enumerate(sigmas):
        if sigma > 0.1 and image.GetSize()[axis] >= 4:
            image = sitk.RecursiveGaussian(image, sigma, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    return image


def conform(image):
    """Bring a volume to 1 mm voxels along the patient's right, anterior and superior.

    The grid covers the whole input. An input that is already 1 mm and parallel to these axes is only reordered.

    Args:
        image: scalar 3D ``SimpleITK.Image`` of any orientation, spacing or obliquity.

    Returns:
        float32 image, intensities as in the input, 0 outside of it; not-a-number becomes 0.

    Raises:
        SEBrainSegError: not a usable volume.
    """
    check(image)
    image = sitk.Cast(image, sitk.sitkFloat32)
    voxels = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(voxels).all():
        finite = sitk.GetImageFromArray(np.nan_to_num(voxels, nan=0.0, posinf=0.0, neginf=0.0))
        finite.CopyInformation(image)
        image = finite
    ras = corners(image) * (-1.0, -1.0, 1.0)
    size = [int(n) for n in np.ceil(np.ptp(ras, axis=0) - 1e-3) + 1]
    if max(size) > LARGEST_SIDE:
        raise SEBrainSegError(
            f"The image is {max(size)} mm long, too large for a head; check the voxel spacing in its header."
        )
    origin = tuple(float(x) for x in ras.min(axis=0) * (-1.0, -1.0, 1.0))
    return sitk.Resample(
        without_aliasing(image),
        size,
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear,
        origin,
        (1.0, 1.0, 1.0),
        RAS_DIRECTION,
        0.0,
        sitk.sitkFloat32,
    )


def normalise(array):
    """Scale intensities so that air is about 0 and bright tissue about 1, clipped to [0, 2].

    Bright tissue is the 98th percentile of the voxels above the mean of those that are not 0; a few hot voxels do not
    move it.

    Raises:
        SEBrainSegError: the volume is constant.
    """
    array = np.asarray(array, dtype=np.float32)
    floor, ceiling = (float(limit) for limit in np.percentile(array[::2, ::2, ::2], (1, 99.95)))
    if not ceiling > floor:
        raise SEBrainSegError("All voxels of the image have the same value; choose a T1 scan of a head.")
    array = array - floor
    # Up to the ceiling, so that hot voxels do not lift the mean.
    inside = np.minimum(array[array > 1e-6 * (ceiling - floor)], ceiling - floor)
    # In float64: a float32 mean of equal values can lie above all of them.
    bright = float(np.percentile(inside[inside >= inside.mean(dtype=np.float64) * (1 - 1e-6)], 98))
    return np.clip(array / bright, 0.0, 2.0)


def head_box(array, threshold=0.1, margin=8):
    """Return slices around what is brighter than air, so that the empty surround costs nothing.

    Args:
        array: normalised, ``[S, A, R]``.
        threshold: what counts as brighter than air.
        margin: mm kept around.
    """
    bright = array > threshold
    box = []
    for axis in range(3):
        # A plane counts once 3 in 10,000 of it are bright: a hot voxel is no head.
        share = bright.mean(axis=tuple(other for other in range(3) if other != axis))
        planes = np.flatnonzero(share > 3e-4)
        first, last = (planes[0], planes[-1]) if planes.size else (0, array.shape[axis] - 1)
        box.append(slice(max(0, first - margin), last + 1 + margin))
    return tuple(box)


def restore(labels, reference):
    """Bring a label image back to the grid of ``reference`` (nearest neighbour; 0 outside).

    Args:
        labels: uint8 image on any grid.
        reference: the input volume whose size, spacing, origin and direction the result has.
    """
    return sitk.Resample(
        labels, reference, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8
    )
