"""Stand-ins for what only Slicer's application has, with which the real .ui and the real module file run in tests."""

import enum
import os
import sys
import types
import typing
import unittest
from pathlib import Path

import pytest
import SimpleITK as sitk

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6.QtUiTools", exc_type=ImportError)
slicer = pytest.importorskip("slicer")
vtk = pytest.importorskip("vtk")
if not hasattr(slicer, "vtkMRMLSegmentationNode"):
    pytest.skip("this is another package called slicer", allow_module_level=True)

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets  # noqa: E402

from SEBrainSegLib import resources  # noqa: E402
from SEBrainSegLib.analysis import comparison as comparison_module  # noqa: E402
from SEBrainSegLib.choices.structures import structures  # noqa: E402
from SEBrainSegLib.inference.result import Excitation, Segmentation  # noqa: E402
from SEBrainSegLib.networks import bundled  # noqa: E402
from SEBrainSegLib.networks.bundled import Facts  # noqa: E402
from SEBrainSegLib.subprocesses import surfaces  # noqa: E402

MODULE = Path(resources.__file__).resolve().parent.parent / "SEBrainSeg.py"


UI = MODULE.parent / "Resources" / "UI" / "SEBrainSeg.ui"


SOURCE = MODULE.read_text(encoding="utf-8")


class qMRMLWidget(QtWidgets.QWidget):
    def setMRMLScene(self, scene):
        pass


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    pass


