"""The search for GPUs in a child process."""

import json
import subprocess
import sys

import pytest

from SEBrainSegLib.inference import devices
from SEBrainSegLib.subprocesses.background import MODULE_FOLDER
from SEBrainSegLib.subprocesses.device_search import DeviceSearch


class Process:
    """In the place of a child process."""

    def __init__(self, on_output, on_errors, on_end):
        self.on_output, self.on_end, self.killed = on_output, on_end, False
        Process.made = self

    def start(self, program, arguments, environment):
        self.command = [program, *arguments], environment

    def kill(self):
        self.killed = True
        self.on_end(None)


def test_names_arrive_in_pieces_and_behind_a_librarys_chatter():
    found = []
    DeviceSearch(Process, "python", found.append)
    for piece in (b"Hello from a library\n", b'{"cuda:0": "A1', b'00 (cuda:0)"}\n'):
        Process.made.on_output(piece)
    assert not found
    Process.made.on_end(0)
    assert found == [{"cuda:0": "A100 (cuda:0)"}]


def test_nothing_is_found_where_pytorch_fails_or_the_search_is_ended():
    found = []
    search = DeviceSearch(Process, "python", found.append)
    Process.made.on_end(1)
    # A QProcess is no more by then.
    search.cancel()
    assert not Process.made.killed
    search = DeviceSearch(Process, "python", found.append)
    search.cancel()
    assert Process.made.killed and not found
    search.cancel()


@pytest.mark.parametrize("output", [b"", b"\n", b"Hello\n", b"[1]\n", b"null\n", b'{"cuda:0": 1}\n', b"\xff\xfe\n"])
def test_an_answer_that_is_none_finds_nothing_and_is_logged(output, caplog):
    found = []
    DeviceSearch(Process, "python", found.append)
    Process.made.on_output(output)
    Process.made.on_end(0)
    assert not found and "gave no answer" in caplog.text


def test_what_a_library_says_at_its_end_does_not_hide_the_answer():
    found = []
    DeviceSearch(Process, "python", found.append)
    Process.made.on_output(b'{"cuda:0": "A100"}\nGood bye from a library\n')
    Process.made.on_end(0)
    assert found == [{"cuda:0": "A100"}]


def test_the_real_child_names_the_devices_of_this_computer():
    DeviceSearch(Process, sys.executable, lambda names: None)
    command, environment = Process.made.command
    done = subprocess.run(command, env={**environment}, cwd=MODULE_FOLDER, capture_output=True, check=True, text=True)
    names = json.loads(done.stdout.splitlines()[-1])
    assert sorted([*names, "cpu"]) == sorted(devices.available())
