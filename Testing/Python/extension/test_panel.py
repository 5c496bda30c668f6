"""Slicer's panel: the real .ui and the real module file, with stand-ins for what only Slicer's application has."""

import dataclasses
import enum
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time
import types
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import SimpleITK as sitk

from SEBrainSegLib.analysis import volume_table
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.structures import Code, Group, Structure, structures
from SEBrainSegLib.choices.vocabulary import Variant
from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.inference.result import Segmentation
from SEBrainSegLib.networks import bundled
from SEBrainSegLib.panel import self_test
from slicer_stand_ins import (  # noqa: F401
    MODULE,
    SOURCE,
    UI,
    Clipboard,
    FileDialog,
    QtCore,
    QtGui,
    Run,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
    Search,
    application_fixture,
    load_ui,
    models_fixture,
    module_fixture,
    module_of,
    named,
    segmentations,
    slicer,
    volume,
    vtk,
    widget_fixture,
)
from vocabularies import add_member

LIVER = Structure(300, "Liver", (221, 130, 101), *3 * [Code("SCT", "10200004", "Liver")])


# The .ui file --------------------------------------------------------------------------------------------------------


def test_widgets_that_the_code_uses_are_in_the_panel(application):
    used = set(re.findall(r"self\.ui\.(\w+)", SOURCE))
    assert used and used <= set(vars(named(load_ui())))


# Lists whose entries come and go are filled by the code.
LISTED = {"architecture", "model", "structures", "device", "block", "compared"}


def test_bound_widgets_are_fields_of_the_parameter_node(module, application):
    bound = {w.property("SlicerParameterName") for w in vars(named(load_ui())).values()} - {None}
    assert bound == set(module.SEBrainSegParameterNode.fields) - LISTED


def test_top_widget_passes_the_scene_on():
    root = ElementTree.parse(UI).getroot()
    assert root.find("widget").get("class") == "qMRMLWidget"
    receivers = {connection.findtext("receiver") for connection in root.iter("connection")}
    selectors = {w.get("name") for w in root.iter("widget") if w.get("class").startswith("qMRMLNode")}
    assert selectors and selectors <= receivers


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_panel_can_be_seen(widget, application, tmp_path, monkeypatch, theme):
    """Pictures for a person to look at: collapsed in mid-run, and all of it with results."""
    palette = application.palette()
    if theme == "dark":
        application.setPalette(dark_palette())
    node = volume(name="colin27_t1")
    widget.parameterNode.volume = node
    widget.ui.volumeSelector.addItem(node.GetName())
    Search.made.found({"cuda:0": "NVIDIA A100-SXM4-80GB (cuda:0)"})
    widget.onApply()
    Run.made.progress(0.43, "Segmenting coronal slices on cpu")
    panel = widget.layout.itemAt(0).widget()
    panel.resize(380, 600)
    panel.show()
    application.processEvents()
    assert panel.grab().save(str(tmp_path / f"running {theme}.png"))
    assert panel.minimumSizeHint().width() <= 380
    Run.made.finish()
    widget.ui.compareButton.click()
    Run.made.finish()
    widget.ui.volumesButton.click()
    for section in ("advancedCollapsibleButton", "mapsCollapsibleButton"):
        getattr(widget.ui, section).collapsed = False
    panel.resize(380, 1100)
    application.processEvents()
    assert panel.grab().save(str(tmp_path / f"results {theme}.png"))
    assert panel.minimumSizeHint().width() <= 380
    widget.parameterNode.volume = volume(name="sub-0123456789_ses-baseline_acq-mprage_rec-norm_run-01_desc-raw_T1w")
    widget.ui.volumeSelector.addItem(widget.parameterNode.volume.GetName())
    applied(widget)
    application.processEvents()
    assert panel.minimumSizeHint().width() <= 380
    application.setPalette(palette)


def dark_palette():
    """Much like that of Slicer's dark style."""
    palette, role = QtGui.QPalette(), QtGui.QPalette
    for roles, colour in (
        ((role.Window, role.Button), (50, 50, 50)),
        ((role.Base, role.AlternateBase), (35, 35, 35)),
        ((role.WindowText, role.Text, role.ButtonText), (220, 220, 220)),
        ((role.PlaceholderText,), (150, 150, 150)),
    ):
        for each in roles:
            palette.setColor(each, QtGui.QColor(*colour))
    for each in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(role.Disabled, each, QtGui.QColor(120, 120, 120))
    return palette


# What the panel does -------------------------------------------------------------------------------------------------


def test_the_scene_offers_exactly_what_the_panel_needs():
    from SEBrainSegLib import scene
    from SEBrainSegLib.panel.collaborators import Scene

    assert set(scene.__all__) == {name for name in vars(Scene) if not name.startswith("_")}
    for name in scene.__all__:
        needed, offered = (list(inspect.signature(getattr(of, name)).parameters) for of in (Scene, scene))
        assert offered[: len(needed) - 1] == needed[1:], name


def test_importing_the_module_imports_neither_torch_nor_simpleitk(module):
    heavy = {
        "torch",
        "SimpleITK",
        "SEBrainSegLib.scene.volume_nodes",
        "SEBrainSegLib.inference.run",
        "SEBrainSegLib.networks.bundled",
    }
    assert not re.search(r"^(import|from) (torch|SimpleITK|PyTorchUtils)", SOURCE, re.MULTILINE)
    assert not heavy & module.imported


