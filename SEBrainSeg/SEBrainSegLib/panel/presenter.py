"""What the module's panel shows and what its buttons do, without Qt: the widget only binds.

The presenter is told the choices and what becomes of the run; :meth:`Presenter.state` is all that there is to show.
"""

import csv
import io
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from ..analysis.volume_table import texts
from ..choices.job import Job, excitation_blocks
from ..choices.parameters import Device, Parameters, Variant, full_title
from ..choices.parameters import Protocol as Drawing
from ..errors import Cancelled, SEBrainSegError
from ..translation import tr as _


class Run(Protocol):
    """A segmentation in the background, such as :class:`~.background.BackgroundSegmentation`."""

    running: bool

    def start(self, image, job, known):
        """Start it; raises SEBrainSegError."""

    def start_surfaces(self, labelmaps, settings):
        """Start making surfaces; raises SEBrainSegError."""

    def cancel(self):
        """End it, if there is one."""


class Scene(Protocol):
    """Volume nodes and new segmentation nodes; nodes are handed on and never looked into."""

    def problem(self, volume, bundled): ...
    def doubt(self, volume): ...
    def is_there(self, node): ...
    def content_of(self, volume): ...
    def image_of(self, volume): ...
    def find_result(self, volume, kind, parameters): ...
    def add_segmentation(self, volume, segmentation, voxels): ...
    def remember_confidences(self, node, segmentation): ...
    def remove(self, node): ...


class Results(Protocol):
    """Segmentation nodes that are there, as :mod:`.segmentation_nodes` has them."""

    def show_only(self, node): ...
    def segmentation_of(self, node, labels=True): ...
    def groups_shown(self, node): ...
    def show_group(self, node, group, visible): ...
    def has_surfaces(self, node): ...
    def labelmaps_of(self, node): ...
    def add_surface(self, node, name, surface): ...
    def make_surfaces(self, node): ...
    def show_surfaces(self, node, visible): ...


class Maps(Protocol):
    """Volumes, tables and plots, as :mod:`.map_nodes` has them; ``pause`` is called between two steps."""

    def find_maps(self, volume, parameters, block, confidence): ...
    def add_maps(self, volume, segmentation, voxels, pause): ...
    def show_maps(self, volume, nodes, outlined): ...
    def map_shown(self, volume): ...
    def hide_maps(self, volume): ...
    def outline(self, volume, outlined): ...
    def add_compared(self, volume, differences, voxels, consensus, pause): ...
    def comparison_of(self, volume): ...
    def add_volumes(self, segmentation, rows): ...


class Sequences(Protocol):
    """Volumes over time, as :mod:`.sequence_nodes` has them."""

    def items(self, volume): ...
    def add_segmentations(self, volume, segmentations, pause): ...


class Surroundings(Protocol):
    """What else the panel needs of the application."""

    def prepare(self):
        """See that PyTorch is installed; raises SEBrainSegError."""

    def settle(self):
        """Let the application handle its events, so that what is shown is seen."""

    def show_chart(self, chart):
        """Show a plot."""

    def get(self, key, default):
        """Return a text kept in the user's settings."""

    def keep(self, key, text):
        """Keep a text in the user's settings."""


class Action(NamedTuple):
    """Whether something can be done now, and what it does or why it cannot be done."""

    enabled: bool
    text: str


class Choices(NamedTuple):
    """What is chosen in the panel.

    volume: the volume node, or ``None``.
    parameters: of the segmentation.
    variants: those ticked for a comparison, values of :class:`~.parameters.Variant`.
    consensus: whether the comparison is to make one.
    block: whose excitation to show, or ``""``.
    confidence: whether to show the confidence.
    with_maps: whether to make the maps together with the segmentation.
    """

    volume: object = None
    parameters: Parameters = Parameters()
    variants: tuple = ()
    consensus: bool = False
    block: str = ""
    confidence: bool = False
    with_maps: bool = False


