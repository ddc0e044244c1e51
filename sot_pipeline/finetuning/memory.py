"""How much memory training took."""

import resource
import sys

import torch


def peak_memory(device: torch.device) -> int:
    """Bytes at the highest: of the GPU's allocator, else of this process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
