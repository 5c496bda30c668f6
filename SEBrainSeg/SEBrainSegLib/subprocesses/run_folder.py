"""Temporary folders in which a scan is handed to a child process; none stays for longer than it must.

Windows does not let go of a file that a process has open, and a child that was killed keeps its files for a moment: the
folder of its run then stays behind, and is removed when the next run starts, or the next Slicer.
"""

import os
import re
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

# Names say whose they are: the computer, as containers with process numbers of their own may share temporary files, and
# the process.
_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())


_PREFIX = f"SEBrainSeg-run-{_HOST}-"


_PAUSES = (0.0, 0.1, 0.2, 0.4)  # seconds before each attempt to remove a folder


_in_use: set[Path] = set()


def create() -> Path:
    """Make a folder for a run of this process."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    _in_use.add(folder)
    return folder


def remove(folder: Path) -> None:
    """Remove the folder of a run that is over; what another process keeps open is left to :func:`remove_abandoned`."""
    _in_use.discard(folder)
    for pause in _PAUSES:
        time.sleep(pause)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def remove_abandoned() -> None:
    """Remove the folders of runs that are over: of this process, and of those on this computer that have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        number = re.match(r"(\d+)-", folder.name[len(_PREFIX) :])
        if number is None or folder in _in_use:
            continue
        process = int(number[1])
        if process == os.getpid() or not _is_running(process):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    """Whether there is a process of this number."""
    if os.name == "nt":
        return _is_running_on_windows(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # there is one, of another user
    return True


def _is_running_on_windows(process: int) -> bool:
    """The same on Windows, where ``os.kill`` would end it."""
    import ctypes

    query_limited_information, invalid_parameter, still_active = 0x1000, 87, 259
    windows: Any = ctypes  # what it has there only
    kernel = windows.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(query_limited_information, False, process)
    if not handle:
        return windows.get_last_error() != invalid_parameter
    code = ctypes.c_ulong()
    known = kernel.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(code))
    kernel.CloseHandle(ctypes.c_void_p(handle))
    return not known or code.value == still_active
