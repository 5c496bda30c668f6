"""Where networks run, in which precision, and the memory that is kept between layers."""

import contextlib

import torch
from torch.nn import functional

from ..errors import SEBrainSegError
from ..networks.architectures import Unpooling

# What MPS, cuDNN and cuBLAS say, which raise plain runtime errors.
_OUT_OF_MEMORY = ("out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")


_LARGEST_BATCH = {"cpu": 4, "mps": 8, "cuda": 16}  # slices


_BYTES_PER_PIXEL = 3072  # as measured on a CPU for the largest of the networks


def available() -> list[str]:
    """Return the names of the usable devices: every ``cuda:N``, ``mps``, and always ``cpu``."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        names.append("mps")
    return names + ["cpu"]


def choose(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

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


def can_run(network: torch.nn.Module, device: torch.device) -> bool:
    """Return whether a device has all operations of a network: Apple GPUs lacked max-unpooling for long."""
    if not isinstance(network, Unpooling):
        return True
    try:
        values = torch.zeros((1, 1, 1, 1), device=device)
        functional.max_unpool2d(values, torch.zeros_like(values, dtype=torch.int64), (2, 2))
    except (NotImplementedError, RuntimeError):
        return False
    return True


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16; others emulate it, slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # Private, and not there in older versions of torch, which then compute in float32.
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and has_instructions is not None and bool(has_instructions())


def precision(device: torch.device) -> torch.dtype:
    """Return the type of number that networks compute in on a device.

    Half precision on NVIDIA GPUs; bfloat16 on processors that have instructions for it, where it takes 0.6 of the time
    and changes a label in less than a thousandth of the voxels; float32 elsewhere.
    """
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32


def computing_in(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager:
    """Return a context in which networks compute in a type of number; float32 changes nothing."""
    # Even a disabled autocast raises on devices that some versions of torch do not know it for, as 2.2 on Apple GPUs.
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def batch_size(device: torch.device, pixels: int) -> int:
    """Return how many slices of so many pixels a device computes at a time; on CUDA, as its free memory allows."""
    if device.type != "cuda":
        return _LARGEST_BATCH.get(device.type, 1)
    free, _ = torch.cuda.mem_get_info(device)
    # The driver does not know what torch keeps of earlier batches and will use again.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, min(_LARGEST_BATCH["cuda"], free // (_BYTES_PER_PIXEL * pixels)))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that a device's memory is full; CUDA has a class for it, the rest words."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def release_memory(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
