"""Types of arguments that several commands take, for :mod:`argparse`."""

import argparse
from pathlib import Path

from ..errors import SEBrainSegError
from .inputs import local


def at_least_one(text: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: the text is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def local_path(text: str) -> Path:
    """Return a path, with ``~`` replaced, as :func:`.inputs.local` does.

    Raises:
        argparse.ArgumentTypeError: it is an address such as ``https://...``.
    """
    try:
        return Path(local(text))
    except SEBrainSegError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