def test_opening_the_panel_imports_neither_torch_nor_simpleitk(module):
    code = (
        "import sys; heavy = ('torch', 'SimpleITK', 'nibabel')\n"
        "from SEBrainSegLib import scene\n"
        "from SEBrainSegLib.analysis import volume_table\n"
        "from SEBrainSegLib.panel import presenter\n"
        "from SEBrainSegLib.subprocesses import background\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(MODULE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def items(box):
    return [box.itemText(index) for index in range(box.count)]


def test_choices_are_offered_by_their_names(widget):
    ui = widget.ui
    assert items(ui.networkComboBox) == ["U-Net", "SD-Net", "DenseNet"]
    assert items(ui.seComboBox) == ["none", "cSE", "sSE", "scSE"]
    assert items(ui.viewComboBox) == ["Coronal", "Axial", "Sagittal", "All three"]
    assert items(ui.protocolComboBox)[0] == "FreeSurfer" and len(items(ui.protocolComboBox)) == 2
    assert items(ui.deviceComboBox)[0] == "Automatic"
    assert chosen(widget) == ("U-Net", "scSE", "Coronal", "FreeSurfer", "Automatic")


def test_only_networks_that_are_bundled_can_be_applied(widget):
    ui = widget.ui
    widget.parameterNode.volume = volume()
    ui.networkComboBox.setCurrentText("DenseNet")
    assert ui.applyButton.enabled
    ui.viewComboBox.setCurrentText("Axial")
    assert not ui.applyButton.enabled
    assert "No DenseNet scSE is bundled for the view 'axial'" in ui.statusLabel.text
    assert ui.applyButton.toolTip == ui.statusLabel.text
    ui.networkComboBox.setCurrentText("U-Net")
    assert ui.applyButton.enabled and ui.statusLabel.text == "Ready: press Apply."
    ui.viewComboBox.setCurrentText("All three")
    assert ui.applyButton.enabled
    ui.seComboBox.setCurrentText("cSE")
    assert not ui.applyButton.enabled and "'all'" in ui.statusLabel.text


def test_a_user_trained_model_stands_beside_the_bundled_networks(widget, models):
    ui = widget.ui
    widget.parameterNode.volume = volume()
    ui.viewComboBox.setCurrentText("Axial")
    ui.seComboBox.setCurrentText("cSE")
    assert not ui.applyButton.enabled
    (models / "abdomen-ct.pt").touch()
    widget.exit()
    widget.enter()
    assert items(ui.networkComboBox) == ["U-Net", "SD-Net", "DenseNet", "abdomen-ct (user-trained)"]
    ui.networkComboBox.setCurrentText("abdomen-ct (user-trained)")
    settled = ui.seComboBox, ui.viewComboBox, ui.protocolComboBox
    assert not any(box.enabled for box in settled) and ui.deviceComboBox.enabled
    assert ui.applyButton.enabled
    ui.applyButton.click()
    assert Run.made.started[1].choices[0].model == "abdomen-ct"
    Run.made.cancel()
    ui.networkComboBox.setCurrentText("U-Net")
    assert all(box.enabled for box in settled) and not ui.applyButton.enabled
    ui.seComboBox.setCurrentText("scSE")
    ui.applyButton.click()
    assert [(each.model, each.view) for each in Run.made.started[1].choices] == [("", "axial")]


def test_a_model_of_a_bundled_networks_name_is_not_mistaken_for_it(widget, models):
    (models / "U-Net.pt").touch()
    (models / "unet.pt").touch()
    widget.parameterNode.volume = volume()
    widget.enter()
    for name in ("U-Net", "unet"):
        widget.ui.networkComboBox.setCurrentText(f"{name} (user-trained)")
        assert widget.parameterNode.model == name
        widget.ui.networkComboBox.setCurrentText("U-Net")
        assert widget.parameterNode.model == ""


def test_a_model_that_has_gone_is_named_and_cannot_be_applied(widget, models):
    widget.parameterNode.volume = volume()
    (models / "knee.pt").touch()
    widget.enter()
    widget.ui.networkComboBox.setCurrentText("knee (user-trained)")
    widget.exit()
    (models / "knee.pt").unlink()
    widget.enter()
    assert widget.ui.networkComboBox.currentText == "knee (user-trained)"
    assert not widget.ui.applyButton.enabled and "no trained model 'knee'" in widget.ui.statusLabel.text
    widget.ui.networkComboBox.setCurrentText("U-Net")
    widget.enter()
    assert items(widget.ui.networkComboBox) == ["U-Net", "SD-Net", "DenseNet"]


def test_a_scene_that_names_another_model_is_shown(widget):
    widget.parameterNode.model = "of another computer"
    assert widget.ui.networkComboBox.currentText == "of another computer (user-trained)"


def test_a_user_trained_models_structures_become_segments(widget, models):
    (models / "abdomen-ct.pt").touch()
    widget.enter()
    widget.parameterNode.volume = volume(size=(6, 5, 1), name="Slice")
    assert not widget.ui.applyButton.enabled and "single slice" in widget.ui.statusLabel.text
    widget.ui.networkComboBox.setCurrentText("abdomen-ct (user-trained)")
    widget.ui.applyButton.click()
    Run.made.finish((LIVER,))
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert node.GetName() == "Slice structures (abdomen-ct)"
    assert node.GetSegmentation().GetNumberOfSegments() == 1
    assert node.GetSegmentation().GetSegment("Liver").GetLabelValue() == 300


def test_apply_is_enabled_exactly_when_it_can_work(widget):
    ui = widget.ui
    assert not ui.applyButton.enabled and ui.applyButton.toolTip == ui.statusLabel.text != ""
    widget.parameterNode.volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    assert not ui.applyButton.enabled and "has no voxels" in ui.statusLabel.text
    node = volume()
    widget.parameterNode.volume = node
    assert ui.applyButton.enabled and ui.statusLabel.text == "Ready: press Apply."
    node.SetAndObserveImageData(None)
    assert not ui.applyButton.enabled and "has no voxels" in ui.applyButton.toolTip


def test_a_doubt_about_a_volume_stands_beside_it(widget, monkeypatch):
    from SEBrainSegLib import scene as nodes

    widget.parameterNode.volume = volume()
    label = widget.ui.doubtLabel
    assert label.isHidden()
    monkeypatch.setattr(nodes, "doubt", lambda node: "Left and right may be exchanged.")
    widget.update()
    assert not label.isHidden() and label.text == "Left and right may be exchanged." and widget.ui.applyButton.enabled
    widget.parameterNode.volume = None
    assert label.isHidden()


def test_a_loaded_volume_is_chosen_on_entering(widget):
    node = volume()
    widget.exit()
    widget.enter()
    assert widget.parameterNode.volume is node and widget.ui.applyButton.enabled


def test_what_cannot_be_segmented_is_not_chosen_on_entering(widget):
    for kind in ("LabelMapVolume", "VectorVolume", "ScalarVolume"):
        node = slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node", f"Other {kind}")
        node.SetAndObserveImageData(volume().GetImageData())
        slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetFirstNodeByName("T1"))
        node.SetHideFromEditors(kind == "ScalarVolume")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    widget.enter()
    assert widget.parameterNode.volume is None
    node = volume()
    widget.enter()
    assert widget.parameterNode.volume is node


OTHERS = ("DenseNet", "sSE", "All three", "Neuromorphometrics (manual)", "CPU")


def boxes(widget):
    ui = widget.ui
    return ui.networkComboBox, ui.seComboBox, ui.viewComboBox, ui.protocolComboBox, ui.deviceComboBox


def choose(widget):
    for box, other in zip(boxes(widget), OTHERS):
        box.setCurrentText(other)


def chosen(widget):
    """What the panel shows, which is what the node holds."""
    shown, node = tuple(box.currentText for box in boxes(widget)), widget.parameterNode
    assert shown[:4] == tuple(choice.label() for choice in (node.architecture, node.se, node.view, node.protocol))
    assert {"Automatic": "auto", "CPU": "cpu"}[shown[4]] == node.device
    return shown


