"""Volumes and results in Slicer's own scene, for the tests that need one; without slicer-core they are skipped."""

import numpy as np
import pytest
import SimpleITK as sitk

from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.inference.result import Segmentation

slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")
if not hasattr(slicer, "vtkMRMLSegmentationNode"):
    pytest.skip("this is another package called slicer", allow_module_level=True)

from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy  # noqa: E402

from SEBrainSegLib.scene import segmentation_nodes, volume_nodes  # noqa: E402

SIZE = (7, 9, 11)  # i, j, k


OBLIQUE = np.array(sitk.VersorTransform((0.2, 0.5, -0.3), 0.9).GetMatrix()).reshape(3, 3)


GRIDS = {
    "RAS": np.eye(3),
    "LPS": np.diag((-1.0, -1.0, 1.0)),
    "left-handed": np.diag((-1.0, 1.0, 1.0)),
    "coronal": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "oblique": OBLIQUE,
    "oblique, left-handed": OBLIQUE @ np.diag((1.0, 1.0, -1.0)),
}


SPACING = np.array((0.9, 1.3, 2.1))


ORIGIN = np.array((-31.0, 12.5, 77.0))


def volume_node(scene, directions=GRIDS["RAS"], size=SIZE, start=(0, 0, 0), dtype=np.int16):
    """A volume of distinct voxel values; columns of ``directions`` are the RAS directions of i, j, k."""
    voxels = np.arange(np.prod(size), dtype=dtype)
    data = vtk.vtkImageData()
    data.SetExtent(*(limit for first, n in zip(start, size) for limit in (first, first + n - 1)))
    data.GetPointData().SetScalars(numpy_to_vtk(voxels, deep=True))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1")
    node.SetAndObserveImageData(data)
    node.SetSpacing(*SPACING)
    node.SetOrigin(*ORIGIN)
    node.SetIJKToRASDirections(*directions.ravel())
    return node


def ras(directions, index):
    """Where a voxel lies: written down here anew, from the definition of origin, spacing and directions."""
    return ORIGIN + directions @ (SPACING * index)


def labels_like(image, marked=()):
    """A label image on the grid of an image, with ``{index: label}`` set."""
    labels = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    labels.CopyInformation(image)
    for index, label in dict(marked).items():
        labels[index] = label
    return labels


def result_of(labels, table=None, **fields):
    """A segmentation of these labels, by U-Net scSE."""
    table = table or structures()
    volume_table = {structure.label: 0.0 for structure in table}
    return Segmentation(labels, volume_table, "cpu", table, **{"parameters": Parameters(), **fields})


def segmented(scene, marked=(), **volume):
    """A volume node and the segmentation node made from labels for it."""
    node = volume_node(scene, **volume)
    labels = labels_like(volume_nodes.image_of(node), marked)
    return node, segmentation_nodes.add_segmentation(node, result_of(labels))


def points_of(node, segment_id):
    """RAS positions of the voxels of a segment, by Slicer's own export of it."""
    image = slicer.vtkOrientedImageData()
    assert node.GetBinaryLabelmapRepresentation(segment_id, image)
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    start, matrix = image.GetExtent()[::2], vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return [
        np.array(matrix.MultiplyPoint([*(np.array(kji[::-1]) + start).astype(float), 1.0])[:3])
        for kji in np.argwhere(voxels)
    ]
