"""Slicer's module: whole-brain segmentation with squeeze & excitation networks.

Only wiring; the work is in SEBrainSegLib.
"""

import contextlib
import functools
import sys
import time
import unittest

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.choices.structures import Group, structures
from SEBrainSegLib.choices.vocabulary import Architecture, Protocol, Variant, View, values
from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.networks import user_models
from SEBrainSegLib.panel.application import (
    Application,
    ensure_torch,
    has_torch,
    load_sample,
    python_program,
    register_sample_data,
)


class SEBrainSeg(ScriptedLoadableModule):
    """The module's entry in Slicer's list."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SE Brain Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["SEBrainSeg contributors"]
        self.parent.helpText = _(
            "Segments 31 structures of the brain in a T1-weighted MR scan of a head with a fully convolutional network "
            "that is recalibrated by squeeze & excitation blocks; or whatever a network of yours was trained for."
        )
        self.parent.acknowledgementText = _(
            "The networks follow A. G. Roy, N. Navab and C. Wachinger: Recalibrating Fully Convolutional Networks with "
            "Spatial and Channel 'Squeeze & Excitation' Blocks, IEEE Transactions on Medical Imaging, 2019."
        )
        slicer.app.connect("startupCompleted()", register_sample_data)


@parameterNodeWrapper
class SEBrainSegParameterNode:
    """What is chosen in the module; stored with the scene.

    volume: the scan to segment.
    architecture: the bundled network.
    se: the squeeze & excitation variant.
    view: the direction of slicing.
    protocol: whose convention of drawing the structures to follow.
    model: name of a user-trained model to take in place of the bundled networks, or "".
    structures: those to segment, as in Parameters.structures; "" for all.
    device: where the network runs, as in Parameters.device.
    compared: the variants to compare, values with commas between; Slicer keeps texts alike in all its versions.
    consensus: whether a comparison makes one more segmentation of what most variants say.
    block: the squeeze & excitation block whose maps to show, or "".
    confidence: whether to show the confidence with them.
    withMaps: whether to make the maps together with the segmentation.
    """

    volume: vtkMRMLScalarVolumeNode
    architecture: Architecture = Architecture.UNET
    se: Variant = Variant.SCSE
    view: View = View.CORONAL
    protocol: Protocol = Protocol.FREESURFER
    model: str = ""
    structures: str = ""
    device: str = "auto"
    compared: str = "none,scse"
    consensus: bool = False
    block: str = ""
    confidence: bool = False
    withMaps: bool = False


class SEBrainSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel: it binds widgets to the presenter, which decides."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.presenter = None
        self.parameterNode = None
        self.parameterNodeGuiTag = None
        self.observedVolume = None
        self.networks = []
        self.devices = []
        self.deviceSearch = None
        self.variantBoxes = self.groupBoxes = {}
        self.shownTables = {}
        self.opened = ()
        self.sceneIsChanging = self.choicesAreStale = False

    def setup(self):
        """Build the panel when the module is first shown."""
        from SEBrainSegLib import scene as nodes
        from SEBrainSegLib.panel.presenter import Presenter
        from SEBrainSegLib.scene import slice_views
        from SEBrainSegLib.subprocesses.background import BackgroundSegmentation
        from SEBrainSegLib.subprocesses.qtprocess import QtProcess

        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/SEBrainSeg.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = SEBrainSegLogic()
        make_run = functools.partial(BackgroundSegmentation, QtProcess, python_program())
        self.presenter = Presenter(nodes, Application(), make_run, changed=self.update)
        self.variantBoxes = self.checkBoxes(Variant, self.ui.variantsWidget, len(Variant))
        self.groupBoxes = self.checkBoxes(Group, self.ui.groupsWidget, 2)
        self.listStructures()
        self.connectWidgets()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        # A scene that is loaded is closed and imported in one batch, whose end comes last.
        for event in (scene.EndCloseEvent, scene.EndImportEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self.onSceneEnd)
        self.addObserver(scene, scene.NodeAddedEvent, self.onNodeAdded)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        for view in slice_views.slice_views(scene):
            self.observeView(view)
        self.initializeParameterNode()

    def connectWidgets(self):
        """Connect the widgets that name no parameter."""
        self.ui.networkComboBox.currentIndexChanged.connect(self.onNetwork)
        self.ui.structuresComboBox.currentTextChanged.connect(self.onStructures)
        self.ui.deviceComboBox.currentIndexChanged.connect(self.onDevice)
        self.ui.blockComboBox.currentIndexChanged.connect(self.onBlock)
        self.ui.applyButton.clicked.connect(self.onApply)
        self.ui.cancelButton.clicked.connect(self.onCancel)
        self.ui.acceptButton.clicked.connect(self.onAccept)
        self.ui.sequenceButton.clicked.connect(self.onSequence)
        self.ui.compareButton.clicked.connect(self.onCompare)
        self.ui.mapsButton.clicked.connect(self.onMaps)
        self.ui.show3dButton.clicked.connect(self.onShow3d)
        self.ui.volumesButton.clicked.connect(self.onVolumes)
        self.ui.copyButton.clicked.connect(self.onCopy)
        self.ui.saveButton.clicked.connect(self.onSave)
        self.ui.selfTestButton.clicked.connect(self.onSelfTest)
        self.ui.outlinesCheckBox.clicked.connect(self.onOutlines)
        self.ui.hideMapButton.clicked.connect(self.onHideMap)
        for box in self.variantBoxes.values():
            box.clicked.connect(self.onVariants)
        for group, box in self.groupBoxes.items():
            box.clicked.connect(
                lambda *_unused, group=group, box=box: self.presenter.show_group(group.value, box.checked)
            )

    @staticmethod
    def checkBoxes(choices, widget, columns):
        """Fill a widget, which has a grid, with a check box for each member of an enum; returns the boxes by member."""
        boxes = {}
        for index, choice in enumerate(choices):
            row, column = divmod(index, columns)
            boxes[choice] = qt.QCheckBox(choice.label())
            # One that is alone in its row may be as wide as the row.
            span = columns if column == 0 and index == len(choices) - 1 else 1
            widget.layout().addWidget(boxes[choice], row, column, 1, span)
        return boxes

    def cleanup(self):
        """End the run before the panel goes: the module is reloaded or Slicer exits."""
        if self.presenter is not None:
            if self.deviceSearch is not None:
                self.deviceSearch.cancel()
            self.presenter.cancel()
            self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        """The module is shown."""
        self.initializeParameterNode()

    def exit(self):
        """Another module is shown; a run goes on."""
        self.setParameterNode(None)

    def onReload(self):
        """Reload the module, a developer's button: its library's modules, too."""
        for name in [name for name in sys.modules if name.split(".")[0] == "SEBrainSegLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller, event):
        self.sceneIsChanging, self.opened = True, ()
        self.presenter.close()
        self.setParameterNode(None)

    def onSceneStartImport(self, caller, event):
        self.sceneIsChanging = True

    def onSceneEnd(self, caller, event):
        """A scene was closed or loaded, or some other batch is done."""
        if slicer.mrmlScene.IsBatchProcessing():
            return
        if self.sceneIsChanging:
            self.sceneIsChanging = self.choicesAreStale = False
            if self.parent.isEntered:
                # The node may be another now, or hold what the file says.
                self.setParameterNode(None)
                self.initializeParameterNode()
                self.presenter.scene_changed(self.choices())
            # Once the views, too, have heard of it.
            qt.QTimer.singleShot(0, self.showChartsAgain)
        elif self.choicesAreStale:
            self.choicesAreStale = False
            self.onChoice()

    @staticmethod
    def showChartsAgain():
        from SEBrainSegLib.scene import slice_views

        slice_views.show_charts_again(slicer.mrmlScene)

    def observeView(self, view):
        """Hear of what a slice view shows."""
        self.addObserver(view, vtk.vtkCommand.ModifiedEvent, self.onViewModified)

    def onViewModified(self, *_unused):
        if not slicer.mrmlScene.IsBatchProcessing():
            self.presenter.views_changed()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, caller, event, node):
        if node.IsA("vtkMRMLSliceCompositeNode"):
            self.observeView(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller, event, node):
        self.presenter.node_removed(node)

    def initializeParameterNode(self):
        """Bind the panel to the scene's choices; without a volume, the first that can be segmented is chosen."""
        from SEBrainSegLib.scene.volume_nodes import first_usable

        parameterNode = self.logic.getParameterNode()
        # Every call gives another wrapper; what counts is the node within.
        if self.parameterNode is None or self.parameterNode.parameterNode is not parameterNode.parameterNode:
            self.setParameterNode(parameterNode)
        self.listNetworks()
        self.update()
        self.searchDevices()
        if self.parameterNode.volume is None:
            self.parameterNode.volume = first_usable(slicer.mrmlScene)

    def setParameterNode(self, parameterNode):
        """Bind the panel to a parameter node, or to none."""
        if self.parameterNode is not None:
            self.parameterNode.disconnectGui(self.parameterNodeGuiTag)
            self.removeObserver(self.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onChoice)
            self.observeVolume(None)
        self.parameterNode = parameterNode
        if self.parameterNode is not None:
            self.parameterNodeGuiTag = self.bind(self.parameterNode)
            self.addObserver(self.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onChoice)
            self.observeVolume(self.parameterNode.volume)
        self.presenter.choose(self.choices())

    def bind(self, parameterNode):
        """Bind the widgets that name a parameter; returns the tag with which to unbind them."""
        named = ((widget.property("SlicerParameterName"), widget) for widget in vars(self.ui).values())
        widgets = {name: widget for name, widget in named if name}
        choices = {name: getattr(parameterNode, name) for name in widgets}
        # Not connectGui(), which keeps the tag to itself: the widgets would stay bound for good.
        tag = parameterNode.connectParametersToGui(widgets)
        # Binding fills the lists anew, which writes their first entry to a node that is still bound to them.
        for name, choice in choices.items():
            setattr(parameterNode, name, choice)
        return tag

    def choices(self):
        """What is chosen, or ``None`` without a parameter node."""
        from SEBrainSegLib.panel.selection import Choices

        node = self.parameterNode
        if node is None:
            return None
        names = ("architecture", "se", "view", "device", "protocol", "model", "structures")
        return Choices(
            node.volume,
            Parameters(**{name: getattr(node, name) for name in names}),
            self.ticked(node),
            node.consensus,
            node.block,
            node.confidence,
            node.withMaps,
        )

    @staticmethod
    def ticked(parameterNode):
        """The variants to compare; a scene may name some that are not known here."""
        return tuple(variant for variant in values(Variant) if variant in parameterNode.compared.split(","))

    def listNetworks(self):
        """List the bundled networks and, after them, the user-trained models that there are now."""
        # A scene may name a model that this computer lacks: it is listed, and problem() says that it is missing.
        models = {*user_models.names(), self.parameterNode.model} - {""}
        self.networks = [*Architecture, *sorted(models)]

    def listStructures(self):
        """List what can be chosen of the brain; anything else can be typed."""
        names = dict.fromkeys(structure.unsided_name for structure in structures())
        self.fill(self.ui.structuresComboBox, ["", *values(Group), *names], 0)
        self.ui.structuresComboBox.lineEdit().setPlaceholderText(_("all"))

    @staticmethod
    def fill(box, labels, index):
        """Show these entries in a list, without a signal."""
        blocked = box.blockSignals(True)
        if [box.itemText(each) for each in range(box.count)] != labels:
            box.clear()
            for label in labels:
                box.addItem(label)
        if box.currentIndex != index:
            box.currentIndex = index
        box.blockSignals(blocked)

    def searchDevices(self):
        """Find the names of the GPUs once PyTorch, which knows them, is there; in a child process, without a wait."""
        if self.deviceSearch is None and has_torch():
            from SEBrainSegLib.subprocesses.device_search import DeviceSearch
            from SEBrainSegLib.subprocesses.qtprocess import QtProcess

            self.deviceSearch = DeviceSearch(QtProcess, python_program(), self.presenter.set_devices)

    def observeVolume(self, volume):
        """Follow the chosen volume, whose voxels may come, go or change."""
        if volume is self.observedVolume:
            return
        if self.observedVolume is not None:
            self.removeObserver(self.observedVolume, self.observedVolume.ImageDataModifiedEvent, self.onVolume)
        if volume is not None:
            self.addObserver(volume, volume.ImageDataModifiedEvent, self.onVolume)
        self.observedVolume = volume

    def onChoice(self, *_unused):
        if slicer.mrmlScene.IsBatchProcessing():
            # What is chosen may not be there yet.
            self.choicesAreStale = True
            return
        self.observeVolume(self.parameterNode.volume)
        self.presenter.choose(self.choices())

    def onVolume(self, caller, event):
        if not slicer.mrmlScene.IsBatchProcessing():
            self.presenter.volume_changed()

    # The presenter's state is shown -----------------------------------------------------------------------------------

    def update(self):
        """Show the presenter's state."""
        state = self.presenter.state()
        self.ui.inputsCollapsibleButton.enabled = not state.busy
        if self.parameterNode is not None:
            self.showChoices(state)
        buttons = (
            (self.ui.applyButton, state.apply),
            (self.ui.cancelButton, state.cancel),
            (self.ui.acceptButton, state.accept),
            (self.ui.sequenceButton, state.sequence),
            (self.ui.compareButton, state.compare),
            (self.ui.mapsButton, state.maps),
            *((box, state.variants[variant.value]) for variant, box in self.variantBoxes.items()),
        )
        for button, action in buttons:
            button.enabled = action.enabled
            button.toolTip = action.text
        self.ui.sequenceButton.visible = state.has_sequence
        self.ui.acceptButton.visible = state.accept.enabled
        self.ui.selfTestButton.enabled = not state.busy
        self.ui.progressBar.visible = state.percent is not None
        self.ui.progressBar.value = state.percent or 0
        self.ui.statusLabel.text = state.status
        self.ui.doubtLabel.text = state.doubt
        self.ui.doubtLabel.visible = bool(state.doubt)
        self.ui.factsLabel.text = state.facts
        self.ui.factsLabel.visible = bool(state.facts)
        self.ui.advancedCollapsibleButton.text = state.advanced
        self.ui.withMapsCheckBox.enabled = not state.busy
        self.ui.mapsTimeLabel.text = state.maps_time
        self.ui.mapsTimeLabel.visible = bool(state.maps_time)
        self.ui.mapWidget.visible = bool(state.map_name)
        self.ui.mapLabel.text = state.map_name
        self.ui.outlinesCheckBox.checked = state.outlined
        self.showResult(state)
        self.showTable("comparison", self.ui.comparisonTableView, self.presenter.comparison)
        self.showTable("volumes", self.ui.volumesTableView, self.presenter.table)
        self.openSections(state)

    def openSections(self, state):
        """Open the sections that have got something to show; what the user closes again stays closed."""
        sections = {"result": self.ui.resultCollapsibleButton, "compare": self.ui.compareCollapsibleButton}
        for name in state.opened:
            if name not in self.opened:
                sections[name].collapsed = False
        self.opened = state.opened

    def showChoices(self, state):
        """Show what is chosen in the widgets that name no parameter, and what else there is to choose with it."""
        node = self.parameterNode
        chosen = node.model or node.architecture
        if chosen not in self.networks:
            self.listNetworks()
        names = [
            network.label() if isinstance(network, Architecture) else _("{name} (user-trained)").format(name=network)
            for network in self.networks
        ]
        self.fill(self.ui.networkComboBox, names, self.networks.index(chosen))
        for choice in (self.ui.seComboBox, self.ui.viewComboBox, self.ui.protocolComboBox):
            choice.enabled = not node.model
        if self.ui.structuresComboBox.currentText != node.structures:
            self.ui.structuresComboBox.setEditText(node.structures)
        self.devices = list(state.devices)
        self.fill(self.ui.deviceComboBox, list(state.devices.values()), self.devices.index(state.device))
        ticked = self.ticked(node)
        for variant, box in self.variantBoxes.items():
            box.checked = variant.value in ticked
        blocks = ["", *state.blocks]
        index = blocks.index(node.block) if node.block in blocks else 0
        self.fill(self.ui.blockComboBox, [_("none"), *state.blocks], index)
        self.ui.blockComboBox.enabled = bool(state.blocks) and not state.busy

    def showResult(self, state):
        """Show what the section Result is about."""
        ui = self.ui
        ui.resultLabel.text = state.result_name or state.result.text
        for group, box in self.groupBoxes.items():
            box.enabled = state.result.enabled and group.value in state.groups
            box.checked = state.groups.get(group.value, False)
        for button in (ui.show3dButton, ui.volumesButton, ui.copyButton, ui.saveButton):
            button.enabled = state.result.enabled
        ui.show3dButton.checked = state.in_3d

    def showTable(self, name, view, node):
        """Show a table node in one of the panel's views, which hides without."""
        view.visible = node is not None
        # Setting it anew would undo the user's scrolling.
        if self.shownTables.get(name) is not node:
            self.shownTables[name] = node
            view.setMRMLTableNode(node)

    # What the user does goes to the parameter node and the presenter --------------------------------------------------

    def onNetwork(self, *_unused):
        """A network was chosen in the list."""
        if self.parameterNode is None:
            return
        chosen = self.networks[self.ui.networkComboBox.currentIndex]
        if isinstance(chosen, Architecture):
            self.parameterNode.architecture, self.parameterNode.model = chosen, ""
        else:
            self.parameterNode.model = chosen

    def onStructures(self, *_unused):
        """Structures were chosen in the list or typed."""
        if self.parameterNode is not None:
            self.parameterNode.structures = self.ui.structuresComboBox.currentText

    def onDevice(self, *_unused):
        """A device was chosen in the list."""
        if self.parameterNode is not None:
            self.parameterNode.device = self.devices[self.ui.deviceComboBox.currentIndex]

    def onVariants(self, *_unused):
        """A variant to compare was ticked, or no longer."""
        if self.parameterNode is not None:
            ticked = (variant.value for variant, box in self.variantBoxes.items() if box.checked)
            self.parameterNode.compared = ",".join(ticked)

    def onBlock(self, *_unused):
        """A block was chosen in the list, whose first entry is none."""
        if self.parameterNode is not None:
            box = self.ui.blockComboBox
            self.parameterNode.block = box.currentText if box.currentIndex > 0 else ""

    def onApply(self, *_unused):
        self.presenter.apply()
        # PyTorch may have been installed just now.
        self.searchDevices()

    def onCancel(self, *_unused):
        self.presenter.cancel()

    def onAccept(self, *_unused):
        self.presenter.accept_unlikely()

    def onSequence(self, *_unused):
        self.presenter.segment_sequence()

    def onCompare(self, *_unused):
        self.presenter.compare()

    def onMaps(self, *_unused):
        self.presenter.show_maps()

    def onShow3d(self, *_unused):
        self.presenter.show_3d(self.ui.show3dButton.checked)

    def onVolumes(self, *_unused):
        self.presenter.add_volumes()

    def onCopy(self, *_unused):
        qt.QApplication.clipboard().setText(self.presenter.volumes_text())

    def onSave(self, *_unused):
        name = f"{self.presenter.state().result_name}.csv"
        # The dialog asks before it gives the name of a file that exists.
        path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), _("Save volumes"), name, _("CSV (*.csv)"))
        if path:
            self.presenter.save_volumes(path)

    def onOutlines(self, *_unused):
        self.presenter.show_outlines(self.ui.outlinesCheckBox.checked)

    def onHideMap(self, *_unused):
        self.presenter.hide_map()

    def onSelfTest(self, *_unused):
        self.presenter.self_test(load_sample())


