"""Table nodes of volumes and of channel excitation, with its chart."""

import numpy as np
import vtk

from ..analysis.volume_table import texts
from ..translation import tr as _
from .hierarchy import make_child_of, place_beside
from .provenance import CHANNELS, all_or_nothing, record_origin

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
        place_beside(node, table)
    return table


def add_volumes(segmentation, rows):
    """Add the table node of :func:`.volume_table.rows` beside the segmentation node that they are about."""
    columns = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        words = any(isinstance(value, str) for value in values)
        columns[TITLES[name]] = [texts(row)[name] for row in rows] if words else [round(value, 3) for value in values]
    return add_table(segmentation, f"{segmentation.GetName()} volumes", columns)


def add_channels(volume, excitation, parameters, content=None):
    """Add the plot of a block's channel excitation, mean and spread over the slices; returns its chart node."""
    kind, mean, spread = f"{CHANNELS} {excitation.block}", np.array(excitation.mean), np.array(excitation.spread)
    lines = {"Mean": mean, "Mean + spread": mean + spread, "Mean - spread": mean - spread}
    name = f"{volume.GetName()} {kind} ({parameters.title})"
    columns = {"Channel": list(range(1, len(mean) + 1)), **{title: list(line) for title, line in lines.items()}}
    with all_or_nothing(volume) as scene:
        table = add_table(volume, f"{name} table", columns)
        chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", scene.GenerateUniqueName(name))
        record_origin(chart, volume, kind, parameters, content)
        place_beside(volume, chart)
        make_child_of(chart, table)
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
            make_child_of(chart, series)
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
