"""What the panel's buttons do, and what becomes of a run, without Qt: the widget only binds.

The widget reports the choices, the run reports how it goes; :meth:`Presenter.state` is all that there is to show.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, Optional

from ..analysis import volume_table
from ..choices.job import Job
from ..choices.parameters import Parameters
from ..errors import Cancelled, SEBrainSegError
from ..networks import bundled
from ..translation import tr as _
from .collaborators import Application, Node, RunFactory, Scene
from .selection import Choices, Selection
from .state import Action, State, cancelled_text, expected_time, facts_line, quoted_names, table_text, time_key
from .tasks import Compare, ComputeMaps, MakeSurfaces, Segment, SegmentSequence, SelfTest, Task, VolumeTask


class Phase(Enum):
    """What this process is at; a run may be at work in the background besides.

    IDLE: nothing.
    STARTING: a run is about to start, once PyTorch is there.
    WORKING: results are added to the scene, or surfaces are made here.
    STOPPING: as WORKING, but it is to end at the next step.
    """

    IDLE = "idle"
    STARTING = "starting"
    WORKING = "working"
    STOPPING = "stopping"


class Presenter:
    """State and behaviour of the panel.

    Args:
        scene: :mod:`SEBrainSegLib.scene`.
        application: an :class:`~.application.Application`.
        make_run: makes the run, given what to call when it progresses, finishes, fails or is cancelled.
        changed: called without arguments when there is something else to show.
    """

    def __init__(
        self, scene: Scene, application: Application, make_run: RunFactory, changed: Callable[[], None]
    ) -> None:
        self.choices: Optional[Choices] = None
        self.devices: Optional[Mapping[str, str]] = None
        # The nodes that the sections are about.
        self.result: Optional[Node] = None
        self.comparison: Optional[Node] = None
        self.table: Optional[Node] = None
        self._scene, self._application, self._changed = scene, application, changed
        self._phase = Phase.IDLE
        self._task: Optional[Task] = None
        # What was refused because its result is unlikely to be right.
        self._refused: Optional[VolumeTask] = None
        self._outcome = self._message = ""
        self._fraction = 0.0
        self._opened: tuple[str, ...] = ()
        self._map_seen = ""
        self.run = make_run(
            progress=self.on_progress,
            finished=self.on_finished,
            failed=self.on_failed,
            cancelled=self.on_cancelled,
        )

    @property
    def busy(self) -> bool:
        """Whether something is going on that the choices must not change under."""
        return self._phase is not Phase.IDLE or self.run.running

    @property
    def selection(self) -> Selection:
        """What is chosen, as far as this computer has it."""
        return Selection(self.choices or Choices(), self.devices)

    # What is chosen ---------------------------------------------------------------------------------------------------

    def choose(self, choices: Optional[Choices]) -> None:
        """Set what is chosen, ``None`` for nothing; a segmentation that was made so before is shown at once."""
        before, self.choices = self.choices, choices
        if choices is not None and choices != before:
            # A volume that was just removed leaves no choice, but the message about it stays.
            if before is not None and (choices.volume is not None or before.volume is None):
                self._outcome = ""
            self._refused = None
            if before is None or before[:2] != choices[:2]:
                self._find_earlier_results(choices, show=before is not None)
        self._changed()

    def scene_changed(self, choices: Optional[Choices]) -> None:
        """Find what is there after a scene was loaded or closed, or nodes were loaded.

        Args:
            choices: those of the scene, or ``None``.
        """
        self.choices = choices
        if not self.busy:
            self._outcome = ""
        self.result, self.comparison, self.table = (
            node if self._scene.is_there(node) else None for node in (self.result, self.comparison, self.table)
        )
        if choices is not None:
            self._find_earlier_results(choices, show=False)
        self._changed()

    def volume_changed(self) -> None:
        """Forget what was said of the chosen volume, whose voxels came, went or changed."""
        self._outcome, self._refused = "", None
        self._changed()

    def set_devices(self, devices: Mapping[str, str]) -> None:
        """Set the devices of this computer: names for people by device; the CPU need not be listed."""
        self.devices = dict(devices)
        self._changed()

    def _find_earlier_results(self, choices, show):
        """Find what was made with these choices before and, if wanted and nothing is going on, show it."""
        if self.busy:
            return
        self.comparison = self._scene.comparison_of(choices.volume)
        if self.comparison is not None:
            self._open_section("compare")
        node = self._earlier_segmentation(choices.parameters)
        if node is not None and show:
            self._show_earlier_segmentation(node)
        elif node is not None and not self._scene.is_there(self.result):
            self._set_result(node)

    def _earlier_segmentation(self, parameters):
        """Return the segmentation node made of the chosen volume with these parameters, or ``None``."""
        return self._scene.find_result(self.selection.volume, "segmentation", parameters)

    def _show_earlier_segmentation(self, node):
        self._scene.hide_maps(self.selection.volume)
        self._scene.show_only(node)
        self._set_result(node)
        self._outcome = _("Shown from an earlier run: '{name}'.").format(name=node.GetName())

    def _set_result(self, node):
        """Make a segmentation node what the section Result is about."""
        self.result = node
        self._open_section("result")

    def _open_section(self, section):
        """Open a section when it first has something to show; a user who closes it finds it closed."""
        if section not in self._opened:
            self._opened += (section,)

    # What to show -----------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Return all that there is to show."""
        selection, is_open, busy = self.selection, self.choices is not None, self.busy
        volume, variants = selection.volume, selection.variants()
        problem_of_volume = self._scene.problem(volume, not selection.parameters.model)
        problem_of_network = selection.parameters.problem()
        problem = (problem_of_volume or problem_of_network) if is_open else _("Open the module first.")
        running = _("Wait for what is running, or cancel it.") if busy else ""
        result = self.result if self._scene.is_there(self.result) else None
        has_sequence = volume is not None and len(self._scene.items(volume)) > 1

        def action(why_not, text):
            return Action(not (running or why_not), running or why_not or text)

        return State(
            busy=busy,
            apply=action(problem, "" if running or problem else self._what_apply_does(selection)),
            cancel=Action(busy and self._phase is not Phase.STARTING, _("End this; nothing is created.")),
            compare=action(
                problem_of_volume or selection.why_not_compare(variants),
                _("Segment the volume with every variant that is ticked, and compare the results."),
            ),
            maps=action(
                problem or selection.why_not_maps(),
                _("Show the maps over the volume; what is missing is computed."),
            ),
            sequence=action(
                problem or ("" if has_sequence else _("The volume is not one of a sequence.")),
                _("Segment all volumes of the sequence, one after the other."),
            ),
            result=action("" if result is not None else _("Segment a volume first."), ""),
            accept=action(
                "" if self._refused is not None else _("Nothing was refused."),
                _("Segment the volume again and show the result, unlikely as it is; the table of volumes says why."),
            ),
            variants=variants,
            status=self._status(problem if is_open else "", selection),
            facts=self._facts(selection) if is_open and not problem_of_network else "",
            doubt=self._scene.doubt(volume) if volume is not None else "",
            percent=round(100 * self._fraction) if busy else None,
            device=selection.device,
            devices=selection.device_names(),
            blocks=selection.blocks if is_open else (),
            result_name="" if result is None else result.GetName(),
            groups={} if result is None else self._scene.groups_shown(result),
            in_3d=result is not None and self._scene.has_surfaces(result),
            has_sequence=has_sequence,
            maps_time="" if problem or busy else self._maps_time(selection),
            advanced=selection.advanced_line(),
            map_name=self._map_name(),
            outlined=self._outlined,
            opened=self._opened,
        )

    def _what_apply_does(self, selection):
        node = self._earlier_segmentation(selection.choices.parameters)
        if node is not None and self._earlier_maps(selection) is not None:
            return _("Show the segmentation that was made so before; to compute it anew, delete it.")
        return _("Segment the volume into a new segmentation node.")

    def _status(self, problem, selection):
        """Return the line of text beneath the progress bar."""
        if self.busy:
            return self._message
        return self._outcome or problem or selection.missing_device() or _("Ready: press Apply.")

    def _facts(self, selection):
        """Return the line that says what there is to expect of the chosen network."""
        facts = bundled.facts(selection.parameters)
        return facts_line(facts, self._expected_time(selection, facts))

    def _maps_time(self, selection):
        """Return the line that says how long the chosen maps will take."""
        if selection.why_not_maps():
            return ""
        if self._find_maps(selection, selection.block, selection.choices.confidence):
            return _("They are there already.")
        time = self._expected_time(selection, bundled.facts(selection.parameters))
        return _("They take a run of their own: {time}. With maps, they come with Apply.").format(time=time)

    def _expected_time(self, selection, facts):
        """Write how long a segmentation may take on the chosen device."""
        device = selection.device
        device = self._application.setting("auto", "") or device if device == "auto" else device
        measured = self._application.setting(time_key(selection.parameters, device), "")
        return expected_time(facts, measured, device, selection.device_names().get(device, device))

    def _earlier_maps(self, selection):
        """Return the maps that are to come with the segmentation, if all were made before, or ``None``."""
        block, confidence = selection.maps_with_segmentation()
        if not block and not confidence:
            return ()
        return self._find_maps(selection, block, confidence) or None

    def _find_maps(self, selection, block, confidence):
        """Return the maps of the chosen segmentation, if all were made before."""
        return self._scene.find_maps(selection.volume, selection.parameters, block, confidence)

    # What to do -------------------------------------------------------------------------------------------------------

    def apply(self) -> None:
        """Segment the chosen volume, or show what was made so before."""
        if self.busy:
            return
        selection = self.selection
        node, maps = self._earlier_segmentation(selection.choices.parameters), self._earlier_maps(selection)
        if node is not None and maps is not None:
            self._show_earlier_segmentation(node)
            if maps:
                self._show_maps(selection.volume, maps)
            self._changed()
        else:
            block, confidence = selection.maps_with_segmentation()
            self._begin_segmentation(selection, block, confidence)

    def show_maps(self) -> None:
        """Show the chosen maps; what was made before is not made again."""
        if self.busy:
            return
        selection = self.selection
        block, confidence = selection.block, selection.choices.confidence
        maps = self._find_maps(selection, block, confidence)
        if maps:
            self._show_maps(selection.volume, maps)
            self._outcome = _("Shown from an earlier run: {names}.").format(names=quoted_names(maps))
            self._changed()
        else:
            self._begin_segmentation(selection, block, confidence)

    def compare(self) -> None:
        """Segment the chosen volume with the variants that are ticked, in one run, and compare the results.

        Those that were segmented before are taken from the scene.
        """
        if self.busy:
            return
        selection = self.selection
        compared = tuple(
            replace(selection.parameters, se=variant) for variant in selection.compared(selection.variants())
        )
        nodes = [self._earlier_segmentation(parameters) for parameters in compared]
        missing = tuple(parameters for parameters, node in zip(compared, nodes) if node is None)
        known = tuple(node for node in nodes if node is not None)
        self._begin(Compare(selection.volume, Job(missing, compared=compared), known, selection.choices.consensus))

    def segment_sequence(self) -> None:
        """Segment every volume of the sequence that the chosen one belongs to."""
        selection = self.selection
        items = tuple(self._scene.items(selection.volume))
        self._begin(SegmentSequence(selection.volume, Job((selection.parameters,)), items))

    def accept_unlikely(self) -> None:
        """Do again what was refused because its result is unlikely to be right, and show it all the same."""
        if not self.busy and self._refused is not None:
            self._begin(self._refused.accepting_unlikely())

    def self_test(self, volume: Node) -> None:
        """Segment the bundled scan as Apply does, and say what is wrong with the result.

        Args:
            volume: the scan, loaded for the test; it goes if the test is not finished.
        """
        self._begin(SelfTest(volume, Job((Parameters(device=self.selection.device),))))

    def cancel(self) -> None:
        """End what is going on."""
        if self._phase is Phase.WORKING:
            self._phase = Phase.STOPPING
        self.run.cancel()

    def close(self) -> None:
        """End and forget everything: the scene is closed or the panel goes."""
        self.cancel()
        self.result = self.comparison = self.table = self._refused = None
        self._outcome, self._opened = "", ()
        self.choose(None)

    def node_removed(self, node: Node) -> None:
        """End and forget what a node is needed for that is about to be removed from the scene."""
        if self._refused is not None and node is self._refused.node:
            self._refused = None
        if self._task is not None and node is self._task.node:
            self._task.temporary = False
            self.cancel()
            self._outcome = _("What was running was ended because '{name}' was removed.").format(name=node.GetName())
            self._changed()
        shown = self.result, self.comparison, self.table
        if node in shown:
            self.result, self.comparison, self.table = (None if node is each else each for each in shown)
            self._changed()

    def _begin_segmentation(self, selection, block, confidence):
        """Start the chosen segmentation, with its maps if there are any to make."""
        job = Job((selection.parameters,), confidence=confidence, excitation=block)
        self._begin((ComputeMaps if block or confidence else Segment)(selection.volume, job))

    def _begin(self, task):
        """Start a task on a volume, once PyTorch is there."""
        if self.busy:
            return
        self._refused = None
        # While PyTorch is being installed, events are handled: anything in the panel and the scene may change.
        self._phase, self._fraction, self._message, self._outcome = Phase.STARTING, 0.0, _("Starting..."), ""
        self._changed()
        try:
            if task.job.choices:
                self._application.ensure_torch()
            self._start(task)
        except SEBrainSegError as error:
            self._task = task
            self._end(str(error))
        finally:
            self._phase = Phase.IDLE
            self._task = self._task if self.run.running else None
            self._changed()

    def _start(self, task):
        """Start the run for a task, or for the next volume of its sequence."""
        self._task = task
        task.start(self.run, self._scene)

    # What becomes of the run ------------------------------------------------------------------------------------------

    def on_progress(self, fraction: float, message: str) -> None:
        """Show how far the run has come."""
        if self._task is not None:
            fraction, message = self._task.progress(fraction, message)
        self._fraction, self._message = fraction, message
        self._changed()

    def on_finished(self, results: Any) -> None:
        """Add the results of the run to the scene: segmentations, how they differ, or surfaces."""
        task = self._task
        assert task is not None, "a run without a task"
        self._phase, self._outcome = Phase.WORKING, ""
        try:
            self._remember_times(task.segmentations(results))
            finished = task.finish(self._scene, results, self._step)
            if finished is None:
                self._start(task)
            else:
                self._show_finished(task.node, finished)
        except Cancelled:
            self._outcome = self._outcome or cancelled_text()
        except SEBrainSegError as error:
            self._outcome = str(error)
        except Exception as error:
            # The panel must be usable again; the traceback goes to the console.
            self._outcome = _("The result could not be added to the scene: {error}.").format(error=error)
            raise
        finally:
            self._phase = Phase.IDLE
            self._task = self._task if self.run.running else None
            self._changed()

    def on_failed(self, sentence: str, unlikely: bool = False) -> None:
        """Say why the run could not be finished.

        Args:
            sentence: why.
            unlikely: whether it can be finished if its job accepts unlikely results.
        """
        task = self._task
        # The self-test's own volume goes, and with it what could be done again.
        self._refused = task if unlikely and isinstance(task, VolumeTask) and not task.temporary else None
        self._end(sentence)
        if isinstance(task, MakeSurfaces):
            # The child's Python may have no VTK, which Slicer has; making them here takes longer.
            self._make_surfaces_here(task.node)

    def on_cancelled(self) -> None:
        """Say that the run was ended."""
        self._end(cancelled_text())

    def _end(self, outcome):
        """Forget the task, of which nothing was added."""
        task, self._task, self._outcome = self._task, None, outcome
        if task is not None and task.temporary and self._scene.is_there(task.node):
            self._scene.remove(task.node)
        self._changed()

    def _remember_times(self, segmentations):
        """Keep how long each took on its device, and which device is the automatic one."""
        for segmentation in segmentations:
            if segmentation.seconds > 0:
                key = time_key(segmentation.parameters, segmentation.device)
                self._application.set_setting(key, f"{segmentation.seconds:.1f}")
            if segmentation.parameters.device == "auto" and segmentation.device:
                self._application.set_setting("auto", segmentation.device)

    def _show_finished(self, volume, finished):
        """Show what a task has added."""
        if finished.comparison is not None:
            self.comparison = finished.comparison
            self._open_section("compare")
        if finished.segmentation is not None:
            if not finished.maps:
                self._scene.hide_maps(volume)
            self._scene.show_only(finished.segmentation)
            self._set_result(finished.segmentation)
        if finished.maps:
            self._show_maps(volume, finished.maps)
        self._outcome = finished.message

    def _show_progress(self, fraction, message):
        """Show how far the work in this process has come, at once."""
        self._fraction, self._message = fraction, message
        self._changed()
        self._application.process_events()

    def _step(self, fraction, message):
        """Show how far the work in this process has come; raises Cancelled if it is to end."""
        self._show_progress(fraction, message)
        if self._phase is Phase.STOPPING:
            raise Cancelled

    # Maps over the volume ---------------------------------------------------------------------------------------------

    def show_outlines(self, outlined: bool) -> None:
        """Show the structures as outlines while a map is shown, or hide them."""
        self._application.set_setting("outlines", "1" if outlined else "0")
        self._scene.outline(self.selection.volume, outlined)
        self._changed()

    def hide_map(self) -> None:
        """Take the map off the slice views; the structures are filled again."""
        self._scene.hide_maps(self.selection.volume)
        self._changed()

    def views_changed(self) -> None:
        """Fill the structures again if the slice views, which may show other volumes now, no longer show a map."""
        name = self._map_name()
        if name != self._map_seen:
            self._map_seen = name
            if not name:
                self._scene.hide_maps(self.selection.volume)
            self._changed()

    @property
    def _outlined(self):
        """Whether structures are outlined while a map is shown, rather than hidden; as the user last chose."""
        return self._application.setting("outlines", "1") == "1"

    def _show_maps(self, volume, nodes):
        """Show maps over the volume, and a plot."""
        chart = self._scene.show_maps(volume, nodes, self._outlined)
        if chart is not None:
            self._application.show_chart(chart)

    def _map_name(self):
        """Return the name of the map that is shown, or ``""``."""
        node = self._scene.map_shown(self.selection.volume)
        return "" if node is None else node.GetName()

    # The result -------------------------------------------------------------------------------------------------------

    def show_group(self, group: str, visible: bool) -> None:
        """Show or hide a group of structures of the result."""
        if self._scene.is_there(self.result):
            self._scene.show_group(self.result, group, visible)
            self._changed()

    def show_3d(self, visible: bool) -> None:
        """Show the result in 3D, or no longer; making the surfaces, in a child process, can be cancelled."""
        node = self.result
        if self.busy or not self._scene.is_there(node):
            return
        # Not yet: with every surface that is added, the views would draw all of them.
        self._scene.show_surfaces(node, False)
        if visible:
            self._show_surfaces(node)
        self._changed()

    def _show_surfaces(self, node):
        """Show the surfaces of a segmentation node, once those that are missing are made."""
        request = self._scene.labelmaps_of(node)
        if request is None:
            # The node asks for another conversion than the child process can do.
            self._make_surfaces_here(node)
        elif request[0]:
            self._fraction, self._message, self._outcome = 0.0, _("Making surfaces..."), ""
            try:
                self._start(MakeSurfaces(node, *request))
            except SEBrainSegError as error:
                self._end(str(error))
        else:
            self._scene.show_surfaces(node, True)

    def _make_surfaces_here(self, node):
        """Make the surfaces in this process and show them."""
        visible, self._phase = True, Phase.WORKING
        try:
            for fraction, name in self._scene.make_surfaces(node):
                self._show_progress(fraction, _("Making surfaces: {name}").format(name=name))
                if self._phase is Phase.STOPPING or not self._scene.is_there(node):
                    visible = False
                    break
        finally:
            stopped, self._phase = self._phase is Phase.STOPPING, Phase.IDLE
        if self._scene.is_there(node):
            self._scene.show_surfaces(node, visible)
            self._outcome = _("The 3D view was cancelled.") if stopped and not visible else ""
        self._changed()

    def _volumes(self):
        """Return the rows of the result's table of volumes."""
        return volume_table.rows(self._scene.segmentation_of(self.result, labels=False))

    def add_volumes(self) -> None:
        """Add the table of volumes to the scene, and show it."""
        self.table = self._scene.add_volumes(self.result, self._volumes())
        self._outcome = _("Created '{name}'.").format(name=self.table.GetName())
        self._changed()

    def volumes_text(self, delimiter: str = "\t") -> str:
        """Return the table of volumes as text, with its headings."""
        return table_text(self._volumes(), delimiter)

    def save_volumes(self, path: str) -> None:
        """Write the table of volumes to a CSV file."""
        try:
            with open(path, "w", newline="", encoding="utf-8") as file:
                file.write(self.volumes_text(","))
        except OSError as error:
            self._outcome = _("'{path}' cannot be written ({reason}); choose another place.").format(
                path=path, reason=error.strerror
            )
        else:
            self._outcome = _("Saved '{path}'.").format(path=path)
        self._changed()
