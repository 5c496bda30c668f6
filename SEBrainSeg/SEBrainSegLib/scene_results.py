"""The bridge to Slicer's scene, second part: what a segmentation node of ours holds, and how it is shown; see
:mod:`.scene`."""

import json

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

from .lazy import sitk
from .scene import (
    BINARY,
    CONFIDENCES,
    CONSENSUS,
    LABEL,
    MOVED,
    REMARKS,
    SEGMENTATION,
    SKEW,
    VOLUME,
    image_of,
    made,
    parameters_of,
    problem,
)
from .segmentation import Segmentation
from .structures import Code, Structure
from .surfaces import Labelmap, Settings

SURFACE = "Closed surface"


def segments_of(node):
    """Return the id and ``vtkSegment`` of every segment of a segmentation node, in order."""
    segmentation = node.GetSegmentation()
    return [(name, segmentation.GetSegment(name)) for name in segmentation.GetSegmentIDs()]


def label_of(segment):
    """Return the label of the structure that a segment stands for.

    In its labelmap it may have another: a segment that is edited so as to overlap others gets a labelmap of its own.
    """
    label = vtk.reference("")
    return int(str(label)) if segment.GetTag(LABEL, label) else segment.GetLabelValue()


def structure_of(segment):
    """Return the :class:`~.structures.Structure` that a segment stands for."""
    term = vtk.reference("")
    segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), term)
    codes = [Code(*(part.split("^") + ["", ""])[:3]) for part in (str(term).split("~") + ["", "", ""])[1:4]]
    color = tuple(round(255 * channel) for channel in segment.GetColor())
    return Structure(label_of(segment), segment.GetName(), color, *codes)


def segmentation_of(node, labels=True):
    """Return a segmentation node that we made as a :class:`~.segmentation.Segmentation`.

    Its labels and volumes are those of the segments as they are now, after whatever was edited by hand; there is no
    label image if the volume has gone, or if ``labels`` is false.
    """
    segments = [segment for _, segment in segments_of(node)]
    counts, volumes = {}, {}
    for segment in segments:
        labelmap, volume = segment.GetRepresentation(BINARY), 0.0
        if labelmap is not None and labelmap.GetPointData().GetScalars() is not None:
            if labelmap not in counts:
                voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars())
                counts[labelmap] = np.bincount(voxels.astype(np.uint16, copy=False))
            matrix = vtk.vtkMatrix4x4()
            labelmap.GetImageToWorldMatrix(matrix)
            label, of_label = segment.GetLabelValue(), counts[labelmap]
            volume = float(of_label[label] if label < len(of_label) else 0) * abs(matrix.Determinant()) / 1000
        volumes[label_of(segment)] = volume
    confidences = json.loads(node.GetAttribute(CONFIDENCES) or "{}")
    doubt, cut_off = json.loads(node.GetAttribute(REMARKS) or '["", []]')
    return Segmentation(
        labels=labels_of(node, segments) if labels else None,
        volumes=volumes,
        device="",
        structures=tuple(map(structure_of, segments)),
        parameters=parameters_of(node),
        confidences={int(label): mean for label, mean in confidences.items()},
        doubt=doubt,
        cut_off=tuple(cut_off),
    )


def labels_of(node, segments):
    """Return the labels of the segments of a segmentation node as an image like that of its volume node.

    Returns:
        uint16 ``SimpleITK.Image``, or ``None`` if the volume has gone or a labelmap lies on another grid.
    """
    volume = node.GetNodeReference(VOLUME)
    if volume is None or problem(volume, bundled=False):
        return None
    data, grid = volume.GetImageData(), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(grid)
    extent, found = data.GetExtent(), np.zeros(data.GetDimensions()[::-1], np.uint16)
    labelmaps = {}
    for segment in segments:
        labelmap = segment.GetRepresentation(BINARY)
        if labelmap is not None and labelmap.GetPointData().GetScalars() is not None:
            labelmaps.setdefault(labelmap, {})[segment.GetLabelValue()] = label_of(segment)
    for labelmap, labels in labelmaps.items():
        # Once read from a file, it may be no larger than what is in it.
        box, matrix = labelmap.GetExtent(), vtk.vtkMatrix4x4()
        labelmap.GetImageToWorldMatrix(matrix)
        offsets = [(matrix.GetElement(row, 3) - grid.GetElement(row, 3)) for row in range(3)]
        axes = np.array([[grid.GetElement(row, column) for column in range(3)] for row in range(3)])
        others = np.array([[matrix.GetElement(row, column) for column in range(3)] for row in range(3)])
        shift = np.linalg.solve(axes, offsets)
        start = np.round(shift).astype(int) + box[::2] - extent[::2]
        end = start + labelmap.GetDimensions()
        aligned = np.allclose(axes, others, atol=SKEW) and np.allclose(shift, np.round(shift), atol=MOVED)
        if not aligned or start.min() < 0 or np.any(end > data.GetDimensions()):
            return None
        voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
        table = np.zeros(max(int(voxels.max(initial=0)), *labels) + 1, np.uint16)
        table[list(labels)] = list(labels.values())
        voxels = table[voxels.astype(np.uint16, copy=False)]
        part = found[tuple(slice(*limits) for limits in zip(start[::-1], end[::-1]))]
        part[voxels > 0] = voxels[voxels > 0]
    image = sitk.GetImageFromArray(found)
    image.CopyInformation(image_of(volume))
    return image


