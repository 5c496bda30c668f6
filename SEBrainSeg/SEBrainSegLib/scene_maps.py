"""The bridge to Slicer's scene, third part: maps as volume nodes, numbers as tables and plots; see :mod:`.scene`."""

from typing import NamedTuple

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from . import scene_views
from .lazy import sitk
from .scene import (
    CHANNELS,
    COMPARISON,
    CONFIDENCE,
    CONSENSUS,
    DISAGREEMENT,
    SEGMENTATION,
    SPATIAL,
    add_segmentation,
    all_or_nothing,
    find,
    follow,
    in_steps,
    made,
    mark,
    refuse_changed,
    stand_beside,
    stand_under,
)
from .scene_results import show_only
from .translation import tr as _
from .volumes import texts

# Of a map in [0, 1] whatever is above this is shown: 0 is where nothing was computed.
SHOWN = 1e-6

# Where the network is as sure as this, which is nearly everywhere, the scan is seen instead.
SURE = 0.95

# Lines of a plot that colour-blind people can tell apart.
BLUE, ORANGE, BLACK = (0.0, 0.45, 0.7), (0.84, 0.37, 0.0), (0.0, 0.0, 0.0)

# What the columns of the table of volumes are called in the panel.
TITLES = {
    "structure": "Structure",
    "left_ml": "Left (ml)",
    "right_ml": "Right (ml)",
    "total_ml": "Total (ml)",
    "cut_off": "Cut off by the scan's edge",
    "asymmetry_percent": "Asymmetry (%)",
    "confidence": "Confidence",
    "remark": "Remark",
}


def add_map(volume, image, kind, parameters, voxels=None, largest=1.0, title=""):
    """Add a scalar volume node on the grid of a volume node, to be shown over it: 0 is transparent.

    Args:
        volume: the volume node that was segmented.
        image: ``SimpleITK.Image`` of values from 0 to ``largest``, voxel by voxel that of ``volume``.
        kind: what it is, such as ``CONFIDENCE``; part of the node's name.
        parameters: what made it.
        voxels: as for :func:`add_segmentation`.
        largest: the value of the colour table's end, of counts.
        title: as for :func:`add_segmentation`.

    Raises:
        SEBrainSegError: the volume has changed since or has gone.
    """
    with all_or_nothing(volume) as scene:
        refuse_changed(volume, image, voxels)
        name = scene.GenerateUniqueName(f"{volume.GetName()} {kind} ({title or parameters.title})")
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        scalars = numpy_to_vtk(np.ascontiguousarray(sitk.GetArrayViewFromImage(image)).ravel(), deep=True)
        scalars.SetName("ImageScalars")
        data, matrix = vtk.vtkImageData(), vtk.vtkMatrix4x4()
        data.SetExtent(volume.GetImageData().GetExtent())
        data.GetPointData().SetScalars(scalars)
        volume.GetIJKToRASMatrix(matrix)
        node.SetIJKToRASMatrix(matrix)
        node.CreateDefaultDisplayNodes()
        display, counts = node.GetDisplayNode(), np.issubdtype(vtk_to_numpy(scalars).dtype, np.integer)
        display.SetAndObserveColorNodeID(scene_views.sequential_colors(scene))
        display.AutoWindowLevelOff()
        # Always from 0 on, so that maps of different scans and blocks can be compared.
        display.SetWindowLevelMinMax(0, largest)
        # Of integers, Slicer cuts the decimals of a threshold off.
        display.SetThreshold(1 if counts else SHOWN, SURE if kind == CONFIDENCE else max(largest, 1))
        display.ApplyThresholdOn()
        display.SetInterpolate(not counts)
        # Last, or Slicer would take a second to look for a window of its own.
        node.SetAndObserveImageData(data)
        mark(node, volume, kind, parameters, voxels)
        follow(volume, node)
        scene_views.add_legend(node, legend_of(kind), *((largest + 1, 0) if counts else (6, 1)))
    return node


def legend_of(kind):
    """What the colours of a map mean, in a few words and short lines."""
    if kind.startswith(SPATIAL):
        title = _("Excitation,\n{block}").format(block=kind[len(SPATIAL) :].strip())
    else:
        sure = _("Confidence\n(clear: > {sure})").format(sure=SURE)
        title = {CONFIDENCE: sure, DISAGREEMENT: _("Variants that\ndisagree")}.get(kind, kind)
    # An empty line parts it from the topmost number.
    return title + "\n"


