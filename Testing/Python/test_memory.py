"""Memory that is freed stays with a process that asked for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from SEBrainSegLib.inference import memory

CODE = """
import psutil, sys
from SEBrainSegLib.inference import memory
if sys.argv[1] == "kept":
    memory.keep_what_is_freed()
before = psutil.Process().memory_info().rss
large = bytearray(200_000_000)
del large
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_what_is_freed_is_kept_for_the_next_layer():
    def grown(how):
        shown = subprocess.run(
            [sys.executable, "-c", CODE, how],
            cwd=Path(memory.__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(shown.stdout)

    assert grown("kept") > 150e6 > 50e6 > grown("given back")


def test_where_there_is_no_such_setting_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("asked for glibc"))
    memory.keep_what_is_freed()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    memory.keep_what_is_freed()
