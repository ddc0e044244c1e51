"""What a machine can do at most, for estimates of what a run will cost on it."""

import os
import time
from functools import lru_cache
from typing import NamedTuple

from sot_pipeline.errors import InputError, nearest


class Device(NamedTuple):
    """One device that models run on.

    Attributes:
        flops: Peak of dense matrix products, per second, in the dtype that models run in there.
        memory: Bytes; of the CPU, the machine's.
        bandwidth: Of that memory, bytes per second, read and written.
        dtype_bytes: Of a weight: 2 for bfloat16, 4 for float32 (`resolve_dtype`).
        utilisation: Shares of the peak, low and high, that passes of a large model reach.
        is_gpu: Its memory holds the model and nothing else of the process.
        source: Where the figures are from.
    """

    name: str
    flops: float
    memory: int
    bandwidth: float
    dtype_bytes: int
    utilisation: tuple[float, float]
    is_gpu: bool
    source: str


# Assumed, not measured here: large matrix products in bfloat16 through transformers, eager.
GPU_UTILISATION = (0.2, 0.5)
# Of numpy's own matrix product on the same threads: small matrices, attention, norms between.
CPU_UTILISATION = (0.25, 1.0)


def _gpu(name: str, tflops: float, gigabytes: int, gigabytes_per_second: int, source: str):
    return Device(
        name, tflops * 1e12, gigabytes * 10**9, gigabytes_per_second * 1e9, 2, GPU_UTILISATION,
        True, f"{source}, dense bfloat16",
    )  # fmt: skip


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("h200", 989, 141, 4800, "NVIDIA H200 SXM data sheet"),
        _gpu("h100", 989, 80, 3350, "NVIDIA H100 SXM data sheet"),
        _gpu("a100-80gb", 312, 80, 2039, "NVIDIA A100 80GB SXM data sheet"),
        _gpu("a100-40gb", 312, 40, 1555, "NVIDIA A100 40GB SXM data sheet"),
        _gpu("l40s", 362, 48, 864, "NVIDIA L40S data sheet"),
        _gpu("l4", 121, 24, 300, "NVIDIA L4 data sheet"),
    )
}
DEVICES = ("cpu", *GPUS)


def device(name: str) -> Device:
    """A device by name; "cpu" is this machine's, measured in a moment.

    Raises:
        InputError: naming the nearest one.
    """
    if name == "cpu":
        return this_cpu()
    if name not in GPUS:
        raise InputError(f"no device is called {name!r}; {nearest(name, DEVICES)}")
    return GPUS[name]


@lru_cache(maxsize=1)
def this_cpu() -> Device:
    """This machine, by a matrix product and a copy of a tenth of a second: with as many threads
    as numpy uses, and whatever else the machine does meanwhile."""
    import numpy as np

    size = 512
    matrix = np.ones((size, size), dtype=np.float32)
    product = _fastest(lambda: matrix @ matrix)
    array, copy = np.zeros(16 << 20, dtype=np.uint8), np.zeros(16 << 20, dtype=np.uint8)
    copied = _fastest(lambda: np.copyto(copy, array))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(
        "cpu", 2 * size**3 / product, memory, 2 * array.nbytes / copied, 4, CPU_UTILISATION, False,
        f"measured now: float32 matrix product {2 * size**3 / product / 1e9:.0f} GFLOP/s",
    )  # fmt: skip


def _fastest(work) -> float:
    seconds = []
    for _ in range(8):  # the first one warms up, and others may be disturbed
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