def test_entering_keeps_the_choices(widget):
    widget.enter()
    assert chosen(widget)[0] == "U-Net"
    choose(widget)
    widget.enter()
    assert chosen(widget) == OTHERS
    widget.exit()
    widget.enter()
    assert chosen(widget) == OTHERS


def test_entering_anew_binds_nothing_twice(widget):
    bound = widget.parameterNode
    widget.enter()
    assert widget.parameterNode is bound


def test_a_binding_that_cannot_be_undone_keeps_the_choices(widget, monkeypatch):
    monkeypatch.setattr(type(widget.parameterNode), "disconnectGui", lambda self, tag: None)
    choose(widget)
    widget.exit()
    widget.enter()
    assert chosen(widget) == OTHERS


def test_the_choices_of_a_closed_scene_are_let_go(widget):
    old = widget.parameterNode
    slicer.mrmlScene.InvokeEvent(slicer.vtkMRMLScene.StartCloseEvent)
    ScriptedLoadableModuleLogic.store = types.SimpleNamespace(values={}, observed=vtk.vtkObject())
    slicer.mrmlScene.InvokeEvent(slicer.vtkMRMLScene.EndCloseEvent)
    choose(widget)
    assert chosen(widget) == OTHERS
    assert old.se.label() == "scSE"


def test_apply_segments_with_the_choices_and_makes_a_node(widget):
    widget.parameterNode.volume = volume()
    widget.ui.seComboBox.setCurrentText("cSE")
    widget.ui.deviceComboBox.setCurrentText("CPU")
    widget.ui.protocolComboBox.setCurrentText("Neuromorphometrics (manual)")
    widget.ui.applyButton.click()
    image, job = Run.made.started
    (parameters,) = job.choices
    assert image.GetSize() == (6, 5, 4)
    assert (parameters.se, parameters.device, parameters.protocol) == ("cse", "cpu", "manual")
    assert not widget.ui.applyButton.enabled and widget.ui.cancelButton.enabled
    assert not widget.ui.inputsCollapsibleButton.enabled and not widget.ui.progressBar.isHidden()
    Run.made.progress(0.5, "Halfway")
    assert widget.ui.progressBar.value == 50 and widget.ui.statusLabel.text == "Halfway"
    Run.made.finish()
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert node.GetName() == "T1 structures (U-Net cSE, manual protocol)"
    assert node.GetSegmentation().GetNumberOfSegments() == 31
    assert node.GetName() in widget.ui.statusLabel.text
    assert widget.ui.applyButton.enabled and not widget.ui.cancelButton.enabled
    assert widget.ui.progressBar.isHidden()


def test_labels_of_other_voxels_are_not_shown(widget):
    node = volume()
    widget.parameterNode.volume = node
    widget.ui.applyButton.click()
    node.GetImageData().GetPointData().GetScalars().Fill(6)
    Run.made.finish()
    assert "was changed during the segmentation; segment it again" in widget.ui.statusLabel.text
    assert segmentations() == 0 and widget.ui.applyButton.enabled


def test_cancel_leaves_nothing(widget):
    widget.parameterNode.volume = volume()
    widget.ui.applyButton.click()
    widget.ui.cancelButton.click()
    assert "Cancelled" in widget.ui.statusLabel.text and widget.ui.applyButton.enabled
    assert segmentations() == 0


def test_a_failure_is_shown_and_can_be_repeated(widget):
    widget.parameterNode.volume = volume()
    widget.ui.applyButton.click()
    Run.made.end(Run.made.failed, "Only 3 ml of brain were found; choose another scan.")
    assert widget.ui.statusLabel.text == "Only 3 ml of brain were found; choose another scan."
    assert widget.ui.applyButton.enabled


def test_what_was_refused_as_unlikely_is_shown_by_a_button(widget):
    widget.parameterNode.volume = volume()
    assert widget.ui.acceptButton.isHidden()
    widget.ui.applyButton.click()
    assert widget.ui.acceptButton.isHidden()
    Run.made.end(Run.made.failed, "The cerebellum lies above the thalamus.", True)
    assert not widget.ui.acceptButton.isHidden() and widget.ui.acceptButton.enabled
    assert widget.ui.acceptButton.text == "Show it all the same"
    widget.ui.acceptButton.click()
    assert Run.made.started[1].accept_unlikely and widget.ui.acceptButton.isHidden()
    Run.made.finish()
    assert segmentations() == 1 and widget.ui.acceptButton.isHidden()


def test_removing_the_volume_ends_its_run(widget):
    other, node = volume(name="Other"), volume()
    widget.parameterNode.volume = node
    widget.ui.applyButton.click()
    slicer.mrmlScene.RemoveNode(other)
    assert Run.made.running
    slicer.mrmlScene.RemoveNode(node)
    assert not Run.made.running and segmentations() == 0
    assert "removed" in widget.ui.statusLabel.text


def test_closing_the_scene_ends_the_run(widget):
    widget.parameterNode.volume = volume()
    widget.ui.applyButton.click()
    slicer.mrmlScene.InvokeEvent(slicer.vtkMRMLScene.StartCloseEvent)
    assert not Run.made.running and widget.parameterNode is None and not widget.ui.applyButton.enabled
    slicer.mrmlScene.InvokeEvent(slicer.vtkMRMLScene.EndCloseEvent)
    assert widget.parameterNode is not None


def test_the_end_of_the_panel_ends_the_run(widget):
    widget.parameterNode.volume = volume()
    widget.ui.applyButton.click()
    widget.cleanup()
    assert not Run.made.running and not widget.observations


def test_a_run_goes_on_while_another_module_is_shown(widget):
    widget.parameterNode.volume = volume()
    widget.ui.applyButton.click()
    widget.exit()
    Run.made.finish()
    assert segmentations() == 1
    widget.enter()
    assert widget.ui.statusLabel.text.startswith("Created")


def test_pytorch_is_asked_for_when_needed_and_a_refusal_is_said(widget, module, monkeypatch):
    asked = []

    class PyTorchUtilsLogic:
        def installTorch(self, **choices):
            asked.append(choices)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module_of(PyTorchUtilsLogic=PyTorchUtilsLogic))
    widget.parameterNode.volume = volume()
    assert not asked
    widget.ui.applyButton.click()
    assert asked == [{"askConfirmation": True, "torchVersionRequirement": ">=2.2"}]
    assert "PyTorch was not installed" in widget.ui.statusLabel.text
    assert not Run.made.running and widget.ui.applyButton.enabled
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    widget.ui.applyButton.click()
    assert "Extensions Manager" in widget.ui.statusLabel.text


