"""Results, maps, tables, plots and sequences in Slicer's own scene, and how they come back with it."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from scene_phantoms import (
    GRIDS,
    OBLIQUE,
    labels_like,
    points_of,
    ras,
    result_of,
    segmented,
    slicer,
    volume_node,
    vtk,
    vtk_to_numpy,
)
from SEBrainSegLib.analysis.comparison import compare
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.structures import Group, structures
from SEBrainSegLib.choices.vocabulary import values
from SEBrainSegLib.errors import Cancelled, SEBrainSegError
from SEBrainSegLib.inference.result import Excitation
from SEBrainSegLib.scene import (
    comparison_nodes,
    map_nodes,
    provenance,
    segmentation_nodes,
    sequence_nodes,
    slice_views,
    table_nodes,
    volume_nodes,
)
from SEBrainSegLib.scene import display as scene_display
from SEBrainSegLib.subprocesses import surfaces

NONE, SCSE = Parameters(se="none"), Parameters()
INDEX = (4, 1, 8)


def nodes(scene, kind="vtkMRMLNode"):
    return [scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind))]


def map_like(image, value=0.25):
    """Zero but for one voxel."""
    made = sitk.Image(image.GetSize(), sitk.sitkFloat32)
    made.CopyInformation(image)
    made[INDEX] = value
    return made


def with_maps(node, parameters=SCSE):
    """A segmentation of a volume node, with confidence and the excitation of a block of three channels."""
    image = volume_nodes.image_of(node)
    excitation = Excitation("decoder 1", map_like(image), (0.2, 0.5, 0.75), (0.1, 0.0, 0.05))
    confidence = map_like(image, 0.5)
    fields = {"confidences": {17: 0.875}, "confidence": confidence, "excitation": excitation}
    return result_of(labels_like(image, {INDEX: 17}), parameters=parameters, **fields)


def saved_and_opened(scene, folder):
    """Save the scene with all of its data and open it again."""
    for node in nodes(scene, "vtkMRMLStorableNode"):
        if node.GetSaveWithScene() and (node.GetAttribute("SEBrainSeg.Kind") or node.GetName() == "T1"):
            if node.GetStorageNode() is None:
                node.AddDefaultStorageNode()
            storage = node.GetStorageNode()
            if storage is not None:
                ending = storage.GetDefaultWriteFileExtension()
                storage.SetFileName(str(folder / f"{node.GetID()}.{ending}"))
                assert storage.WriteData(node) == 1
    for table in nodes(scene, "vtkMRMLTableNode"):
        if table.GetStorageNode() is None:
            table.AddDefaultStorageNode()
            table.GetStorageNode().SetFileName(str(folder / f"{table.GetID()}.tsv"))
            assert table.GetStorageNode().WriteData(table) == 1
    scene.SetRootDirectory(str(folder))
    scene.SetURL(str(folder / "scene.mrml"))
    assert scene.Commit()
    scene.Clear(True)
    assert scene.GetFirstNodeByName("T1") is None
    scene.SetURL(str(folder / "scene.mrml"))
    scene.Connect()
    return scene.GetFirstNodeByName("T1")


def value_at(node, position):
    """The value of a volume node's voxel at a RAS position."""
    to_voxels = np.linalg.inv(volume_nodes.voxel_to_ras(node))
    i, j, k = np.round(to_voxels[:3] @ [*position, 1.0]).astype(int)
    data = node.GetImageData()
    return vtk_to_numpy(data.GetPointData().GetScalars()).reshape(data.GetDimensions()[::-1])[k, j, i]


# What was made before is found again ---------------------------------------------------------------------------------


def test_a_segmentation_is_found_by_its_choice(scene):
    volume, node = segmented(scene)
    assert provenance.find_result(volume, "segmentation", SCSE) is node
    assert provenance.find_result(volume, "segmentation", replace(SCSE, device="cpu")) is node
    others = (
        NONE,
        replace(SCSE, view="axial"),
        replace(SCSE, protocol="manual"),
        replace(SCSE, structures="Hippocampus"),
    )
    assert not any(provenance.find_result(volume, "segmentation", each) for each in others)
    assert provenance.find_result(volume_node(scene), "segmentation", SCSE) is None
    assert provenance.find_result(None, "segmentation", SCSE) is None


