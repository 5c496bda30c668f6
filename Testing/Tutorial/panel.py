"""Renders ``Resources/Tutorial/panel.png``: the module's panel with the bundled scan segmented and compared.

    python -m pytest Testing/Tutorial/panel.py

The panel is the real one, and so are the numbers; what only Slicer's application has is stood in for, as in
``slicer_stand_ins.py``, and the segmentation runs in this process. Needs the extra "test"; takes a minute.
"""

from pathlib import Path

import slicer

ROOT = Path(__file__).resolve().parents[2]

import slicer_stand_ins as stand_ins  # noqa: E402
from SEBrainSegLib.analysis.comparison import compare  # noqa: E402
from SEBrainSegLib.inference.run import run  # noqa: E402
from slicer_stand_ins import application_fixture, models_fixture, module_fixture  # noqa: E402, F401

SCAN = ROOT / "Resources/SampleData/colin27_t1.nii.gz"
WIDTH, HEIGHT = 420, 1100


class Run(stand_ins.Run):
    """The segmentation itself, where a child process would do it."""

    def finish(self):
        image, job = self.started
        found = run(image, job) if job.choices else ()
        self.end(self.finished, compare(job.in_order(found, self.known)) if job.compared else found)


def test_the_panel(module, application, monkeypatch):
    monkeypatch.setattr("SEBrainSegLib.subprocesses.background.BackgroundSegmentation", Run)
    monkeypatch.setattr("SEBrainSegLib.subprocesses.device_search.DeviceSearch", stand_ins.Search)
    widget = module.SEBrainSegWidget(stand_ins.types.SimpleNamespace(isEntered=True))
    widget.setup()
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(SCAN))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "colin27_t1")
    assert storage.ReadData(node)
    widget.parameterNode.volume = node
    widget.ui.volumeSelector.addItem(node.GetName())
    stand_ins.Search.made.found({})
    widget.onApply()
    stand_ins.Run.made.finish()
    widget.ui.compareButton.click()
    stand_ins.Run.made.finish()
    widget.ui.volumesButton.click()
    panel = widget.layout.itemAt(0).widget()
    panel.resize(WIDTH, HEIGHT)
    panel.show()
    widget.ui.mapsCollapsibleButton.collapsed = False
    application.processEvents()
    assert panel.grab().save(str(ROOT / "Resources/Tutorial/panel.png"))
