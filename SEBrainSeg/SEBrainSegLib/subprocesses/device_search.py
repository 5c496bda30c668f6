"""Finds what the networks can run on, in a child process: asking PyTorch takes seconds, and Slicer does without it.

``python -m SEBrainSegLib.subprocesses.device_search`` writes a line of JSON that maps devices to names, as in
``{"cuda:0": "NVIDIA A100 (cuda:0)"}``; the CPU goes without saying.
"""

import json
import logging
import os
from pathlib import Path
from typing import Callable, Optional, Union

from .background import MODULE_FOLDER, Process


class DeviceSearch:
    """One search, in the background.

    Args:
        factory: makes a :class:`~.background.Process`.
        python: path of the Python interpreter of the child.
        found: called with the dict of names by device, once; never if PyTorch cannot be asked.
    """

    def __init__(
        self, factory: Callable[..., Process], python: Union[str, Path], found: Callable[[dict[str, str]], None]
    ) -> None:
        self.found, self.output = found, b""
        self.process: Optional[Process] = factory(self.on_output, lambda content: None, self.on_end)
        paths = [str(MODULE_FOLDER), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.process.start(str(python), ["-m", "SEBrainSegLib.subprocesses.device_search"], environment)

    def cancel(self) -> None:
        """End the search; nothing is found."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()

    def on_output(self, content: bytes) -> None:
        """Keep what the child wrote to stdout, in whatever pieces it comes."""
        self.output += bytes(content)

    def on_end(self, status: Optional[int]) -> None:
        """Hand on what was found; ``status`` is ``None`` if the child was killed, crashed or never started."""
        process, self.process = self.process, None
        if process is None or status != 0:
            return
        names = names_in(self.output)
        if names is None:
            logging.error("SEBrainSeg's search for devices gave no answer: %s", self.output.decode("utf-8", "replace"))
        else:
            self.found(names)


def names_in(output: bytes) -> Optional[dict[str, str]]:
    """Return the names by device in the output of the child, or ``None`` if it gave no answer.

    What libraries write before and after that line is passed over.
    """
    for line in reversed(output.decode("utf-8", "replace").splitlines()):
        try:
            names = json.loads(line)
        except ValueError:
            continue
        if isinstance(names, dict) and all(isinstance(name, str) for name in names.values()):
            return names
    return None


def search() -> dict[str, str]:
    """Return the names for people of the devices of this computer but for the CPU."""
    import torch

    from ..inference import devices

    names = {}
    for device in devices.available():
        if device.startswith("cuda"):
            names[device] = f"{torch.cuda.get_device_name(device)} ({device})"
        elif device == "mps":
            names[device] = "Apple GPU (MPS)"
    return names


if __name__ == "__main__":
    print(json.dumps(search()), flush=True)