def test_other_voxels_or_another_place_are_not_mistaken_for_the_same(scene):
    volume, node = segmented(scene)
    origin = np.array(volume.GetOrigin())
    volume.SetOrigin(*(origin + 5))
    assert provenance.find_result(volume, "segmentation", SCSE) is None
    volume.SetOrigin(*origin)
    assert provenance.find_result(volume, "segmentation", SCSE) is node
    volume.GetImageData().SetScalarComponentFromDouble(1, 2, 3, 0, -1)
    volume.GetImageData().Modified()
    assert provenance.find_result(volume, "segmentation", SCSE) is None


def test_a_network_trained_anew_is_another(scene, tmp_path, monkeypatch):
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(tmp_path))
    (tmp_path / "knee.pt").write_bytes(b"one")
    knee, volume = Parameters(model="knee"), volume_node(scene)
    labels = labels_like(volume_nodes.image_of(volume))
    node = segmentation_nodes.add_segmentation(volume, result_of(labels, parameters=knee))
    assert provenance.find_result(volume, "segmentation", knee) is node
    (tmp_path / "knee.pt").write_bytes(b"another")
    assert provenance.find_result(volume, "segmentation", knee) is None


def test_only_our_own_are_hidden(scene):
    volume, first = segmented(scene)
    labels = labels_like(volume_nodes.image_of(volume))
    second = segmentation_nodes.add_segmentation(volume, result_of(labels, parameters=NONE))
    _, of_another_volume = segmented(scene)
    by_hand = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "By hand")
    by_hand.CreateDefaultDisplayNodes()
    scene_display.show_only(first)
    shown = [node.GetDisplayNode().GetVisibility() for node in (first, second, of_another_volume, by_hand)]
    assert shown == [1, 0, 1, 1]
    scene_display.show_only(second)
    assert (first.GetDisplayVisibility(), second.GetDisplayVisibility()) == (0, 1)


def test_a_saved_scene_is_taken_up_where_it_was_left(scene, tmp_path):
    volume = volume_node(scene, directions=OBLIQUE)
    made = with_maps(volume)
    node = segmentation_nodes.add_segmentation(volume, made)
    maps = map_nodes.add_maps(volume, made)
    labels = labels_like(volume_nodes.image_of(volume))
    compared = comparison_nodes.add_compared(volume, compare((result_of(labels, parameters=NONE), made)))
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    names = [each.GetName() for each in (node, *maps, compared.table)]
    columns = compared.table.GetNumberOfColumns()

    volume = saved_and_opened(scene, tmp_path)
    node = provenance.find_result(volume, "segmentation", SCSE)
    maps = map_nodes.find_maps(volume, SCSE, "decoder 1", True)
    table = comparison_nodes.comparison_of(volume)
    assert [each.GetName() for each in (node, *maps, table)] == names
    assert volume.GetParentTransformNode().GetName() == "Moved"
    assert segmentation_nodes.segmentation_of(node).confidences == {17: 0.875}
    confidence, spatial, chart = maps
    assert value_at(spatial, ras(OBLIQUE, INDEX)) == 0.25
    assert value_at(confidence, ras(OBLIQUE, INDEX)) == 0.5
    assert table.GetNumberOfColumns() == columns and table.GetNumberOfRows() == 31
    mean = chart.GetNthPlotSeriesNode(0)
    values = mean.GetTableNode().GetTable().GetColumnByName(mean.GetYColumnName())
    np.testing.assert_allclose(vtk_to_numpy(values), [0.2, 0.5, 0.75])
    assert mean.GetLineStyle() == mean.LineStyleSolid and mean.GetColor() == pytest.approx(table_nodes.BLUE)
    # Shown as it was, and still found by what made it.
    scene_display.show_only(node)
    other = provenance.find_result(volume, "segmentation", NONE)
    assert node.GetDisplayVisibility() and not other.GetDisplayVisibility()


# Maps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LPS", "oblique, left-handed"])
def test_a_map_lies_over_the_volume(scene, name):
    volume = volume_node(scene, directions=GRIDS[name], start=(3, -2, 5))
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    node = map_nodes.add_map(volume, map_like(volume_nodes.image_of(volume)), "confidence", SCSE)
    index = np.array(INDEX) + (3, -2, 5)
    assert value_at(node, ras(GRIDS[name], index)) == 0.25
    assert node.GetTransformNodeID() == transform.GetID()
    display = node.GetDisplayNode()
    assert display.GetApplyThreshold() and 0 < display.GetLowerThreshold() < 1e-3
    # Of all maps alike, so that they can be compared.
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 1)