def test_apply_waits_for_the_installation_of_pytorch(widget, monkeypatch):
    seen = []

    def install():
        seen.append((widget.ui.applyButton.enabled, widget.ui.inputsCollapsibleButton.enabled, Run.made.running))
        assert widget.ui.statusLabel.text == "Starting..."
        if len(seen) == 1:
            widget.onApply()

    monkeypatch.setattr("SEBrainSegLib.panel.application.ensure_torch", install)
    widget.parameterNode.volume = volume()
    widget.ui.applyButton.click()
    assert seen == [(False, False, False)]
    assert Run.made.running and widget.ui.cancelButton.enabled


def test_apply_can_be_pressed_again_after_an_unforeseen_failure(widget, monkeypatch):
    monkeypatch.setattr("SEBrainSegLib.panel.application.ensure_torch", lambda: 1 / 0)
    widget.parameterNode.volume = volume()
    with pytest.raises(ZeroDivisionError):
        widget.onApply()
    assert widget.ui.applyButton.enabled


def test_a_volume_removed_while_pytorch_is_installed_is_not_segmented(widget, monkeypatch):
    node = volume()
    monkeypatch.setattr("SEBrainSegLib.panel.application.ensure_torch", lambda: slicer.mrmlScene.RemoveNode(node))
    widget.parameterNode.volume = node
    widget.ui.applyButton.click()
    assert Run.made.started is None
    assert "removed" in widget.ui.statusLabel.text


# Scenes that are closed and loaded ------------------------------------------------------------------------------------


class SceneStore:
    """Keeps choices in a node of the scene, as Slicer does: saved with it, and overwritten by what a file says."""

    def __init__(self):
        volume_nodes = slicer.mrmlScene
        self.observed = volume_nodes.GetSingletonNode("SEBrainSeg", "vtkMRMLScriptedModuleNode")
        if self.observed is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag("SEBrainSeg")
            self.observed = volume_nodes.AddNode(node)
        self.values = self

    def get(self, name, default):
        if name == "volume":
            return self.observed.GetNodeReference(name)
        text = self.observed.GetParameter(name)
        if not text:
            return default
        return type(default)[text] if isinstance(default, enum.Enum) else type(default)(json.loads(text))

    def __setitem__(self, name, value):
        if name == "volume":
            self.observed.SetNodeReferenceID(name, value.GetID() if value is not None else None)
        else:
            self.observed.SetParameter(name, value.name if isinstance(value, enum.Enum) else json.dumps(value))


@pytest.fixture
def saved(module, monkeypatch, tmp_path):
    """A file with a scene: a volume that was segmented with sSE, and the choices that go with it."""
    monkeypatch.setattr(ScriptedLoadableModuleLogic, "getParameterNode", lambda self: store())
    stores = []

    def store():
        made = SceneStore()
        if not stores or stores[-1].observed is not made.observed:
            stores.append(made)
        return stores[-1]

    segmentations_logic = slicer.vtkSlicerSegmentationsModuleLogic()
    segmentations_logic.SetMRMLScene(slicer.mrmlScene)
    from SEBrainSegLib.scene import segmentation_nodes, volume_nodes

    node = volume()
    image = volume_nodes.image_of(node)
    labels = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 17
    labels.CopyInformation(image)
    volumes = {structure.label: 1.0 for structure in structures()}
    made = Segmentation(labels, volumes, "cpu", structures(), Parameters(se="sse"))
    for each in (node, segmentation_nodes.add_segmentation(node, made)):
        each.AddDefaultStorageNode()
        each.GetStorageNode().SetFileName(str(tmp_path / f"{each.GetID()}.seg.nrrd"))
        assert each.GetStorageNode().WriteData(each)
    choices = module.SEBrainSegLogic().getParameterNode()
    choices.volume, choices.se = node, module.Variant.SSE
    volume_nodes = slicer.mrmlScene
    volume_nodes.SetRootDirectory(str(tmp_path))
    volume_nodes.SetURL(str(tmp_path / "scene.mrml"))
    assert volume_nodes.Commit()
    volume_nodes.Clear(False)
    assert module.SEBrainSegLogic().getParameterNode().volume is None
    yield volume_nodes
    del segmentations_logic


def test_a_scene_that_is_loaded_in_place_works_at_once(saved, widget):
    ui = widget.ui
    assert not ui.applyButton.enabled and "Choose a T1" in ui.statusLabel.text
    events = []
    for name in ("StartClose", "EndClose", "StartImport", "EndImport", "StartBatchProcess", "EndBatchProcess"):
        event = getattr(saved, f"{name}Event")
        saved.AddObserver(event, lambda caller, event, name=name: events.append(name), -1.0)
    assert saved.Connect()
    assert events[0] == "StartBatchProcess" and events[-2:] == ["EndImport", "EndBatchProcess"]
    node = slicer.mrmlScene.GetFirstNodeByName("T1")
    assert widget.parameterNode.volume is node and ui.seComboBox.currentText == "sSE"
    assert ui.applyButton.enabled and ui.statusLabel.text == "Ready: press Apply."
    assert ui.resultLabel.text == "T1 structures (U-Net sSE)" and ui.show3dButton.enabled
    assert not ui.resultCollapsibleButton.collapsed
    Run.made.started = None
    ui.applyButton.click()
    assert Run.made.started is None and "earlier run" in ui.statusLabel.text


def test_a_scene_that_is_loaded_in_mid_run_ends_it(saved, widget):
    widget.parameterNode.volume = volume(name="Other")
    widget.ui.applyButton.click()
    assert saved.Connect()
    assert not Run.made.running and "Other" not in widget.ui.statusLabel.text
    assert widget.ui.applyButton.enabled and widget.ui.statusLabel.text == "Ready: press Apply."


def test_a_scene_that_is_added_keeps_what_is_there(saved, widget):
    widget.parameterNode.volume = volume(name="Other")
    applied(widget)
    assert saved.Import()
    assert widget.ui.applyButton.enabled and segmentations() == 2


def test_a_scene_that_is_closed_leaves_nothing_to_speak_of(saved, widget):
    widget.parameterNode.volume = volume(name="Other")
    applied(widget)
    assert "Other" in widget.ui.statusLabel.text
    saved.Clear(False)
    ui = widget.ui
    assert "Choose a T1" in ui.statusLabel.text and not ui.applyButton.enabled
    assert "Segment a volume first" in ui.resultLabel.text and not ui.show3dButton.enabled


def test_a_scene_that_is_loaded_beside_another_module_is_taken_up_on_entering(saved, widget):
    widget.exit()
    widget.parent.isEntered = False
    assert saved.Connect()
    assert widget.parameterNode is None
    widget.parent.isEntered = True
    widget.enter()
    assert widget.ui.applyButton.enabled and widget.ui.resultLabel.text == "T1 structures (U-Net sSE)"


