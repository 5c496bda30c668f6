"""Volumes and their geometry: the conformed volume (RAS), its slices, and the way back to the input's grid.

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

BRAIN_SPACING = (1.0, 1.0, 1.0)  # mm along [S, A, R]

# Beyond this, an intensity is none, as infinity is none; float32 could not hold the differences of larger ones.
LARGEST_INTENSITY = 1e36

# What is as many times farther from the other intensities as they are from each other is a hot voxel.
HOT = 10.0

# Where a scan that was turned has nothing, programs write one number far from all others, such as -1000 or -32768: at
# most this, in a thousandth of the voxels at least.
FILLED, FILLED_SHARE, MOST_FILLS = -100.0, 1e-3, 3

# Beyond this many voxels a side or in all, a header is wrong rather than a patient large.
LARGEST_SIDE = 2048
LARGEST_VOLUME = 768**3


def check(image):
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


def check_scalar(image):
    """Raise :class:`SEBrainSegError` unless ``image`` has one real number per voxel."""
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise SEBrainSegError(
            "The image has several values per voxel (colour, vector or complex); choose a scalar volume."
        )
    if not all(image.GetSize()):
        raise SEBrainSegError("The image has no voxels; choose another.")


def plain(image):
    """Return an image without what it has one of: vectors of one component, a fourth axis of one volume."""
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


def corners(image):
    """Return the world positions (LPS, mm) of the centres of the 8 corner voxels, shape ``(8, 3)``."""
    last = [n - 1 for n in image.GetSize()]
    indices = [(i, j, k) for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])]
    return np.array([image.TransformIndexToPhysicalPoint(index) for index in indices])


def without_aliasing(image, spacing):
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


def without_hot_voxels(image):
    """Clip a few voxels far brighter or darker than all others, so that smoothing does not spread them."""
    voxels = sitk.GetArrayViewFromImage(image)
    low, high = (float(limit) for limit in np.percentile(voxels[::2, ::2, ::2], (0.05, 99.95)))
    reach = HOT * (high - low)
    if not reach or voxels.min() >= low - reach and voxels.max() <= high + reach:
        return image
    return sitk.Clamp(image, sitk.sitkFloat32, low - reach, high + reach)


def air(image):
    """The intensity to assume outside of an image: 0, or what is dark in one of intensities below 0."""
    dark = float(np.percentile(sitk.GetArrayViewFromImage(image)[::2, ::2, ::2], 1))
    return min(0.0, dark) if dark >= -LARGEST_INTENSITY else 0.0


def finite(image):
    """Return a float32 image in which what is no finite number, or next to none, is 0."""
    image = sitk.Cast(image, sitk.sitkFloat32)
    voxels = sitk.GetArrayViewFromImage(image)
    # Of not-a-number, neither is true.
    if voxels.max() <= LARGEST_INTENSITY and voxels.min() >= -LARGEST_INTENSITY:
        return image
    repaired = sitk.GetImageFromArray(np.where(np.abs(voxels) <= LARGEST_INTENSITY, voxels, np.float32(0)))
    repaired.CopyInformation(image)
    return repaired


def without_fill(image):
    """Return an image with 0 where a program filled what is outside of the field of view with one number.

    Of magnitudes, which are not negative, a negative number far below all others is none; nor is one far above them
    that many voxels share, such as 65535. Hounsfield units are negative besides, and keep theirs.

    Args:
        image: float32.
    """
    for _ in range(MOST_FILLS):
        limits = limits_of_content(sitk.GetArrayViewFromImage(image))
        if limits is None:
            break
        image = sitk.Threshold(image, *limits, 0.0)
    return image


def limits_of_content(voxels):
    """Return the least and the greatest intensity that is none with which an array was filled; ``None`` if all are."""
    sample, low, high = voxels[::2, ::2, ::2], float(voxels.min()), float(voxels.max())
    if low <= FILLED and (sample == low).mean() > FILLED_SHARE and low < high:
        dark, bright = (float(limit) for limit in np.percentile(sample[sample > low], (5, 99.5)))
        if dark >= -0.05 * (bright - dark) and dark - low > 0.1 * (bright - dark):
            # Nor is what was mixed with it at its border.
            return min(0.0, dark) - 0.05 * (bright - dark), high
    if (sample == high).mean() > FILLED_SHARE and low < high:
        dark, bright = (float(limit) for limit in np.percentile(sample[sample < high], (5, 99.9)))
        if dark < bright < high - HOT * (bright - dark):
            return low, (bright + high) / 2
    return None


def conform(image, spacing=BRAIN_SPACING, outside=None):
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
    ras = corners(image) * (-1.0, -1.0, 1.0)
    size = [int(n) for n in np.ceil(np.ptp(ras, axis=0) / spacing[::-1] - 1e-3) + 1]
    if max(size) > LARGEST_SIDE or np.prod(size, dtype=float) > LARGEST_VOLUME:
        raise SEBrainSegError(
            f"The image is {np.ptp(ras, axis=0).max():.0f} mm long, too large to be segmented; "
            "check the voxel spacing in its header."
        )
    origin = tuple(float(x) for x in ras.min(axis=0) * (-1.0, -1.0, 1.0))
    image = finite(image)
    if outside is None:
        image = without_fill(image)
        outside = air(image)
    return sitk.Resample(
        without_aliasing(image, spacing),
        size,
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear,
        origin,
        spacing[::-1],
        RAS_DIRECTION,
        outside,
        sitk.sitkFloat32,
    )


def stack(image):
    """Return a 2D image, or a volume whose slices are 2D images of their own, as a volume of float32, as it is.

    Raises:
        SEBrainSegError: it is neither, or not scalar.
    """
    if image.GetDimension() not in (2, 3):
        raise SEBrainSegError(f"The image has {image.GetDimension()} dimensions; choose a 2D image or a stack of them.")
    check_scalar(image)
    image = sitk.JoinSeries(image) if image.GetDimension() == 2 else image
    return finite(image)


def prepare(image, spacing=BRAIN_SPACING, window=None):
    """Bring an image to the grid and the intensities that a network takes.

    Args:
        image: scalar volume; 2D image or stack of them if ``spacing`` is ``None``.
        spacing: mm along ``[S, A, R]``; ``None``: 2D images, used as they are.
        window: the intensities that become 0 and 1, beyond which all is clipped; ``None``: see :func:`normalise`.

    Returns:
        ``(grid, array)``: a volume whose grid that is, and its intensities as a float32 array ``[S, A, R]``.

    Raises:
        SEBrainSegError: not a usable image.
    """
    if spacing is None:
        grid = stack(image)
    else:
        grid = conform(image, spacing, window[0] if window else None)
    array = sitk.GetArrayFromImage(grid)
    if window is not None:
        low, high = window
        return grid, np.clip((array - low) / (high - low), 0.0, 1.0).astype(np.float32)
    if spacing is None and len(array) > 1:
        # Each by itself, as in training; an empty one in a stack stays black.
        return grid, np.stack([normalise(each[None])[0] if np.ptp(each) else np.zeros_like(each) for each in array])
    return grid, normalise(array)


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
        raise SEBrainSegError("All voxels of the image have the same value; choose a scan.")
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


def restore(image, reference, interpolator=sitk.sitkNearestNeighbor):
    """Bring an image back to the grid of ``reference``; 0 outside.

    Args:
        image: labels, or other values, on any grid.
        reference: the input volume whose size, spacing, origin and direction the result has.
        interpolator: nearest neighbour for labels.
    """
    return sitk.Resample(image, reference, sitk.Transform(3, sitk.sitkIdentity), interpolator, 0, image.GetPixelID())