def test_where_a_map_counts_nothing_the_scan_is_seen(scene):
    volume = volume_node(scene)
    image = sitk.Image(volume_nodes.image_of(volume).GetSize(), sitk.sitkUInt8)
    image[0, 0, 0], image[1, 0, 0] = 1, 2
    display = map_nodes.add_map(volume, image, "disagreement", SCSE, largest=2).GetDisplayNode()
    display.UpdateImageDataPipeline()
    display.GetOutputImageDataConnection().GetProducer().Update()
    shown = vtk_to_numpy(display.GetOutputImageData().GetPointData().GetScalars())
    assert shown[:3, 3].tolist() == [255, 255, 0] and (shown[2:, 3] == 0).all()
    assert shown[0].tolist() != shown[1].tolist()


def test_where_the_network_is_sure_the_scan_is_seen(scene):
    volume = volume_node(scene)
    image = sitk.Image(volume_nodes.image_of(volume).GetSize(), sitk.sitkFloat32) + 1.0
    image[0, 0, 0], image[1, 0, 0] = 0.3, 0.9
    display = map_nodes.add_map(volume, image, "confidence", SCSE).GetDisplayNode()
    display.UpdateImageDataPipeline()
    display.GetOutputImageDataConnection().GetProducer().Update()
    shown = vtk_to_numpy(display.GetOutputImageData().GetPointData().GetScalars())
    assert shown[:3, 3].tolist() == [255, 255, 0] and (shown[2:, 3] == 0).all()


def test_a_map_is_shown_in_the_slice_views(scene):
    volume = volume_node(scene)
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    maps = map_nodes.add_maps(volume, with_maps(volume))
    chart = map_nodes.show_maps(volume, maps)
    assert chart is maps[-1]
    assert view.GetBackgroundVolumeID() == volume.GetID()
    assert view.GetForegroundVolumeID() == maps[1].GetID() and 0 < view.GetForegroundOpacity() < 1
    scene.RemoveNode(maps[1])
    assert view.GetForegroundVolumeID() is None and view.GetBackgroundVolumeID() == volume.GetID()


def test_what_was_over_the_scan_before_a_map_comes_back(scene):
    volume, other = volume_node(scene), volume_node(scene)
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    view.SetForegroundVolumeID(other.GetID())
    view.SetForegroundOpacity(0.25)
    confidence, spatial, _ = map_nodes.add_maps(volume, with_maps(volume))
    for node in (confidence, spatial):
        map_nodes.show_maps(volume, (node,))
        assert map_nodes.map_shown(volume) is node
    map_nodes.hide_maps(volume)
    assert view.GetForegroundVolumeID() == other.GetID() and view.GetForegroundOpacity() == 0.25
    assert map_nodes.map_shown(volume) is None


def looks(node):
    display = node.GetDisplayNode()
    return bool(display.GetVisibility2DFill()), bool(display.GetVisibility2DOutline()), bool(display.GetVisibility2D())


def test_structures_do_not_hide_a_map(scene):
    volume, node = segmented(scene, {INDEX: 17})
    scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    (_, of_another) = segmented(scene)
    node.GetDisplayNode().SetVisibility2DOutline(False)
    maps = map_nodes.add_maps(volume, with_maps(volume))
    map_nodes.show_maps(volume, maps)
    assert looks(node) == (False, True, True) and looks(of_another) == (True, True, True)
    map_nodes.outline(volume, False)
    assert not looks(node)[2]
    # One map after the other: what comes back is what was there before the first.
    map_nodes.show_maps(volume, maps[:1], outlined=True)
    map_nodes.hide_maps(volume)
    assert looks(node) == (True, False, True)


def test_the_fill_comes_back_in_a_scene_that_was_saved_with_a_map(scene, tmp_path):
    volume, node = segmented(scene, {INDEX: 17})
    scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    map_nodes.show_maps(volume, map_nodes.add_maps(volume, with_maps(volume)))
    volume = saved_and_opened(scene, tmp_path)
    node = provenance.find_result(volume, "segmentation", SCSE)
    assert looks(node)[0] is False and map_nodes.map_shown(volume) is not None
    map_nodes.hide_maps(volume)
    assert looks(node) == (True, True, True)