# Variants, comparison, maps and result -------------------------------------------------------------------------------


def applied(widget, **choices):
    """Segment a volume with the panel; returns its segmentation node."""
    if widget.parameterNode.volume is None:
        widget.parameterNode.volume = volume()
    for name, text in choices.items():
        getattr(widget.ui, f"{name}ComboBox").setCurrentText(text)
    widget.ui.applyButton.click()
    Run.made.finish()
    count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    return slicer.mrmlScene.GetNthNodeByClass(count - 1, "vtkMRMLSegmentationNode")


def test_going_back_to_a_variant_shows_it_at_once(widget):
    scse, none = applied(widget), applied(widget, se="none")
    assert (scse.GetDisplayVisibility(), none.GetDisplayVisibility()) == (0, 1)
    widget.ui.seComboBox.setCurrentText("scSE")
    assert (scse.GetDisplayVisibility(), none.GetDisplayVisibility()) == (1, 0)
    assert scse.GetName() in widget.ui.statusLabel.text and widget.ui.resultLabel.text == scse.GetName()
    Run.made.started = None
    widget.ui.applyButton.click()
    assert Run.made.started is None and segmentations() == 2
    widget.parameterNode.volume.GetImageData().GetPointData().GetScalars().Fill(6)
    widget.parameterNode.volume.GetImageData().Modified()
    widget.ui.applyButton.click()
    assert Run.made.running


def test_a_variant_that_was_deleted_is_computed_anew(widget):
    slicer.mrmlScene.RemoveNode(applied(widget))
    assert not widget.ui.show3dButton.enabled and not widget.groupBoxes[Group.CORTEX].enabled
    widget.ui.applyButton.click()
    assert Run.made.running


def test_a_line_says_what_to_expect(widget):
    widget.parameterNode.volume = volume()
    assert "parameters" in widget.ui.factsLabel.text and "Dice" in widget.ui.factsLabel.text
    applied(widget)
    assert "20 s on CPU, as last time" in widget.ui.factsLabel.text
    assert slicer.app.kept["SEBrainSeg/seconds/unet-scse-coronal/cpu"] == "20.0"


def test_gpus_are_listed_by_name(widget):
    widget.parameterNode.volume = volume()
    widget.parameterNode.device = "cuda:1"
    assert widget.ui.deviceComboBox.currentText == "cuda:1"
    Search.made.found({"cuda:0": "A100 (cuda:0)"})
    assert items(widget.ui.deviceComboBox) == ["Automatic", "A100 (cuda:0)", "CPU"]
    assert widget.ui.deviceComboBox.currentText == "Automatic" and "no device 'cuda:1'" in widget.ui.statusLabel.text
    widget.ui.deviceComboBox.setCurrentText("A100 (cuda:0)")
    assert widget.parameterNode.device == "cuda:0" and widget.ui.statusLabel.text == "Ready: press Apply."
    widget.cleanup()
    assert Search.made.cancelled


def test_structures_are_chosen_or_typed(widget):
    widget.parameterNode.volume = volume()
    box = widget.ui.structuresComboBox
    assert {"Deep grey matter", "Hippocampus"} < set(items(box)) and box.currentText == ""
    box.setCurrentText("Deep grey matter")
    widget.ui.applyButton.click()
    assert Run.made.started[1].choices[0].structures == "Deep grey matter"
    Run.made.cancel()
    box.setEditText("Left Hippocampus, Amygdala")
    assert widget.parameterNode.structures == "Left Hippocampus, Amygdala" and widget.ui.applyButton.enabled
    widget.exit()
    widget.enter()
    assert box.currentText == "Left Hippocampus, Amygdala"


def test_compare_shows_table_and_disagreement(widget):
    ui, boxes = widget.ui, {variant.value: box for variant, box in widget.variantBoxes.items()}
    widget.parameterNode.volume = volume()
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    assert boxes["none"].checked and boxes["scse"].checked and ui.compareButton.enabled
    boxes["none"].click()
    assert not ui.compareButton.enabled and "two variants" in ui.compareButton.toolTip
    boxes["cse"].click()
    ui.consensusCheckBox.click()
    ui.compareButton.click()
    assert [choice.se for choice in Run.made.started[1].choices] == ["cse", "scse"]
    Run.made.finish()
    assert segmentations() == 3
    table = ui.comparisonTableView.node
    assert table.GetNumberOfRows() == 31 and not ui.comparisonTableView.isHidden()
    assert "disagreement" in slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID()).GetName()
    slicer.mrmlScene.RemoveNode(table)
    assert ui.comparisonTableView.node is None and ui.comparisonTableView.isHidden()
    ui.networkComboBox.setCurrentText("DenseNet")
    assert not boxes["cse"].enabled and "No DenseNet cSE is bundled" in boxes["cse"].toolTip
    assert not ui.compareButton.enabled


def test_a_fifth_variant_and_a_sixth_group_are_in_the_panel(module, monkeypatch, request):
    fifth = add_member(monkeypatch, Variant, "PSE", "pse", "pSE", True, False)
    sixth = add_member(monkeypatch, Group, "EYES", "Eyes", "Eyes")
    names = [*bundled.names(), "unet-pse-coronal"]
    monkeypatch.setattr(bundled, "names", lambda: names)
    widget = request.getfixturevalue("widget")
    assert items(widget.ui.seComboBox) == ["none", "cSE", "sSE", "scSE", "pSE"]
    assert [box.text for box in widget.variantBoxes.values()] == ["none", "cSE", "sSE", "scSE", "pSE"]
    assert widget.groupBoxes[sixth].text == "Eyes" and "Eyes" in items(widget.ui.structuresComboBox)
    widget.parameterNode.volume = volume()
    assert widget.variantBoxes[fifth].enabled and not widget.variantBoxes[fifth].checked
    widget.variantBoxes[fifth].click()
    assert widget.parameterNode.compared == "none,scse,pse"
    widget.ui.compareButton.click()
    assert [choice.se for choice in Run.made.started[1].choices] == ["none", "scse", "pse"]
    Run.made.finish()
    widget.ui.seComboBox.setCurrentText("pSE")
    assert "U-Net pSE" in widget.ui.resultLabel.text


def test_variants_of_a_scene_that_are_not_known_here_are_passed_over(widget):
    widget.parameterNode.volume = volume()
    widget.parameterNode.compared = "none,tse,cse"
    assert [variant.value for variant, box in widget.variantBoxes.items() if box.checked] == ["none", "cse"]
    widget.ui.compareButton.click()
    assert [choice.se for choice in Run.made.started[1].choices] == ["none", "cse"]


