"""Slicer's module: whole-brain segmentation with squeeze & excitation networks.

Only wiring; the work is in SEBrainSegLib.
"""

import contextlib
import importlib.util
import shutil
import sys
import unittest
import urllib.parse
import urllib.request
from dataclasses import asdict

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

from SEBrainSegLib import user_models
from SEBrainSegLib.errors import SEBrainSegError
from SEBrainSegLib.parameters import Architecture, Device, Parameters, Protocol, Variant, View
from SEBrainSegLib.resources import resource

SAMPLE = "SampleData/colin27_t1.nii.gz"
TORCH = ">=2.2"


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
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the bundled scan in Slicer's Sample Data module; it is copied from the installed files."""
    import SampleData

    path = resource(SAMPLE)
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="SEBrainSeg",
        sampleName="SEBrainSeg T1",
        uris=urllib.parse.urljoin("file:", urllib.request.pathname2url(str(path))),
        fileNames="SEBrainSeg_T1.nii.gz",
        nodeNames="SEBrainSeg T1",
        thumbnailFileName=str(resource("Icons/SEBrainSeg.png")),
    )


@parameterNodeWrapper
class SEBrainSegParameterNode:
    """What is chosen in the module; stored with the scene.

    volume: the scan to segment.
    architecture: the bundled network.
    se: the squeeze & excitation variant.
    view: the direction of slicing.
    protocol: whose convention of drawing the structures to follow.
    model: name of a user-trained model to take in place of the bundled networks, or "".
    device: where the network runs.
    """

    volume: vtkMRMLScalarVolumeNode
    architecture: Architecture = Architecture.UNET
    se: Variant = Variant.SCSE
    view: View = View.CORONAL
    protocol: Protocol = Protocol.FREESURFER
    model: str = ""
    device: Device = Device.AUTO


class SEBrainSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.run = None
        self.parameterNode = None
        self.parameterNodeGuiTag = None
        self.observedVolume = None
        self.networks = []
        self.segmentedVolume = None
        self.segmentedVoxels = None
        self.segmentedWith = None
        self.starting = False
        self.outcome = ""

    def setup(self):
        """Build the panel when the module is first shown."""
        from SEBrainSegLib.background import BackgroundSegmentation
        from SEBrainSegLib.qtprocess import QtProcess

        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/SEBrainSeg.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = SEBrainSegLogic()
        self.run = BackgroundSegmentation(
            QtProcess,
            shutil.which("PythonSlicer") or sys.executable,
            progress=self.onProgress,
            finished=self.onFinished,
            failed=self.onFailed,
            cancelled=self.onCancelled,
        )
        self.ui.networkComboBox.currentIndexChanged.connect(self.onNetwork)
        self.ui.applyButton.clicked.connect(self.onApply)
        self.ui.cancelButton.clicked.connect(self.onCancel)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.initializeParameterNode()

    def cleanup(self):
        """End the run before the panel goes: the module is reloaded or Slicer exits."""
        if self.run is not None:
            self.run.cancel()
            self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        """The module is shown."""
        self.initializeParameterNode()

    def exit(self):
        """Another module is shown; a run goes on."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self.run.cancel()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller, event, node):
        if self.run.running and node is self.segmentedVolume:
            self.run.cancel()
            self.show(_("The segmentation was ended because its volume was removed."))

    def initializeParameterNode(self):
        """Take up the scene's choices; a volume that can be segmented is chosen already."""
        parameterNode = self.logic.getParameterNode()
        # Every call gives another wrapper; what counts is the node within.
        if self.parameterNode is None or self.parameterNode.parameterNode is not parameterNode.parameterNode:
            self.setParameterNode(parameterNode)
        self.listNetworks()
        self.update()
        if self.parameterNode.volume is None:
            self.parameterNode.volume = self.logic.firstVolume()

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
        self.update()

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

    def listNetworks(self):
        """List the bundled networks and, after them, the user-trained models that there are now."""
        # A scene may name a model that this computer lacks: it is listed, and problem() says that it is missing.
        models = {*user_models.names(), self.parameterNode.model} - {""}
        self.networks = [*Architecture, *sorted(models)]
        box = self.ui.networkComboBox
        blocked = box.blockSignals(True)
        box.clear()
        for network in self.networks:
            bundled = isinstance(network, Architecture)
            box.addItem(network.label() if bundled else _("{name} (user-trained)").format(name=network))
        box.blockSignals(blocked)

    def showNetwork(self):
        """Show the chosen network, and what else there is to choose with it."""
        chosen = self.parameterNode.model or self.parameterNode.architecture
        if chosen not in self.networks:
            self.listNetworks()
        box = self.ui.networkComboBox
        blocked = box.blockSignals(True)
        box.currentIndex = self.networks.index(chosen)
        box.blockSignals(blocked)
        for choice in (self.ui.seComboBox, self.ui.viewComboBox, self.ui.protocolComboBox):
            choice.enabled = not self.parameterNode.model

    def onNetwork(self, *_unused):
        """A network was chosen in the list."""
        if self.parameterNode is None:
            return
        chosen = self.networks[self.ui.networkComboBox.currentIndex]
        if isinstance(chosen, Architecture):
            self.parameterNode.architecture, self.parameterNode.model = chosen, ""
        else:
            self.parameterNode.model = chosen

    def chosenParameters(self):
        """The choices but for the volume."""
        names = ("architecture", "se", "view", "device", "protocol", "model")
        return Parameters(**{name: getattr(self.parameterNode, name) for name in names})

    def observeVolume(self, volume):
        """Follow the chosen volume, whose voxels may come, go or change."""
        if volume is self.observedVolume:
            return
        if self.observedVolume is not None:
            self.removeObserver(self.observedVolume, self.observedVolume.ImageDataModifiedEvent, self.onVolume)
        if volume is not None:
            self.addObserver(volume, volume.ImageDataModifiedEvent, self.onVolume)
        self.observedVolume = volume

    def onChoice(self, caller, event):
        self.outcome = ""
        self.observeVolume(self.parameterNode.volume)
        self.update()

    def onVolume(self, caller, event):
        self.update()

    def update(self):
        """Enable what can be done now and say why the rest cannot."""
        running = self.run.running
        busy = running or self.starting
        problem = ""
        if self.parameterNode is not None:
            self.showNetwork()
            problem = self.logic.problem(self.parameterNode.volume, self.chosenParameters())
        self.ui.inputsCollapsibleButton.enabled = not busy
        self.ui.applyButton.enabled = self.parameterNode is not None and not busy and not problem
        self.ui.applyButton.toolTip = problem or _("Segment the volume into a new segmentation node.")
        self.ui.cancelButton.enabled = running
        self.ui.progressBar.visible = running
        if not busy:
            self.ui.statusLabel.text = problem or self.outcome or _("Ready.")

    def show(self, outcome):
        """Show how the last run came out."""
        self.segmentedVolume = None
        self.outcome = outcome
        self.update()

    def onApply(self, *_unused):
        if self.starting or self.run.running:
            return
        volume = self.parameterNode.volume
        parameters = self.chosenParameters()
        # While PyTorch is being installed, events are handled: anything in the panel and the scene may change.
        self.starting = True
        self.ui.progressBar.value = 0
        self.ui.statusLabel.text = _("Starting...")
        self.update()
        try:
            self.logic.ensureTorch()
            if not slicer.mrmlScene.IsNodePresent(volume):
                raise SEBrainSegError(_("The volume was removed before its segmentation could start."))
            self.segmentedWith, self.segmentedVoxels = parameters, self.logic.voxelsOf(volume)
            self.segmentedVolume = volume
            self.run.start(self.logic.imageOf(volume), parameters)
        except SEBrainSegError as error:
            self.segmentedVolume, self.outcome = None, str(error)
        finally:
            self.starting = False
            self.update()

    def onCancel(self, *_unused):
        self.run.cancel()

    def onProgress(self, fraction, message):
        self.ui.progressBar.value = round(100 * fraction)
        self.ui.statusLabel.text = message

    def onFinished(self, labels, structures, device):
        try:
            node = self.logic.addSegmentation(
                self.segmentedVolume, labels, structures, self.segmentedWith, self.segmentedVoxels
            )
        except SEBrainSegError as error:
            self.show(str(error))
        except Exception as error:
            # The panel must be usable again; the traceback goes to the console.
            self.show(_("The result could not be added to the scene: {error}.").format(error=error))
            raise
        else:
            self.show(_("Created '{name}', computed on {device}.").format(name=node.GetName(), device=device))

    def onFailed(self, sentence):
        self.show(sentence)

    def onCancelled(self):
        self.show(_("The segmentation was cancelled; nothing was created."))


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

        Returns:
            a new ``vtkMRMLSegmentationNode`` with a segment for every structure.

        Raises:
            SEBrainSegError: a choice or the volume cannot be used, or PyTorch is missing.
            Cancelled: ``cancelled()`` was true; nothing was created.
        """
        from SEBrainSegLib import scene

        parameters = Parameters(architecture, se, view, device, protocol, model).checked()
        # Before PyTorch is installed, during which the scene may change.
        scene.refuse_unusable(volumeNode, bundled=not parameters.model)
        self.ensureTorch()
        voxels, image = scene.voxels_of(volumeNode), scene.image_of(volumeNode)
        from SEBrainSegLib import segment

        found = segment(image, progress=progress, cancelled=cancelled, **asdict(parameters))
        return scene.add_segmentation(volumeNode, found.labels, found.structures, parameters.title, voxels)

    def firstVolume(self):
        """The first volume in the scene that users see and that can be segmented, or ``None``."""
        from SEBrainSegLib import scene

        kind = "vtkMRMLScalarVolumeNode"
        count = slicer.mrmlScene.GetNumberOfNodesByClass(kind)
        nodes = (slicer.mrmlScene.GetNthNodeByClass(index, kind) for index in range(count))
        # Label maps and volumes of colours or vectors are scalar volumes too, by inheritance.
        shown = (node for node in nodes if node.GetClassName() == kind and not node.GetHideFromEditors())
        return next((node for node in shown if not scene.problem(node)), None)

    def problem(self, volumeNode, parameters):
        """One sentence on why the volume cannot be segmented so, or ``""``."""
        from SEBrainSegLib import scene

        return scene.problem(volumeNode, bundled=not parameters.model) or parameters.problem()

    def imageOf(self, volumeNode):
        """The volume as a ``SimpleITK.Image``; raises SEBrainSegError if it cannot be segmented."""
        from SEBrainSegLib import scene

        return scene.image_of(volumeNode)

    def voxelsOf(self, volumeNode):
        """What tells the volume's voxels from others; raises SEBrainSegError if it cannot be segmented."""
        from SEBrainSegLib import scene

        return scene.voxels_of(volumeNode)

    def addSegmentation(self, volumeNode, labels, structures, parameters, voxels):
        """Add the segmentation node for a file of labels that mean these structures.

        Raises:
            SEBrainSegError: the volume has gone, or its ``voxelsOf`` is no longer ``voxels``.
        """
        import SimpleITK as sitk

        from SEBrainSegLib import scene

        return scene.add_segmentation(volumeNode, sitk.ReadImage(str(labels)), structures, parameters.title, voxels)

    @staticmethod
    def ensureTorch():
        """See that PyTorch is installed, with the user's consent, through the PyTorch extension.

        Raises:
            SEBrainSegError: it is not, or the user declined.
        """
        # Not imported: a segmentation in a child process needs no PyTorch in Slicer itself.
        if importlib.util.find_spec("torch") is not None:
            return
        try:
            import PyTorchUtils
        except ModuleNotFoundError:
            raise SEBrainSegError(
                _("PyTorch is missing; install the extension 'PyTorch' in the Extensions Manager and restart Slicer.")
            ) from None
        try:
            torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=TORCH)
        except Exception as error:
            raise SEBrainSegError(_("PyTorch could not be installed: {error}").format(error=error)) from error
        if torch is None:
            raise SEBrainSegError(
                _("PyTorch was not installed, but segmentation needs it; you will be asked again at the next attempt.")
            )


