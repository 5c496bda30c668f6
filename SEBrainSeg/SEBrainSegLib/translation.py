"""Sentences that can be shown in the user's language; without Slicer's window they stay as they are.

``from ..translation import tr as _`` and then ``_("No {what}.").format(what=name)``, as in Slicer's own modules. The
core needs no Slicer for it: Slicer's translator is used where its application has loaded it, and nowhere else. What a
child process says is translated in Slicer, see :func:`parts` and :func:`joined`.
"""

import string
import sys
from typing import Any, Optional


class Text(str):
    """A text that remembers the file that it is in, its template and what was filled in.

    Slicer's process, which needs no memory of it, has plain ones.
    """

    context: str
    template: str
    values: dict[str, Any]

    def __new__(cls, text: str, context: str, template: str, values: Optional[dict[str, Any]] = None) -> "Text":
        made = super().__new__(cls, text)
        made.context, made.template, made.values = context, template, values or {}
        return made

    def __getnewargs__(self) -> tuple[str, str, str, dict[str, Any]]:  # type: ignore[override]
        # An error that is raised in another process brings its sentence along.
        return str(self), self.context, self.template, self.values

    def format(self, **values: Any) -> "Text":  # type: ignore[override]
        """Return the text with its fields filled in."""
        return Text(super().format(**values), self.context, self.template, values)


def tr(text: str) -> str:
    """Return the text in the user's language, if Slicer's window runs and has a translation; else a :class:`Text`.

    Args:
        text: a literal, so that Slicer's tools find it; fields as in ``{name}`` are filled in afterwards.
    """
    # Slicer finds a translation by the folder and the file that a text is in.
    context = ".".join(sys._getframe(1).f_globals.get("__name__", "").split(".")[-2:])
    return _translated(context, text) if "slicer.i18n" in sys.modules else Text(text, context, text)


def _translated(context: str, text: str) -> str:
    # Not imported here: that would load all of Slicer into the command line where its Python package is installed.
    slicer_translation = sys.modules.get("slicer.i18n")
    if slicer_translation is None:
        return text
    translated = str(slicer_translation.translate(context, text))
    # A translation whose fields are misspelt could not be filled in.
    return translated if _fields(translated) == _fields(text) else text


def _fields(text: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError:
        return {text}


def parts(text: Any) -> Any:
    """Return what :func:`joined` makes the same text of in another process, fit for JSON."""
    if isinstance(text, Text):
        values = {name: parts(value) for name, value in text.values.items()}
        return {"context": text.context, "template": text.template, "values": values}
    return text if isinstance(text, (int, float)) else str(text)


def joined(made: Any) -> Any:
    """Return the text of which :func:`parts` was made, in the language of this process."""
    if not isinstance(made, dict):
        return made
    text = _translated(str(made["context"]), str(made["template"]))
    values = {name: joined(value) for name, value in made["values"].items()}
    return text.format(**values) if values else text