@dataclass(frozen=True)
class State:
    """All that the panel shows.

    busy: whether the inputs are to stay as they are.
    apply, cancel, compare, maps, sequence, result: the actions; ``sequence.enabled`` is false without a sequence.
    accept: to show a result all the same that was refused as unlikely to be right.
    variants: an action for the tick of each variant, by value.
    status, facts: lines of text.
    doubt: a sentence beside the volume; ``""`` for none.
    percent: of the progress bar, or ``None`` for no bar.
    device: the device to run on, among the keys of ``devices``, which map to what is shown.
    blocks: the blocks whose excitation can be shown.
    result_name: the segmentation that the section Result is about, or ``""``.
    groups: maps its groups of structures to whether they are shown.
    in_3d: whether it is shown in 3D.
    has_sequence: whether the volume is one of a sequence.
    maps_time: how long the chosen maps will take, a line.
    advanced: what is chosen in the part that is closed at first, a line.
    map_name: the map that lies over a volume in the slice views, or ``""``.
    outlined: whether the structures are outlined meanwhile.
    opened: the sections that have something to show, in the order in which they got it.
    """

    busy: bool
    apply: Action
    cancel: Action
    compare: Action
    maps: Action
    sequence: Action
    result: Action
    accept: Action
    variants: dict
    status: str
    facts: str
    doubt: str
    percent: object
    device: str
    devices: dict
    blocks: tuple
    result_name: str
    groups: dict
    in_3d: bool
    has_sequence: bool
    maps_time: str
    advanced: str
    map_name: str
    outlined: bool
    opened: tuple


@dataclass
class Task:
    """What is running: a job on the voxels of a volume node, and what to do with its results.

    volume: the volume node.
    job: what to do with it; without choices, nothing is to run.
    finish: called with the task and its segmentations; returns what to say.
    voxels: what tells the voxels that the job was given from others.
    consensus: whether a comparison makes one.
    known: of a comparison, the segmentation nodes that were there before.
    items, done: of a sequence, its volume nodes and the segmentations that there are.
    temporary: whether the volume node goes if the job is not finished.
    """

    volume: object
    job: Job
    finish: object
    voxels: object = None
    consensus: bool = False
    known: tuple = ()
    items: tuple = ()
    done: list = field(default_factory=list)
    temporary: bool = False