def test_maps_are_shown(widget, monkeypatch):
    ui, charts = widget.ui, []
    plots = types.SimpleNamespace(logic=lambda: types.SimpleNamespace(ShowChartInLayout=charts.append))
    monkeypatch.setattr(slicer, "modules", types.SimpleNamespace(plots=plots), raising=False)
    widget.parameterNode.volume = volume()
    assert not ui.mapsButton.enabled and "Choose a block" in ui.mapsButton.toolTip
    ui.blockComboBox.setCurrentText("decoder 4")
    assert widget.parameterNode.block == "decoder 4" and ui.mapsButton.enabled
    ui.confidenceCheckBox.click()
    ui.mapsButton.click()
    job = Run.made.started[1]
    assert (job.excitation, job.confidence) == ("decoder 4", True)
    Run.made.finish()
    assert len(charts) == 1 and charts[0].GetNumberOfPlotSeriesNodes() == 3
    assert segmentations() == 1 and slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 3
    ui.mapsButton.click()
    assert len(charts) == 2 and not Run.made.running
    ui.seComboBox.setCurrentText("none")
    assert not ui.blockComboBox.enabled and items(ui.blockComboBox) == ["none"]
    ui.seComboBox.setCurrentText("scSE")
    assert ui.blockComboBox.currentText == "decoder 4"


def test_groups_of_the_result_are_hidden_and_shown(widget):
    ui, cortex = widget.ui, widget.groupBoxes[Group.CORTEX]
    assert not cortex.enabled and "Segment a volume first" in ui.resultLabel.text
    display = applied(widget).GetDisplayNode()
    assert cortex.enabled and cortex.checked
    cortex.click()
    assert not display.GetSegmentVisibility("Left-Cerebral-Cortex") and display.GetSegmentVisibility("Left-Hippocampus")
    assert not cortex.checked and widget.groupBoxes[Group.DEEP_GREY_MATTER].checked
    cortex.click()
    assert display.GetSegmentVisibility("Left-Cerebral-Cortex")


def test_3d_on_request(widget):
    node = applied(widget)
    widget.ui.show3dButton.click()
    assert Run.made.running and not node.GetDisplayNode().GetVisibility3D()
    Run.made.finish_surfaces()
    assert node.GetSegmentation().ContainsRepresentation("Closed surface") and widget.ui.show3dButton.checked
    assert node.GetDisplayNode().GetVisibility3D() and not widget.presenter.busy
    widget.ui.show3dButton.click()
    assert not node.GetDisplayNode().GetVisibility3D() and not widget.ui.show3dButton.checked


def test_volumes_are_shown_copied_and_saved(widget, tmp_path, monkeypatch):
    ui = widget.ui
    node = applied(widget)
    ui.volumesButton.click()
    table = ui.volumesTableView.node
    assert node.GetName() in table.GetName() and not ui.volumesTableView.isHidden()
    ui.copyButton.click()
    lines = Clipboard.text.splitlines()
    assert lines[0].split("\t")[:2] == ["structure", "left_ml"] and len(lines) == 1 + table.GetNumberOfRows()
    ui.saveButton.click()
    assert FileDialog.asked == f"{node.GetName()}.csv" and not list(tmp_path.glob("*.csv"))
    monkeypatch.setattr(FileDialog, "answer", str(tmp_path / "volumes.csv"))
    ui.saveButton.click()
    assert (tmp_path / "volumes.csv").read_text(encoding="utf-8").startswith("structure,left_ml")
    assert "Saved" in ui.statusLabel.text


def test_the_whole_sequence_is_offered_for_a_volume_of_one(widget, monkeypatch):
    scans = [volume(name=f"Scan {index}") for index in range(2)]
    monkeypatch.setattr("SEBrainSegLib.scene.items", lambda node: scans if node is scans[0] else ())
    widget.parameterNode.volume = volume()
    assert widget.ui.sequenceButton.isHidden()
    widget.parameterNode.volume = scans[0]
    assert not widget.ui.sequenceButton.isHidden() and widget.ui.sequenceButton.enabled


# The developer's reload -----------------------------------------------------------------------------------------------


@pytest.fixture
def reloaded(module, monkeypatch):
    """In the place of Slicer's reload; the library is put back afterwards, as other tests have it."""
    kept = {name: each for name, each in sys.modules.items() if name.split(".")[0] == "SEBrainSegLib"}
    seen = []

    def reload(self):
        seen.append([name for name in sys.modules if name.split(".")[0] == "SEBrainSegLib"])
        exec(compile(SOURCE, str(MODULE), "exec"), vars(module))
        self.cleanup()

    monkeypatch.setattr(ScriptedLoadableModuleWidget, "onReload", reload, raising=False)
    yield seen
    for name in [name for name in sys.modules if name.split(".")[0] == "SEBrainSegLib"]:
        del sys.modules[name]
    sys.modules.update(kept)


def test_reloading_the_module_reloads_its_library(widget, module, reloaded):
    before = module.Parameters
    widget.onReload()
    assert reloaded == [[]]
    assert module.Parameters is not before and module.Parameters.__module__ == "SEBrainSegLib.choices.parameters"


# The tour through a real Slicer, as far as stand-ins go ---------------------------------------------------------------


class OnTour:
    """In the place of what the tour needs of Slicer."""

    def __init__(self, widget, folder):
        self.widget, self.folder, self.pictures, self.looks = widget, folder, [], 0
        self.chart = None
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")

    def handle_events(self):
        self.looks += 1
        if Run.made.running and self.looks % 3 == 0:
            Run.made.finish_surfaces() if Run.made.labelmaps is not None else Run.made.finish()

    def every(self, milliseconds, do):
        self.beat = do

    def take_picture(self, name):
        self.pictures.append(name)

    def arrange(self):
        pass

    def open_panel(self):
        self.widget.enter()
        return self.widget

    def open_another_module(self):
        self.widget.exit()

    def has_sample(self):
        return True

    def load_sample(self):
        return volume(name="SEBrainSeg T1")

    def reset_views(self):
        pass

    def scene(self):
        return slicer.mrmlScene

    def save_scene(self, path):
        return True

    def load_scene(self, path):
        slicer.mrmlScene.InvokeEvent(slicer.vtkMRMLScene.StartImportEvent)
        slicer.mrmlScene.InvokeEvent(slicer.vtkMRMLScene.EndImportEvent)

    def lines_drawn(self):
        charts = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode")
        return 3 * charts

    def legends_drawn(self):
        return 1


