"""Where the files beside the code lie: the same names in a checkout, in an installed extension and in a pip package."""

from importlib import metadata
from pathlib import Path

from .translation import tr as _

HERE = Path(__file__).resolve().parent


def resource(name):
    """Return the path of ``Resources/<name>``, for example ``resource("Structures.csv")``.

    A checkout keeps ``Resources`` beside the module folder, an installed extension inside of it, a pip package inside
    this library.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for parent in (HERE.parent.parent, HERE.parent, HERE):
        path = parent / "Resources" / name
        if path.exists():
            return path
    raise FileNotFoundError(
        _("Resources/{name} is missing from the installation of SEBrainSeg; install it again.").format(name=name)
    )


def version():
    """Return the version of this package; ``""`` of a checkout that is not installed."""
    try:
        return metadata.version("sebrainseg")
    except metadata.PackageNotFoundError:
        return ""
