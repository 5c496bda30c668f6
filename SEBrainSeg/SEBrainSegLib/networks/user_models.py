"""Networks that users have trained: model files in a folder of the user's, outside of the extension."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ..errors import SEBrainSegError
from ..translation import tr as _

if TYPE_CHECKING:
    from .model_file import Model


def folder() -> Path:
    """Return where ``sebrainseg-train`` puts model files: ``SEBRAINSEG_MODELS`` or ``~/.sebrainseg/models``."""
    return Path(os.environ.get("SEBRAINSEG_MODELS") or Path.home() / ".sebrainseg" / "models")


def names() -> tuple[str, ...]:
    """Return the names of the models in :func:`folder`, sorted; none if there is no such folder."""
    return tuple(sorted(path.stem for path in folder().glob("*.pt")))


def path_of(model: str) -> Path:
    """Return the file of a model, given its name or the path of a ``.pt`` file.

    Raises:
        SEBrainSegError: there is none.
    """
    path = Path(model) if str(model).endswith(".pt") else folder() / f"{model}.pt"
    if not path.is_file():
        text = _("There is no trained model '{model}': there is none in {folder}.")
        if names():
            text = _("There is no trained model '{model}': choose one of {names}.")
        raise SEBrainSegError(text.format(model=model, folder=folder(), names=", ".join(names())))
    return path


def load(model: str, protocol: Optional[str] = None) -> "Model":
    """Load a model, in evaluation mode, on the CPU.

    Args:
        model: its name, or the path of a ``.pt`` file.
        protocol: whose convention of drawing to follow, for models that were trained in several.

    Raises:
        SEBrainSegError: there is none, or the file is no model file.
    """
    from .model_file import read_model  # torch takes seconds to import, a list of names should not

    path = path_of(model)
    try:
        return read_model(path.read_bytes(), protocol)
    except OSError as error:
        raise SEBrainSegError(
            _("The model file {path} cannot be read ({reason}).").format(path=path, reason=error.strerror)
        ) from None
    except SEBrainSegError:
        raise SEBrainSegError(
            _("{path} is no model file of SEBrainSeg, or it is damaged; train it again.").format(path=path)
        ) from None