def test_the_tour_finds_the_panel_as_it_should_be(widget, monkeypatch, tmp_path, reloaded):
    tour = tour_module()
    monkeypatch.setattr(tour, "CANCELLED_AFTER", -1.0)
    monkeypatch.setattr(tour, "SLEEP", 0.0)
    plots = types.SimpleNamespace(logic=lambda: types.SimpleNamespace(ShowChartInLayout=lambda chart: None))
    monkeypatch.setattr(slicer, "modules", types.SimpleNamespace(plots=plots), raising=False)
    taken = tour.Tour(OnTour(widget, tmp_path), 1000.0)
    steps = taken.steps()
    # There is no other Slicer here that could load the module anew.
    del steps["reload"]
    monkeypatch.setattr(taken, "steps", lambda: steps)
    rows = taken.run()
    assert [(name, wrong) for name, *_, wrong in rows] == [(name, "") for name in steps]
    assert len(taken.slicer.pictures) == len(steps)


def test_the_tour_tells_what_is_wrong_and_goes_on(widget, monkeypatch, tmp_path):
    tour = tour_module()
    monkeypatch.setattr(tour, "SLEEP", 0.0)
    now = [0.0]
    taken = tour.Tour(OnTour(widget, tmp_path), 0.5, clock=lambda: now[0])

    def busy():
        now[0] += 2.0
        taken.slicer.beat()

    def wrong():
        tour.expect(False, "no segments")

    monkeypatch.setattr(taken, "steps", lambda: {"busy": busy, "wrong": wrong, "well": lambda: None})
    assert [row[3] for row in taken.run()] == ["no events were handled for 2.00 s", "no segments", ""]


def tour_module():
    """``Testing/Slicer/tour.py``."""
    spec = importlib.util.spec_from_file_location("tour", Path(__file__).parents[2] / "Slicer" / "tour.py")
    tour = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tour)
    return tour


# The test inside of Slicer -------------------------------------------------------------------------------------------


def test_slicers_own_test_installs_nothing(module, monkeypatch):
    def asked():
        raise AssertionError("PyTorch was asked for")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(module, "ensure_torch", asked)
    util = vars(slicer.util)
    monkeypatch.setitem(util, "loadVolume", lambda path: volume())
    result = unittest.TestResult()
    module.SEBrainSegTest("test_sampleIsSegmented").run(result)
    assert result.wasSuccessful() and "PyTorch is not installed" in result.skipped[0][1]
    module.SEBrainSegTest().runTest()
    assert "PyTorch is not installed" in ScriptedLoadableModuleTest.said


def test_slicers_own_test_runs_the_child_process(module, application, monkeypatch):
    # An even volume, which the child refuses: the test must fail and repeat what it said.
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(slicer.app, "processEvents", application.processEvents)
    monkeypatch.setattr(module.SEBrainSegTest, "sample", lambda self: volume())
    monkeypatch.setattr(slicer.mrmlScene, "Clear", lambda: None, raising=False)
    result = unittest.TestResult()
    module.SEBrainSegTest("test_childProcessSegmentsSample").run(result)
    ((_, said),) = result.failures
    assert "same value" in said and not result.errors


def test_the_self_test_is_a_run_of_the_panel(widget, monkeypatch):
    sample, checked = volume(name="sample"), []
    monkeypatch.setitem(vars(slicer.util), "loadVolume", lambda path: sample)
    monkeypatch.setattr("SEBrainSegLib.panel.self_test.problem", lambda segmentation: checked.append(segmentation))
    widget.ui.selfTestButton.click()
    assert Run.made.running and not widget.ui.selfTestButton.enabled and widget.ui.cancelButton.enabled
    Run.made.finish()
    assert widget.ui.statusLabel.text == "The self-test passed."
    assert slicer.mrmlScene.GetFirstNodeByName("sample structures (U-Net scSE)") is not None
    (segmentation,) = checked
    assert len(segmentation.structures) == 31 and segmentation.labels.GetSize() == (6, 5, 4)
    sample = volume(name="sample")
    widget.ui.selfTestButton.click()
    widget.ui.cancelButton.click()
    assert not sample.GetScene() and segmentations() == 1


def sample_segmentation(size=(20, 4, 4), left=range(14, 18), right=range(2, 6)):
    """All 31 structures on a grid of 10 mm, whose first axis runs to the left; the hippocampi have 4 ml by default."""
    labels = sitk.Image(size, sitk.sitkUInt8)
    labels.SetSpacing((10.0, 10.0, 10.0))
    for label, columns in ((17, left), (53, right)):
        for column in columns:
            labels[column, 1, 1] = label
    return Segmentation(labels, volume_table.volumes_of(labels, structures()), "cpu", structures())


@pytest.mark.parametrize(
    "segmentation, said",
    [
        (sample_segmentation(), ""),
        (sample_segmentation(left=range(2, 6), right=range(14, 18)), "Left and right are exchanged in the bundled"),
        (sample_segmentation(left=()), "'Left Hippocampus' has 0.0 ml in the bundled scan, not 2 to 6 ml."),
        (sample_segmentation(right=range(9)), "'Right Hippocampus' has 9.0 ml in the bundled scan, not 2 to 6 ml."),
        (dataclasses.replace(sample_segmentation(), structures=structures()[1:]), "30 structures were found in the"),
        (dataclasses.replace(sample_segmentation(), labels=None), "does not lie on the grid of the bundled scan"),
    ],
)
def test_what_is_wrong_with_the_bundled_scans_segmentation_is_a_sentence(segmentation, said):
    problem = self_test.problem(segmentation)
    assert said in problem and bool(problem) == bool(said)


def test_a_self_test_that_fails_says_what_to_do(widget, monkeypatch):
    monkeypatch.setitem(vars(slicer.util), "loadVolume", lambda path: volume(name="sample"))
    widget.ui.selfTestButton.click()
    Run.made.finish(structures()[:30])
    said = "The self-test failed: 30 structures were found in the bundled scan, not 31. Install the extension again"
    assert widget.ui.statusLabel.text.startswith(said) and segmentations() == 1


# The call from the Python console ------------------------------------------------------------------------------------


@pytest.fixture
def segment(monkeypatch):
    """In the place of the core's ``run``; returns the jobs that it was called with."""
    called = []

    def run(image, job, progress, cancelled):
        called.append(job)
        stand_in = Run(None, None, progress, None, None, cancelled)
        stand_in.finished = lambda segmentations: made.extend(segmentations)
        made = []
        stand_in.start(image, job)
        stand_in.finish((LIVER,) if job.choices[0].model else None)
        return tuple(made)

    monkeypatch.setattr("SEBrainSegLib.inference.run.run", run, raising=False)
    return called