def add_table(node, name, columns):
    """Add a table node beside another node.

    Args:
        node: what the table is about.
        name: of the table, made unique.
        columns: maps their names to lists of equal length; those of numbers alone are columns of numbers.
    """
    with all_or_nothing(node) as scene:
        table = scene.AddNewNodeByClass("vtkMRMLTableNode", scene.GenerateUniqueName(name))
        table.SetUseColumnTitleAsColumnHeader(True)
        for title, values in columns.items():
            numbers = bool(values) and all(isinstance(value, (int, float)) for value in values)
            column = vtk.vtkDoubleArray() if numbers else vtk.vtkStringArray()
            column.SetName(title)
            for value in values:
                column.InsertNextValue(float(value) if numbers else str(value))
            table.AddColumn(column)
        table.SetLocked(True)
        stand_beside(node, table)
    return table


def add_volumes(segmentation, rows):
    """Add the table node of :func:`.volumes.rows` beside the segmentation node that they are about."""
    columns = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        words = any(isinstance(value, str) for value in values)
        columns[TITLES[name]] = [texts(row)[name] for row in rows] if words else [round(value, 3) for value in values]
    return add_table(segmentation, f"{segmentation.GetName()} volumes", columns)


class Compared(NamedTuple):
    """The nodes of a comparison: segmentations in the order of the variants, table, disagreement, consensus or None."""

    segmentations: tuple
    table: object
    disagreement: object
    consensus: object


def add_compared(volume, differences, voxels=None, consensus=False, pause=None):
    """Add the nodes of a comparison of segmentations of one volume node; those that are there already are not doubled.

    Of the segmentations, the views show the consensus or the last.

    Args:
        volume: the volume node that was segmented.
        differences: the :class:`~.differences.Differences` of its segmentations.
        voxels: as for :func:`~.scene.add_segmentation`.
        consensus: whether to add theirs, too.
        pause: as for :func:`~.scene.in_steps`.

    Returns:
        :class:`Compared`.

    Raises:
        SEBrainSegError: the volume has changed since or has gone.
    """
    parameters, title = differences.segmentations[0].parameters, ", ".join(differences.titles)

    def add_marked_table():
        refuse_changed(volume, differences.commonest, voxels)
        table = add_table(volume, f"{volume.GetName()} {COMPARISON} ({title})", columns_of(differences))
        mark(table, volume, COMPARISON, parameters, voxels)
        return table

    with in_steps(volume, pause) as step:
        table = step(add_marked_table)
        nodes = tuple(
            find(volume, SEGMENTATION, each.parameters) or step(add_segmentation, volume, each, voxels, visible=False)
            for each in differences.segmentations
        )
        count = len(differences.segmentations)
        image = step(add_map, volume, differences.disagreement, DISAGREEMENT, parameters, voxels, count - 1, title)
        agreed = None
        if consensus:
            name = f"consensus of {title}"
            agreed = step(add_segmentation, volume, differences.consensus(), voxels, CONSENSUS, name, visible=False)
        show_only(agreed or nodes[-1])
    return Compared(nodes, table, image, agreed)


def columns_of(differences):
    """The table of :class:`~.differences.Differences`: a row per structure, rounded to what can be read."""
    titles = differences.titles
    columns = {"Structure": [structure.name for structure in differences.structures]}
    for index, title in enumerate(titles):
        columns[f"{title} (ml)"] = [round(float(row[index]), 3) for row in differences.volumes]
    for index, (one, other) in enumerate(differences.pairs):
        # Not a number where neither found the structure.
        values = [round(float(row[index]), 3) for row in differences.dice]
        columns[f"Dice {titles[one]} / {titles[other]}"] = ["" if value != value else value for value in values]
    columns["Largest difference (ml)"] = [round(float(value), 3) for value in differences.largest]
    return columns


def comparison_of(volume):
    """Return the table node of the latest comparison of a volume node, or ``None``."""
    return next(iter(made(volume, (COMPARISON,))), None) if volume is not None else None


