"""What of a segmentation is seen: groups of structures, surfaces."""

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray

from ..subprocesses.surfaces import Labelmap, Settings
from .provenance import CONSENSUS, SEGMENTATION, VOLUME, results_of
from .segmentation_nodes import BINARY, segments_of, structure_of
from .volume_nodes import array_of_image, array_of_matrix

SURFACE = "Closed surface"


def show_only(node):
    """Show a segmentation node of ours and hide the others that we made of the same volume."""
    volume = node.GetNodeReference(VOLUME)
    for each in results_of(volume, (SEGMENTATION, CONSENSUS)) if volume is not None else [node]:
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
            segment.AddRepresentation(SURFACE, surface_by_slicer(segment, segmentation))


def surface_by_slicer(segment, segmentation):
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
    labelmaps, parameters = {}, _conversion_parameters(node.GetSegmentation())

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
        to_world = vtk.vtkMatrix4x4()
        labelmap.GetImageToWorldMatrix(to_world)
        matrix = array_of_matrix(to_world)
        matrix[:3, 3] += matrix[:3, :3] @ labelmap.GetExtent()[::2]
        found.append(Labelmap(array_of_image(labelmap), matrix, tuple(segments)))
    return found, settings


def _conversion_parameters(segmentation):
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