def test_the_console_call_returns_the_node(module, segment):
    node = module.SEBrainSegLogic().segment(volume(), se="scSE", view="all", protocol="manual")
    (job,) = segment
    assert job.choices == (Parameters("unet", "scse", "all", "auto", "manual"),)
    assert not job.confidence and not job.excitation
    assert node.GetSegmentation().GetNumberOfSegments() == 31 and node.GetScene() is slicer.mrmlScene


def test_the_console_call_takes_user_trained_models(module, segment, models):
    (models / "abdomen-ct.pt").touch()
    node = module.SEBrainSegLogic().segment(volume(size=(6, 5, 1)), model="abdomen-ct", device="cpu")
    assert segment[0].choices == (Parameters(model="abdomen-ct", device="cpu"),)
    assert node.GetSegmentation().GetNthSegment(0).GetName() == "Liver"
    with pytest.raises(SEBrainSegError, match="single slice"):
        module.SEBrainSegLogic().segment(volume(size=(6, 5, 1)))
    with pytest.raises(SEBrainSegError, match="no trained model 'x'"):
        module.SEBrainSegLogic().segment(volume(), model="x")
    assert len(segment) == 1


def test_the_console_call_refuses_in_words(module):
    with pytest.raises(SEBrainSegError, match="choose none, cse, sse or scse"):
        module.SEBrainSegLogic().segment(volume(), se="xse")
    with pytest.raises(SEBrainSegError, match="Choose a T1"):
        module.SEBrainSegLogic().segment(None)
    with pytest.raises(SEBrainSegError, match="No U-Net sSE is bundled for the view 'axial'"):
        module.SEBrainSegLogic().segment(volume(), se="sSE", view="axial")
    assert segmentations() == 0


def test_the_console_call_adds_maps(module, segment):
    node = module.SEBrainSegLogic().segment(volume(), confidence=True, excitation="decoder 1", structures="Hippocampus")
    assert segment[0].choices[0].structures == "Hippocampus"
    assert json.loads(node.GetAttribute("SEBrainSeg.Confidences"))
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") == 1
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 3


def test_the_console_compares_variants(module, segment):
    logic, node = module.SEBrainSegLogic(), volume()
    compared = logic.compare(node, ["none", "scSE"], consensus=True)
    assert [choice.se for choice in segment[0].choices] == ["none", "scse"]
    assert len(compared.segmentations) == 2 and compared.table.GetNumberOfRows() == 31
    assert compared.consensus.GetScene() is compared.disagreement.GetScene() is slicer.mrmlScene
    with pytest.raises(SEBrainSegError, match="at least two"):
        logic.compare(node, ["none"])
    with pytest.raises(SEBrainSegError, match="Unknown squeeze & excitation variant 'x'"):
        logic.compare(node, ["none", "x"])


@pytest.fixture
def real(module, application, monkeypatch):
    """The panel with its real child processes."""
    monkeypatch.setattr(shutil, "which", lambda name: None)  # The Python of the tests, not some Slicer's.
    widget = module.SEBrainSegWidget(types.SimpleNamespace(isEntered=True))
    widget.setup()
    yield widget
    widget.cleanup()


def wait_for(application, condition):
    """Let Qt handle its events until it holds."""
    end = time.time() + 600
    while not condition():
        assert time.time() < end, "waited in vain"
        application.processEvents()
        time.sleep(0.01)


def test_a_real_child_process_says_what_is_wrong(real, application):
    # An even volume: the child must read it, find nothing to segment in it and say so.
    real.parameterNode.volume = volume()
    real.ui.applyButton.click()
    assert real.presenter.run.running
    wait_for(application, lambda: not real.presenter.run.running)
    assert "same value" in real.ui.statusLabel.text
    assert segmentations() == 0


def test_the_whole_path_with_a_real_child_process(real, application, models, monkeypatch):
    torch = pytest.importorskip("torch")
    from SEBrainSegLib.networks.architectures import UNet
    from SEBrainSegLib.networks.model_file import write_model

    charts = []
    plots = types.SimpleNamespace(logic=lambda: types.SimpleNamespace(ShowChartInLayout=charts.append))
    monkeypatch.setattr(slicer, "modules", types.SimpleNamespace(plots=plots), raising=False)
    torch.manual_seed(0)
    arguments = {"classes": 2, "width": 2, "kernel": 3, "depth": 2, "se": "scse"}
    write_model(models / "liver.pt", UNet(**arguments), {"architecture": "unet", **arguments}, "axial", table=(LIVER,))
    node = volume(size=(32, 24, 4))
    scalars = node.GetImageData().GetPointData().GetScalars()
    for index in range(scalars.GetNumberOfTuples()):
        scalars.SetTuple1(index, index % 32)
    real.enter()
    real.parameterNode.volume = node
    real.ui.networkComboBox.setCurrentText("liver (user-trained)")
    real.ui.blockComboBox.setCurrentText("decoder 1")
    real.ui.confidenceCheckBox.click()
    real.ui.mapsButton.click()
    seen = set()
    wait_for(application, lambda: seen.add(real.ui.progressBar.value) or not real.presenter.run.running)
    assert "computed on" in real.ui.statusLabel.text, real.ui.statusLabel.text
    assert segmentations() == 1 and len(seen) > 2
    names = [each.GetName() for each in charts] + [real.ui.resultLabel.text]
    assert names == ["T1 channels decoder 1 (liver)", "T1 structures (liver)"]
    confidence = slicer.mrmlScene.GetFirstNodeByName("T1 confidence (liver)")
    assert confidence.GetImageData().GetDimensions() == (32, 24, 4)
    low, high = confidence.GetImageData().GetScalarRange()
    assert 0.5 <= low <= high <= 1
    assert slicer.mrmlScene.GetFirstNodeByName("T1 spatial decoder 1 (liver)") is not None
    assert "as last time" in real.ui.factsLabel.text
    real.ui.mapsButton.click()
    real.ui.applyButton.click()
    assert not real.presenter.run.running and len(charts) == 2 and segmentations() == 1
    real.ui.show3dButton.click()
    wait_for(application, lambda: not real.presenter.busy)
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert node.GetSegmentation().ContainsRepresentation("Closed surface") and real.ui.show3dButton.checked
    assert "in 3D" in real.ui.statusLabel.text
    wait_for(application, lambda: real.presenter.devices is not None)


def test_a_real_child_process_is_gone_when_cancelled(real, application):
    real.parameterNode.volume = volume()
    real.ui.applyButton.click()
    process = real.presenter.run.process.process
    application.processEvents()
    real.ui.cancelButton.click()
    assert process.state() == QtCore.QProcess.NotRunning and not real.presenter.run.running
    assert "Cancelled" in real.ui.statusLabel.text and real.ui.applyButton.enabled and segmentations() == 0
