"""CPU-seconds that importing the library, and what Slicer's module imports of it, cost in a process of its own.

    python Testing/Benchmarks/imports.py [--repeats N]

The smallest of several runs, less what an empty Python takes; torch must not be among what is imported. The second line
is what the module's file imports: all of it but Slicer's own.
"""

import argparse
import ast
import subprocess
import sys
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2] / "SEBrainSeg"
NO_SLICER = "import sys, types\nsys.modules['slicer'] = types.ModuleType('slicer')"
TELL = "import time, sys\nprint(time.process_time(), 'torch' in sys.modules)"


def imports_of_module():
    """Return the statements at the top of the module's file that import the library."""
    tree = ast.parse((LIBRARY / "SEBrainSeg.py").read_text(encoding="utf-8"))
    wanted = [
        each for each in tree.body if isinstance(each, ast.ImportFrom) and each.module.startswith("SEBrainSegLib")
    ]
    return "\n".join([NO_SLICER, *map(ast.unparse, wanted)])


def cost(code, repeats):
    """Return the smallest CPU-seconds of some runs, and whether torch was imported."""
    runs = []
    for _ in range(repeats):
        command = [sys.executable, "-c", f"{code}\n{TELL}"]
        told = subprocess.run(command, cwd=LIBRARY, capture_output=True, text=True, check=True).stdout.split()
        runs.append((float(told[0]), told[1] == "True"))
    return min(runs)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args(argv).repeats
    empty, _ = cost("", repeats)
    for name, code in {"import SEBrainSegLib": "import SEBrainSegLib", "the module": imports_of_module()}.items():
        seconds, torch = cost(code, repeats)
        print(f"{name}: {seconds - empty:.3f} CPU-seconds{', with torch' if torch else ', no torch'}")


if __name__ == "__main__":
    main()
