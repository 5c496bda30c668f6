"""Labels as a segmentation node, in Slicer's own scene."""

import csv

import numpy as np
import pytest
import SimpleITK as sitk

from scene_phantoms import (
    GRIDS,
    OBLIQUE,
    ORIGIN,
    SIZE,
    SPACING,
    labels_like,
    numpy_to_vtk,
    points_of,
    ras,
    result_of,
    segmented,
    slicer,
    volume_node,
    vtk,
    vtk_to_numpy,
)
from SEBrainSegLib.analysis import volume_table
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.structures import Code, Structure, structures
from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.resources import resource
from SEBrainSegLib.scene import provenance, segmentation_nodes, volume_nodes
from unoriented_files import UNKNOWN


def tag(segment):
    """The terminology of a segment."""
    value = vtk.reference("")
    assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), value)
    return str(value)


def described(segmentation):
    """Id, name, colour, label and terminology of all segments, in order."""
    found = []
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        color = tuple(round(255 * channel) for channel in segment.GetColor())
        identity = segmentation.GetNthSegmentID(index), segment.GetName(), color
        found.append((*identity, segment.GetLabelValue(), tag(segment)))
    return found


def table():
    """The same, read from the table of structures."""
    rows = []
    with open(resource("Structures.csv"), newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            color = tuple(int(row[f"Color_{channel}"]) for channel in "RGB")
            rows.append((row["Name"].replace(" ", "-"), row["Name"], color, int(row["LabelValue"]), row))
    return rows


def test_every_structure_has_its_segment(scene):
    _, node = segmented(scene, {(1, 2, 3): 17})
    found = described(node.GetSegmentation())
    assert [entry[:4] for entry in found] == [entry[:4] for entry in table()]
    assert len(found) == 31
    assert len(points_of(node, "Left-Hippocampus")) == 1
    assert len(points_of(node, "Right-Hippocampus")) == 0
    assert node.GetDisplayNode() is not None


def test_segments_carry_standard_terms(scene):
    _, node = segmented(scene)
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    logic.SetMRMLScene(scene)
    for (*_, terminology), (*_, row) in zip(described(node.GetSegmentation()), table()):
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(terminology, entry)
        terms = entry.GetCategoryObject(), entry.GetTypeObject(), entry.GetTypeModifierObject()
        for term, part in zip(terms, ("Category", "Type", "TypeModifier")):
            expected = [row[f"{part}_{field}"] for field in ("CodingScheme", "CodeValue", "CodeMeaning")]
            if any(expected):
                assert [term.GetCodingSchemeDesignator(), term.GetCodeValue(), term.GetCodeMeaning()] == expected
            else:
                assert term is None or not term.GetCodeValue()


def test_every_code_belongs_to_one_structure():
    codes = {}
    for structure in structures():
        codes.setdefault((structure.type.scheme, structure.type.value), set()).add(structure.unsided_name)
    assert all(len(names) == 1 for names in codes.values()), codes
    assert all(structure.type.value.isdigit() for structure in structures())


KIDNEY = Structure(
    300,
    "Left Kidney",
    (185, 102, 83),
    Code("SCT", "123037004", "Anatomical Structure"),
    Code("SCT", "64033007", "Kidney"),
    Code("SCT", "7771000", "Left"),
)
USERS = Parameters(model="abdomen-ct")
LIVER = Structure(7, "Liver", (221, 130, 101), KIDNEY.category, Code("SCT", "10200004", "Liver"), Code("", "", ""))


def labels_of(array, image):
    """Labels of more than a byte on the grid of an image, indexed ``[k, j, i]``."""
    labels = sitk.GetImageFromArray(array.astype(np.uint16))
    labels.CopyInformation(image)
    return labels


def test_structures_of_a_user_trained_model_have_their_segments(scene):
    volume, array = volume_node(scene, directions=OBLIQUE), np.zeros(SIZE[::-1])
    array[8, 1, 4], array[2, 2, 2] = 300, 7
    labels = labels_of(array, volume_nodes.image_of(volume))
    node = segmentation_nodes.add_segmentation(volume, result_of(labels, (LIVER, KIDNEY), parameters=USERS))
    assert node.GetName() == "T1 structures (abdomen-ct)"
    found = described(node.GetSegmentation())
    assert [entry[:4] for entry in found] == [
        ("Liver", "Liver", (221, 130, 101), 7),
        ("Left-Kidney", "Left Kidney", (185, 102, 83), 300),
    ]
    assert "SCT^64033007^Kidney~SCT^7771000^Left" in found[1][4]
    (at,) = points_of(node, "Left-Kidney")
    np.testing.assert_allclose(at, ras(OBLIQUE, (4, 1, 8)), atol=1e-4)
    assert len(points_of(node, "Liver")) == 1


def test_a_single_slice_is_for_user_trained_models_only(scene):
    volume = volume_node(scene, size=(7, 9, 1))
    assert "single slice" in volume_nodes.problem(volume)
    assert volume_nodes.problem(volume, bundled=False) == ""
    array = np.zeros((1, 9, 7))
    array[0, 5, 3] = 300
    labels = labels_of(array, volume_nodes.image_of(volume))
    node = segmentation_nodes.add_segmentation(
        volume, result_of(labels, (LIVER, KIDNEY), parameters=USERS), provenance.content_of(volume)
    )
    (at,) = points_of(node, "Left-Kidney")
    np.testing.assert_allclose(at, ras(np.eye(3), (3, 5, 0)), atol=1e-4)


def test_segments_share_one_labelmap(scene):
    _, node = segmented(scene)
    assert node.GetSegmentation().GetNumberOfLayers() == 1


@pytest.mark.parametrize("name", GRIDS)
def test_a_voxel_stays_where_it_was(scene, name):
    index = (4, 1, 8)
    volume, node = segmented(scene, {index: 17}, directions=GRIDS[name])
    (found,) = points_of(node, "Left-Hippocampus")
    np.testing.assert_allclose(found, ras(GRIDS[name], index), atol=1e-4)
    image = volume_nodes.image_of(volume)
    expected = ras(GRIDS[name], index) * (-1, -1, 1)  # SimpleITK's world is LPS
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), expected, atol=1e-4)
    assert image[index] == index[0] + SIZE[0] * (index[1] + SIZE[1] * index[2])


