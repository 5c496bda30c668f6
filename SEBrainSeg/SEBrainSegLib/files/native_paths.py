"""Paths for native libraries, which end the process at a name that is no UTF-8 (C++'s ``std::logic_error``)."""

import os
import tempfile
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from urllib.parse import quote

from ..errors import SEBrainSegError
from .names import shown


def is_safe(path):
    """Whether native code, which takes the UTF-8 of a path, gets the bytes that the system has for it."""
    try:
        return os.name == "nt" or os.fsencode(path) == os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False


def holds_unsafe(folder):
    """Whether a folder that can be looked into holds a name that is not safe."""
    try:
        return not all(map(is_safe, os.listdir(folder)))
    except OSError:
        return False


@contextmanager
def native_path(path):
    """Give a path to use in native code: the path itself or, if that would not do, a link to it in a temporary folder.

    A folder has there what it holds, and a file its neighbours beside it, as a header names the file of its voxels.

    Args:
        path: a file or a folder; what does not exist is given back as it is.

    Returns:
        (in a ``with`` statement) a ``pathlib.Path`` with the file's own ending.

    Raises:
        SEBrainSegError: no links can be made.
    """
    path = Path(os.path.abspath(path))
    is_folder = os.path.isdir(path)
    if not os.path.lexists(path) or is_safe(path) and not (is_folder and holds_unsafe(path)):
        yield path
        return
    folder = path if is_folder else path.parent
    with ExitStack() as stack:
        links = folder_of_links(stack, path)
        try:
            for name in os.listdir(folder):
                # A header among a file's neighbours may name another by its own name.
                for link in {linked(name)} if is_folder else {name, linked(name)}:
                    os.symlink(folder / name, links / link)
        except OSError as error:
            raise unlinked(path, error) from None
        yield links if is_folder else links / linked(path.name)


@contextmanager
def native_folder(folder):
    """Give a path by which native code can look into a folder or write files into it; as :func:`native_path`."""
    if is_safe(os.path.abspath(folder)):
        yield Path(folder)
        return
    with ExitStack() as stack:
        link = folder_of_links(stack, folder) / "folder"
        try:
            link.symlink_to(os.path.abspath(folder), target_is_directory=True)
        except OSError as error:
            raise unlinked(folder, error) from None
        yield link


def folder_of_links(stack, path):
    """Make a temporary folder that lasts as long as the ``ExitStack``."""
    try:
        links = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="SEBrainSeg-")))
    except OSError as error:
        raise unlinked(path, error) from None
    if not is_safe(links):
        raise SEBrainSegError(f"The folder of temporary files, {shown(links)}, has no name in UTF-8; set TMPDIR.")
    return links


def linked(name):
    """The name of a link to a file: its own, or one in ASCII."""
    return name if is_safe(name) else f"SEBrainSeg-link-{quote(os.fsencode(name), safe=' ')}"


def unlinked(path, error):
    """The error for a name that native code cannot use and that cannot be circumvented."""
    return SEBrainSegError(
        f"The name {shown(path)} is no UTF-8, and no link to it can be made among temporary files ({error.strerror}); "
        "rename it."
    )


def by_native_path(function):
    """Decorate a function of a path that hands it to native code: it gets one that native code bears.

    Its errors name the path that it was called with.
    """

    @wraps(function)
    def call(path, *arguments, **options):
        path = Path(path)
        with native_path(path) as native:
            if native == Path(os.path.abspath(path)):
                return function(path, *arguments, **options)
            try:
                return function(native, *arguments, **options)
            except SEBrainSegError as error:
                text = str(error).replace(str(native), str(path)).replace(native.name, path.name)
                raise SEBrainSegError(text) from None

    return call