def show_only(node):
    """Show a segmentation node of ours and hide the others that we made of the same volume."""
    volume = node.GetNodeReference(VOLUME)
    for each in made(volume, (SEGMENTATION, CONSENSUS)) if volume is not None else [node]:
        if each.GetDisplayNode() is not None:
            each.GetDisplayNode().SetVisibility(each is node)


def groups_shown(node):
    """Map the groups of structures that a segmentation node has segments of to whether any of them is shown."""
    shown, display = {}, node.GetDisplayNode()
    for name, segment in segments_of(node):
        group = structure_of(segment).group
        if group and display is not None:
            shown[group] = shown.get(group, False) or bool(display.GetSegmentVisibility(name))
    return shown


def show_group(node, group, visible):
    """Show or hide the segments of one group of structures."""
    display = node.GetDisplayNode()
    if display is None:
        return
    modified = display.StartModify()
    for name, segment in segments_of(node):
        if structure_of(segment).group == group:
            display.SetSegmentVisibility(name, visible)
    display.EndModify(modified)


def has_surfaces(node):
    """Whether a segmentation node is shown in 3D."""
    display = node.GetDisplayNode()
    return bool(node.GetSegmentation().ContainsRepresentation(SURFACE) and display and display.GetVisibility3D())


def make_surfaces(node):
    """Make the closed surfaces of a segmentation node, one by one: yields the fraction done and the next one's name."""
    segmentation = node.GetSegmentation()
    segments = segments_of(node)
    for done, (_, segment) in enumerate(segments):
        yield done / len(segments), segment.GetName()
        if segment.GetRepresentation(SURFACE) is None:
            segment.AddRepresentation(SURFACE, surface_of(segment, segmentation))


def surface_of(segment, segmentation):
    """Return the closed surface of one segment as ``vtkPolyData``, made as its segmentation would make it."""
    alone, copy = slicer.vtkSegmentation(), slicer.vtkSegment()
    alone.CopyConversionParameters(segmentation)
    copy.SetLabelValue(segment.GetLabelValue())
    copy.AddRepresentation(BINARY, segment.GetRepresentation(BINARY))
    alone.AddSegment(copy, "alone")
    alone.CreateRepresentation(SURFACE)
    return copy.GetRepresentation(SURFACE) or vtk.vtkPolyData()


def labelmaps_of(node):
    """Return what :func:`.surfaces.write_request` takes, of the segments of a node that have no surface yet.

    Returns:
        a list of :class:`~.surfaces.Labelmap`, and :class:`~.surfaces.Settings`; or ``None`` if the node asks for
        another conversion than those make.
    """
    labelmaps, parameters = {}, conversion_of(node.GetSegmentation())

    def number(name, default):
        return float(parameters.get(name) or default)

    if number("Joint smoothing", 0) or number("Conversion method", 0):
        return None
    settings = Settings(
        number("Smoothing factor", 0.5),
        number("Decimation factor", 0),
        bool(number("Compute surface normals", 1)),
    )
    for name, segment in segments_of(node):
        labelmap = segment.GetRepresentation(BINARY)
        if segment.GetRepresentation(SURFACE) is None and labelmap is not None:
            labelmaps.setdefault(labelmap, []).append((name, segment.GetName(), segment.GetLabelValue()))
    found = []
    for labelmap, segments in labelmaps.items():
        if labelmap.GetPointData().GetScalars() is None:
            continue
        voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
        matrix = vtk.vtkMatrix4x4()
        labelmap.GetImageToWorldMatrix(matrix)
        matrix = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
        matrix[:3, 3] += matrix[:3, :3] @ labelmap.GetExtent()[::2]
        found.append(Labelmap(voxels, matrix, tuple(segments)))
    return found, settings


def conversion_of(segmentation):
    """Return the parameters by which a ``vtkSegmentation`` converts its representations: texts by name."""
    rows = (row.split("|") for row in segmentation.SerializeAllConversionParameters().split("&"))
    return {row[0]: row[1] for row in rows if len(row) > 1}


def add_surface(node, name, surface):
    """Give a segment its closed surface, a :class:`~.surfaces.Surface`, or an empty one for ``None``."""
    data = vtk.vtkPolyData()
    if surface is not None:
        points, triangles = vtk.vtkPoints(), vtk.vtkCellArray()
        points.SetData(numpy_to_vtk(np.ascontiguousarray(surface.points), deep=True))
        connections = np.ascontiguousarray(surface.triangles, np.int64)
        offsets = np.arange(0, connections.size + 1, 3, dtype=np.int64)
        triangles.SetData(
            numpy_to_vtkIdTypeArray(offsets, deep=True), numpy_to_vtkIdTypeArray(connections.ravel(), deep=True)
        )
        data.SetPoints(points)
        data.SetPolys(triangles)
        if surface.normals is not None:
            normals = numpy_to_vtk(np.ascontiguousarray(surface.normals), deep=True)
            normals.SetName("Normals")
            data.GetPointData().SetNormals(normals)
    segment = node.GetSegmentation().GetSegment(name)
    if segment is not None:
        segment.AddRepresentation(SURFACE, data)


def show_surfaces(node, visible):
    """Show or hide the closed surfaces; those that were not finished are dropped."""
    if not visible and not all(segment.GetRepresentation(SURFACE) for _, segment in segments_of(node)):
        node.GetSegmentation().RemoveRepresentation(SURFACE)
    node.GetSegmentation().InvokeEvent(slicer.vtkSegmentation.ContainedRepresentationNamesModified)
    display = node.GetDisplayNode()
    if display is not None:
        display.SetPreferredDisplayRepresentationName3D(SURFACE)
        display.SetVisibility3D(visible)
        # The views may have looked before the last surface was there.
        display.Modified()