def add_channels(volume, excitation, parameters, voxels=None):
    """Add the plot of a block's channel excitation, mean and spread over the slices; returns its chart node."""
    kind, mean, spread = f"{CHANNELS} {excitation.block}", np.array(excitation.mean), np.array(excitation.spread)
    lines = {"Mean": mean, "Mean + spread": mean + spread, "Mean - spread": mean - spread}
    name = f"{volume.GetName()} {kind} ({parameters.title})"
    columns = {"Channel": list(range(1, len(mean) + 1)), **{title: list(line) for title, line in lines.items()}}
    with all_or_nothing(volume) as scene:
        table = add_table(volume, f"{name} table", columns)
        chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", scene.GenerateUniqueName(name))
        mark(chart, volume, kind, parameters, voxels)
        stand_beside(volume, chart)
        stand_under(chart, table)
        looks = (BLUE, "LineStyleSolid"), (ORANGE, "LineStyleDash"), (BLACK, "LineStyleDot")
        for title, (color, style) in zip(lines, looks):
            series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", f"{title}, {excitation.block}")
            series.SetAndObserveTableNodeID(table.GetID())
            series.SetXColumnName("Channel")
            series.SetYColumnName(title)
            series.SetPlotType(series.PlotTypeScatter)
            series.SetColor(*color)
            series.SetLineWidth(3 if color is BLUE else 2)
            series.SetLineStyle(getattr(series, style))
            series.SetMarkerStyle(series.MarkerStyleNone)
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
            stand_under(chart, series)
        # Of the size of a quarter of the views: the title names the lines, as a legend would lie over them.
        block = excitation.block.capitalize()
        chart.SetTitle(_("{block}: mean (solid) + spread (dashed), - spread (dotted)").format(block=block))
        chart.SetTitleFontSize(12)
        chart.SetLegendVisibility(False)
        chart.SetAxisTitleFontSize(12)
        chart.SetAxisLabelFontSize(11)
        chart.SetXAxisTitle(_("Channel"))
        chart.SetYAxisTitle(_("Channel excitation"))
        chart.SetYAxisRangeAuto(False)
        chart.SetYAxisRange(0, 1)
    return chart


def find_maps(volume, parameters, block, confidence):
    """Return the nodes of the confidence and of a block's excitation as they were made before, in the order of
    :func:`add_maps`, or ``()`` if any is missing."""
    found = {kind: find(volume, kind, parameters) for kind in (CONFIDENCE, f"{SPATIAL} {block}", f"{CHANNELS} {block}")}
    confident, spatial, channels = found.values()
    spatially, by_channels = (parameters.se in names for names in (("sse", "scse"), ("cse", "scse")))
    if parameters.model:
        # Whatever blocks it has: its excitation was added whole.
        spatially, by_channels = spatial is not None, spatial is None or channels is not None
    wanted = [confident] if confidence else []
    if block:
        wanted += [spatial] if spatially else []
        wanted += [channels] if by_channels else []
    return () if None in wanted else tuple(wanted)


def add_maps(volume, segmentation, voxels=None, pause=None):
    """Return nodes for the maps that a :class:`~.segmentation.Segmentation` has, adding those that are missing.

    Args:
        pause: as for :func:`~.scene.in_steps`; the other arguments are those of :func:`add_compared`.

    Returns:
        volume nodes of confidence and spatial excitation, and the chart node of channel excitation, if there are any.

    Raises:
        SEBrainSegError: the volume has changed since or has gone.
    """
    parameters, excitation, nodes = segmentation.parameters, segmentation.excitation, []
    images = {CONFIDENCE: segmentation.confidence}
    if excitation is not None:
        images[f"{SPATIAL} {excitation.block}"] = excitation.spatial
    with in_steps(volume, pause) as step:
        for kind, image in images.items():
            if image is not None:
                node = find(volume, kind, parameters)
                nodes.append(node or step(add_map, volume, image, kind, parameters, voxels))
        if excitation is not None and excitation.mean:
            node = find(volume, f"{CHANNELS} {excitation.block}", parameters)
            nodes.append(node or step(add_channels, volume, excitation, parameters, voxels))
    return tuple(nodes)


def show_maps(volume, nodes, outlined=True):
    """Show the last of the volume nodes over the volume; return the chart node, which needs a view of its own.

    Args:
        outlined: whether the structures are outlined meanwhile; they are hidden if not.
    """
    for node in nodes:
        if node.IsA("vtkMRMLScalarVolumeNode"):
            scene_views.show_over(volume, node)
            scene_views.outline_structures(node, outlined)
    return next((node for node in nodes if node.IsA("vtkMRMLPlotChartNode")), None)


def map_shown(volume):
    """Return the map that lies over a volume in the slice views of the scene of a volume node, or ``None``."""
    return None if volume is None or volume.GetScene() is None else scene_views.map_shown(volume.GetScene())


def hide_maps(volume):
    """Take maps off the slice views of the scene of a volume node; structures are shown as before."""
    if volume is not None and volume.GetScene() is not None:
        scene_views.take_off(volume.GetScene())
        scene_views.fill_structures(volume.GetScene())


def outline(volume, outlined):
    """Outline the structures beneath the map that is shown, if there is one, or hide them."""
    node = map_shown(volume)
    if node is not None:
        scene_views.outline_structures(node, outlined)