@pytest.fixture
def legends(scene):
    """Slicer's colour legends in the scene."""
    logic = slicer.vtkSlicerColorLogic()
    logic.SetMRMLScene(scene)
    yield lambda: nodes(scene, "vtkMRMLColorLegendDisplayNode")
    del logic


def test_a_legend_says_what_the_colours_mean(scene, legends):
    volume = volume_node(scene)
    confidence, spatial, _ = map_nodes.add_maps(volume, with_maps(volume))
    compared = comparison_nodes.add_compared(volume, compare(two_variants(volume)))
    found = {legend.GetDisplayableNode(): legend for legend in legends()}
    assert set(found) == {confidence, spatial, compared.disagreement}
    titles = [found[node].GetTitleText().split() for node in (confidence, spatial, compared.disagreement)]
    assert titles[0][0] == "Confidence"
    assert titles[1:] == [["Excitation,", "decoder", "1"], ["Variants", "that", "disagree"]]
    assert all(legend.GetVisibility() and legend.GetPrimaryDisplayNode() for legend in found.values())
    counts = found[compared.disagreement]
    assert counts.GetNumberOfLabels() == 2 and counts.GetLabelFormat() == "%.0f"
    display = compared.disagreement.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 1)


def test_a_slicer_without_legends_shows_maps_all_the_same(scene, monkeypatch):
    monkeypatch.delattr(slicer, "vtkSlicerColorLogic")
    volume = volume_node(scene)
    assert len(map_nodes.add_maps(volume, with_maps(volume))) == 3


def test_the_colours_of_maps_are_sequential(scene):
    volume = volume_node(scene)
    viridis = slicer.vtkMRMLColorTableNode()
    viridis.SetSingletonTag("FileViridis.txt")
    viridis = scene.AddNode(viridis)
    for node in map_nodes.add_maps(volume, with_maps(volume))[:2]:
        assert node.GetDisplayNode().GetColorNode() is viridis
    scene.RemoveNode(viridis)
    colors = scene.GetNodeByID(slice_views.sequential_colors(scene))
    light = []
    for index in range(0, colors.GetNumberOfColors(), 15):
        color = [0.0] * 4
        colors.GetColor(index, color)
        light.append(np.dot(color[:3], (0.2126, 0.7152, 0.0722)))
    assert np.all(np.diff(light) > 0)


def test_lines_of_a_plot_differ_and_its_title_names_them(scene):
    volume = volume_node(scene)
    chart = map_nodes.add_maps(volume, with_maps(volume))[-1]
    series = [chart.GetNthPlotSeriesNode(index) for index in range(3)]
    assert len({each.GetLineStyle() for each in series}) == len({each.GetColor() for each in series}) == 3
    assert not chart.GetLegendVisibility() and chart.GetTitle().startswith("Decoder 1: mean (solid)")
    assert chart.GetXAxisTitle() and chart.GetYAxisTitle()
    assert not chart.GetYAxisRangeAuto() and chart.GetYAxisRange() == (0, 1)


def test_a_plot_view_draws_our_chart_anew(scene):
    view, drawn = slicer.vtkMRMLPlotViewNode(), []
    view.SetLayoutName("Plot")
    view = scene.AddNode(view)
    view.AddObserver("AnyEvent", lambda caller, event: drawn.append(caller.GetPlotChartNodeID()))
    other = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", "Of someone else")
    view.SetPlotChartNodeID(other.GetID())
    drawn.clear()
    slice_views.show_charts_again(scene)
    assert not drawn
    volume = volume_node(scene)
    chart = map_nodes.add_maps(volume, with_maps(volume))[-1]
    view.SetPlotChartNodeID(chart.GetID())
    drawn.clear()
    slice_views.show_charts_again(scene)
    # The view lets all lines go before it draws them.
    assert None in drawn and drawn[-1] == chart.GetID() == view.GetPlotChartNodeID()


def test_maps_that_are_there_are_not_added_again(scene):
    volume = volume_node(scene)
    made = with_maps(volume)
    maps = map_nodes.add_maps(volume, made)
    assert map_nodes.find_maps(volume, SCSE, "decoder 1", True) == maps
    assert map_nodes.find_maps(volume, SCSE, "decoder 1", False) == maps[1:]
    assert map_nodes.find_maps(volume, SCSE, "decoder 2", False) == ()
    assert map_nodes.find_maps(volume, NONE, "decoder 1", False) == ()
    assert map_nodes.add_maps(volume, made) == maps
    scene.RemoveNode(maps[1])
    assert map_nodes.find_maps(volume, SCSE, "decoder 1", True) == ()


