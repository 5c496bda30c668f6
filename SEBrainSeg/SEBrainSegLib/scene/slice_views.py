"""The bridge to Slicer's scene, fifth part: a map over a volume in the slice views, its legend, and how the structures
are shown meanwhile; see :mod:`.volume_nodes`."""

import json

import slicer

from .provenance import CONSENSUS, DISAGREEMENT, KIND, SEGMENTATION, VOLUME, results_of

# What a slice view and a segmentation node keep while a map is shown: how they were before.
BEFORE, OPACITY, SHOWN = "SEBrainSegForegroundBefore", "SEBrainSeg.OpacityBefore", "SEBrainSeg.ShownBefore"


# How a segmentation is shown in slices, and how faint an outline over a map is: maps tell most at the borders.
LOOKS = "Visibility2DFill", "Visibility2DOutline", "Visibility2D", "Opacity2DOutline"


FAINT = 0.5


# Sequential colours that colour-blind people can tell apart; Slicer reads them from files, which a bare scene lacks.
SEQUENTIAL, ELSE = "vtkMRMLColorTableNodeFileViridis.txt", "vtkMRMLColorTableNodeOcean"


def slice_views(scene):
    """Return the composite node of every slice view."""
    kind = "vtkMRMLSliceCompositeNode"
    return [scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind))]


def map_in(view):
    """Return the map of ours that lies over the volume in a slice view, or ``None``."""
    node = view.GetScene().GetNodeByID(view.GetForegroundVolumeID() or "")
    return node if node is not None and node.GetAttribute(KIND) else None


def map_shown(scene):
    """Return a map of ours that lies over a volume in any slice view, or ``None``."""
    return next((node for node in map(map_in, slice_views(scene)) if node is not None), None)


def show_over(volume, node):
    """Show a map over a volume node in all slice views, which keep what was there for :func:`take_off`."""
    # Where nothing is counted one sees through; the few voxels that are left should be seen.
    opacity = 0.9 if node.GetAttribute(KIND) == DISAGREEMENT else 0.5
    for view in slice_views(volume.GetScene()):
        if map_in(view) is None:
            view.SetNodeReferenceID(BEFORE, view.GetForegroundVolumeID())
            view.SetAttribute(OPACITY, str(view.GetForegroundOpacity()))
        view.SetBackgroundVolumeID(volume.GetID())
        view.SetForegroundVolumeID(node.GetID())
        view.SetForegroundOpacity(opacity)


def take_off(scene):
    """Show in the slice views what was there before the map."""
    for view in slice_views(scene):
        if map_in(view) is not None:
            view.SetForegroundVolumeID(view.GetNodeReferenceID(BEFORE))
            view.SetForegroundOpacity(float(view.GetAttribute(OPACITY) or 0))


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
        if each.GetAttribute(SHOWN) is None:
            each.SetAttribute(SHOWN, json.dumps([getattr(display, f"Get{what}")() for what in LOOKS]))
        set_looks(display, (False, True, outlined, FAINT))


def fill_structures(scene):
    """Show the structures as they were before a map was shown."""
    kind = "vtkMRMLSegmentationNode"
    for node in [scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind))]:
        states, display = node.GetAttribute(SHOWN), node.GetDisplayNode()
        if states is None or display is None:
            continue
        node.RemoveAttribute(SHOWN)
        set_looks(display, json.loads(states))


def set_looks(display, looks):
    """Set what :data:`LOOKS` names of a display node."""
    modified = display.StartModify()
    for what, look in zip(LOOKS, looks):
        getattr(display, f"Set{what}")(look)
    display.EndModify(modified)


def sequential_colors(scene):
    """Return the id of a table of colours from dark to light."""
    return SEQUENTIAL if scene.GetNodeByID(SEQUENTIAL) is not None else ELSE


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
    kind = "vtkMRMLPlotViewNode"
    for view in [scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind))]:
        chart = scene.GetNodeByID(view.GetPlotChartNodeID() or "")
        if chart is not None and chart.GetAttribute(KIND):
            view.SetPlotChartNodeID(None)
            view.SetPlotChartNodeID(chart.GetID())