class SEBrainSegTest(ScriptedLoadableModuleTest):
    """The whole path on the bundled scan, inside of Slicer."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run all tests."""
        self.setUp()
        # Only a test runner takes a skipped test for what it is; the user has seen the message.
        with contextlib.suppress(unittest.SkipTest):
            self.test_sampleIsSegmented()

    def test_sampleIsSegmented(self):
        if importlib.util.find_spec("torch") is None:
            message = "Skipped: PyTorch is not installed, and a test must not install it"
            self.delayDisplay(message)
            raise unittest.SkipTest(message)
        self.delayDisplay("Segmenting the bundled scan, in about a minute")
        volume = slicer.util.loadVolume(str(resource(SAMPLE)))
        node = SEBrainSegLogic().segment(volume, se="scSE")
        segmentation = node.GetSegmentation()
        self.assertEqual(segmentation.GetNumberOfSegments(), 31)
        hippocampi = {}
        for side in ("Left", "Right"):
            voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, f"{side}-Hippocampus", volume)
            indices = [axis.mean() for axis in voxels.nonzero()][::-1]
            matrix = vtk.vtkMatrix4x4()
            volume.GetIJKToRASMatrix(matrix)
            hippocampi[side] = matrix.MultiplyPoint([*indices, 1])[0]
            # A hippocampus has 2 to 6 ml.
            self.assertGreater(voxels.sum() * abs(matrix.Determinant()), 2000)
            self.assertLess(voxels.sum() * abs(matrix.Determinant()), 6000)
        self.assertLess(hippocampi["Left"], hippocampi["Right"])
        self.delayDisplay("The bundled scan was segmented")
