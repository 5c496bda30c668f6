"""Walks through the module in a real Slicer as a user would, with pictures on the way.

    Slicer --additional-module-paths SEBrainSeg --python-script Testing/Slicer/tour.py [--pictures DIR] [--limit S]

Exits with 0 only if every step shows what it should and Slicer was never without handling its events for longer than
the limit, half a second. PyTorch must be installed; takes some minutes. The pictures, and a table of the longest
pauses, ``tour.csv``, go to the folder that is named, or else to ``tour`` where Slicer was started.
"""

import argparse
import csv
import sys
import tempfile
import time
import traceback
from pathlib import Path

SAMPLE = "SEBrainSeg T1"
# A step takes no longer, in seconds, on two slow processors.
PATIENCE = 900.0
# When a run is cancelled, and how long the tour sleeps between two looks, in seconds.
CANCELLED_AFTER, SLEEP = 2.0, 0.005
# Segments of the bundled networks, and lines of a plot: mean, and spread on both sides.
SEGMENTS, LINES = 31, 3


class Wrong(Exception):
    """A step does not show what it should."""


def expect(condition, sentence):
    """Raise :class:`Wrong` unless the condition holds."""
    if not condition:
        raise Wrong(sentence)


class InSlicer:
    """What the tour needs of Slicer.

    Args:
        pictures: the folder of the pictures.
    """

    def __init__(self, pictures):
        self.pictures = Path(pictures)
        self.pictures.mkdir(parents=True, exist_ok=True)

    def handle_events(self):
        """Let Slicer handle its events."""
        import slicer

        slicer.app.processEvents()

    def every(self, milliseconds, do):
        """Call a function again and again, whenever events are handled; returns what keeps that going."""
        import qt

        timer = qt.QTimer()
        timer.timeout.connect(do)
        timer.start(milliseconds)
        return timer

    def take_picture(self, name):
        """Save a picture of the main window."""
        import slicer

        slicer.util.forceRenderAllViews()
        slicer.app.processEvents()
        slicer.util.mainWindow().grab().save(str(self.pictures / f"{name}.png"))

    def arrange(self):
        """Show all of the application as on a small screen, slices and 3D."""
        import slicer

        slicer.util.mainWindow().resize(1280, 800)
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def open_panel(self):
        """Open the module and return its widget."""
        import slicer

        slicer.util.selectModule("SEBrainSeg")
        return slicer.modules.SEBrainSegWidget

    def open_another_module(self):
        """Leave the module for another."""
        import slicer

        slicer.util.selectModule("Data")

    def has_sample(self):
        """Whether Sample Data knows the bundled scan, which it learns when Slicer has started."""
        import slicer

        sources = getattr(slicer.modules, "sampleDataSources", {}).get("SEBrainSeg", ())
        return any(source.sampleName == SAMPLE for source in sources)

    def load_sample(self):
        """Load the bundled scan as Sample Data does."""
        import SampleData

        return SampleData.downloadSample(SAMPLE)

    def reset_views(self):
        """Fit the views to what is loaded."""
        import slicer

        slicer.util.resetSliceViews()
        slicer.util.resetThreeDViews()

    def scene(self):
        """Return the scene."""
        import slicer

        return slicer.mrmlScene

    def save_scene(self, path):
        """Save the scene with its data in a folder of its own."""
        import slicer

        return slicer.util.saveScene(str(path))

    def load_scene(self, path):
        """Load a scene in the place of the present one."""
        import slicer

        slicer.mrmlScene.Clear(0)
        return slicer.util.loadScene(str(path))

    def lines_drawn(self):
        """Return how many lines the first plot view draws."""
        import slicer

        manager = slicer.app.layoutManager()
        return manager.plotWidget(0).plotView().chart().GetNumberOfPlots() if manager.plotViewCount else 0

    def legends_drawn(self):
        """Return how many colour legends are to be seen."""
        kind = "vtkMRMLColorLegendDisplayNode"
        scene = self.scene()
        nodes = (scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind)))
        return sum(bool(node.GetVisibility()) for node in nodes)


