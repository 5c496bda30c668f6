"""How PyTorch's threads wait for each other, in a process whose only work is segmentation or training."""

import os

# Of GNU's OpenMP, which torch has on Linux, and of LLVM's and Intel's, which it has elsewhere.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def wait_passively() -> None:
    """Let threads that wait for others sleep instead of spinning; to be called before PyTorch is imported.

    Beside other work, a spinning thread takes the processor from the very thread that it waits for. What the user has
    set stays as it is. Processes that this one starts do likewise.
    """
    for name, value in PASSIVE.items():
        os.environ.setdefault(name, value)