def test_the_channels_of_a_block_are_plotted_with_their_spread(scene):
    volume = volume_node(scene)
    chart = map_nodes.add_maps(volume, with_maps(volume))[-1]
    lines = {}
    for index in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(index)
        table = series.GetTableNode().GetTable()
        assert list(vtk_to_numpy(table.GetColumnByName(series.GetXColumnName()))) == [1, 2, 3]
        lines[series.GetYColumnName()] = vtk_to_numpy(table.GetColumnByName(series.GetYColumnName()))
    np.testing.assert_allclose(lines["Mean"], [0.2, 0.5, 0.75])
    np.testing.assert_allclose(lines["Mean + spread"], [0.3, 0.5, 0.8])
    np.testing.assert_allclose(lines["Mean - spread"], [0.1, 0.5, 0.7])


def test_a_plot_is_deleted_whole(scene):
    volume = volume_node(scene)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(caller, event, node):
        # As Slicer's subject hierarchy does.
        if node.IsA("vtkMRMLTableNode") or node.IsA("vtkMRMLPlotChartNode") or node.IsA("vtkMRMLPlotSeriesNode"):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    scene.AddObserver(scene.NodeAddedEvent, added)
    before = {node.GetID() for node in nodes(scene)}
    chart = map_nodes.add_maps(volume, replace(with_maps(volume), confidence=None))[-1]
    (spatial,) = nodes(scene, "vtkMRMLScalarVolumeNode")[1:]
    scene.RemoveNode(spatial)
    hierarchy.RemoveItem(hierarchy.GetItemByDataNode(chart), True, True)
    left = [node.GetClassName() for node in nodes(scene) if node.GetID() not in before]
    assert not [name for name in left if "Plot" in name or "Table" in name and "Color" not in name]


def test_maps_of_other_voxels_are_not_added(scene):
    volume = volume_node(scene)
    made, voxels = with_maps(volume), provenance.content_of(volume)
    volume.GetImageData().SetScalarComponentFromDouble(1, 2, 3, 0, -1)
    before = len(nodes(scene))
    with pytest.raises(SEBrainSegError, match="was changed"):
        map_nodes.add_maps(volume, made, voxels)
    assert len(nodes(scene)) == before


# Comparison ----------------------------------------------------------------------------------------------------------


def two_variants(volume):
    """They differ in one voxel of two."""
    image = volume_nodes.image_of(volume)
    one = result_of(labels_like(image, {INDEX: 17, (0, 0, 0): 17}), parameters=NONE)
    other = result_of(labels_like(image, {INDEX: 17}), parameters=SCSE)
    return tuple(replace(each, volumes=volumes_of(each)) for each in (one, other))


def volumes_of(segmentation):
    """ml by label, counted here."""
    voxels = sitk.GetArrayFromImage(segmentation.labels)
    of_voxel = np.prod(segmentation.labels.GetSpacing()) / 1000
    return {structure.label: float((voxels == structure.label).sum() * of_voxel) for structure in structures()}


def test_a_comparison_says_where_and_how_much(scene):
    volume = volume_node(scene, directions=OBLIQUE)
    compared = comparison_nodes.add_compared(volume, compare(two_variants(volume)), consensus=True)
    assert [node.GetName() for node in compared.segmentations] == [
        "T1 structures (U-Net)",
        "T1 structures (U-Net scSE)",
    ]
    assert "consensus" in compared.consensus.GetName()
    assert value_at(compared.disagreement, ras(OBLIQUE, (0, 0, 0))) == 1
    assert vtk_to_numpy(compared.disagreement.GetImageData().GetPointData().GetScalars()).sum() == 1
    assert 0 < compared.disagreement.GetDisplayNode().GetLowerThreshold() <= 1
    table = compared.table.GetTable()
    titles = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
    assert titles[0] == "Structure" and titles[-1] == "Largest difference (ml)" and len(titles) == 5
    row = [structure.label for structure in structures()].index(17)
    voxel = 0.9 * 1.3 * 2.1 / 1000
    assert table.GetValue(row, 0).ToString() == "Left Hippocampus"
    assert [table.GetValue(row, column).ToDouble() for column in (1, 2, 4)] == pytest.approx(
        [2 * voxel, voxel, voxel], abs=6e-4
    )
    assert table.GetValue(row, 3).ToDouble() == pytest.approx(2 / 3, abs=6e-4)


