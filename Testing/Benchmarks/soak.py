"""Many small scans in one process: memory, open files and threads must not grow.

    python Testing/Benchmarks/soak.py [--scans 200]

Each is read, segmented by a tiny network and written, by the command line's own path. Prints the state after a quarter,
which is when everything has been used, and after each further quarter; needs psutil. Exit status 1 if anything grew.
"""

import argparse
import contextlib
import gc
import io
import os
import sys
import tempfile
from pathlib import Path

import psutil
import SimpleITK as sitk

from SEBrainSegLib.choices.structures import structures
from SEBrainSegLib.commandline import main as command_line
from SEBrainSegLib.networks.architectures import UNet
from SEBrainSegLib.networks.model_file import write_model

MOST = 8e6  # bytes that memory may vary by
NETWORK = {"classes": 3, "width": 2, "kernel": 3, "depth": 2}


def held():
    """Bytes of memory, open files and threads of this process."""
    gc.collect()
    process = psutil.Process()
    files = process.num_fds() if os.name == "posix" else process.num_handles()
    return process.memory_info().rss, files, process.num_threads()


def quietly(arguments):
    """Run the command without what it prints; returns its exit status."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return command_line.main(arguments)


def main(argv=None):
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=200)
    count = parser.parse_args(argv).scans
    states = []
    with tempfile.TemporaryDirectory() as folder:
        image = sitk.GaussianSource(sitk.sitkFloat32, [24, 20, 18], sigma=[4.0] * 3, mean=[12.0] * 3)
        path, model = Path(folder) / "scan.nii.gz", Path(folder) / "tiny.pt"
        sitk.WriteImage(image, str(path))
        write_model(model, UNet(**NETWORK), {"architecture": "unet", **NETWORK}, "axial", table=structures()[:2])
        arguments = [str(path), "--model", str(model), "-o", str(Path(folder) / "out"), "--overwrite"]
        for number in range(1, count + 1):
            if quietly([*arguments, "--device", "cpu"]):
                return 1
            if number % max(1, count // 4) == 0:
                states.append(held())
                memory, files, threads = states[-1]
                print(f"{number} scans: {memory / 1e6:.1f} MB, {files} open files, {threads} threads", file=sys.stderr)
    (memory, files, threads), (last_memory, last_files, last_threads) = states[0], states[-1]
    return int(last_memory - memory > MOST or last_files > files or last_threads > threads)


if __name__ == "__main__":
    sys.exit(main())