def test_a_volume_cropped_out_of_a_larger_one(scene):
    start, index = np.array((3, -2, 5)), np.array((4, 1, 8))
    volume, node = segmented(scene, {tuple(index.tolist()): 17}, directions=OBLIQUE, start=tuple(start.tolist()))
    (found,) = points_of(node, "Left-Hippocampus")
    np.testing.assert_allclose(found, ras(OBLIQUE, index + start), atol=1e-4)
    at = volume_nodes.image_of(volume).TransformIndexToPhysicalPoint(index.tolist())
    np.testing.assert_allclose(at, found * (-1, -1, 1), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_voxels_of_any_type(scene, dtype):
    image = volume_nodes.image_of(volume_node(scene, size=(3, 4, 5), dtype=dtype))
    assert sitk.GetArrayFromImage(image).ravel().tolist() == list(range(60))


def test_reference_geometry_is_the_volumes(scene):
    _, node = segmented(scene, directions=OBLIQUE)
    text = node.GetSegmentation().GetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    )
    geometry = [float(value) for value in text.split(";") if value]
    matrix = np.array(geometry[:16]).reshape(4, 4)
    np.testing.assert_allclose(matrix[:3, :3], OBLIQUE * SPACING, atol=1e-4)
    np.testing.assert_allclose(matrix[:3, 3], ORIGIN, atol=1e-4)
    assert geometry[16:] == [0, SIZE[0] - 1, 0, SIZE[1] - 1, 0, SIZE[2] - 1]