class SEBrainSegLogic(ScriptedLoadableModuleLogic):
    """Segmentation without the panel, for scripts and the Python console."""

    def getParameterNode(self):
        """The choices stored with the scene."""
        return SEBrainSegParameterNode(super().getParameterNode())

    def segment(
        self,
        volumeNode,
        se="scSE",
        architecture="unet",
        view="coronal",
        device="auto",
        progress=None,
        cancelled=None,
        protocol="freesurfer",
        model="",
        structures="",
        confidence=False,
        excitation="",
        accept_unlikely=False,
    ):
        """Segment a T1-weighted head, or what a user-trained model is for, in this process.

        Args:
            volumeNode: ``vtkMRMLScalarVolumeNode`` of any orientation and spacing.
            se: ``"none"``, ``"cSE"``, ``"sSE"`` or ``"scSE"``, in any case.
            architecture: ``"unet"``, ``"sdnet"`` or ``"densenet"``.
            view: ``"coronal"``, ``"axial"``, ``"sagittal"``, or ``"all"`` for the mean of the three.
            device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
            progress: called with a fraction in [0, 1] and a message.
            cancelled: asked between batches of slices; a true answer ends the run.
            protocol: ``"freesurfer"`` or ``"manual"``, the convention of drawing the structures.
            model: name or path of a user-trained model, which takes the place of ``se``, ``architecture``, ``view`` and
                ``protocol``.
            structures: those to segment, with commas between: names, names without a side, groups or label numbers;
                ``""`` for all.
            confidence: whether to add a volume node of the winning softmax probability, too.
            excitation: a squeeze & excitation block, as in ``"decoder 1"``, whose maps to add, too: a volume node for
                sSE, a plot for cSE, both for scSE.
            accept_unlikely: whether to add a result that is unlikely to be right, too; the table of volumes says why.

        Returns:
            a new ``vtkMRMLSegmentationNode`` with a segment for every structure.

        Raises:
            SEBrainSegError: a choice or the volume cannot be used, or PyTorch is missing.
            UnlikelyError: what was found is unlikely to be right; a ``SEBrainSegError``, too.
            Cancelled: ``cancelled()`` was true; nothing was created.
        """
        from SEBrainSegLib.choices.job import Job
        from SEBrainSegLib.scene import map_nodes, provenance, segmentation_nodes

        parameters = Parameters(architecture, se, view, device, protocol, model, structures)
        job = Job((parameters,), confidence=confidence, excitation=excitation, accept_unlikely=accept_unlikely)
        (found,), voxels = self.run(volumeNode, job, progress, cancelled)
        with provenance.all_or_nothing(volumeNode):
            node = segmentation_nodes.add_segmentation(volumeNode, found, voxels)
            map_nodes.add_maps(volumeNode, found, voxels)
        return node

    def compare(
        self,
        volumeNode,
        variants=("none", "cSE", "sSE", "scSE"),
        architecture="unet",
        view="coronal",
        device="auto",
        progress=None,
        cancelled=None,
        protocol="freesurfer",
        structures="",
        consensus=False,
    ):
        """Segment a volume with several squeeze & excitation variants of one network and compare the results.

        Args:
            variants: two or more of ``"none"``, ``"cSE"``, ``"sSE"`` and ``"scSE"``.
            consensus: whether to add one more segmentation, of what most of them say.

        The other arguments are those of :meth:`segment`.

        Returns:
            a named tuple of nodes: ``segmentations`` in the order of the variants, ``table``, ``disagreement`` (a
            volume node: how many variants disagree at each voxel) and ``consensus`` or ``None``.

        Raises:
            as :meth:`segment`.
        """
        from SEBrainSegLib.analysis.comparison import compare
        from SEBrainSegLib.choices.job import Job
        from SEBrainSegLib.scene import comparison_nodes

        if len(variants) < 2:
            raise SEBrainSegError(_("Name at least two variants to compare."))
        choices = (Parameters(architecture, se, view, device, protocol, "", structures) for se in variants)
        found, voxels = self.run(volumeNode, Job(tuple(choices)), progress, cancelled)
        return comparison_nodes.add_compared(volumeNode, compare(found), voxels, consensus)

    def run(self, volumeNode, job, progress=None, cancelled=None):
        """Run a job.Job on a volume in this process; returns its segmentations, and the voxelsOf that they are of."""
        from SEBrainSegLib.scene import provenance, volume_nodes

        job.checked()
        # Before PyTorch is installed, during which the scene may change.
        volume_nodes.refuse_unusable(volumeNode, bundled=not any(parameters.model for parameters in job.choices))
        ensure_torch()
        voxels, image = provenance.content_of(volumeNode), volume_nodes.image_of(volumeNode)
        from SEBrainSegLib.inference import run as inference_run

        return inference_run.run(image, job, progress, cancelled), voxels


