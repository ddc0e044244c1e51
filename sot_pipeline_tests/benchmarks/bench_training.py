"""How fast is training, against TRL's SFTTrainer, and what do weights cost?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_training.py

The same LoRA training (rank 16 on q_proj and v_proj, 32 rows a step in passes of 8, rows of at most
512 tokens, answers alone are learnt) on the demo's aligned model (1 million parameters, generated
rows) and on a random Llama of 14 million parameters (rows of alpaca where the text sets are
present). Repetitions alternate between the ways to train, so that a busy machine slows all alike;
`tokens per CPU second` counts only the time that the process had. Needs the extra `bench`.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sot_pipeline_tests.conftest import PROJECT_ROOT

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("ignore")]
NUM_REPETITIONS = 3
RIVAL = {  # each of ours beside what does the same job
    "ours, padded": "TRL, grouped by length",
    "ours, padded, weights": "ours, padded",
    "ours, packed": "TRL, packing",
    "ours, padded, compiled": "ours, padded",
}
SHARED = Path(os.environ.get("SOT_SHARED_DATA", PROJECT_ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    pytest.importorskip("trl")
    return tmp_path_factory.mktemp("training")


def show(capsys, *lines: str) -> None:
    with capsys.disabled():
        print(*lines, sep="\n", flush=True)


@pytest.mark.parametrize("model", ["demo", "llama"])
def test_both_begin_with_the_same_loss(model, folder, capsys):
    from sot_pipeline_tests.benchmarks.training_cases import first_losses, prepared

    losses = first_losses(*prepared(model, folder, SHARED), folder / "out")
    show(
        capsys,
        f"\n{model}: loss of the first step",
        *(f"  {n:24s} {v:.4f}" for n, v in losses.items()),
    )
    # TRL reports four digits
    assert max(losses.values()) - min(losses.values()) < 1e-3


@pytest.mark.parametrize("model", ["demo", "llama"])
def test_tokens_per_second(model, folder, capsys):
    from sot_pipeline_tests.benchmarks.training_cases import cases, prepared

    base, rows = prepared(model, folder, SHARED)
    made = {name: make() for name, make in cases(base, rows, folder / "out").items()}
    wall: dict[str, list[float]] = {name: [] for name in made}
    busy: dict[str, list[float]] = {name: [] for name in made}
    made["ours, padded, compiled"].run()  # compiles
    for _ in range(NUM_REPETITIONS):
        for name, case in made.items():
            start = time.process_time()
            wall[name].append(case.run())
            busy[name].append(time.process_time() - start)
    show(capsys, *_table(model, made, wall, busy))
    ratio = _ratios(busy, "ours, padded", "TRL, grouped by length")
    assert statistics.median(ratio) > 0.95
    assert statistics.median(_ratios(busy, "ours, packed", "TRL, packing")) > 0.95
    assert statistics.median(_ratios(busy, "ours, padded", "TRL, default")) > 1


def test_weights_cost_at_most_two_percent(folder, capsys):
    """One step, many times in turn: shorter and more often than above, for a closer figure."""
    from sot_pipeline_tests.benchmarks.training_cases import BATCH, ours, prepared

    base, rows = prepared("demo", folder, SHARED)
    made = {
        name: ours(base, rows[:BATCH], weighted=name == "weights") for name in ("ones", "weights")
    }
    busy: dict[str, list[float]] = {name: [] for name in made}
    for repetition in range(21):
        # each goes first in turn
        for name in sorted(made, reverse=repetition % 2 == 1):
            start = time.process_time()
            made[name].run()
            busy[name].append(time.process_time() - start)
    cost = statistics.median(_ratios(busy, "ones", "weights")[1:])
    best = min(busy["weights"]) / min(busy["ones"])
    show(capsys, f"\nweights against ones: {cost:.3f} (median of 20), {best:.3f} (best of each)")
    assert best < 1.02


def _ratios(busy: dict[str, list[float]], ours: str, other: str) -> list[float]:
    """How many times as fast `ours` is, repetition by repetition."""
    return [b / a for a, b in zip(busy[ours], busy[other], strict=True)]


def _table(model, made, wall, busy) -> list[str]:
    load = os.getloadavg()[0]
    num_tokens = next(iter(made.values())).num_tokens
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    lines = [
        f"\n{model}: {num_tokens:,} tokens, threads: {threads}, load {load:.1f}",
        f"  {'':24s} {'tokens/s':>9s} {'per CPU s':>9s} {'(min - max)':>15s}  against",
    ]
    for name, case in made.items():
        rates = sorted(case.num_tokens / seconds for seconds in busy[name])
        rate = case.num_tokens / statistics.median(wall[name])
        line = (
            f"  {name:24s} {rate:9,.0f} {statistics.median(rates):9,.0f} "
            f"{f'({rates[0]:,.0f} - {rates[-1]:,.0f})':>15s}"
        )
        if name in RIVAL:
            ratios = sorted(_ratios(busy, name, RIVAL[name]))
            line += (
                f"  {statistics.median(ratios):.2f} x {RIVAL[name]} "
                f"({ratios[0]:.2f} - {ratios[-1]:.2f})"
            )
        lines.append(line)
    return lines


@pytest.mark.parametrize("model", ["demo", "llama"])
def test_peak_memory(model, folder, capsys):
    from sot_pipeline_tests.benchmarks.training_cases import prepared

    prepared(model, folder, SHARED)
    show(capsys, f"\n{model}: peak resident memory of a process, and of it while training")
    peaks = {}
    for name in ("ours, padded", "ours, packed", "TRL, default", "TRL, grouped by length",
                 "TRL, packing"):  # fmt: skip
        command = [
            sys.executable, "-m", "sot_pipeline_tests.benchmarks.training_cases", "memory", model,
            name, str(folder), str(SHARED),
        ]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        told = json.loads(run.stdout.splitlines()[-1])
        peaks[name] = told["peak"] - told["before"]
        show(capsys, f"  {name:24s} {told['peak'] / 1e6:6,.0f} MB  +{peaks[name] / 1e6:,.0f} MB")
    assert peaks["ours, padded"] < 2 * peaks["TRL, grouped by length"] + 100e6