def test_variants_that_were_segmented_before_are_not_doubled(scene):
    volume = volume_node(scene)
    variants = two_variants(volume)
    node = segmentation_nodes.add_segmentation(volume, variants[1])
    compared = comparison_nodes.add_compared(volume, compare(variants))
    assert compared.segmentations[1] is node and compared.consensus is None
    assert len(nodes(scene, "vtkMRMLSegmentationNode")) == 2


def test_the_application_breathes_while_a_comparison_is_added_and_shows_one_segmentation(scene):
    volume, seen = volume_node(scene), []

    def pause():
        shown = [node.GetDisplayVisibility() for node in nodes(scene, "vtkMRMLSegmentationNode")]
        seen.append((len(shown), sum(shown)))

    compared = comparison_nodes.add_compared(volume, compare(two_variants(volume)), consensus=True, pause=pause)
    # One by one, and none of them in the views before the end.
    assert seen == [(0, 0), (1, 0), (2, 0), (2, 0)]
    assert [node.GetDisplayVisibility() for node in (*compared.segmentations, compared.consensus)] == [0, 0, 1]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_what_is_cancelled_in_between_leaves_nothing_but_what_others_added(scene, steps):
    volume = volume_node(scene)
    before = {node.GetID() for node in nodes(scene)}
    others = []

    def pause():
        others.append(scene.AddNewNodeByClass("vtkMRMLTextNode", "By someone else"))
        if len(others) == steps:
            raise Cancelled

    with pytest.raises(Cancelled):
        comparison_nodes.add_compared(volume, compare(two_variants(volume)), pause=pause)
    left = [node for node in nodes(scene) if node.GetID() not in before]
    assert [node for node in left if not node.IsA("vtkMRMLSubjectHierarchyNode")] == others


def test_an_error_in_a_comparison_leaves_nothing(scene, monkeypatch):
    def fails(*_):
        raise MemoryError

    volume = volume_node(scene)
    before = {node.GetID() for node in nodes(scene)}
    monkeypatch.setattr(comparison_nodes, "add_map", fails)
    with pytest.raises(MemoryError):
        comparison_nodes.add_compared(volume, compare(two_variants(volume)))
    left = {node.GetClassName() for node in nodes(scene) if node.GetID() not in before}
    assert left <= {"vtkMRMLSubjectHierarchyNode"}


# The result ----------------------------------------------------------------------------------------------------------


def test_groups_are_hidden_and_shown(scene):
    _, node = segmented(scene)
    assert set(scene_display.groups_shown(node)) == set(values(Group)) and all(
        scene_display.groups_shown(node).values()
    )
    scene_display.show_group(node, "Deep grey matter", False)
    display = node.GetDisplayNode()
    assert not display.GetSegmentVisibility("Left-Hippocampus")
    assert display.GetSegmentVisibility("Left-Cerebral-Cortex")
    hidden = [group for group, shown in scene_display.groups_shown(node).items() if not shown]
    assert hidden == ["Deep grey matter"]
    scene_display.show_group(node, "Deep grey matter", True)
    assert display.GetSegmentVisibility("Left-Hippocampus")


def test_volumes_are_those_of_the_segments_as_they_are(scene):
    volume, node = segmented(scene, {INDEX: 17, (2, 2, 2): 17})
    found = segmentation_nodes.segmentation_of(node)
    assert found.structures == structures() and found.parameters == SCSE
    assert found.volumes[17] == pytest.approx(2 * 0.9 * 1.3 * 2.1 / 1000)
    assert found.volumes[53] == 0
    labelmap = node.GetSegmentation().GetSegment("Left-Hippocampus").GetRepresentation("Binary labelmap")
    labelmap.SetScalarComponentFromDouble(2, 2, 2, 0, 53)
    assert segmentation_nodes.segmentation_of(node).volumes[53] == pytest.approx(0.9 * 1.3 * 2.1 / 1000)