def test_the_result_follows_the_volumes_transform(scene):
    volume = volume_node(scene, directions=OBLIQUE)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
    moved = vtk.vtkMatrix4x4()
    moved.SetElement(0, 3, 100.0)
    transform.SetMatrixTransformToParent(moved)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    before = volume_nodes.voxel_to_ras(volume)
    image = volume_nodes.image_of(volume)
    np.testing.assert_allclose(np.array(image.GetOrigin()) * (-1, -1, 1), ORIGIN, atol=1e-6)
    node = segmentation_nodes.add_segmentation(volume, result_of(labels_like(image, {(4, 1, 8): 17})))
    assert node.GetTransformNodeID() == transform.GetID()
    (found,) = points_of(node, "Left-Hippocampus")  # in the node's own space
    np.testing.assert_allclose(found, ras(OBLIQUE, (4, 1, 8)), atol=1e-4)
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    assert bounds[0] > 0  # the volume lies left of 0, the transform takes it to the right
    np.testing.assert_array_equal(volume_nodes.voxel_to_ras(volume), before)


def test_results_are_named_apart_and_kept(scene):
    volume, first = segmented(scene)
    second = segmentation_nodes.add_segmentation(volume, result_of(labels_like(volume_nodes.image_of(volume))))
    assert first.GetName() == "T1 structures (U-Net scSE)"
    assert second.GetName() != first.GetName() and second.GetName().startswith("T1 structures (U-Net scSE)")
    assert first.GetSegmentation().GetNumberOfSegments() == 31
    assert second.GetSegmentation() is not first.GetSegmentation()


def test_nothing_else_in_the_scene_changes(scene):
    volume = volume_node(scene, directions=OBLIQUE)
    image = volume_nodes.image_of(volume)
    voxels = vtk_to_numpy(volume.GetImageData().GetPointData().GetScalars()).copy()
    changed, nodes = volume.GetMTime(), {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}
    node = segmentation_nodes.add_segmentation(volume, result_of(labels_like(image)))
    added = {scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())}
    added = {entry.GetClassName() for entry in added if entry.GetID() not in nodes}
    assert added <= {"vtkMRMLSegmentationNode", "vtkMRMLSegmentationDisplayNode", "vtkMRMLSubjectHierarchyNode"}
    assert volume.GetMTime() == changed
    np.testing.assert_array_equal(vtk_to_numpy(volume.GetImageData().GetPointData().GetScalars()), voxels)
    scene.RemoveNode(node)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_saved_and_read_again_by_slicer(scene, tmp_path):
    index = (4, 1, 8)
    volume, node = segmented(scene, {index: 60}, directions=GRIDS["oblique, left-handed"])
    path = str(tmp_path / "T1 bøhm.seg.nrrd")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(path)
    assert storage.WriteData(node) == 1
    read = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Read")
    reading = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    reading.SetFileName(path)
    assert reading.ReadData(read) == 1
    assert described(read.GetSegmentation()) == described(node.GetSegmentation())
    (found,) = points_of(read, "Right-Ventral-DC")
    np.testing.assert_allclose(found, ras(GRIDS["oblique, left-handed"], index), atol=1e-3)


def test_what_is_doubtful_or_cut_off_stays_with_the_node(scene):
    volume = volume_node(scene)
    labels, add = labels_like(volume_nodes.image_of(volume), {(4, 1, 8): 17}), segmentation_nodes.add_segmentation
    node = add(volume, result_of(labels, implausibility="It is upside down.", cut_off=(17, 16)))
    found = segmentation_nodes.segmentation_of(node)
    assert found.implausibility == "It is upside down." and found.cut_off == (17, 16)
    rows = {row["structure"]: row for row in volume_table.rows(found)}
    assert "upside down" in rows["Whole brain"]["remark"] and rows["Hippocampus"]["cut_off"] == "left"
    plain = segmentation_nodes.segmentation_of(add(volume, result_of(labels)))
    assert plain.implausibility == "" and plain.cut_off == ()


def test_a_saved_scene_brings_it_back(scene, tmp_path):
    _, node = segmented(scene, {(4, 1, 8): 17}, directions=OBLIQUE)
    expected = described(node.GetSegmentation())
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(str(tmp_path / "result.seg.nrrd"))
    assert node.GetStorageNode().WriteData(node) == 1
    scene.SetRootDirectory(str(tmp_path))
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    scene.Clear(True)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    scene.SetURL(str(tmp_path / "scene.mrml"))
    scene.Connect()
    again = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert again.GetName() == "T1 structures (U-Net scSE)"
    assert described(again.GetSegmentation()) == expected
    (found,) = points_of(again, "Left-Hippocampus")
    np.testing.assert_allclose(found, ras(OBLIQUE, (4, 1, 8)), atol=1e-3)


