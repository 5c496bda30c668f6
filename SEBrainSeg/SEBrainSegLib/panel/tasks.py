"""What the panel has done in the background: one class a task, with what it starts and how its results are added."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ..analysis import volume_table
from ..choices.job import Job
from ..errors import SEBrainSegError
from ..translation import tr as _
from . import self_test
from .collaborators import Content, Node, Run, Scene
from .state import next_step, quoted_names

if TYPE_CHECKING:
    from ..analysis.comparison import Differences
    from ..inference.result import Segmentation
    from ..subprocesses.surfaces import Labelmap, Settings, Surface

# Shows a fraction in [0, 1] and a message between two steps of work in this process; raises Cancelled to end it.
Step = Callable[[float, str], None]


class Finished(NamedTuple):
    """What a task has added to the scene, to be shown.

    message: for the status line.
    segmentation: the segmentation node to show, or ``None``.
    maps: what to show over the volume.
    comparison: the table node of a comparison, or ``None``.
    """

    message: str
    segmentation: Optional[Node] = None
    maps: Sequence[Node] = ()
    comparison: Optional[Node] = None


@dataclass
class Task:
    """Work on a node.

    node: without it, the task ends.
    temporary: whether the node goes if the task is not finished.
    """

    node: Node
    temporary: bool = field(default=False, init=False)

    def start(self, run: Run, scene: Scene) -> None:
        """Start the run; raises SEBrainSegError."""
        raise NotImplementedError

    def progress(self, fraction: float, message: str) -> tuple[float, str]:
        """Return how far the whole task has come when its run has come so far."""
        return fraction, message

    def segmentations(self, results: Any) -> "Sequence[Segmentation]":
        """Return the segmentations among the results of a run."""
        return results

    def finish(self, scene: Scene, results: Any, step: Step) -> Optional[Finished]:
        """Add the results of a run to the scene; ``None`` if the task is to be started again for more.

        Raises:
            SEBrainSegError: they cannot be added.
            Cancelled: ``step`` raised it; nothing was added.
        """
        raise NotImplementedError


@dataclass
class VolumeTask(Task):
    """A job on the voxels of a volume node.

    job: what to do with it; without choices, no network is needed.
    voxels: what identifies the voxels that the run was given.
    """

    job: Job
    voxels: Content = field(default=None, init=False)

    def accepting_unlikely(self) -> "VolumeTask":
        """Return the same task anew, which gives its result even if that is unlikely to be right."""
        return replace(self, job=replace(self.job, accept_unlikely=True))

    def start(self, run: Run, scene: Scene) -> None:
        """Start the run; raises SEBrainSegError."""
        if not scene.is_there(self.node):
            raise SEBrainSegError(_("The volume was removed before its segmentation could start."))
        volume = self.volume_to_segment()
        self.voxels = scene.content_of(volume)
        known = self.known_segmentations(scene)
        run.start(scene.image_of(volume), self.job, known)

    def volume_to_segment(self) -> Node:
        """Return the volume node that the next run is for."""
        return self.node

    def known_segmentations(self, scene: Scene) -> "Sequence[Segmentation]":
        """Return the segmentations that the job needs and that were made before; raises SEBrainSegError."""
        return ()


class Segment(VolumeTask):
    """One segmentation."""

    def finish(self, scene: Scene, results: "Sequence[Segmentation]", step: Step) -> Finished:
        """Add the segmentation node."""
        (segmentation,) = results
        node = scene.add_segmentation(self.node, segmentation, self.voxels)
        text = _("Created '{name}', computed on {device}.").format(name=node.GetName(), device=segmentation.device)
        return Finished(f"{text} {next_step(segmentation, volume_table.rows(segmentation))}", node)


@dataclass
class SelfTest(Segment):
    """The segmentation of the bundled scan, and whether it is as it should be; an unfinished one removes the scan."""

    temporary: bool = field(default=True, init=False)

    def finish(self, scene: Scene, results: "Sequence[Segmentation]", step: Step) -> Finished:
        """Add the segmentation node and report what is wrong with it."""
        finished = super().finish(scene, results, step)
        problem = self_test.problem(scene.segmentation_of(finished.segmentation))
        if not problem:
            return finished._replace(message=_("The self-test passed."))
        advice = _("Install the extension again; if that does not help, report it under Help > Report a Bug.")
        return finished._replace(
            message=_("The self-test failed: {problem} {advice}").format(problem=problem, advice=advice)
        )


class ComputeMaps(VolumeTask):
    """The maps of one segmentation, and that itself."""

    def finish(self, scene: Scene, results: "Sequence[Segmentation]", step: Step) -> Finished:
        """Add the maps and, unless it is there already, the segmentation node."""
        (segmentation,) = results
        maps = scene.add_maps(self.node, segmentation, self.voxels, lambda: step(1.0, _("Adding the maps...")))
        # The network computed it on the way; it would be a pity to do so again. No pause from here on, in which Cancel
        # would leave a part.
        node = scene.find_result(self.node, "segmentation", segmentation.parameters)
        if node is None:
            node = scene.add_segmentation(self.node, segmentation, self.voxels)
        else:
            scene.remember_confidences(node, segmentation)
        message = _("Created {names}, computed on {device}.").format(
            names=quoted_names(maps), device=segmentation.device
        )
        return Finished(message, node, maps)


@dataclass
class Compare(VolumeTask):
    """A comparison of variants.

    known: the segmentation nodes that were there before.
    consensus: whether to make one.
    """

    known: Sequence[Node]
    consensus: bool

    def known_segmentations(self, scene: Scene) -> "Sequence[Segmentation]":
        """Return the segmentations that were made before.

        Raises:
            SEBrainSegError: one of them cannot be compared any more.
        """
        known = tuple(scene.segmentation_of(node) for node in self.known)
        for node, segmentation in zip(self.known, known):
            if segmentation.labels is None:
                raise SEBrainSegError(
                    _("'{name}' no longer fits to its volume; delete it and compare again.").format(name=node.GetName())
                )
        if len({segmentation.structures for segmentation in known}) > 1:
            raise SEBrainSegError(
                _("One of the segmentations has other structures by now; delete it and compare again.")
            )
        return known

    def segmentations(self, results: "Differences") -> "Sequence[Segmentation]":
        """Return the segmentations that were compared."""
        return results.segmentations

    def finish(self, scene: Scene, results: "Differences", step: Step) -> Finished:
        """Add the segmentation nodes that are missing, the table, the disagreement and the consensus."""
        for node in self.known:
            if not scene.is_there(node):
                raise SEBrainSegError(_("'{name}' was deleted; compare again.").format(name=node.GetName()))
        compared = scene.add_compared(
            self.node, results, self.voxels, self.consensus, lambda: step(1.0, _("Adding the comparison..."))
        )
        message = _("Compared {count} variants: the table is under Compare, '{image}' over the volume.").format(
            count=len(compared.segmentations), image=compared.disagreement.GetName()
        )
        result = compared.consensus or compared.segmentations[-1]
        return Finished(message, result, (compared.disagreement,), compared.table)


@dataclass
class SegmentSequence(VolumeTask):
    """The segmentations of all volumes of a sequence, in a run each.

    items: the volume nodes of the sequence.
    done: the segmentations of the first of them.
    """

    items: Sequence[Node]
    done: "list[Segmentation]" = field(default_factory=list, init=False)

    def volume_to_segment(self) -> Node:
        """Return the first volume node without a segmentation."""
        return self.items[len(self.done)]

    def progress(self, fraction: float, message: str) -> tuple[float, str]:
        """Return how far the whole sequence has come."""
        done, count = len(self.done), len(self.items)
        text = _("Volume {number} of {count}: {message}").format(number=done + 1, count=count, message=message)
        return (done + fraction) / count, text

    def finish(self, scene: Scene, results: "Sequence[Segmentation]", step: Step) -> Optional[Finished]:
        """Add the sequence node of all segmentations, once they are there."""
        self.done.extend(results)
        if len(self.done) < len(self.items):
            return None
        node = scene.add_segmentations(self.node, self.done, lambda: step(1.0, _("Adding the sequence...")))
        return Finished(
            _("Created '{name}' with {count} segmentations.").format(name=node.GetName(), count=len(self.done))
        )


@dataclass
class MakeSurfaces(Task):
    """The surfaces of a segmentation node.

    labelmaps, settings: what they are made of.
    """

    labelmaps: "list[Labelmap]"
    settings: "Settings"

    def start(self, run: Run, scene: Scene) -> None:
        """Start the run; raises SEBrainSegError."""
        run.start_surfaces(self.labelmaps, self.settings)

    def segmentations(self, results: Any) -> "Sequence[Segmentation]":
        """Return none."""
        return ()

    def finish(self, scene: Scene, results: "dict[str, Optional[Surface]]", step: Step) -> Finished:
        """Add the surfaces and show them."""
        finished = False
        try:
            for number, (name, surface) in enumerate(results.items()):
                step(number / len(results), _("Adding the surfaces..."))
                if not scene.is_there(self.node):
                    raise SEBrainSegError(_("'{name}' was deleted.").format(name=self.node.GetName()))
                scene.add_surface(self.node, name, surface)
            finished = True
        finally:
            if scene.is_there(self.node):
                scene.show_surfaces(self.node, finished)
        return Finished(_("'{name}' is shown in 3D.").format(name=self.node.GetName()))
