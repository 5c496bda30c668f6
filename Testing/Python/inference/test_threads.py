"""Threads that wait for others sleep, so that a run beside other work is not starved by its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from SEBrainSegLib.inference import threads

LIBRARY = Path(threads.__file__).resolve().parents[2]


def settings(code, **others):
    """What a process of this code hands on to PyTorch."""
    environment = {name: value for name, value in os.environ.items() if name not in threads.PASSIVE}
    code += (
        "\nimport os, sys; seen = 'torch' in sys.modules, os.environ['OMP_WAIT_POLICY'], os.environ['KMP_BLOCKTIME']"
    )
    code += "\nprint(*seen, file=sys.stderr)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=LIBRARY, env={**environment, **others}, capture_output=True, text=True, check=True
    )
    return done.stderr.split()[-3:]


@pytest.mark.parametrize(
    "code",
    [
        "from SEBrainSegLib.commandline import main; main.main(['nowhere.nii'])",
        "from SEBrainSegLib.subprocesses import worker; worker.end_with_parent = lambda: None\n"
        "worker.talk(lambda folder, tell: None, ['nowhere'])",
        "import SEBrainSegLib.training",
    ],
    ids=["command line", "child process", "training"],
)
def test_what_segments_and_trains_waits_passively_before_torch_is_there(code):
    assert settings(code) == ["False", "PASSIVE", "0"]


def test_what_the_user_has_set_stays():
    code = "from SEBrainSegLib.inference.threads import wait_passively; wait_passively()"
    assert settings(code, OMP_WAIT_POLICY="ACTIVE") == ["False", "ACTIVE", "0"]