class qMRMLTableView(QtWidgets.QTableView):
    """Shows a table node through a model of its own."""

    node = None

    def setMRMLTableNode(self, node):
        self.node, model = node, None
        if node is not None:
            table = node.GetTable()
            model = QtGui.QStandardItemModel(table.GetNumberOfRows(), table.GetNumberOfColumns(), self)
            for column in range(table.GetNumberOfColumns()):
                model.setHorizontalHeaderItem(column, QtGui.QStandardItem(table.GetColumnName(column)))
                for row in range(table.GetNumberOfRows()):
                    model.setItem(row, column, QtGui.QStandardItem(table.GetValue(row, column).ToString()))
        self.setModel(model)


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A handle with its text, beneath which the rest is shown unless it is collapsed."""

    HANDLE = 26

    def __init__(self, parent=None):
        super().__init__(parent)
        self.is_collapsed, self.words, self.strip = False, "", 14
        self.handle = QtWidgets.QToolButton(self, autoRaise=True)
        self.handle.setToolButtonStyle(QtCore.Qt.ToolButtonTextBesideIcon)

    def event(self, event):
        if event.type() == QtCore.QEvent.Polish:
            self.layout().setContentsMargins(9, self.HANDLE + 4, 9, 3)
            self.arrange()
        return super().event(event)

    def arrange(self):
        self.handle.setText(self.words)
        self.handle.setArrowType(QtCore.Qt.RightArrow if self.is_collapsed else QtCore.Qt.DownArrow)
        self.handle.adjustSize()
        self.setMaximumHeight(self.HANDLE + self.strip if self.is_collapsed else 16777215)
        self.setMinimumHeight(self.HANDLE + self.strip if self.is_collapsed else 0)

    def set_collapsed(self, collapsed):
        self.is_collapsed = collapsed
        self.arrange()

    def set_text(self, text):
        self.words = text
        self.arrange()

    def set_strip(self, height):
        self.strip = height
        self.arrange()

    collapsed = QtCore.Property(bool, lambda self: self.is_collapsed, set_collapsed)
    text = QtCore.Property(str, lambda self: self.words, set_text)
    collapsedHeight = QtCore.Property(int, lambda self: self.strip, set_strip)


@pytest.fixture(name="application")
def application_fixture():
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication([])


def load_ui(path=UI):
    """The .ui file as a tree of widgets."""
    loader = QtUiTools.QUiLoader()
    for stand_in in (qMRMLWidget, qMRMLNodeComboBox, qMRMLTableView, ctkCollapsibleButton):
        loader.registerCustomWidget(stand_in)
    panel = loader.load(str(path))
    assert panel is not None, loader.errorString()
    return panel


class Attributes:
    """A widget whose Qt properties are Python attributes, as they are in Slicer."""

    def __init__(self, widget):
        self.__dict__["widget"] = widget

    def has(self, name):
        return self.widget.metaObject().indexOfProperty(name) >= 0

    def __getattr__(self, name):
        return self.widget.property(name) if self.has(name) else getattr(self.widget, name)

    def __setattr__(self, name, value):
        assert self.has(name), f"{self.widget.objectName()} has no property {name}"
        assert self.widget.setProperty(name, value)


def named(panel):
    """Widgets by name, as ``slicer.util.childWidgetVariables`` gives them."""
    widgets = [widget for widget in panel.findChildren(QtWidgets.QWidget) if widget.objectName()]
    return types.SimpleNamespace(**{widget.objectName(): Attributes(widget) for widget in widgets})


def parameterNodeWrapper(wrapped):
    """Keeps the fields of a parameter node, binds lists to enums, and refuses names that are no fields."""
    fields = typing.get_type_hints(wrapped)
    defaults = {name: getattr(wrapped, name, None) for name in fields}

    class Wrapper:
        def __init__(self, store):
            self.__dict__.update(store=store, parameterNode=store, bound={}, updating=False)

        def __getattr__(self, name):
            return self.store.values.get(name, defaults[name]) if name in fields else super().__getattribute__(name)

        def __setattr__(self, name, value):
            assert value is None or isinstance(value, fields[name])
            if value != getattr(self, name):
                self.store.values[name] = value
                self.store.observed.Modified()

        def AddObserver(self, event, callback, priority=0.0):
            return self.store.observed.AddObserver(event, callback, priority)

        def RemoveObserver(self, tag):
            self.store.observed.RemoveObserver(tag)

        def connectGui(self, gui):
            # As Slicer's: the tag is not returned.
            widgets = {widget.property("SlicerParameterName"): widget for widget in vars(gui).values()}
            self.connectParametersToGui({name: widget for name, widget in widgets.items() if name})

        def connectParametersToGui(self, mapping):
            tag = len(self.bound)
            assert set(mapping) <= set(fields), "a name that is no parameter"
            enums = {name: widget for name, widget in mapping.items() if issubclass(fields[name], enum.Enum)}
            ticks = {name: widget for name, widget in mapping.items() if fields[name] is bool}
            assert not {str, int, float} & {fields[name] for name in mapping}, "such lists need fixed choices"
            # As Slicer's: whatever is still bound to a list hears of its being cleared and filled.
            for name, widget in enums.items():
                widget.clear()
                for choice in fields[name]:
                    widget.addItem(choice.label())
            self.bound[tag] = {name: (widget, self.listen(name, widget)) for name, widget in enums.items()}
            self.bound[tag].update({name: (widget, self.listen_tick(name, widget)) for name, widget in ticks.items()})
            self.store.observed.AddObserver("ModifiedEvent", lambda caller, event: self.show())
            return tag

        def listen(self, name, widget):
            choices = list(fields[name])

            def changed(index):
                if not self.updating:
                    setattr(self, name, choices[index])

            widget.setCurrentIndex(choices.index(getattr(self, name)))
            widget.currentIndexChanged.connect(changed)
            return changed

        def listen_tick(self, name, widget):
            def changed(ticked):
                if not self.updating:
                    setattr(self, name, bool(ticked))

            widget.setChecked(getattr(self, name))
            widget.toggled.connect(changed)
            return changed

        def show(self):
            self.__dict__["updating"] = True
            for widgets in self.bound.values():
                for name, (widget, _) in widgets.items():
                    if fields[name] is bool:
                        widget.setChecked(getattr(self, name))
                    else:
                        widget.setCurrentIndex(list(fields[name]).index(getattr(self, name)))
            self.__dict__["updating"] = False

        def disconnectGui(self, tag):
            for name, (widget, changed) in self.bound.get(tag, {}).items():
                (widget.toggled if fields[name] is bool else widget.currentIndexChanged).disconnect(changed)
            self.bound[tag] = {}

    Wrapper.fields = fields
    return Wrapper


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        self.parent, self.layout = parent, QtWidgets.QVBoxLayout()

    def setup(self):
        pass

    def resourcePath(self, name):
        return str(MODULE.parent / "Resources" / name)


class ScriptedLoadableModuleLogic:
    store = None

    def getParameterNode(self):
        return type(self).store


class ScriptedLoadableModuleTest(unittest.TestCase):
    said = None

    def delayDisplay(self, message):
        ScriptedLoadableModuleTest.said = message


class VTKObservationMixin:
    def __init__(self):
        self.observations = []

    def addObserver(self, observed, event, method):
        self.observations.append((observed, event, method, observed.AddObserver(event, method)))

    def removeObserver(self, observed, event, method):
        (found,) = (entry for entry in self.observations if entry[0] is observed and entry[1:3] == (event, method))
        observed.RemoveObserver(found[3])
        self.observations.remove(found)

    def removeObservers(self):
        for observed, _, _, tag in self.observations:
            observed.RemoveObserver(tag)
        self.observations.clear()


def module_of(**attributes):
    module = types.ModuleType("stand_in")
    vars(module).update(attributes)
    return module


@pytest.fixture(name="models", autouse=True)
def models_fixture(monkeypatch, tmp_path):
    """The folder of user-trained models; what is bundled is settled, too."""
    names = ["unet-none-coronal", "unet-cse-coronal", "unet-sse-coronal", "densenet-scse-coronal"]
    names += [f"unet-scse-{view}" for view in ("coronal", "axial", "sagittal")]
    monkeypatch.setattr(bundled, "names", lambda: names)
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("SEBRAINSEG_MODELS", str(folder))
    return folder


class Application:
    """In the place of ``slicer.app``."""

    def __init__(self):
        self.kept = {}

    def connect(self, signal, slot):
        pass

    def processEvents(self):
        pass

    def userSettings(self):
        return types.SimpleNamespace(value=self.kept.get, setValue=self.kept.__setitem__)


class FileDialog:
    """As PythonQt's: the answer is the path."""

    answer = ""

    @staticmethod
    def getSaveFileName(parent, title, path, filters):
        FileDialog.asked = path
        return FileDialog.answer


