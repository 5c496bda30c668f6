"""Renders the pictures of ``Resources/Tutorial``: the bundled scan, segmented, in Slicer's own scene and views.

    python Testing/Tutorial/pictures.py [FOLDER]

Needs slicer-core (the extra "test"); takes a few minutes.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "SEBrainSeg"))

from SEBrainSegLib.analysis.comparison import compare  # noqa: E402
from SEBrainSegLib.choices.job import Job  # noqa: E402
from SEBrainSegLib.choices.parameters import Parameters  # noqa: E402
from SEBrainSegLib.inference.run import run  # noqa: E402

SIZE = (560, 560)
SCAN = ROOT / "Resources/SampleData/colin27_t1.nii.gz"
BLOCK = "decoder 3"
OUTLINED = 0.5  # opacity of a segment's inside


class Application:
    """A scene with the logics that it takes to load, segment and show."""

    def __init__(self):
        self.scene = slicer.mrmlScene = slicer.vtkMRMLScene()
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetMRMLScene(self.scene)
        colors = self.logic.GetColorLogic()
        colors.SetMRMLScene(self.scene)
        colors.AddDefaultColorNodes()
        self.logic.SetModuleLogic("Colors", colors)
        self.legends = slicer.vtkSlicerColorLogic()
        self.legends.SetMRMLScene(self.scene)
        self.add_viridis()
        self.volumes, self.segmentations = slicer.vtkSlicerVolumesLogic(), slicer.vtkSlicerSegmentationsModuleLogic()
        for each in (self.volumes, self.segmentations):
            each.SetMRMLApplicationLogic(self.logic)
            each.SetMRMLScene(self.scene)

    def add_viridis(self):
        """Add the colours that Slicer reads from a file."""
        node = slicer.vtkMRMLColorTableNode()
        node.SetSingletonTag("FileViridis.txt")
        node.SetTypeToUser()
        node.SetNumberOfColors(256)
        for index, color in enumerate(matplotlib.colormaps["viridis"](np.arange(256))):
            node.SetColor(index, str(index), *(float(channel) for channel in color))
        self.scene.AddNode(node)

    def window(self, managers, node, size=SIZE):
        """A window without a screen whose contents displayable managers draw for a view node."""
        renderer, window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        window.SetOffScreenRendering(1)
        window.SetSize(*size)
        window.AddRenderer(renderer)
        vtk.vtkRenderWindowInteractor().SetRenderWindow(window)
        group = slicer.vtkMRMLDisplayableManagerGroup()
        group.SetRenderer(renderer)
        for manager in managers:
            manager.SetMRMLApplicationLogic(self.logic)
            group.AddDisplayableManager(manager)
        group.SetMRMLDisplayableNode(node)
        return renderer, window, group


def grabbed(window):
    """What a window shows, ``(rows, columns, 3)`` uint8, the first row on top."""
    window.Render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.Update()
    data = grabber.GetOutput()
    columns, rows, _ = data.GetDimensions()
    return vtk_to_numpy(data.GetPointData().GetScalars()).reshape(rows, columns, -1)[::-1, :, :3]


def slice_view(application, volume, orientation, offset, over=None, segmented=True):
    """A slice of a volume, perhaps with a map over it and its segmentation on top."""
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(application.logic)
    logic.SetMRMLScene(application.scene)
    node = logic.AddSliceNode(f"{orientation} {offset} {over and over.GetName()} {segmented}")
    node.SetOrientation(orientation)
    node.SetDimensions(*SIZE, 1)
    composite = logic.GetSliceCompositeNode()
    composite.SetBackgroundVolumeID(volume.GetID())
    if over is not None:
        composite.SetForegroundVolumeID(over.GetID())
        # As slice_views.show_over_volume() has it.
        composite.SetForegroundOpacity(0.9 if "disagreement" in over.GetName() else 0.5)
    logic.FitSliceToAll(*SIZE)
    logic.SetSliceOffset(offset)
    logic.UpdatePipeline()
    reslice = logic.GetImageDataConnection().GetProducer()
    reslice.Update()
    image = vtk_to_numpy(reslice.GetOutputDataObject(0).GetPointData().GetScalars())
    image = image.reshape(SIZE[1], SIZE[0], -1)[::-1, :, :3].astype(float)
    if segmented:
        _, window, group = application.window([slicer.vtkMRMLSegmentationsDisplayableManager2D()], node)
        drawn = grabbed(window).astype(float)
        # Drawn on black, so that what lies beneath can be added.
        image = np.where(drawn.any(axis=2, keepdims=True), drawn + (1 - OUTLINED) * image, image)
        del group
    if over is not None:
        legend = legend_of(over)
        image = np.where(legend.any(axis=2, keepdims=True), legend, image)
    return np.clip(image, 0, 255).astype(np.uint8)


def surface_view(application, node):
    """The segments in 3D, the left hemisphere and cerebellum taken away."""
    node.CreateClosedSurfaceRepresentation()
    display = node.GetDisplayNode()
    display.SetVisibility3D(True)
    for name in ("Cerebral-Cortex", "Cerebral-White-Matter", "Cerebellar-Cortex", "Cerebellar-White-Matter"):
        display.SetSegmentVisibility3D(f"Left-{name}", False)
    logic = slicer.vtkMRMLViewLogic()
    logic.SetMRMLApplicationLogic(application.logic)
    logic.SetMRMLScene(application.scene)
    view = logic.AddViewNode("3D")
    view.SetBoxVisible(False)
    view.SetAxisLabelsVisible(False)
    renderer, window, group = application.window([slicer.vtkMRMLSegmentationsDisplayableManager3D()], view)
    renderer.SetBackground(0, 0, 0)
    camera = renderer.GetActiveCamera()
    renderer.ResetCamera()
    focus = np.array(camera.GetFocalPoint())
    camera.SetPosition(*(focus + (-380, 180, 120)))
    camera.SetViewUp(0, 0, 1)
    renderer.ResetCamera()
    camera.Zoom(1.35)
    picture = grabbed(window)
    del group
    return picture


def chart_view(chart_node, size=SIZE):
    """What a plot view shows of a chart node, whose series are of one table."""
    view, chart = vtk.vtkContextView(), vtk.vtkChartXY()
    view.GetRenderer().SetBackground(1, 1, 1)
    view.GetRenderWindow().SetOffScreenRendering(1)
    view.GetRenderWindow().SetSize(*size)
    view.GetScene().AddItem(chart)
    for index in range(chart_node.GetNumberOfPlotSeriesNodes()):
        series = chart_node.GetNthPlotSeriesNode(index)
        line = chart.AddPlot(vtk.vtkChart.LINE)
        line.SetInputData(series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName())
        line.SetColor(*(round(255 * channel) for channel in series.GetColor()), 255)
        line.SetWidth(series.GetLineWidth())
        styles = {series.LineStyleSolid: 1, series.LineStyleDash: 2, series.LineStyleDot: 3}
        line.GetPen().SetLineType(styles[series.GetLineStyle()])
        line.SetLabel(series.GetName())
    chart.SetShowLegend(chart_node.GetLegendVisibility())
    chart.SetTitle(chart_node.GetTitle())
    chart.GetTitleProperties().SetFontSize(chart_node.GetTitleFontSize())
    titles = {vtk.vtkAxis.BOTTOM: chart_node.GetXAxisTitle(), vtk.vtkAxis.LEFT: chart_node.GetYAxisTitle()}
    for which, title in titles.items():
        axis = chart.GetAxis(which)
        axis.SetTitle(title)
        axis.GetTitleProperties().SetFontSize(chart_node.GetAxisTitleFontSize())
        axis.GetTitleProperties().SetBold(False)
        axis.GetLabelProperties().SetFontSize(chart_node.GetAxisLabelFontSize())
    if not chart_node.GetYAxisRangeAuto():
        chart.GetAxis(vtk.vtkAxis.LEFT).SetBehavior(vtk.vtkAxis.FIXED)
        chart.GetAxis(vtk.vtkAxis.LEFT).SetRange(*chart_node.GetYAxisRange())
    return grabbed(view.GetRenderWindow())


def legend_of(node):
    """The colour legend of a map on black, as a slice view shows it."""
    display, count = node.GetDisplayNode(), node.GetNumberOfDisplayNodes()
    legend = next(node.GetNthDisplayNode(index) for index in range(1, count))
    bar, renderer, window = vtk.vtkScalarBarActor(), vtk.vtkRenderer(), vtk.vtkRenderWindow()
    colors = vtk.vtkLookupTable()
    colors.DeepCopy(display.GetColorNode().GetLookupTable())
    colors.SetRange(display.GetWindowLevelMin(), display.GetWindowLevelMax())
    bar.SetLookupTable(colors)
    bar.SetTitle(legend.GetTitleText())
    bar.SetNumberOfLabels(legend.GetNumberOfLabels())
    # VTK 9.6 has another notation.
    bar.SetLabelFormat("{:" + legend.GetLabelFormat()[1:] + "}")
    size, position = legend.GetSize(), legend.GetPosition()
    bar.SetPosition(*(place * (1 - side) for place, side in zip(position, size)))
    bar.SetWidth(size[0])
    bar.SetHeight(size[1])
    bar.SetTextPositionToPrecedeScalarBar()
    bar.GetTitleTextProperty().SetJustificationToRight()
    bar.UnconstrainedFontSizeOn()
    for text, of_legend in (
        (bar.GetTitleTextProperty(), legend.GetTitleTextProperty()),
        (bar.GetLabelTextProperty(), legend.GetLabelTextProperty()),
    ):
        text.SetFontSize(of_legend.GetFontSize())
        text.ItalicOff()
    renderer.AddViewProp(bar)
    window.SetOffScreenRendering(1)
    window.SetSize(*SIZE)
    window.AddRenderer(renderer)
    return grabbed(window)


def write(path, *pictures):
    """Write pictures side by side."""
    sitk.WriteImage(sitk.GetImageFromArray(np.concatenate(pictures, axis=1), isVector=True), str(path))
    print(path)


def main(folder):
    """Render all pictures into a folder."""
    from SEBrainSegLib.scene import comparison_nodes, map_nodes, volume_nodes

    folder.mkdir(parents=True, exist_ok=True)
    application = Application()
    volume = application.volumes.AddArchetypeVolume(str(SCAN), "SEBrainSeg T1", 0, None)
    image = volume_nodes.image_of(volume)
    plain, recalibrated = run(image, Job((Parameters(se="none"), Parameters(se="scse")), confidence=True))
    (looked_at,) = run(image, Job((Parameters(se="scse"),), excitation=BLOCK))
    compared = comparison_nodes.add_compared(volume, compare((plain, recalibrated)))
    spatial, channels = map_nodes.add_maps(volume, looked_at)
    (confidence,) = map_nodes.add_maps(volume, recalibrated)
    for node in compared.segmentations:
        node.GetDisplayNode().SetVisibility(False)
    write(
        folder / "compare.png",
        *(
            slice_view(application, volume, *where, over=compared.disagreement, segmented=False)
            for where in (("Coronal", -10), ("Axial", 5))
        ),
    )
    excited = slice_view(application, volume, "Coronal", -10, over=spatial, segmented=False)
    write(folder / "recalibration.png", excited, chart_view(channels))
    write(
        folder / "confidence.png",
        *(
            slice_view(application, volume, *where, over=confidence, segmented=False)
            for where in (("Coronal", -10), ("Axial", 5))
        ),
    )
    shown = compared.segmentations[-1]
    shown.GetDisplayNode().SetVisibility(True)
    shown.GetDisplayNode().SetOpacity2DFill(OUTLINED)
    slices = [slice_view(application, volume, *where) for where in (("Coronal", -10), ("Axial", 5))]
    write(folder / "segmentation.png", *slices, surface_view(application, shown))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources/Tutorial")
