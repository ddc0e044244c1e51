"""How do time and memory of a solve from embeddings grow with the rows?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_scale.py

n = 10^4, 10^5 and 10^6 rows of d = 384 against m = 1,000 + 1,000, one process each, with a memory
limit of 8 GB beyond the embeddings. Time is the whole call, compilation included; memory is the
largest resident set less that before the call. Draws `scale.svg` beside this file. 10^6 rows need
10 GB. One size under another limit, in bytes:

    python sot_pipeline_tests/benchmarks/bench_scale.py 100000 600000000
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.bench
NUM_REFERENCE, WIDTH, LIMIT = 1_000, 384, 8_000_000_000
SIZES = (10_000, 100_000, 1_000_000)
SCALE = Path(__file__).with_name("scale.svg")


def embeddings(rng: np.random.Generator, axes: np.ndarray, num: int, shift: np.ndarray):
    """Rows around a plane of 16 dimensions, made in chunks."""
    vectors = np.empty((num, WIDTH), np.float32)
    for start in range(0, num, 65_536):
        part = vectors[start : start + 65_536]
        part[:] = rng.standard_normal((len(part), len(axes)), dtype=np.float32) @ axes
        part += 0.3 * rng.standard_normal(part.shape, dtype=np.float32) + shift
    return vectors


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


def measure(n: int, limit: int = LIMIT) -> dict[str, object]:
    from sot_pipeline.transport.push_pull import learn_weights_from_embeddings

    rng = np.random.default_rng(0)
    axes = rng.standard_normal((16, WIDTH)).astype(np.float32)
    task, harm = rng.standard_normal((2, WIDTH)).astype(np.float32)
    custom = embeddings(rng, axes, n, task)
    custom[: n // 10] += 0.5 * (harm - task)
    safe, harmful = (embeddings(rng, axes, NUM_REFERENCE, s) for s in (task, harm))
    before, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    fit = learn_weights_from_embeddings(custom, safe, harmful, memory_limit=limit)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {
        "n": n, "seconds": seconds, "peak_gb": (peak[0] - before) / 1e9, "storage": fit.storage,
        "converged": fit.converged, "num_steps": fit.num_steps, "num_sweeps": fit.num_sweeps,
    }  # fmt: skip


def test_time_grows_no_faster_than_the_rows(capsys):
    results = []
    with capsys.disabled():
        print(f"\nd = {WIDTH}, m = {NUM_REFERENCE:,} + {NUM_REFERENCE:,}, limit {LIMIT / 1e9:g} GB")
        for n in SIZES:
            command = [sys.executable, __file__, str(n)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            results.append(json.loads(run.stdout.splitlines()[-1]))
            print(
                "n = {n:9,}: {seconds:6.1f} s, peak {peak_gb:.2f} GB, {storage}, {num_steps} steps, "
                "{num_sweeps} sweeps".format(**results[-1])
            )
    draw(results)
    assert all(result["converged"] for result in results)
    assert results[-1]["peak_gb"] <= 8
    # from 10^4 on: a solve of fewer rows is mostly compilation
    assert results[-1]["seconds"] <= 100 * results[0]["seconds"]


def draw(results: list[dict]) -> None:
    import matplotlib.pyplot as plt

    n = [result["n"] for result in results]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axis, key, unit in zip(axes, ("seconds", "peak_gb"), ("s", "GB"), strict=True):
        values = [result[key] for result in results]
        axis.loglog(n, values, "o-", label="measured")
        axis.loglog(n, [values[-1] * k / n[-1] for k in n], ":", color="grey", label="as n")
        axis.set(xlabel="rows", ylabel=f"{key.split('_')[0]} [{unit}]")
        axis.legend(frameon=False)
    figure.savefig(SCALE, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    print(json.dumps(measure(*(int(argument) for argument in sys.argv[1:]))))
