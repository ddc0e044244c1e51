"""Are explanations true of real rows, and what do they cost?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_explanations.py

1,500 rows of the contaminated Alpaca set against 500 rows of each reference (vectors of
all-MiniLM-L6-v2, as the pipeline takes them). For sampled rows the reference rows that the
explanation names are taken away, or as many others at random, and Eq. 5 is solved again. Sides at
other lambdas are compared with those of real solves. Then time and memory for 100,000 rows against
1,000 + 1,000. Prints Markdown.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sot_pipeline.explanations import Reference, Solve, explain_rows
from sot_pipeline.explanations.counterfactuals import Potentials
from sot_pipeline.explanations.transported import blocks_of, transported_mass
from sot_pipeline.selection import ranks
from sot_pipeline_tests.explanations.solved import (
    agreement,
    break_even_errors,
    faithfulness,
    solved,
)

pytestmark = pytest.mark.bench
LAMBDAS = (0.0, 0.25, 0.4, 0.45, 0.55, 0.6, 0.75, 1.0)


@pytest.fixture(scope="module")
def alpaca(load):
    rng = np.random.default_rng(0)
    sizes = {"custom_alpaca_p10": 1_500, "safe_alpaca": 500, "harmful_reference": 500}
    sets = [(load(name), size) for name, size in sizes.items()]
    return solved(*(rows.take(rng.permutation(len(rows.rows))[:n]).vectors for rows, n in sets))


@pytest.mark.parametrize("side", ["harmful", "safe"])
def test_named_rows_move_the_score_as_stated(alpaca, side, capsys):
    rows = np.random.default_rng(1).permutation(len(alpaca.fit.weights))[:100]
    found, mass = faithfulness(alpaca, side, rows), alpaca.mass(side)
    with capsys.disabled():
        print(
            f"\n| {side}: {len(rows)} rows | in the stated direction "
            f"{found.share_in_stated_direction:.1%} | median change {np.median(found.named):.4f} "
            f"nats, random {np.median(np.abs(found.random)):.4f} ({found.times_random:.1f} times) | "
            f"three rows' share {np.median(mass.shares.sum(axis=1)):.1%} |"
        )
    assert found.share_in_stated_direction >= 0.95
    assert found.times_random >= 3


def test_lambda_counterfactuals_agree_with_real_solves(alpaca, capsys):
    found = [agreement(alpaca, value) for value in LAMBDAS]
    sampled = np.arange(len(alpaca.fit.weights))
    errors = break_even_errors(alpaca, sampled, grid=41)
    known = errors[~np.isnan(errors)]
    with capsys.disabled():
        print(
            "\n| lambda | rows on the same side | flips told | of real flips told | of told real |"
        )
        for one in found:
            print(
                f"| {one.lambda_push} | {one.same_side:.2%} | {one.predicted_flips} | "
                f"{one.found:.1%} | {one.right:.1%} |"
            )
        print(
            f"break-even lambda: {len(known)} rows change sides in both; within 0.025 "
            f"{np.mean(np.abs(known) <= 0.025):.1%}, within 0.05 {np.mean(np.abs(known) <= 0.05):.1%}"
        )
    assert min(one.same_side for one in found) >= 0.98


def held_bytes() -> int:
    """Of this process, pages of mapped files apart."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    return 0


def watched() -> Callable[[], int]:
    """Look at the memory until asked for the most that was held."""
    seen, stop = [held_bytes()], threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            seen.append(held_bytes())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()

    def most() -> int:
        stop.set()
        thread.join()
        return max(seen)

    return most


def test_cost_of_explaining_a_hundred_thousand_rows(tmp_path, capsys):
    num_rows, num_reference = 100_000, 1_000
    rng = np.random.default_rng(0)
    for name in ("pull", "push"):
        cost = np.lib.format.open_memmap(
            tmp_path / f"{name}.npy", "w+", np.float32, (num_rows, num_reference)
        )
        for start in range(0, num_rows, 10_000):
            cost[start : start + 10_000] = rng.uniform(0.2, 1.8, (10_000, num_reference))
        del cost
    scores = rng.normal(size=(2, num_rows))
    weights = pl.DataFrame(
        {
            "sample_id": [f"{row:016x}-0" for row in range(num_rows)],
            "log_weight": scores.sum(axis=0),
            "rank": ranks(scores.sum(axis=0)),
            "pull": scores[0],
            "push": scores[1],
            **{
                f"nearest_{name}_row": rng.integers(0, num_reference, num_rows)
                for name in ("safe", "harmful")
            },
            **{
                f"{name}_cost": rng.uniform(0, 1, num_rows).astype(np.float32)
                for name in ("safe", "harmful")
            },
        }
    )
    before, most_held, begun = held_bytes(), watched(), time.process_time()
    ids = pl.Series([f"{row:016x}-1" for row in range(num_reference)])
    references = [
        Reference(
            ids,
            transported_mass(
                blocks_of(np.load(tmp_path / f"{name}.npy", mmap_mode="r")),
                rng.normal(0, 0.05, num_reference),
                0.3,
                groups=np.arange(num_reference) % 14,
            ),
            tuple(f"kind {k}" for k in range(14)),
            0.5,
        )
        for name in ("pull", "push")
    ]
    moved = time.process_time() - begun
    table = explain_rows(
        weights,
        kept_ids=weights.filter(pl.col("rank") <= 80_000)["sample_id"],
        safe=references[0],
        harmful=references[1],
        solve=Solve(0.5, Potentials(-2 * scores[0], 2 * scores[1])),
    )
    seconds = time.process_time() - begun
    grown = (most_held() - before) / 1e9
    with capsys.disabled():
        print(
            f"\n100,000 rows, 1,000 + 1,000 reference rows: {seconds:.1f} s of one core "
            f"({moved:.1f} s for the transported mass), {grown:.2f} GB more than before"
        )
    assert table.height == num_rows
    assert seconds < 60
