"""A lock on a folder: of several runs that write to it, one at a time renames its files, so that they do not mix."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Union

from filelock import BaseFileLock, FileLock, Timeout

from ..errors import SEBrainSegError

LOCK = ".sebrainseg.lock"


# Seconds after which a run no longer waits for another. That one renames files, which takes milliseconds; should it be
# killed, the operating system frees the lock.
LONGEST_WAIT = 300.0


POLL = 0.02  # seconds


# What a file system answers that knows no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def locked_folder(folder: Union[str, os.PathLike]) -> Iterator[None]:
    """Hold the lock of a folder, in a ``with`` statement; other runs, on other computers too, wait meanwhile.

    Args:
        folder: an existing folder. A hidden file lies in it while the lock is held.

    Raises:
        SEBrainSegError: another run holds it for longer than :data:`LONGEST_WAIT`, or the file system knows no locks.
        OSError: nothing can be written to the folder.
    """
    path, deadline = Path(folder) / LOCK, time.monotonic() + LONGEST_WAIT
    lock = _acquire(path, deadline)
    # Whoever held it before may have removed the file that we had opened already: then another run can hold a new one.
    while not _is_at(lock, path):
        lock.release()
        lock = _acquire(path, deadline)
    try:
        yield
    finally:
        # Only while we hold it. Windows refuses, and filelock removes it there as it lets go.
        with suppress(OSError):
            path.unlink()
        lock.release()


def _acquire(path: Path, deadline: float) -> BaseFileLock:
    """Return the lock of a file, held; raises as :func:`locked_folder`."""
    lock = FileLock(path, mode=0o666)  # others who may write to the folder may lock it
    try:
        lock.acquire(timeout=max(0.0, deadline - time.monotonic()), poll_interval=POLL)
    except Timeout:
        raise SEBrainSegError(
            f"Another run has kept {path.parent} locked for {LONGEST_WAIT / 60:g} minutes; "
            f"if none is at work there, delete {path} and start again."
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        raise SEBrainSegError(
            f"The file system of {path.parent} knows no locks, without which the results of two runs could mix; "
            "write to a folder on another disk."
        ) from None
    return lock


def _is_at(lock: BaseFileLock, path: Path) -> bool:
    """Whether the file that a lock holds still has its name."""
    descriptor = lock._context.lock_file_fd
    if descriptor is None:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