def test_sheared_axes_are_refused_in_words(scene):
    sheared = np.eye(3)
    sheared[1, 2] = 0.2
    with pytest.raises(SEBrainSegError, match="right angles"):
        volume_nodes.image_of(volume_node(scene, directions=sheared))


def test_rounded_directions_of_a_header_are_accepted(scene):
    node = volume_node(scene, directions=np.round(OBLIQUE, 4))
    assert volume_nodes.problem(node) == ""


def test_unusable_volumes_are_refused_in_words(scene):
    assert "Choose" in volume_nodes.problem(None)
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    assert "has no voxels" in volume_nodes.problem(empty)
    assert "single slice" in volume_nodes.problem(volume_node(scene, size=(7, 9, 1)))
    colour = volume_node(scene)
    scalars = numpy_to_vtk(np.zeros((np.prod(SIZE), 3), np.uint8), deep=True)
    colour.GetImageData().GetPointData().SetScalars(scalars)
    assert "several values" in volume_nodes.problem(colour)


def test_labels_of_other_voxels_are_not_shown(scene):
    volume = volume_node(scene)
    labels, voxels = labels_like(volume_nodes.image_of(volume)), provenance.content_of(volume)
    volume.GetImageData().GetPointData().GetScalars().Modified()  # in time only
    assert segmentation_nodes.add_segmentation(volume, result_of(labels), voxels) is not None
    volume.GetImageData().SetScalarComponentFromDouble(1, 2, 3, 0, -1)
    with pytest.raises(SEBrainSegError, match="was changed during the segmentation; segment it again"):
        segmentation_nodes.add_segmentation(volume, result_of(labels), voxels)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


@pytest.mark.parametrize("edit", ["spacing", "origin", "directions"])
def test_a_grid_that_was_edited_during_the_run_is_not_taken_for_the_one_segmented(scene, edit):
    volume = volume_node(scene)
    labels, content = labels_like(volume_nodes.image_of(volume)), provenance.content_of(volume)
    if edit == "spacing":
        volume.SetSpacing(*(2 * SPACING))
    elif edit == "origin":
        volume.SetOrigin(0, 0, 0)
    else:
        volume.SetIJKToRASDirections(*GRIDS["coronal"].ravel())
    before = scene.GetNumberOfNodes()
    with pytest.raises(SEBrainSegError, match="'T1' was changed during the segmentation"):
        segmentation_nodes.add_segmentation(volume, result_of(labels), content)
    assert scene.GetNumberOfNodes() == before


def test_a_transform_of_the_volume_may_change_during_the_run(scene):
    volume = volume_node(scene)
    labels, content = labels_like(volume_nodes.image_of(volume)), provenance.content_of(volume)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    node = segmentation_nodes.add_segmentation(volume, result_of(labels), content)
    assert node.GetTransformNodeID() == transform.GetID()
    assert provenance.find_result(volume, provenance.SEGMENTATION, Parameters()) is node


@pytest.fixture
def checksums(monkeypatch):
    """How many checksums of voxels were computed, as a list of one number."""
    count, original = [0], provenance.zlib.crc32

    def crc32(voxels):
        count[0] += 1
        return original(voxels)

    monkeypatch.setattr(provenance.zlib, "crc32", crc32)
    return count