class Tour:
    """The steps, in their order.

    Args:
        slicer: an :class:`InSlicer`.
        limit: how long Slicer may be without handling events, seconds.
        clock: tells the time in seconds.
    """

    def __init__(self, slicer, limit, clock=time.monotonic):
        self.slicer, self.limit, self.clock = slicer, limit, clock
        self.rows, self.longest, self.last = [], 0.0, clock()
        self.widget = None
        self.timer = slicer.every(10, self.beat)

    def beat(self):
        """Events are being handled."""
        now = self.clock()
        self.longest, self.last = max(self.longest, now - self.last), now

    def steps(self):
        """The names of the steps with what they do."""
        return {
            "open": self.open,
            "load": self.load,
            "apply": self.apply,
            "cancel": self.cancel,
            "back": self.back,
            "compare": self.compare,
            "hide": self.hide,
            "maps": self.maps,
            "3d": self.in_3d,
            "volumes": self.volumes,
            "scene": self.another_scene,
            "reload": self.reload,
        }

    def run(self):
        """Take all steps; returns a row for each: name, seconds, longest pause, and what is wrong or ``""``."""
        self.slicer.arrange()
        for number, (name, step) in enumerate(self.steps().items(), start=1):
            self.settle()
            self.longest, began, wrong = 0.0, self.clock(), ""
            try:
                step()
                self.settle()
            except Exception as error:
                wrong = str(error) or type(error).__name__
                traceback.print_exc()
            if not wrong and self.longest > self.limit:
                wrong = f"no events were handled for {self.longest:.2f} s"
            self.rows.append((name, round(self.clock() - began, 2), round(self.longest, 2), wrong))
            print(f"{name}: {self.rows[-1][1]} s, longest pause {self.rows[-1][2]} s {wrong or 'well'}", flush=True)
            self.slicer.take_picture(f"{number:02d} {name}")
        return self.rows

    def settle(self):
        """Let Slicer come to rest."""
        for _ in range(20):
            self.slicer.handle_events()
            time.sleep(SLEEP)

    def wait(self, condition, what):
        """Let Slicer work until something holds."""
        end = self.clock() + PATIENCE
        while not condition():
            if self.clock() > end:
                raise Wrong(f"waited in vain for {what}: {self.ui.statusLabel.text}")
            self.slicer.handle_events()
            time.sleep(SLEEP)

    def finish(self):
        """Wait for what is running."""
        self.wait(lambda: not self.widget.presenter.busy, "the end of the run")

    @property
    def ui(self):
        """The panel's widgets."""
        return self.widget.ui

    def count(self, kind):
        """How many nodes of a class are in the scene."""
        return self.slicer.scene().GetNumberOfNodesByClass(kind)

    def result(self):
        """The segmentation node that the section Result is about."""
        return self.widget.presenter.result

    # The steps --------------------------------------------------------------------------------------------------------

    def open(self):
        """The module opens."""
        self.widget = self.slicer.open_panel()
        expect(self.ui.applyButton.enabled is False, "Apply is enabled without a volume")

    def load(self):
        """The bundled scan is loaded from Sample Data and chosen."""
        self.slicer.open_another_module()
        self.wait(self.slicer.has_sample, "Sample Data")
        node = self.slicer.load_sample()
        self.widget = self.slicer.open_panel()
        self.slicer.reset_views()
        expect(self.widget.parameterNode.volume is node, "the volume is not chosen")
        expect(self.ui.applyButton.enabled, f"Apply is not enabled: {self.ui.statusLabel.text}")

    def apply(self):
        """Apply makes a segmentation, and the section Result opens."""
        self.ui.applyButton.click()
        expect(self.widget.presenter.busy, f"nothing is running: {self.ui.statusLabel.text}")
        self.finish()
        expect(self.result() is not None, self.ui.statusLabel.text)
        count = self.result().GetSegmentation().GetNumberOfSegments()
        expect(count == SEGMENTS, f"{count} segments, not {SEGMENTS}")
        expect("under result" in self.ui.statusLabel.text.lower(), "the status names no next step")
        expect(not self.ui.resultCollapsibleButton.collapsed, "the section Result is closed")

    def cancel(self):
        """Cancel ends a run at once and leaves nothing."""
        before = self.count("vtkMRMLNode")
        self.ui.seComboBox.setCurrentText("none")
        self.ui.applyButton.click()
        end = self.clock() + CANCELLED_AFTER
        self.wait(lambda: self.clock() > end or not self.widget.presenter.busy, "a moment")
        began = self.clock()
        self.ui.cancelButton.click()
        self.finish()
        expect(self.clock() - began < 1.0, "cancelling took longer than a second")
        expect("Cancelled" in self.ui.statusLabel.text, f"after Cancel: {self.ui.statusLabel.text}")
        expect(self.count("vtkMRMLNode") == before, "nodes are left of the cancelled run")

    def back(self):
        """Another variant is computed, and going back shows the first at once."""
        first = self.result()
        self.ui.applyButton.click()
        self.finish()
        second = self.result()
        expect(second is not first and second.GetDisplayVisibility(), self.ui.statusLabel.text)
        expect(not first.GetDisplayVisibility(), "two segmentations are shown at once")
        self.ui.seComboBox.setCurrentText("scSE")
        expect(self.result() is first and first.GetDisplayVisibility(), "the first variant is not shown again")

    def compare(self):
        """Two variants, made before, and one more are compared."""
        boxes = {variant.value: box for variant, box in self.widget.variantBoxes.items()}
        boxes["cse"].click()
        self.ui.consensusCheckBox.click()
        expect(self.ui.compareButton.enabled, f"Compare is not enabled: {self.ui.compareButton.toolTip}")
        self.ui.compareButton.click()
        self.finish()
        expect("Compared 3 variants" in self.ui.statusLabel.text, self.ui.statusLabel.text)
        expect(not self.ui.compareCollapsibleButton.collapsed, "the section Compare is closed")
        self.check_map("disagreement")

    def check_map(self, name):
        """A map is seen over the scan, with outlines and a legend."""
        expect(name in self.ui.mapLabel.text, f"the map that is shown is '{self.ui.mapLabel.text}'")
        expect(not self.result().GetDisplayNode().GetVisibility2DFill(), "the fill of the structures hides the map")
        expect(self.slicer.legends_drawn() > 0, "there is no colour legend")

    def hide(self):
        """Without the map, the structures are filled again."""
        self.ui.hideMapButton.click()
        expect(self.ui.mapLabel.text == "", "the map is still shown")
        expect(self.result().GetDisplayNode().GetVisibility2DFill(), "the structures are not filled again")

    def maps(self):
        """Confidence and the excitation of a block are shown."""
        self.ui.mapsCollapsibleButton.collapsed = False
        self.ui.blockComboBox.setCurrentText("decoder 3")
        self.ui.confidenceCheckBox.click()
        expect(self.ui.mapsTimeLabel.text != "", "nothing says how long maps take")
        self.ui.mapsButton.click()
        self.finish()
        self.settle()
        self.check_map("spatial")
        lines = self.slicer.lines_drawn()
        expect(lines == LINES, f"the plot has {lines} lines, not {LINES}")

    def in_3d(self):
        """The structures are shown in 3D."""
        self.ui.hideMapButton.click()
        self.ui.show3dButton.click()
        self.finish()
        self.slicer.reset_views()
        segmentation = self.result().GetSegmentation()
        expect(segmentation.ContainsRepresentation("Closed surface"), self.ui.statusLabel.text)
        expect(self.ui.show3dButton.checked, "the button Show 3D is not down")

    def volumes(self):
        """The table of volumes is added."""
        self.ui.volumesButton.click()
        expect("volumes" in self.ui.statusLabel.text, self.ui.statusLabel.text)
        rows = self.widget.presenter.table.GetNumberOfRows()
        expect(rows > SEGMENTS / 2, f"the table has {rows} rows")

    def another_scene(self):
        """The scene is saved, closed and loaded in place, and works at once."""
        name = self.result().GetName()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scene.mrb"
            expect(self.slicer.save_scene(path), "the scene cannot be saved")
            self.slicer.load_scene(path)
        self.settle()
        expect(self.ui.applyButton.enabled, f"Apply is not enabled: {self.ui.statusLabel.text}")
        expect(self.result() is not None and self.result().GetName() == name, "the result is not taken up")
        lines = self.slicer.lines_drawn()
        expect(lines == LINES, f"the plot of the loaded scene has {lines} lines, not {LINES}")
        self.ui.applyButton.click()
        expect(not self.widget.presenter.busy, "what the scene holds is computed anew")

    def reload(self):
        """The module is reloaded with its library."""
        before = sys.modules["SEBrainSegLib.panel.presenter"]
        self.widget.onReload()
        self.widget = self.slicer.open_panel()
        expect(sys.modules["SEBrainSegLib.panel.presenter"] is not before, "the library is the old one")
        expect(self.ui.applyButton.enabled, f"Apply is not enabled: {self.ui.statusLabel.text}")


def main(arguments):
    """Take the tour; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, default=Path("tour"))
    parser.add_argument("--limit", type=float, default=0.5, help="seconds without event handling")
    chosen = parser.parse_args(arguments)
    rows = Tour(InSlicer(chosen.pictures), chosen.limit).run()
    with open(chosen.pictures / "tour.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("step", "seconds", "longest_pause", "wrong"), *rows])
    return int(any(wrong for *_, wrong in rows))


if __name__ == "__main__":
    import slicer

    try:
        status = main(sys.argv[1:])
    except BaseException:
        traceback.print_exc()
        status = 1
    slicer.util.exit(status)
