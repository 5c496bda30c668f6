"""What the panel works with: a run in the background, Slicer's scene and Slicer's application.

MRML nodes are handed on and never looked into, but for their names.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Protocol

from ..choices.job import Job
from ..choices.parameters import Parameters

if TYPE_CHECKING:
    from ..analysis.comparison import Differences
    from ..inference.result import Segmentation
    from ..subprocesses.surfaces import Labelmap, Settings, Surface

Node = Any
# What identifies the voxels of a volume node.
Content = Any


class Run(Protocol):
    """Work in the background, such as :class:`~.background.BackgroundSegmentation`."""

    running: bool

    def start(self, image: Any, job: Job, known: Sequence["Segmentation"] = ()) -> None:
        """Start segmenting an image; raises SEBrainSegError."""

    def start_surfaces(self, labelmaps: "list[Labelmap]", settings: "Settings") -> None:
        """Start making surfaces; raises SEBrainSegError."""

    def cancel(self) -> None:
        """End it, if there is one."""


class RunFactory(Protocol):
    """Makes the :class:`Run`, which calls these functions as :class:`~.background.BackgroundSegmentation` does."""

    def __call__(
        self,
        *,
        progress: Callable[[float, str], None],
        finished: Callable[[Any], None],
        failed: Callable[..., None],
        cancelled: Callable[[], None],
    ) -> Run: ...


class Scene(Protocol):
    """Slicer's nodes, as :mod:`SEBrainSegLib.scene` has them; a ``pause`` is called between two steps."""

    # Volume nodes
    def problem(self, volume: Optional[Node], bundled: bool) -> str: ...
    def doubt(self, volume: Optional[Node]) -> str: ...
    def is_there(self, node: Optional[Node]) -> bool: ...
    def content_of(self, volume: Node) -> Content: ...
    def image_of(self, volume: Node) -> Any: ...
    def items(self, volume: Node) -> Sequence[Node]: ...
    def find_result(self, volume: Optional[Node], kind: str, parameters: Parameters) -> Optional[Node]: ...
    def remove(self, node: Node) -> None: ...

    # Segmentation nodes
    def add_segmentation(self, volume: Node, segmentation: "Segmentation", content: Content) -> Node: ...
    def add_segmentations(
        self, volume: Node, segmentations: "Sequence[Segmentation]", pause: Callable[[], None]
    ) -> Node: ...
    def remember_confidences(self, node: Node, segmentation: "Segmentation") -> None: ...
    def segmentation_of(self, node: Node, labels: bool = True) -> "Segmentation": ...
    def show_only(self, node: Node) -> None: ...
    def groups_shown(self, node: Node) -> Mapping[str, bool]: ...
    def show_group(self, node: Node, group: str, visible: bool) -> None: ...

    # Their surfaces
    def has_surfaces(self, node: Node) -> bool: ...
    def labelmaps_of(self, node: Node) -> "Optional[tuple[list[Labelmap], Settings]]": ...
    def add_surface(self, node: Node, name: str, surface: "Optional[Surface]") -> None: ...
    def make_surfaces(self, node: Node) -> Iterator[tuple[float, str]]: ...
    def show_surfaces(self, node: Node, visible: bool) -> None: ...

    # Maps, plots and tables
    def find_maps(self, volume: Node, parameters: Parameters, block: str, confidence: bool) -> Sequence[Node]: ...
    def add_maps(
        self, volume: Node, segmentation: "Segmentation", content: Content, pause: Callable[[], None]
    ) -> Sequence[Node]: ...
    def show_maps(self, volume: Node, nodes: Sequence[Node], outlined: bool) -> Optional[Node]: ...
    def map_shown(self, volume: Optional[Node]) -> Optional[Node]: ...
    def hide_maps(self, volume: Optional[Node]) -> None: ...
    def outline(self, volume: Optional[Node], outlined: bool) -> None: ...
    def add_compared(
        self, volume: Node, differences: "Differences", content: Content, consensus: bool, pause: Callable[[], None]
    ) -> Any: ...  # comparison_nodes.Compared
    def comparison_of(self, volume: Optional[Node]) -> Optional[Node]: ...
    def add_volumes(self, segmentation: Node, rows: list[dict[str, Any]]) -> Node: ...


class Application(Protocol):
    """What else the panel needs of Slicer, as :class:`~.application.Application` has it."""

    def ensure_torch(self) -> None:
        """See that PyTorch is installed; raises SEBrainSegError."""

    def process_events(self) -> None:
        """Let the application handle its events, so that what is shown is seen."""

    def show_chart(self, chart: Node) -> None:
        """Show a plot."""

    def setting(self, key: str, default: str) -> str:
        """Return a text kept in the user's settings."""

    def set_setting(self, key: str, text: str) -> None:
        """Keep a text in the user's settings."""