class Clipboard:
    text = ""

    def setText(self, text):
        Clipboard.text = text


class Timer:
    """In the place of ``qt.QTimer``: what is to come later comes at once."""

    @staticmethod
    def singleShot(milliseconds, do):
        do()


class CheckBox(QtWidgets.QCheckBox):
    """One that the code makes, whose Qt properties are Python attributes."""

    text = property(QtWidgets.QCheckBox.text, QtWidgets.QCheckBox.setText)
    checked = property(QtWidgets.QCheckBox.isChecked, QtWidgets.QCheckBox.setChecked)
    enabled = property(QtWidgets.QCheckBox.isEnabled, QtWidgets.QCheckBox.setEnabled)
    toolTip = property(QtWidgets.QCheckBox.toolTip, QtWidgets.QCheckBox.setToolTip)


PYTHONQT = {
    "QCheckBox": CheckBox,
    "QApplication": types.SimpleNamespace(clipboard=Clipboard),
    "QFileDialog": FileDialog,
    "QTimer": Timer,
}


@pytest.fixture(name="module")
def module_fixture(application, monkeypatch):
    """SEBrainSeg.py itself, in a scene of Slicer's core."""
    volume_nodes = slicer.vtkMRMLScene()
    util = module_of(
        VTKObservationMixin=VTKObservationMixin,
        loadUI=load_ui,
        childWidgetVariables=named,
        mainWindow=lambda: None,
        __name__="slicer.util",
    )
    monkeypatch.setattr(slicer, "mrmlScene", volume_nodes, raising=False)
    monkeypatch.setattr(slicer, "util", util, raising=False)
    monkeypatch.setattr(slicer, "app", Application(), raising=False)
    translation = module_of(tr=lambda text: text, translate=lambda context, text: text)
    base = module_of(
        ScriptedLoadableModule=ScriptedLoadableModule,
        ScriptedLoadableModuleWidget=ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic=ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest=ScriptedLoadableModuleTest,
    )
    # PySide6 makes its classes when they are asked for.
    qt = module_of(**PYTHONQT, __getattr__=lambda name: getattr(QtCore, name))
    monkeypatch.setitem(sys.modules, "qt", qt)
    monkeypatch.setitem(sys.modules, "slicer.util", util)
    monkeypatch.setitem(sys.modules, "slicer.i18n", translation)
    monkeypatch.setitem(sys.modules, "slicer.ScriptedLoadableModule", base)
    monkeypatch.setitem(
        sys.modules, "slicer.parameterNodeWrapper", module_of(parameterNodeWrapper=parameterNodeWrapper)
    )
    store = types.SimpleNamespace(values={}, observed=vtk.vtkObject())
    monkeypatch.setattr(ScriptedLoadableModuleLogic, "store", store)
    module = types.ModuleType("SEBrainSeg")
    before = set(sys.modules)
    exec(compile(SOURCE, str(MODULE), "exec"), vars(module))
    module.imported = set(sys.modules) - before
    yield module
    for name in ("subprocesses.qtprocess", "panel.presenter"):
        sys.modules.pop(f"SEBrainSegLib.{name}", None)


