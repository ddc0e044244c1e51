"""Time and memory of a piece of work inside this process."""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """`seconds`; `peak_bytes` of the GPU where there is one, else above what the process held
    before, None where the system (any but Linux) does not tell."""

    seconds: float = 0.0
    peak_bytes: int | None = None


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """Fill in a `Cost` when the block ends."""
    cost = Cost()
    cuda = _cuda()
    if cuda is not None:
        cuda.reset_peak_memory_stats()
    before = _resident() if _forget_peak() else None
    begun = time.perf_counter()
    yield cost
    cost.seconds = time.perf_counter() - begun
    if cuda is not None:
        cost.peak_bytes = cuda.max_memory_allocated()
    elif before is not None:
        cost.peak_bytes = max(0, _field("VmHWM") - before)


def _cuda() -> Any:
    """torch.cuda, where torch is in use and finds a GPU."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def _forget_peak() -> bool:
    try:
        _CLEAR.write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return False
    return True


def _resident() -> int:
    return _field("VmRSS")


def _field(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
