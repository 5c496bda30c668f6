"""The bridge to Slicer's scene: a volume node as an image, labels as a segmentation node.

The only file of the library that needs Slicer; the core never imports it.
"""

import zlib

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .errors import SEBrainSegError

# Slicer's world is RAS, SimpleITK's is LPS; the change is its own inverse.
RAS_TO_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))

# How far axes may be from right angles (dot products of unit vectors): rounding in headers, but no gantry tilt.
SKEW = 1e-3


def voxel_to_ras(volume):
    """Return the 4x4 matrix from the voxel indices of a volume node's array (i, j, k, from 0) to RAS, in mm.

    The parent transform is not part of it.
    """
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    matrix = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
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
        return "Choose a T1-weighted MR volume of a head." if bundled else "Choose a volume."
    image = volume.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        return f"The volume '{volume.GetName()}' has no voxels; choose another."
    if bundled and min(image.GetDimensions()) < 2:
        return f"The volume '{volume.GetName()}' is a single slice; choose a volume of a whole head."
    if image.GetNumberOfScalarComponents() != 1:
        return f"The volume '{volume.GetName()}' has several values per voxel; choose a scalar volume."
    axes = voxel_to_ras(volume)[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or spacing.min() <= 0:
        return f"The volume '{volume.GetName()}' has no valid voxel spacing; repair its header."
    directions = axes / spacing
    if np.abs(directions.T @ directions - np.eye(3)).max() > SKEW:
        return (
            f"The axes of the volume '{volume.GetName()}' are not at right angles (such as after a gantry tilt); "
            "resample it with the module Resample Scalar/Vector/DWI Volume first."
        )
    return ""


def refuse_unusable(volume, bundled=False):
    """Raise SEBrainSegError for a volume node with a :func:`problem`; any that is an image will do by default."""
    reason = problem(volume, bundled)
    if reason:
        raise SEBrainSegError(reason)


def voxels_of(volume):
    """Return what tells the voxels of a volume node from others: size, type and checksum.

    Not the time of their modification, which also moves when nothing has changed.

    Raises:
        SEBrainSegError: see :func:`problem`.
    """
    refuse_unusable(volume)
    data = volume.GetImageData()
    voxels = vtk_to_numpy(data.GetPointData().GetScalars())
    return data.GetDimensions(), str(voxels.dtype), zlib.crc32(np.ascontiguousarray(voxels))


def image_of(volume):
    """Copy a volume node to a ``SimpleITK.Image``.

    Voxels, spacing, origin and directions are the node's own; its parent transform is left out, as the result will
    follow the same transform.

    Raises:
        SEBrainSegError: see :func:`problem`.
    """
    refuse_unusable(volume)
    data = volume.GetImageData()
    voxels = vtk_to_numpy(data.GetPointData().GetScalars()).reshape(data.GetDimensions()[::-1])
    image = sitk.GetImageFromArray(voxels)
    matrix = RAS_TO_LPS @ voxel_to_ras(volume)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    return image


def add_segmentation(volume, labels, structures, title, voxels=None):
    """Add a segmentation node for a volume node: segments that share one labelmap.

    Every structure has its segment, an empty one where it was not found. The node follows the volume's parent transform
    and stands beside it in the subject hierarchy. Nothing else in the scene changes, and nothing at all on an error.

    Args:
        volume: the volume node that was segmented.
        labels: uint8 or uint16 ``SimpleITK.Image``, voxel by voxel that of ``volume``.
        structures: what the labels are.
        title: what segmented it, as in ``"U-Net scSE"``; part of the node's name.
        voxels: what :func:`voxels_of` gave for the volume that was segmented, to see that it has not changed since.

    Returns:
        the ``vtkMRMLSegmentationNode``.

    Raises:
        SEBrainSegError: the volume has changed since or has gone, so that the labels no longer fit.
    """
    scene, data = volume.GetScene(), volume.GetImageData()
    if scene is None:
        raise SEBrainSegError(f"The volume '{volume.GetName()}' was removed during the segmentation.")
    fits = data is not None and data.GetDimensions() == labels.GetSize() and not problem(volume, bundled=False)
    if not fits or voxels not in (None, voxels_of(volume)):
        raise SEBrainSegError(f"The volume '{volume.GetName()}' was changed during the segmentation; segment it again.")
    name = scene.GenerateUniqueName(f"{volume.GetName()} structures ({title})")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    modified = node.StartModify()
    try:
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        fill(node.GetSegmentation(), structures, shared_labelmap(volume, labels))
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        stand_beside(volume, node)
    except BaseException:
        for half_made in (node.GetDisplayNode(), node):
            if half_made is not None:
                scene.RemoveNode(half_made)
        raise
    finally:
        node.EndModify(modified)
    return node


def shared_labelmap(volume, labels):
    """Return the labels as a ``vtkOrientedImageData`` on the grid of the volume node."""
    voxels = np.ascontiguousarray(sitk.GetArrayViewFromImage(labels))
    scalars = numpy_to_vtk(voxels.ravel(), deep=True)
    scalars.SetName("ImageScalars")
    labelmap = slicer.vtkOrientedImageData()
    labelmap.SetExtent(volume.GetImageData().GetExtent())
    labelmap.GetPointData().SetScalars(scalars)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    labelmap.SetImageToWorldMatrix(matrix)
    return labelmap


def fill(segmentation, structures, labelmap):
    """Add a segment for every structure, in the order of the table, to an empty ``vtkSegmentation``."""
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    for structure in structures:
        segment = slicer.vtkSegment()
        segment.SetName(structure.name)
        segment.SetColor(*(channel / 255 for channel in structure.color))
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), structure.terminology)
        # Name and colour stay the table's when a user picks another term.
        segment.SetNameAutoGenerated(False)
        segment.SetColorAutoGenerated(False)
        segment.SetLabelValue(structure.label)
        segment.AddRepresentation(representation, labelmap)
        segmentation.AddSegment(segment, structure.segment_id)


def stand_beside(volume, node):
    """Give ``node`` the subject-hierarchy parent of ``volume``, where there is a hierarchy of items."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    if hierarchy is None:
        return
    of_volume, of_node = hierarchy.GetItemByDataNode(volume), hierarchy.GetItemByDataNode(node)
    if of_volume and of_node:
        hierarchy.SetItemParent(of_node, hierarchy.GetItemParent(of_volume))
