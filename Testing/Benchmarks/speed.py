"""Time and memory of the command line, from start to files written, and where they go.

    python Testing/Benchmarks/speed.py [--scan FILE] [--choices NAME ...] [--sides 128 192 256 ...] [--scans 1 2 4]
                                       [--device cpu|cuda|...] [--threads N]

For every choice (such as ``unet-scse-all``; default: all bundled ones): CPU-seconds, seconds by the clock, peak memory,
the share of each stage, and how much of the processor's own rate of convolutions was used, measured in the same run.
``--sides`` resamples the scan to cubes of as many voxels, ``--scans`` segments it as often in one run. Each measurement
has a process of its own; nothing else should be running. On a GPU, the peak of its memory is told as well.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import SimpleITK as sitk

from facts import LIBRARY, SAMPLE
from facts import choices as choices_of_networks
from scores import table
from SEBrainSegLib.choices.parameters import Parameters
from SEBrainSegLib.resources import resource

CONVOLUTION = (4, 32, 192, 160)  # batch, channels, rows, columns: what most of the layers see


def cpu_time():
    """CPU-seconds of this process."""
    return time.process_time()


def convolution_rate(device):
    """Multiplications a CPU-second of a 5 x 5 convolution as the networks have it; a second by the clock on a GPU."""
    import torch

    from SEBrainSegLib.inference import devices

    layer = torch.nn.Conv2d(CONVOLUTION[1], CONVOLUTION[1], 5, padding=2).to(device, memory_format=torch.channels_last)
    slices = torch.zeros(CONVOLUTION, device=device).to(memory_format=torch.channels_last)
    precision = devices.precision(device)
    clock = cpu_time if device.type == "cpu" else time.perf_counter
    count = CONVOLUTION[0] * CONVOLUTION[1] ** 2 * 25 * CONVOLUTION[2] * CONVOLUTION[3]
    rates = []
    with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
        for _ in range(12):
            started = clock()
            layer(slices)
            if device.type == "cuda":
                torch.cuda.synchronize()
            rates.append(count / max(clock() - started, 1e-9))
    return sorted(rates)[-3]


class Multiplications:
    """Counts those of every convolution while it is in use as a context."""

    def __enter__(self):
        import torch

        self.count = 0

        def add(module, inputs, output):
            rows, columns = module.kernel_size
            self.count += output.numel() * module.in_channels * rows * columns

        def hook(module, inputs, output):
            if isinstance(module, torch.nn.Conv2d):
                add(module, inputs, output)

        self.handle = torch.nn.modules.module.register_module_forward_hook(hook)
        return self

    def __exit__(self, *_):
        self.handle.remove()


def measure(scan, choice, device, times):
    """Segment a scan in this process as the command line does; returns numbers by name."""
    started, stages = cpu_time(), {}
    from SEBrainSegLib.files.reading import read
    from SEBrainSegLib.files.results import result_paths, write_results

    def stage(name):
        nonlocal started
        now = cpu_time()
        stages[name] = stages.get(name, 0.0) + now - started
        started = now

    current = "reading"

    def progress(fraction, message):
        nonlocal current
        name = message.split(" slices")[0]
        if name != current:
            stage(current)
            current = name

    import torch

    from SEBrainSegLib.inference.run import segment

    stage("loading PyTorch")
    with tempfile.TemporaryDirectory() as folder, Multiplications() as multiplications:
        for number in range(times):
            current = "reading"
            image = read(scan)
            found = segment(
                image, choice.architecture, choice.se, choice.view, device, progress, protocol=choice.protocol
            )
            stage(current)
            write_results(image, found, result_paths(folder, f"scan{number}"))
            stage("writing")
    numbers = {"stages": stages, "multiplications": multiplications.count}
    numbers["rate"] = convolution_rate(torch.device(found.device))
    if found.device.startswith("cuda"):
        numbers["gpu_memory"] = torch.cuda.max_memory_reserved()
    return numbers


def in_a_process(scan, choice, device, times, threads):
    """Measure in a process of its own; returns its numbers and what the system says of it."""
    paths = os.pathsep.join(filter(None, (str(LIBRARY), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    command = [sys.executable, __file__, "--measure", json.dumps([str(scan), choice, device, times])]
    before, clock = os.times(), time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        output = process.stdout.read()
        # Of this child alone: getrusage(RUSAGE_CHILDREN) keeps the largest of all.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    after = os.times()
    numbers = json.loads(output.splitlines()[-1])
    numbers["wall"] = time.perf_counter() - clock
    numbers["cpu"] = after.children_user + after.children_system - before.children_user - before.children_system
    numbers["memory"] = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return numbers


def row_of(what, numbers):
    """A row of the table."""
    stages = numbers["stages"]
    network = sum(seconds for name, seconds in stages.items() if name.startswith("Segmenting"))
    total = sum(stages.values())
    shares = ", ".join(
        f"{name} {100 * seconds / total:.0f} %" for name, seconds in stages.items() if seconds > 0.02 * total
    )
    used = numbers["multiplications"] / max(network, 1e-9) / numbers["rate"]
    cells = [what, f"{numbers['cpu']:.1f}", f"{numbers['wall']:.1f}", f"{numbers['memory'] / 2**20:.0f}"]
    gpu = f"{numbers['gpu_memory'] / 2**20:.0f}" if "gpu_memory" in numbers else "–"
    return [*cells, gpu, f"{100 * used:.0f} %", shares]


def cube(scan, side, path):
    """Write a scan resampled to a cube of as many voxels a side that covers all of it."""
    image = sitk.ReadImage(str(scan))
    extent = max(size * spacing for size, spacing in zip(image.GetSize(), image.GetSpacing()))
    middle = image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()])
    spacing = extent / side
    grid = sitk.Image([side] * 3, image.GetPixelID())
    grid.SetSpacing([spacing] * 3)
    grid.SetDirection(image.GetDirection())
    offset = grid.TransformContinuousIndexToPhysicalPoint([(side - 1) / 2] * 3)
    grid.SetOrigin([there - here for there, here in zip(middle, offset)])
    sitk.WriteImage(sitk.Resample(image, grid), str(path))


def main(argv=None):
    """Run the benchmark; returns the exit status (0 done)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, default=resource(SAMPLE))
    parser.add_argument("--choices", nargs="+", metavar="NAME")
    parser.add_argument("--sides", nargs="+", type=int, default=[], metavar="VOXELS")
    parser.add_argument("--scans", nargs="+", type=int, default=[], metavar="TIMES")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.measure:
        scan, choice, device, times = json.loads(chosen.measure)
        numbers = measure(Path(scan), Parameters(*choice), device, times)
        print(json.dumps(numbers))
        return 0
    choices = [each for each in choices_of_networks() if chosen.choices is None or each.name in chosen.choices]
    rows = []

    def add(what, scan, choice, times=1):
        fields = choice.architecture, choice.se, choice.view
        rows.append(row_of(what, in_a_process(scan, fields, chosen.device, times, chosen.threads)))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)

    for choice in choices:
        add(choice.name, chosen.scan, choice)
    with tempfile.TemporaryDirectory() as folder:
        for side in chosen.sides:
            path = Path(folder) / f"{side}.nii.gz"
            cube(chosen.scan, side, path)
            add(f"{choices[0].name}, {side}^3 voxels", path, choices[0])
    for times in chosen.scans:
        add(f"{choices[0].name}, {times} scans", chosen.scan, choices[0], times)
    header = ["", "CPU-s", "s", "peak MiB", "GPU MiB", "of the convolution rate", "share of CPU time"]
    print(table(header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