class SEBrainSegTest(ScriptedLoadableModuleTest):
    """The whole path on the bundled scan, inside of Slicer."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run all tests."""
        for test in (self.test_sampleIsSegmented, self.test_childProcessSegmentsSample):
            self.setUp()
            # Only a test runner takes a skipped test for what it is; the user has seen the message.
            with contextlib.suppress(unittest.SkipTest):
                test()

    def test_sampleIsSegmented(self):
        """As from the Python console."""
        volume = self.sample()
        self.check(SEBrainSegLogic().segment(volume, se="scSE"))
        self.delayDisplay("The bundled scan was segmented")

    def test_childProcessSegmentsSample(self):
        """As by the panel's button Apply."""
        from SEBrainSegLib.choices.job import Job
        from SEBrainSegLib.scene import segmentation_nodes, volume_nodes
        from SEBrainSegLib.subprocesses.background import BackgroundSegmentation
        from SEBrainSegLib.subprocesses.qtprocess import QtProcess

        volume, found, said = self.sample(), [], []
        run = BackgroundSegmentation(
            QtProcess,
            python_program(),
            progress=lambda fraction, message: None,
            finished=found.extend,
            failed=said.append,
            cancelled=lambda: said.append("cancelled"),
        )
        run.start(volume_nodes.image_of(volume), Job())
        while run.running:
            slicer.app.processEvents()
            time.sleep(0.01)
        self.assertEqual(said, [])
        self.check(segmentation_nodes.add_segmentation(volume, found[0]))
        self.delayDisplay("A child process segmented the bundled scan")

    def sample(self):
        """Load the bundled scan."""
        if not has_torch():
            message = "Skipped: PyTorch is not installed, and a test must not install it"
            self.delayDisplay(message)
            raise unittest.SkipTest(message)
        self.delayDisplay("Segmenting the bundled scan, in about a minute")
        return load_sample()

    def check(self, node):
        """Raise AssertionError if a segmentation node cannot be that of the bundled scan."""
        from SEBrainSegLib.panel import self_test
        from SEBrainSegLib.scene import segmentation_nodes

        self.assertEqual(self_test.problem(segmentation_nodes.segmentation_of(node)), "")
