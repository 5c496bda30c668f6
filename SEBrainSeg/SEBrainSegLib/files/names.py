"""File names as people can read them, whatever is in them."""

import os
import re
from typing import Union

# What would break a line or move the cursor.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def shown(text: Union[str, os.PathLike]) -> str:
    r"""Return text, such as a path, in one line of characters that every UTF-8 file can hold.

    Args:
        text: text or path; bytes of a name that are no UTF-8 become ``\xfc`` and the like, as do control characters.
    """
    text = os.fspath(text)
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte of a name
        content = text.encode("utf-8", "backslashreplace")
    return _CONTROL.sub(_escaped, content.decode("utf-8", "backslashreplace"))


def _escaped(match: re.Match) -> str:
    """Return a control character as Python writes it."""
    return match.group().encode("unicode_escape").decode("ascii")
