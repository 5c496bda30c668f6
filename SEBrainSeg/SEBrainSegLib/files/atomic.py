"""Files that appear whole or not at all: they are written to a hidden folder beside and then renamed."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Union

PREFIX = ".sebrainseg-"  # how the hidden folders begin


ABANDONED = 24 * 3600.0  # seconds after which such a folder is that of a killed run


@contextmanager
def hidden_folder(folder: Union[str, os.PathLike]) -> Iterator[Path]:
    """Give a new hidden folder within a folder, from which files can be renamed to it; it is removed at the end.

    Those of runs that were killed are removed, too, after a day.

    Args:
        folder: an existing folder.

    Raises:
        OSError: nothing can be written to it.
    """
    _remove_abandoned(folder)
    hidden = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def replaced_whole(path: Union[str, os.PathLike]) -> Iterator[Path]:
    """Give the path to write a file to, in a ``with`` statement at whose end it replaces the one of that name, if any.

    On an error or an interruption, the one that was there stays as it was.

    Args:
        path: of the file, in an existing folder; the path to write to has its name.

    Raises:
        OSError: nothing can be written to the folder.
    """
    path = Path(path)
    with hidden_folder(path.parent) as hidden:
        yield hidden / path.name
        os.replace(hidden / path.name, path)


def _remove_abandoned(folder: Union[str, os.PathLike]) -> None:
    """Remove the hidden folders that runs which were killed have left in a folder."""
    for left in Path(folder).glob(f"{PREFIX}*"):
        try:
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            pass  # another run was quicker