def test_segments_that_share_a_labelmap_no_longer_keep_their_structures(scene):
    marked = {INDEX: 17, (2, 2, 2): 17, (3, 3, 3): 53, (4, 4, 4): 2}
    volume, node = segmented(scene, marked)
    before = segmentation_nodes.segmentation_of(node)
    # As by the Segment Editor, once a segment overlaps others: both have the label 1 now.
    for name in ("Left-Hippocampus", "Right-Hippocampus"):
        node.GetSegmentation().SeparateSegmentLabelmap(name)
    found = segmentation_nodes.segmentation_of(node)
    assert found.structures == structures() and found.volumes == before.volumes
    assert [found.labels[index] for index in marked] == list(marked.values())


@pytest.mark.parametrize("name", ["LPS", "oblique"])
def test_labels_come_back_from_a_saved_scene(scene, tmp_path, name):
    volume = volume_node(scene, directions=GRIDS[name])
    marked = {INDEX: 17, (2, 2, 2): 53, (6, 8, 10): 2}
    labels = labels_like(volume_nodes.image_of(volume), marked)
    node = segmentation_nodes.add_segmentation(volume, result_of(labels))
    for again in range(2):
        found = segmentation_nodes.segmentation_of(node).labels
        for index, label in marked.items():
            place = (ras(GRIDS[name], index) * (-1, -1, 1)).tolist()
            assert found[found.TransformPhysicalPointToIndex(place)] == label
        assert np.count_nonzero(sitk.GetArrayFromImage(found)) == len(marked)
        if not again:
            volume = saved_and_opened(scene, tmp_path)
            node = provenance.find_result(volume, "segmentation", SCSE)
    scene.RemoveNode(volume)
    assert segmentation_nodes.segmentation_of(node).labels is None


def test_a_left_handed_volume_is_still_itself_when_slicer_has_turned_an_axis(scene, tmp_path):
    volume, _ = segmented(scene, directions=GRIDS["left-handed"])
    again = saved_and_opened(scene, tmp_path)
    assert provenance.find_result(again, "segmentation", SCSE) is not None


def test_the_table_of_volumes_has_columns_of_numbers_and_of_words(scene):
    _, node = segmented(scene)
    rows = [
        {"structure": "Hippocampus", "total_ml": 8.25, "remark": ""},
        {"structure": "X", "total_ml": 1, "remark": "?"},
    ]
    table = table_nodes.add_volumes(node, rows).GetTable()
    assert [table.GetColumnName(index) for index in range(3)] == ["Structure", "Total (ml)", "Remark"]
    assert isinstance(table.GetColumn(1), vtk.vtkDoubleArray) and table.GetValue(0, 1).ToDouble() == 8.25
    assert table.GetValue(1, 2).ToString() == "?"


def test_surfaces_are_made_one_by_one(scene):
    volume, array = volume_node(scene), np.zeros((11, 9, 7), np.uint8)
    array[2:6, 2:6, 2:5], array[7:10, 2:6, 2:5] = 17, 53
    labels = sitk.GetImageFromArray(array)
    node = segmentation_nodes.add_segmentation(volume, result_of(labels))
    assert not scene_display.has_surfaces(node)
    steps = list(scene_display.make_surfaces(node))
    assert len(steps) == 31 and steps[0][0] == 0 and steps[-1][0] < 1
    scene_display.show_surfaces(node, True)
    assert scene_display.has_surfaces(node)
    bounds = node.GetClosedSurfaceInternalRepresentation("Left-Hippocampus").GetBounds()
    corner, end = ras(np.eye(3), (2, 2, 2)), ras(np.eye(3), (4, 5, 5))
    assert np.all(np.abs(np.array(bounds[::2]) - corner) < 2.1) and np.all(np.abs(np.array(bounds[1::2]) - end) < 2.1)
    scene_display.show_surfaces(node, False)
    assert not scene_display.has_surfaces(node)
    assert node.GetClosedSurfaceInternalRepresentation("Left-Hippocampus") is not None


def test_surfaces_that_were_not_finished_are_dropped(scene):
    _, node = segmented(scene, {INDEX: 17})
    next(steps := scene_display.make_surfaces(node))
    next(steps)
    scene_display.show_surfaces(node, False)
    assert not node.GetSegmentation().ContainsRepresentation("Closed surface")


