"""Where networks run, in which precision, and the memory that is kept between layers."""

import torch

from ..errors import SEBrainSegError

# What MPS, cuDNN and cuBLAS say, which raise plain runtime errors.
FULL = ("out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")


BATCH = {"cpu": 4, "mps": 8, "cuda": 16}  # slices


NEEDED = 3072  # bytes a pixel, as measured on a CPU for the largest of the networks


def available():
    """Return the names of the usable devices: every ``cuda:N``, ``mps``, and always ``cpu``."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        names.append("mps")
    return names + ["cpu"]


def choose(name):
    """Return the ``torch.device`` for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        SEBrainSegError: this machine has no such device.
    """
    names = available()
    if name == "auto":
        return torch.device(names[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in names:
        raise SEBrainSegError(f"This machine has no device '{name}'; choose auto or one of {', '.join(names)}.")
    return torch.device(wanted)


def precision(device):
    """Return the type of number that networks compute in on a device.

    Half precision on NVIDIA GPUs; bfloat16 on processors that have instructions for it, where it takes 0.6 of the time
    and changes a label in less than a thousandth of the voxels; float32 elsewhere.
    """
    if device.type == "cuda":
        return torch.float16
    # Private, and not there in older versions of torch, which then compute in float32.
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if device.type == "cpu" and has_instructions is not None and has_instructions():
        return torch.bfloat16
    return torch.float32


def batch(device, pixels):
    """Return how many slices of so many pixels to compute at a time; of a GPU, what its free memory holds."""
    if device.type != "cuda":
        return BATCH[device.type]
    free, _ = torch.cuda.mem_get_info(device)
    # The driver does not know what torch keeps of earlier batches and will use again.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, min(BATCH["cuda"], free // (NEEDED * pixels)))


def is_out_of_memory(error):
    """Whether a ``RuntimeError`` says that a device's memory is full; CUDA has a class for it, the rest words."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in str(error) for words in FULL)


def release_memory(device):
    """Give back what torch keeps of a GPU's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
