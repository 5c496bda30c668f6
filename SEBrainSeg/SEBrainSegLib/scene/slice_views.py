"""Slice views: a map over a volume, its legend, and how the structures are shown meanwhile."""

import json

import slicer

from .provenance import CONSENSUS, DISAGREEMENT, KIND, SEGMENTATION, VOLUME, nodes_of, results_of

# What a slice view and a segmentation node keep while a map is shown: how they were before.
_FOREGROUND_BEFORE = "SEBrainSegForegroundBefore"


_OPACITY_BEFORE, _SHOWN_BEFORE = "SEBrainSeg.OpacityBefore", "SEBrainSeg.ShownBefore"


# How a segmentation is shown in slices, and how faint an outline over a map is: maps tell most at the borders.
_PROPERTIES = "Visibility2DFill", "Visibility2DOutline", "Visibility2D", "Opacity2DOutline"


_OUTLINE_OPACITY = 0.5


# Sequential colours that colour-blind people can tell apart; Slicer reads them from files, which a bare scene lacks.
_SEQUENTIAL_COLORS, _FALLBACK_COLORS = "vtkMRMLColorTableNodeFileViridis.txt", "vtkMRMLColorTableNodeOcean"


def slice_views(scene):
    """Return the composite node of every slice view."""
    return nodes_of(scene, "vtkMRMLSliceCompositeNode")


def _map_in(view):
    """Return the map of ours that lies over the volume in a slice view, or ``None``."""
    node = view.GetScene().GetNodeByID(view.GetForegroundVolumeID() or "")
    return node if node is not None and node.GetAttribute(KIND) else None


def map_shown(scene):
    """Return a map of ours that lies over a volume in any slice view, or ``None``."""
    return next((node for node in map(_map_in, slice_views(scene)) if node is not None), None)


def show_over_volume(volume, node):
    """Show a map over a volume node in all slice views, which keep what was there for :func:`restore_foreground`."""
    # Where nothing is counted one sees through; the few voxels that are left should be seen.
    opacity = 0.9 if node.GetAttribute(KIND) == DISAGREEMENT else 0.5
    for view in slice_views(volume.GetScene()):
        if _map_in(view) is None:
            view.SetNodeReferenceID(_FOREGROUND_BEFORE, view.GetForegroundVolumeID())
            view.SetAttribute(_OPACITY_BEFORE, str(view.GetForegroundOpacity()))
        view.SetBackgroundVolumeID(volume.GetID())
        view.SetForegroundVolumeID(node.GetID())
        view.SetForegroundOpacity(opacity)


def restore_foreground(scene):
    """Show in the slice views what was there before the map."""
    for view in slice_views(scene):
        if _map_in(view) is not None:
            view.SetForegroundVolumeID(view.GetNodeReferenceID(_FOREGROUND_BEFORE))
            view.SetForegroundOpacity(float(view.GetAttribute(_OPACITY_BEFORE) or 0))


def outline_structures(node, outlined):
    """Show the structures of a map's volume as thin outlines, or not at all, so that they do not hide the map.

    Args:
        node: the map.
        outlined: whether to show the outlines.
    """
    volume = node.GetNodeReference(VOLUME)
    for each in results_of(volume, (SEGMENTATION, CONSENSUS)) if volume is not None else ():
        display = each.GetDisplayNode()
        if display is None:
            continue
        if each.GetAttribute(_SHOWN_BEFORE) is None:
            each.SetAttribute(_SHOWN_BEFORE, json.dumps([getattr(display, f"Get{what}")() for what in _PROPERTIES]))
        _set_properties(display, (False, True, outlined, _OUTLINE_OPACITY))


def restore_structures(scene):
    """Show the structures as they were before a map was shown."""
    for node in nodes_of(scene, "vtkMRMLSegmentationNode"):
        states, display = node.GetAttribute(_SHOWN_BEFORE), node.GetDisplayNode()
        if states is None or display is None:
            continue
        node.RemoveAttribute(_SHOWN_BEFORE)
        _set_properties(display, json.loads(states))


def _set_properties(display, values):
    """Set what :data:`_PROPERTIES` names of a display node."""
    modified = display.StartModify()
    for what, value in zip(_PROPERTIES, values):
        getattr(display, f"Set{what}")(value)
    display.EndModify(modified)


def sequential_colors(scene):
    """Return the id of a table of colours from dark to light."""
    return _SEQUENTIAL_COLORS if scene.GetNodeByID(_SEQUENTIAL_COLORS) is not None else _FALLBACK_COLORS


def add_legend(node, title, labels, digits):
    """Add Slicer's colour legend to a map, where this Slicer has one; it is seen in the views that show the map.

    Args:
        node: the map, a volume node with its display node.
        title: what the colours mean.
        labels: how many numbers stand beside the colours.
        digits: of these numbers, after the point.
    """
    module = getattr(getattr(slicer, "modules", None), "colors", None)
    logic = module.logic() if module is not None else getattr(slicer, "vtkSlicerColorLogic", None)
    add = getattr(logic, "AddDefaultColorLegendDisplayNode", None)
    legend = add(node.GetDisplayNode()) if add is not None else None
    if legend is None:
        return
    legend.SetTitleText(title)
    legend.SetNumberOfLabels(labels)
    legend.SetLabelFormat(f"%.{digits}f")
    legend.SetSize(0.13, 0.42)
    legend.SetPosition(0.98, 0.5)
    for text, size in ((legend.GetTitleTextProperty(), 13), (legend.GetLabelTextProperty(), 12)):
        text.SetFontSize(size)
    legend.SetVisibility(True)


def show_charts_again(scene):
    """Have the plot views draw our charts anew.

    A view that watched a scene being loaded has drawn what was there in between, and keeps it.
    """
    for view in nodes_of(scene, "vtkMRMLPlotViewNode"):
        chart = scene.GetNodeByID(view.GetPlotChartNodeID() or "")
        if chart is not None and chart.GetAttribute(KIND):
            view.SetPlotChartNodeID(None)
            view.SetPlotChartNodeID(chart.GetID())
