"""Finds what the networks can run on, in a child process: asking PyTorch takes seconds, and Slicer does without it.

``python -m SEBrainSegLib.subprocesses.device_search`` writes a line of JSON that maps devices to names, as in
``{"cuda:0": "NVIDIA A100 (cuda:0)"}``; the CPU goes without saying.
"""

import json
import os

from .background import MODULE_FOLDER


class DeviceSearch:
    """One search, in the background.

    Args:
        factory: makes a :class:`~.background.Process`.
        python: path of the Python interpreter of the child.
        found: called with the dict of names by device, once; never if PyTorch cannot be asked.
    """

    def __init__(self, factory, python, found):
        self.found, self.output = found, b""
        self.process = factory(self.on_output, lambda content: None, self.on_end)
        paths = [str(MODULE_FOLDER), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.process.start(str(python), ["-m", "SEBrainSegLib.subprocesses.device_search"], environment)

    def cancel(self):
        """End the search; nothing is found."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()

    def on_output(self, content):
        self.output += bytes(content)

    def on_end(self, status):
        process, self.process = self.process, None
        if process is None or status != 0:
            return
        # The last line is ours, whatever a library says before.
        self.found(json.loads(self.output.decode("utf-8").splitlines()[-1]))


def search():
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