def test_voxels_are_read_once_until_they_change(scene, checksums):
    volume, _ = segmented(scene)
    checksums[0] = 0
    voxels = vtk_to_numpy(volume.GetImageData().GetPointData().GetScalars())
    for _ in range(3):
        assert provenance.find_result(volume, provenance.SEGMENTATION, Parameters()) is not None
    assert checksums[0] == 0
    voxels[5] += 1
    volume.GetImageData().GetPointData().GetScalars().Modified()
    assert provenance.find_result(volume, provenance.SEGMENTATION, Parameters()) is None and checksums[0] == 1
    voxels[5] -= 1
    volume.GetImageData().Modified()
    assert provenance.find_result(volume, provenance.SEGMENTATION, Parameters()) is not None and checksums[0] == 2
    # Another place is seen although no voxel is looked at anew.
    volume.SetOrigin(0, 0, 0)
    assert provenance.find_result(volume, provenance.SEGMENTATION, Parameters()) is None and checksums[0] == 2


def test_the_frames_of_a_sequence_that_is_played_again_are_read_once(scene, checksums):
    volume, _ = segmented(scene)
    frames = []
    for number in range(3):
        frame = vtk.vtkImageData()
        frame.DeepCopy(volume.GetImageData())
        vtk_to_numpy(frame.GetPointData().GetScalars())[number] += 1
        frames.append(frame)
    checksums[0] = 0
    for _ in range(4):
        for frame in frames:
            volume.SetAndObserveImageData(frame)
            assert provenance.find_result(volume, provenance.SEGMENTATION, Parameters()) is None
    assert checksums[0] == 3


def test_an_error_leaves_nothing_half_made(scene, monkeypatch):
    def fails(*_):
        raise MemoryError

    volume = volume_node(scene)
    labels = labels_like(volume_nodes.image_of(volume))
    monkeypatch.setattr(segmentation_nodes, "add_segments", fails)
    with pytest.raises(MemoryError):
        segmentation_nodes.add_segmentation(volume, result_of(labels))
    for kind in ("vtkMRMLSegmentationNode", "vtkMRMLSegmentationDisplayNode"):
        assert scene.GetNumberOfNodesByClass(kind) == 0


def test_labels_of_a_volume_that_changed_are_not_shown(scene):
    volume = volume_node(scene)
    labels = labels_like(volume_nodes.image_of(volume))
    volume.SetAndObserveImageData(volume_node(scene, size=(3, 3, 3)).GetImageData())
    with pytest.raises(SEBrainSegError, match="changed"):
        segmentation_nodes.add_segmentation(volume, result_of(labels))
    scene.RemoveNode(volume)
    with pytest.raises(SEBrainSegError, match="removed"):
        segmentation_nodes.add_segmentation(volume, result_of(labels))
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def loaded(scene, path):
    """A volume node that was loaded as Slicer loads one."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1")
    storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    node.SetAndObserveStorageNodeID(storage.GetID())
    return node


@pytest.mark.parametrize(
    "kind", ["codes 0", "Analyze", "negative spacing", "MetaImage without axes", "NRRD without space"]
)
def test_a_volume_whose_file_leaves_open_how_the_head_lies_is_doubted_until_somebody_turns_it(scene, tmp_path, kind):
    name, write = UNKNOWN[kind]
    write(tmp_path / name, np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6))
    node = loaded(scene, tmp_path / name)
    assert "left and right may be exchanged" in volume_nodes.doubt(node)
    assert not volume_nodes.problem(node)
    directions = np.diag((1.0, -1.0, 1.0))
    node.SetIJKToRASDirections(*directions.ravel())
    assert volume_nodes.doubt(node) == ""


def test_a_volume_whose_file_says_it_or_has_gone_is_not_doubted(scene, tmp_path):
    assert volume_nodes.doubt(None) == "" and volume_nodes.doubt(volume_node(scene)) == ""
    image = sitk.GetImageFromArray(np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6))
    sitk.WriteImage(image, str(tmp_path / "stated.nii"))
    sitk.WriteImage(image, str(tmp_path / "stated.nrrd"))
    for name in ("stated.nii", "stated.nrrd"):
        assert volume_nodes.doubt(loaded(scene, tmp_path / name)) == ""
    name, write = UNKNOWN["codes 0"]
    write(tmp_path / name, sitk.GetArrayFromImage(image))
    node = loaded(scene, tmp_path / name)
    (tmp_path / name).unlink()
    assert volume_nodes.doubt(node) == ""
