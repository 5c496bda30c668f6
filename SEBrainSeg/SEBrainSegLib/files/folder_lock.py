"""Runs that write to one folder take turns, so that their files do not mix."""

import os
import random
import time
from contextlib import contextmanager
from pathlib import Path

LOCK = ".sebrainseg-lock"


# Seconds for which one run may hold up the others. It renames files, which takes milliseconds: after so long, the run
# was killed.
PATIENCE = 30.0


POLL = 0.02  # seconds


@contextmanager
def turn(folder):
    """Keep other runs from renaming files in a folder meanwhile.

    The lock is a folder, as making one succeeds for one only on every kind of file system, network ones included. A
    lock that stays the same for :data:`PATIENCE` is that of a killed run and taken away; no clocks are compared.

    Raises:
        OSError: nothing can be written to the folder.
    """
    lock = Path(folder) / LOCK
    seen, since = None, time.monotonic()
    while True:
        try:
            lock.mkdir()
            break
        except (FileExistsError, PermissionError):  # the latter on Windows, of a lock that just goes
            there = identity(lock)
            if there != seen:
                seen, since = there, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                if there is None:
                    raise
                release(lock)
            # Not in step with other runs that wait for the same.
            time.sleep(POLL * (0.5 + random.random()))
    try:
        yield
    finally:
        release(lock)


def identity(lock):
    """What tells one lock from the next; ``None`` if there is none."""
    try:
        found = os.stat(lock)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def release(lock):
    """Take a lock away; it may be gone, which is as good."""
    try:
        os.rmdir(lock)
    except OSError:
        pass