class Run:
    """In the place of the child process."""

    made = None

    def __init__(self, factory, python, progress, finished, failed, cancelled):
        self.progress, self.finished, self.failed, self.cancelled = progress, finished, failed, cancelled
        self.running, self.started, self.labelmaps = False, None, None
        Run.made = self

    def start(self, image, job, known=()):
        self.running, self.started, self.known, self.labelmaps = True, (image, job.checked()), known, None

    def start_surfaces(self, labelmaps, settings):
        self.running, self.labelmaps, self.settings = True, labelmaps, settings

    def finish_surfaces(self):
        """Give what the child process would make."""
        made = {}
        for each in self.labelmaps:
            for segment, _, label in each.segments:
                made[segment] = surfaces.surface_of(each.labels, label, each.matrix, self.settings)
        self.end(self.finished, made)

    def end(self, tell, *arguments):
        self.running = False
        tell(*arguments)

    def finish(self, table=None, device="cpu", seconds=20.0):
        """Give what the real one would, for the job: some voxels of the first structure everywhere."""
        image, job = self.started
        table = table or structures()
        made = []
        for number, parameters in enumerate(job.choices):
            labels = sitk.Image(image.GetSize(), sitk.sitkUInt16) + table[0].label
            labels[number, 0, 0] = 0
            scalar = sitk.Image(image.GetSize(), sitk.sitkFloat32) + 0.5
            fields = {"confidences": {table[0].label: 0.75}, "confidence": scalar} if job.confidence else {}
            if job.excitation:
                fields["excitation"] = Excitation(job.excitation, scalar, (0.25, 0.5), (0.0, 0.1))
            volumes = {structure.label: 1.0 for structure in table}
            made.append(Segmentation(labels, volumes, device, table, parameters, seconds, **fields))
        self.end(
            self.finished, comparison_module.compare(job.in_order(made, self.known)) if job.compared else tuple(made)
        )

    def cancel(self):
        if self.running:
            self.end(self.cancelled)


class Search:
    """In the place of the search for devices."""

    def __init__(self, factory, python, found):
        self.found = found
        self.cancelled = False
        Search.made = self

    def cancel(self):
        self.cancelled = True


@pytest.fixture(name="widget")
def widget_fixture(module, monkeypatch):
    """The panel, shown, with torch there and the child processes not."""
    monkeypatch.setattr("SEBrainSegLib.subprocesses.background.BackgroundSegmentation", Run)
    monkeypatch.setattr("SEBrainSegLib.subprocesses.device_search.DeviceSearch", Search)
    monkeypatch.setattr("SEBrainSegLib.networks.bundled.facts", lambda parameters: Facts(1234567, 2.85, 0.824, 21.4))
    widget = module.SEBrainSegWidget(types.SimpleNamespace(isEntered=True))
    widget.setup()
    return widget


def volume(size=(6, 5, 4), name="T1"):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    data = vtk.vtkImageData()
    data.SetDimensions(*size)
    data.AllocateScalars(vtk.VTK_SHORT, 1)
    data.GetPointData().GetScalars().Fill(5)
    node.SetAndObserveImageData(data)
    return node


def segmentations():
    return slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