@pytest.mark.parametrize("name", ["LPS", "left-handed", "oblique"])
def test_surfaces_of_the_child_process_are_those_that_slicer_makes(scene, tmp_path, name):
    volume, array = volume_node(scene, directions=GRIDS[name], start=(3, -2, 5)), np.zeros((11, 9, 7), np.uint8)
    array[2:6, 2:6, 2:5], array[7:11, 2:7, 2:5] = 17, 53
    node = segmentation_nodes.add_segmentation(volume, result_of(sitk.GetImageFromArray(array)))
    labelmaps, settings = scene_display.labelmaps_of(node)
    surfaces.write_request(tmp_path, labelmaps, settings)
    told = []
    surfaces.make(tmp_path, lambda **fields: told.append(fields))
    made = surfaces.read(tmp_path, told[-1]["surfaces"])
    assert len(made) == 31 and made["Left-Amygdala"] is None
    assert told[0]["message"].startswith("Making surfaces: ") and told[0]["progress"] == 0
    for segment, surface in made.items():
        scene_display.add_surface(node, segment, surface)
    scene_display.show_surfaces(node, True)
    assert scene_display.has_surfaces(node) and scene_display.labelmaps_of(node)[0] == []
    for segment in ("Left-Hippocampus", "Right-Hippocampus"):
        here = node.GetClosedSurfaceInternalRepresentation(segment)
        there = scene_display.surface_by_slicer(node.GetSegmentation().GetSegment(segment), node.GetSegmentation())
        assert here.GetNumberOfPolys() == there.GetNumberOfPolys() > 100
        for one, other in ((here.GetPoints(), there.GetPoints()), (here.GetPointData(), there.GetPointData())):
            one, other = (
                vtk_to_numpy(each.GetData() if each.IsA("vtkPoints") else each.GetNormals()) for each in (one, other)
            )
            np.testing.assert_allclose(one, other, atol=1e-3)
        assert np.allclose(here.GetBounds(), there.GetBounds(), atol=1e-3)


def test_surfaces_that_are_to_be_made_otherwise_are_left_to_slicer(scene):
    _, node = segmented(scene, {INDEX: 17})
    node.GetSegmentation().SetConversionParameter("Smoothing factor", "0.2")
    assert scene_display.labelmaps_of(node)[1].smoothing == 0.2
    node.GetSegmentation().SetConversionParameter("Joint smoothing", "1")
    assert scene_display.labelmaps_of(node) is None


# Sequences -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def played(scene):
    """The volume through which a sequence of three is played, its browser and the logic that does it."""
    logic = slicer.vtkSlicerSequencesLogic()
    logic.SetMRMLScene(scene)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Scans")
    sequence.SetIndexName("visit")
    sequence.SetIndexUnit("month")
    for index in range(3):
        node = volume_node(scene)
        node.GetImageData().GetPointData().GetScalars().Fill(index)
        sequence.SetDataNodeAtValue(node, str(12 * index))
        scene.RemoveNode(node)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    logic.UpdateProxyNodesFromSequences(browser)
    return browser.GetProxyNode(sequence), browser, logic


def test_a_sequence_of_volumes_gives_a_sequence_of_segmentations(scene, played):
    proxy, browser, logic = played
    volumes = sequence_nodes.items(proxy)
    assert len(volumes) == 3
    images = [volume_nodes.image_of(each) for each in volumes]
    assert [image[0, 0, 0] for image in images] == [0, 1, 2]
    results = [result_of(labels_like(image, {(1, 2, 3 + index): 17})) for index, image in enumerate(images)]
    sequence = sequence_nodes.add_segmentations(proxy, results)
    assert sequence.GetNumberOfDataNodes() == 3 and sequence.GetNthIndexValue(2) == "24"
    assert sequence.GetIndexName() == "visit"
    for index in range(3):
        browser.SetSelectedItemNumber(index)
        logic.UpdateProxyNodesFromSequences(browser)
        shown = browser.GetProxyNode(sequence)
        assert shown.GetSegmentation().GetNumberOfSegments() == 31
        (at,) = points_of(shown, "Left-Hippocampus")
        np.testing.assert_allclose(at, ras(np.eye(3), (1, 2, 3 + index)), atol=1e-4)
    assert sequence_nodes.items(proxy) and not sequence_nodes.items(volume_node(scene))


def test_a_sequence_that_has_changed_gets_no_segmentations(scene, played):
    proxy, _, _ = played
    labels = labels_like(volume_nodes.image_of(sequence_nodes.items(proxy)[0]))
    with pytest.raises(SEBrainSegError, match="sequence"):
        sequence_nodes.add_segmentations(proxy, [result_of(labels)] * 2)
    assert len(nodes(scene, "vtkMRMLSequenceNode")) == 1
