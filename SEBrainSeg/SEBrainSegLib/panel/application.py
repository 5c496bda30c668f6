"""What the panel needs of Slicer's application; only Slicer can import it."""

import importlib.util
import shutil
import sys
import urllib.parse
import urllib.request

import slicer

from ..errors import SEBrainSegError
from ..resources import resource
from ..translation import tr as _
from .collaborators import Node

SAMPLE = "SampleData/colin27_t1.nii.gz"
# Beside the module's file, where Slicer looks for it.
ICON = "Icons/SEBrainSeg.png"
TORCH = ">=2.2"


class Application:
    """Slicer's application, as the presenter needs it; see :class:`.collaborators.Application`."""

    def ensure_torch(self) -> None:
        """See that PyTorch is installed; see :func:`ensure_torch`."""
        ensure_torch()

    def process_events(self) -> None:
        """Let Slicer handle its events."""
        slicer.app.processEvents()

    def show_chart(self, chart: Node) -> None:
        """Show a plot, in a layout that has a place for it."""
        slicer.modules.plots.logic().ShowChartInLayout(chart)

    def setting(self, key: str, default: str) -> str:
        """Return a text kept in the user's settings."""
        return str(slicer.app.userSettings().value(f"SEBrainSeg/{key}", default))

    def set_setting(self, key: str, text: str) -> None:
        """Keep a text in the user's settings."""
        slicer.app.userSettings().setValue(f"SEBrainSeg/{key}", text)


def has_torch() -> bool:
    """Return whether PyTorch is installed; it is not imported, as a child process needs none in Slicer itself."""
    return importlib.util.find_spec("torch") is not None


def ensure_torch() -> None:
    """See that PyTorch is installed, with the user's consent, through the PyTorch extension.

    Raises:
        SEBrainSegError: it is not, or the user declined.
    """
    if has_torch():
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


def python_program() -> str:
    """Return the path of the Python of child processes."""
    return shutil.which("PythonSlicer") or sys.executable


def register_sample_data() -> None:
    """Offer the bundled scan in Slicer's Sample Data module; it is copied from the installed files."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="SEBrainSeg",
        sampleName="SEBrainSeg T1",
        uris=urllib.parse.urljoin("file:", urllib.request.pathname2url(str(resource(SAMPLE)))),
        fileNames="SEBrainSeg_T1.nii.gz",
        nodeNames="SEBrainSeg T1",
        thumbnailFileName=str(resource(ICON)),
    )


def load_sample() -> Node:
    """Load the bundled scan; returns its volume node."""
    return slicer.util.loadVolume(str(resource(SAMPLE)))