class Presenter:
    """State and behaviour of the panel.

    Args:
        scene: a :class:`Scene`.
        results: :class:`Results`.
        maps: a :class:`Maps`.
        sequences: a :class:`Sequences`.
        surroundings: the :class:`Surroundings`.
        facts: :func:`.bundled.facts`.
        rows: :func:`.volume_table.rows`.
        changed: called without arguments when there is something else to show.

    ``run``, a :class:`Run` that tells :meth:`on_progress`, :meth:`on_finished`, :meth:`on_failed` and
    :meth:`on_cancelled`, is to be set before anything else is called.
    """

    def __init__(self, scene, results, maps, sequences, surroundings, facts, rows, changed):
        self.scene, self.results, self.maps, self.sequences = scene, results, maps, sequences
        self.surroundings = surroundings
        self.facts_of, self.rows_of, self.changed = facts, rows, changed
        self.run = None
        self.choices = None
        self.devices = None
        self.task = None
        # What was refused because its result is unlikely to be right.
        self.refused = None
        # Busy, but not with a run: starting one, or at work in this process, which cancel() asks to stop.
        self.starting = self.working = self.stopped = False
        self.outcome = self.message = ""
        self.fraction = 0.0
        self.result = self.comparison = self.table = None
        self.opened, self.map_seen = (), ""

    # What is chosen ---------------------------------------------------------------------------------------------------

    def choose(self, choices):
        """Take up choices, or ``None`` for none; a segmentation that was made with them before is shown at once."""
        before, self.choices = self.choices, choices
        if choices is not None and choices != before:
            # Where the volume has just gone, there may be word of it.
            if before is not None and (choices.volume is not None or before.volume is None):
                self.outcome = ""
            self.refused = None
            if before is None or before[:2] != choices[:2]:
                self.take_up(choices, at_once=before is not None)
        self.changed()

    def scene_changed(self, choices):
        """Another scene was loaded, or nodes were, or the scene was closed: take up what is there now.

        Args:
            choices: those of the scene, or ``None``.
        """
        self.choices = choices
        if not self.busy:
            self.outcome = ""
        self.result, self.comparison, self.table = (
            node if self.scene.is_there(node) else None for node in (self.result, self.comparison, self.table)
        )
        if choices is not None:
            self.take_up(choices, at_once=False)
        self.changed()

    def volume_changed(self):
        """The chosen volume's voxels came, went or changed."""
        self.outcome, self.refused = "", None
        self.changed()

    def take_up(self, choices, at_once):
        """Find what was made with these choices before and, unless something is going on, show it."""
        if self.busy:
            return
        self.comparison = self.maps.comparison_of(choices.volume)
        if self.comparison is not None:
            self.open("compare")
        found = self.found(choices)
        if found is not None and at_once:
            self.show_again(found)
        elif found is not None and not self.scene.is_there(self.result):
            self.show_result(found)

    def found(self, choices):
        """Return the segmentation node made with these choices, or ``None``."""
        return self.scene.find_result(choices.volume, "segmentation", choices.parameters)

    def open(self, section):
        """Open a section when it first has something to show; a user who closes it finds it closed."""
        if section not in self.opened:
            self.opened += (section,)

    def show_result(self, node):
        """Make a segmentation node what the section Result is about."""
        self.result = node
        self.open("result")

    def show_again(self, node):
        self.maps.hide_maps(self.volume)
        self.results.show_only(node)
        self.show_result(node)
        self.outcome = _("Shown from an earlier run: '{name}'.").format(name=node.GetName())

    @property
    def volume(self):
        """The chosen volume node, or ``None``."""
        return None if self.choices is None else self.choices.volume

    @property
    def parameters(self):
        """The chosen parameters, on a device that this computer has."""
        parameters = Parameters() if self.choices is None else self.choices.parameters
        return replace(parameters, device=self.device)

    @property
    def device(self):
        """The device to run on: the one chosen, unless it is known to be missing."""
        chosen = "auto" if self.choices is None else self.choices.parameters.device
        if self.devices is None:
            return chosen
        chosen = "cuda:0" if chosen == "cuda" else chosen
        return chosen if chosen in self.device_names() else "auto"

    def know_devices(self, devices):
        """Take the devices of this computer: names for people by the device; the CPU need not be listed."""
        self.devices = dict(devices)
        self.changed()

    def device_names(self):
        """What to call the devices that can be chosen, by name."""
        names = {"auto": _("Automatic"), **(self.devices or {})}
        names["cpu"] = _("CPU")
        chosen = self.choices.parameters.device if self.choices is not None else "auto"
        if self.devices is None and chosen not in names:
            known = [device for device in Device if device.value == chosen]
            names[chosen] = known[0].label() if known else chosen
        return names

    # What to show -----------------------------------------------------------------------------------------------------

    @property
    def busy(self):
        """Whether something is going on that the choices must not change under."""
        return self.starting or self.working or self.run.running

    def problem_of_volume(self):
        """One sentence on why the volume cannot be segmented by a network of this sort, or ``""``."""
        return self.scene.problem(self.volume, not self.parameters.model)

    def problem(self):
        """One sentence on why the volume cannot be segmented with the chosen parameters, or ``""``."""
        return self.problem_of_volume() or self.parameters.problem()

    def state(self):
        """Return the :class:`State`."""
        problem = self.problem() if self.choices is not None else _("Open the module first.")
        running = _("Wait for what is running, or cancel it.") if self.busy else ""
        variants = self.variants()
        result = self.result if self.scene.is_there(self.result) else None
        has_sequence = self.volume is not None and len(self.sequences.items(self.volume)) > 1

        def action(why_not, text):
            return Action(not (running or why_not), running or why_not or text)

        return State(
            busy=self.busy,
            apply=action(problem, "" if running or problem else self.what_apply_does()),
            cancel=Action(self.run.running or self.working, _("End this; nothing is created.")),
            compare=action(
                self.problem_of_volume() or self.why_not_compare(variants),
                _("Segment the volume with every variant that is ticked, and compare the results."),
            ),
            maps=action(
                problem or self.why_not_maps(),
                _("Show the maps over the volume; what is missing is computed."),
            ),
            sequence=action(
                problem or ("" if has_sequence else _("The volume is not one of a sequence.")),
                _("Segment all volumes of the sequence, one after the other."),
            ),
            result=action("" if result is not None else _("Segment a volume first."), ""),
            accept=action(
                "" if self.refused is not None else _("Nothing was refused."),
                _("Segment the volume again and show the result, unlikely as it is; the table of volumes says why."),
            ),
            variants=variants,
            status=self.status(problem if self.choices is not None else ""),
            facts=self.facts() if self.choices is not None else "",
            doubt=self.scene.doubt(self.volume) if self.volume is not None else "",
            percent=round(100 * self.fraction) if self.busy else None,
            device=self.device,
            devices=self.device_names(),
            blocks=self.blocks(),
            result_name="" if result is None else result.GetName(),
            groups={} if result is None else self.results.groups_shown(result),
            in_3d=result is not None and self.results.has_surfaces(result),
            has_sequence=has_sequence,
            maps_time=self.maps_time() if self.choices is not None and not self.busy else "",
            advanced=self.advanced(),
            map_name=self.map_name(),
            outlined=self.outlined,
            opened=self.opened,
        )

    def what_apply_does(self):
        if self.found(self.choices) is not None and self.maps_found() is not None:
            return _("Show the segmentation that was made so before; to compute it anew, delete it.")
        return _("Segment the volume into a new segmentation node.")

    def status(self, problem):
        """The line of text beneath the progress bar."""
        if self.busy:
            return self.message
        return self.outcome or problem or self.missing_device() or _("Ready: press Apply.")

    def missing_device(self):
        """One sentence if the chosen device is not there, or ``""``."""
        chosen = "auto" if self.choices is None else self.choices.parameters.device
        if self.device == "auto" and chosen != "auto":
            return _("This computer has no device '{device}'; automatic is taken instead.").format(device=chosen)
        return ""

    def variants(self):
        """For every variant whether it can be compared with others."""
        parameters, actions = self.parameters, {}
        for variant in Variant:
            why_not = replace(parameters, se=variant.value, model="").problem()
            title = full_title(parameters.architecture, variant.value)
            if parameters.model:
                why_not = _("Only the bundled networks come in variants; choose one of them.")
            actions[variant.value] = Action(not why_not, why_not or title)
        return actions

    def ticked(self, variants):
        """The variants to compare."""
        ticked = () if self.choices is None else self.choices.variants
        return tuple(variant for variant in ticked if variants[variant].enabled)

    def why_not_compare(self, variants):
        reasons = {action.text for action in variants.values()}
        if not any(action.enabled for action in variants.values()):
            return sorted(reasons)[0]
        return "" if len(self.ticked(variants)) > 1 else _("Tick at least two variants.")

    def blocks(self):
        """The blocks whose excitation can be shown."""
        return () if self.choices is None else tuple(excitation_blocks(self.parameters))

    def block(self):
        """The chosen block, if the chosen network has it."""
        return self.choices.block if self.choices.block in self.blocks() else ""

    def why_not_maps(self):
        if self.block() or self.choices.confidence:
            return ""
        return _("Choose a block or tick Confidence.") if self.blocks() else _("Tick Confidence.")

    def maps_wanted(self):
        """The block whose excitation and whether the confidence is to come with the segmentation, if maps are to."""
        if not self.choices.with_maps:
            return "", False
        # Of a network without blocks there is the confidence alone; whether a user's has them is not known.
        blocks = () if self.parameters.model else self.blocks()
        return self.block() or (blocks[-1] if blocks else ""), self.choices.confidence or not blocks

    def maps_found(self):
        """The maps that are to come with the segmentation, as they were made before; ``None`` if any is missing."""
        block, confidence = self.maps_wanted()
        if not block and not confidence:
            return ()
        return self.maps.find_maps(self.volume, self.parameters, block, confidence) or None

    def maps_time(self):
        """The line that says how long the chosen maps will take."""
        if self.problem() or self.why_not_maps():
            return ""
        if self.maps.find_maps(self.volume, self.parameters, self.block(), self.choices.confidence):
            return _("They are there already.")
        known = self.facts_of(self.parameters)
        return _("They take a run of their own: {time}. With maps, they come with Apply.").format(
            time=self.time_expected(known)
        )

    def advanced(self):
        """The line that says what is chosen where one seldom looks."""
        parameters = self.parameters
        protocol = "" if parameters.model else drawing_label(parameters.protocol)
        structures = parameters.structures or _("all structures")
        device = self.device_names().get(parameters.device, parameters.device)
        return _("Advanced: {choices}").format(choices=", ".join(filter(None, (protocol, structures, device))))

    def facts(self):
        """The line that says what there is to expect of the chosen network."""
        if self.parameters.problem():
            return ""
        known, lines = self.facts_of(self.parameters), []
        if known is not None:
            count = _("{count:,} parameters").format(count=known.parameters)
            increase = _(" (+{increase:.2g} % over none)").format(increase=known.increase) if known.increase else ""
            lines.append(count + increase)
            if known.dice is not None:
                lines.append(_("Dice {dice:.3f} on held-out scans").format(dice=known.dice))
        return " · ".join([*lines, self.time_expected(known)])

    def time_expected(self, known):
        """How long a segmentation may take on the chosen device."""
        device = self.device
        device = self.surroundings.get("auto", "") or device if device == "auto" else device
        measured = self.surroundings.get(time_key(self.parameters, device), "")
        if measured:
            return _("{time} on {device}, as last time").format(
                time=duration(float(measured)), device=self.device_names().get(device, device)
            )
        if known is None or known.seconds is None:
            return _("time not measured yet")
        if device == "cpu":
            return _("about {time} of CPU time").format(time=duration(known.seconds))
        return _("about {time} of CPU time, not measured here yet").format(time=duration(known.seconds))

    # What to do -------------------------------------------------------------------------------------------------------

    def apply(self):
        """Segment the chosen volume, or show what was made so before."""
        if self.busy:
            return
        found, maps, (block, confidence) = self.found(self.choices), self.maps_found(), self.maps_wanted()
        if found is not None and maps is not None:
            self.show_again(found)
            if maps:
                self.display(self.volume, maps)
            self.changed()
        else:
            job = Job((self.parameters,), confidence=confidence, excitation=block)
            self.begin(Task(self.volume, job, self.finish_maps if block or confidence else self.finish_apply))

    def compare(self):
        """Segment the chosen volume with the variants that are ticked, in one run, and compare the results.

        Those that were segmented before are taken from the scene.
        """
        if self.busy:
            return
        wanted = {variant: replace(self.parameters, se=variant) for variant in self.ticked(self.variants())}
        known = {variant: self.scene.find_result(self.volume, "segmentation", each) for variant, each in wanted.items()}
        missing = tuple(wanted[variant] for variant, node in known.items() if node is None)
        nodes = tuple(node for node in known.values() if node is not None)
        job = Job(missing, compared=tuple(wanted.values()))
        self.begin(Task(self.volume, job, self.finish_compare, consensus=self.choices.consensus, known=nodes))

    def show_maps(self):
        """Show the chosen maps; what was made before is not made again."""
        if self.busy:
            return
        block, confidence = self.block(), self.choices.confidence
        nodes = self.maps.find_maps(self.volume, self.parameters, block, confidence)
        if nodes:
            self.display(self.volume, nodes)
            self.outcome = _("Shown from an earlier run: {names}.").format(names=names_of(nodes))
            self.changed()
        else:
            job = Job((self.parameters,), confidence=confidence, excitation=block)
            self.begin(Task(self.volume, job, self.finish_maps))

    def segment_sequence(self):
        """Segment every volume of the sequence that the chosen one belongs to."""
        items = tuple(self.sequences.items(self.volume))
        self.begin(Task(self.volume, Job((self.parameters,)), self.finish_sequence, items=items))

    def accept_unlikely(self):
        """Do again what was refused because its result is unlikely to be right, and show it all the same."""
        if not self.busy and self.refused is not None:
            task = self.refused
            self.begin(replace(task, job=replace(task.job, accept_unlikely=True), done=[]))

    def begin(self, task):
        """Start a task, once PyTorch is there."""
        if self.busy:
            return
        self.refused = None
        # While PyTorch is being installed, events are handled: anything in the panel and the scene may change.
        self.starting, self.fraction, self.message, self.outcome = True, 0.0, _("Starting..."), ""
        self.changed()
        try:
            if task.job.choices:
                self.surroundings.prepare()
            self.start(task)
        except SEBrainSegError as error:
            self.task = task
            self.end(str(error))
        finally:
            self.starting = False
            self.changed()

    def start(self, task):
        """Start the run for a task, or for the next volume of its sequence."""
        if not self.scene.is_there(task.volume):
            raise SEBrainSegError(_("The volume was removed before its segmentation could start."))
        volume = task.items[len(task.done)] if task.items else task.volume
        task.voxels = self.scene.content_of(volume)
        known = self.known_segmentations(task)
        self.task = task
        self.run.start(self.scene.image_of(volume), task.job, known)

    def known_segmentations(self, task):
        """Return the segmentations that a comparison finds in the scene.

        Raises:
            SEBrainSegError: one of them cannot be compared any more.
        """
        known = tuple(self.results.segmentation_of(node) for node in task.known)
        for node, segmentation in zip(task.known, known):
            if segmentation.labels is None:
                raise SEBrainSegError(
                    _("'{name}' no longer fits to its volume; delete it and compare again.").format(name=node.GetName())
                )
        if len({segmentation.structures for segmentation in known}) > 1:
            raise SEBrainSegError(
                _("One of the segmentations has other structures by now; delete it and compare again.")
            )
        return known

    def cancel(self):
        """End what is going on."""
        self.stopped = True
        self.run.cancel()

    def close(self):
        """The scene is closed or the panel goes: nothing is kept, nothing runs on."""
        self.cancel()
        self.result = self.comparison = self.table = self.refused = None
        self.outcome, self.opened = "", ()
        self.choose(None)

    def removed(self, node):
        """A node is about to be removed from the scene."""
        if self.refused is not None and node is self.refused.volume:
            self.refused = None
        if self.task is not None and node is self.task.volume:
            self.task.temporary = False
            self.cancel()
            self.outcome = _("What was running was ended because '{name}' was removed.").format(name=node.GetName())
            self.changed()
        shown = self.result, self.comparison, self.table
        if node in shown:
            self.result, self.comparison, self.table = (None if node is each else each for each in shown)
            self.changed()

    # What becomes of the run ------------------------------------------------------------------------------------------

    def on_progress(self, fraction, message):
        """The run has come so far."""
        self.fraction, self.message = fraction, message
        if self.task is not None and self.task.items:
            done, count = len(self.task.done), len(self.task.items)
            self.fraction = (done + fraction) / count
            self.message = _("Volume {number} of {count}: {message}").format(
                number=done + 1, count=count, message=message
            )
        self.changed()

    def on_finished(self, found):
        """The run is over: segmentations, how they differ, or surfaces."""
        task, self.working, self.stopped, self.outcome = self.task, True, False, ""
        try:
            self.outcome = task.finish(task, found)
        except Cancelled:
            self.outcome = self.outcome or cancelled()
        except SEBrainSegError as error:
            self.outcome = str(error)
        except Exception as error:
            # The panel must be usable again; the traceback goes to the console.
            self.outcome = _("The result could not be added to the scene: {error}.").format(error=error)
            raise
        finally:
            self.working = self.stopped = False
            self.task = self.task if self.run.running else None
            self.changed()

    def on_failed(self, sentence, unlikely=False):
        """The run could not be finished; it can if its job accepts unlikely results, if ``unlikely``."""
        task = self.task
        # The self-test's own volume goes, and with it what could be done again.
        self.refused = task if unlikely and task is not None and not task.temporary else None
        self.end(sentence)
        if task is not None and task.finish == self.finish_surfaces:
            # Such as for want of VTK; it takes longer here.
            self.make_surfaces(task.volume)

    def on_cancelled(self):
        """The run was ended."""
        self.end(cancelled())

    def end(self, outcome):
        task, self.task, self.outcome = self.task, None, outcome
        if task is not None and task.temporary and self.scene.is_there(task.volume):
            self.scene.remove(task.volume)
        self.changed()

    def remember_time(self, segmentation):
        """Keep how long it took on its device, and which device is the automatic one."""
        if segmentation.seconds > 0:
            key = time_key(segmentation.parameters, segmentation.device)
            self.surroundings.keep(key, f"{segmentation.seconds:.1f}")
        if segmentation.parameters.device == "auto" and segmentation.device:
            self.surroundings.keep("auto", segmentation.device)

    def finish_apply(self, task, segmentations):
        (segmentation,) = segmentations
        self.remember_time(segmentation)
        node = self.scene.add_segmentation(task.volume, segmentation, task.voxels)
        self.maps.hide_maps(task.volume)
        self.results.show_only(node)
        self.show_result(node)
        text = _("Created '{name}', computed on {device}.").format(name=node.GetName(), device=segmentation.device)
        return f"{text} {self.to_look_at(segmentation)}"

    def to_look_at(self, segmentation):
        """Return what is unusual about a segmentation, or what can be done next, for the status line."""
        names = [row["structure"] for row in self.rows_of(segmentation) if row["remark"]]
        if segmentation.doubt:
            return _("It is unlikely to be right: {doubt}").format(doubt=segmentation.doubt)
        if not names:
            return _("Next: groups, 3D and volumes under Result.")
        return _("Under Result, the table of volumes has remarks on: {names}.").format(names=", ".join(names))

    def finish_compare(self, task, differences):
        for each in differences.segmentations:
            self.remember_time(each)
        self.check_known(task)
        compared = self.maps.add_compared(
            task.volume, differences, task.voxels, task.consensus, self.pause(_("Adding the comparison..."))
        )
        self.comparison = compared.table
        self.open("compare")
        result = compared.consensus or compared.segmentations[-1]
        self.results.show_only(result)
        self.show_result(result)
        self.display(task.volume, (compared.disagreement,))
        return _("Compared {count} variants: the table is under Compare, '{image}' over the volume.").format(
            count=len(compared.segmentations), image=compared.disagreement.GetName()
        )

    def check_known(self, task):
        """Raise SEBrainSegError if a segmentation that was compared has gone meanwhile."""
        for node in task.known:
            if not self.scene.is_there(node):
                raise SEBrainSegError(_("'{name}' was deleted; compare again.").format(name=node.GetName()))

    def finish_maps(self, task, segmentations):
        (segmentation,) = segmentations
        self.remember_time(segmentation)
        nodes = self.maps.add_maps(task.volume, segmentation, task.voxels, self.pause(_("Adding the maps...")))
        # The network computed it on the way; it would be a pity to do so again. No pause from here on, in which Cancel
        # would leave a part.
        node = self.scene.find_result(task.volume, "segmentation", segmentation.parameters)
        if node is None:
            node = self.scene.add_segmentation(task.volume, segmentation, task.voxels)
        else:
            self.scene.remember_confidences(node, segmentation)
        self.results.show_only(node)
        self.show_result(node)
        self.display(task.volume, nodes)
        return _("Created {names}, computed on {device}.").format(names=names_of(nodes), device=segmentation.device)

    def finish_sequence(self, task, segmentations):
        for segmentation in segmentations:
            self.remember_time(segmentation)
        task.done.extend(segmentations)
        if len(task.done) < len(task.items):
            self.start(task)
            return ""
        node = self.sequences.add_segmentations(task.volume, task.done, self.pause(_("Adding the sequence...")))
        return _("Created '{name}' with {count} segmentations.").format(name=node.GetName(), count=len(task.done))

    # Maps over the volume ---------------------------------------------------------------------------------------------

    @property
    def outlined(self):
        """Whether structures are outlined while a map is shown, rather than hidden; as the user last chose."""
        return self.surroundings.get("outlines", "1") == "1"

    def outline(self, outlined):
        """Show the structures as outlines while a map is shown, or hide them."""
        self.surroundings.keep("outlines", "1" if outlined else "0")
        self.maps.outline(self.volume, outlined)
        self.changed()

    def display(self, volume, nodes):
        """Show maps over the volume, and a plot."""
        chart = self.maps.show_maps(volume, nodes, self.outlined)
        if chart is not None:
            self.surroundings.show_chart(chart)

    def hide_map(self):
        """Take the map off the slice views; the structures are filled again."""
        self.maps.hide_maps(self.volume)
        self.changed()

    def map_name(self):
        """The name of the map that is shown, or ``""``."""
        node = self.maps.map_shown(self.volume)
        return "" if node is None else node.GetName()

    def views_changed(self):
        """Other volumes may be shown in the slice views: without a map, the structures are filled again."""
        name = self.map_name()
        if name != self.map_seen:
            self.map_seen = name
            if not name:
                self.maps.hide_maps(self.volume)
            self.changed()

    def pause(self, message):
        """Return what shows a message and lets the application handle its events; it raises Cancelled, too."""
        return lambda: self.step(1.0, message)

    def say(self, fraction, message):
        """Show how it goes, at once."""
        self.fraction, self.message = fraction, message
        self.changed()
        self.surroundings.settle()

    def step(self, fraction, message):
        """Show how the work in this process goes; raises Cancelled if it is to stop."""
        self.say(fraction, message)
        if self.stopped:
            raise Cancelled

    # The result -------------------------------------------------------------------------------------------------------

    def show_group(self, group, visible):
        """Show or hide a group of structures of the result."""
        if self.scene.is_there(self.result):
            self.results.show_group(self.result, group, visible)
            self.changed()

    def show_3d(self, visible):
        """Show the result in 3D, or no longer; making the surfaces, in a child process, can be cancelled."""
        node = self.result
        if self.busy or not self.scene.is_there(node):
            return
        # Not yet: with every surface that is added, the views would draw all of them.
        self.results.show_surfaces(node, False)
        request = self.results.labelmaps_of(node) if visible else None
        if visible and request is None:
            # Slicer is to make them otherwise than the child process can.
            self.make_surfaces(node)
        elif visible and request[0]:
            self.task = Task(node, Job(()), self.finish_surfaces)
            self.fraction, self.message, self.outcome = 0.0, _("Making surfaces..."), ""
            try:
                self.run.start_surfaces(*request)
            except SEBrainSegError as error:
                self.end(str(error))
        elif visible:
            self.results.show_surfaces(node, True)
        self.changed()

    def finish_surfaces(self, task, surfaces):
        node, finished = task.volume, False
        try:
            for number, (name, surface) in enumerate(surfaces.items()):
                self.step(number / len(surfaces), _("Adding the surfaces..."))
                if not self.scene.is_there(node):
                    raise SEBrainSegError(_("'{name}' was deleted.").format(name=node.GetName()))
                self.results.add_surface(node, name, surface)
            finished = True
        finally:
            if self.scene.is_there(node):
                self.results.show_surfaces(node, finished)
        return _("'{name}' is shown in 3D.").format(name=node.GetName())

    def make_surfaces(self, node):
        """Make the surfaces in this process and show them."""
        visible, self.stopped, self.working = True, False, True
        try:
            for fraction, name in self.results.make_surfaces(node):
                self.say(fraction, _("Making surfaces: {name}").format(name=name))
                if self.stopped or not self.scene.is_there(node):
                    visible = False
                    break
        finally:
            self.working = False
        if self.scene.is_there(node):
            self.results.show_surfaces(node, visible)
            self.outcome = _("The 3D view was cancelled.") if self.stopped and not visible else ""
        self.stopped = False
        self.changed()

    def volumes(self):
        """Return the rows of the result's table of volumes."""
        return self.rows_of(self.results.segmentation_of(self.result, labels=False))

    def add_volumes(self):
        """Add the table of volumes to the scene, and show it."""
        self.table = self.maps.add_volumes(self.result, self.volumes())
        self.outcome = _("Created '{name}'.").format(name=self.table.GetName())
        self.changed()

    def volumes_text(self, delimiter="\t"):
        """Return the table of volumes as text, with its headings."""
        rows, text = self.volumes(), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(texts, rows))
        return text.getvalue()

    def save_volumes(self, path):
        """Write the table of volumes to a CSV file."""
        try:
            with open(path, "w", newline="", encoding="utf-8") as file:
                file.write(self.volumes_text(","))
        except OSError as error:
            self.outcome = _("'{path}' cannot be written ({reason}); choose another place.").format(
                path=path, reason=error.strerror
            )
        else:
            self.outcome = _("Saved '{path}'.").format(path=path)
        self.changed()

    # The self-test ----------------------------------------------------------------------------------------------------

    def self_test(self, volume, check):
        """Segment a volume node as Apply does, and say what ``check(volume, segmentation node)`` finds wrong.

        Args:
            volume: loaded for the test; it goes if the test is not finished.
            check: raises AssertionError.
        """

        def finish(task, segmentations):
            self.finish_apply(task, segmentations)
            try:
                check(task.volume, self.result)
            except AssertionError as error:
                return _("The self-test failed: {error}").format(error=error)
            return _("The self-test passed.")

        self.begin(Task(volume, Job((Parameters(device=self.device),)), finish, temporary=True))


def drawing_label(protocol):
    """Name a convention of drawing for people."""
    return next((each.label() for each in Drawing if each.value == protocol), protocol)


def cancelled():
    return _("Cancelled; nothing was created.")


def names_of(nodes):
    """Write the names of nodes as "'a' and 'b'"."""
    return ", ".join(f"'{node.GetName()}'" for node in nodes)


def time_key(parameters, device):
    """The key in the user's settings of how long a network takes on a device."""
    return f"seconds/{parameters.model or '-'.join((parameters.architecture, parameters.se, parameters.view))}/{device}"


def duration(seconds):
    """Write a time as "21 s" or "2 min"."""
    if seconds < 100:
        return _("{seconds} s").format(seconds=max(1, round(seconds)))
    return _("{minutes} min").format(minutes=round(seconds / 60))
