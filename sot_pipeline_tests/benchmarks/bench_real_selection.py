"""How well do the weights find contamination in real text?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_real_selection.py

Reads the shared text sets (skips without them), embeds prompt and answer apart, as the pipeline
does by default, with all-MiniLM-L6-v2 (extra `minilm`; half an hour on two cores, then cached
under `.pytest_cache`, or in the folder of SOT_BENCH_CACHE) and prints one table per question. One set of defaults serves every task. The
harmful rows' text is never shown.
"""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from sot_pipeline.transport.cost import cosine_cost, pooled_mean
from sot_pipeline.transport.diagnostics import anchor_match, reference_coverage, weight_collapse
from sot_pipeline.transport.push_pull import learn_weights
from sot_pipeline_tests.benchmarks.real_sets import (
    HEAD,
    KEEP,
    TASKS,
    Set,
    describe,
    fit_of,
    line,
    rivals,
)

pytestmark = pytest.mark.bench
NUM_REFUSALS = 300


def transports(custom: Set, safe: Set, harmful: Set) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name, log-weights and seconds of each variant."""
    center = pooled_mean(safe.vectors)
    for name, point, options in (
        ("default (relaxed .9)", center, {}),
        ("one_shot", center, {"optimizer": "one_shot"}),
        ("free references (1)", center, {"reference_relaxation": 1.0}),
        ("balanced (0)", center, {"reference_relaxation": 0.0}),
        ("default, not centred", None, {}),
    ):
        start = time.perf_counter()
        fit = fit_of(custom, safe, harmful, point, **options)
        balanced = options.get("reference_relaxation") == 0  # may need more than 200 steps
        assert fit.converged or balanced, f"{name}: residual {fit.residual}, {fit.marginal_errors}"
        yield f"push-pull {name}", fit.log_weights, time.perf_counter() - start


def judged(
    custom: Set, safe: Set, harmful: Set, keep: float
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The measures of every score by its name, and the lines of their table."""
    results, lines = {}, []
    for name, scores, seconds in transports(custom, safe, harmful):
        results[name] = describe(custom, scores, keep)
        lines.append(line(name, results[name], seconds))
    for name, score in rivals(custom.vectors, safe.vectors, harmful.vectors):
        start = time.perf_counter()
        results[name] = describe(custom, score(), keep)
        lines.append(line(name, results[name], time.perf_counter() - start))
    return results, lines


@pytest.mark.parametrize("rate", ["p10", "p30"])
@pytest.mark.parametrize("task", TASKS)
def test_the_cut_removes_the_contamination(load, task, rate, capsys):
    custom, safe = load(f"custom_{task}_{rate}"), load(f"safe_{task}")
    harmful = load("harmful_reference")
    results, lines = judged(custom, safe, harmful, KEEP[rate])
    with capsys.disabled():
        print(f"\n{task}, {rate}, {len(custom.rows)} rows, keep {KEEP[rate]:.0%}", HEAD, sep="\n")
        print("\n".join(lines))
    default = results["push-pull default (relaxed .9)"]
    assert default["share"] <= (0.03 if task == "alpaca" else 0)
    best_rival = max(d["ap"] for name, d in results.items() if not name.startswith("push-pull"))
    assert default["ap"] >= best_rival - 0.001


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("reference", ["task rows and refusals", "task rows", "60 % refusals"])
def test_refusals_among_the_custom_rows_are_told_from_harm(load, task, reference, capsys):
    """Refusals share the harmful rows' topics; the safe reference may or may not hold some."""
    refusals = load("refusals").take(np.arange(NUM_REFUSALS))
    custom = load(f"custom_{task}_p10").and_also(refusals)
    safe, harmful = load(f"safe_{task}"), load("harmful_reference")
    is_refusal = safe.is_refusal
    if reference == "task rows":
        safe = safe.where(~is_refusal)
    elif reference == "60 % refusals":
        safe = safe.where(is_refusal | (np.cumsum(~is_refusal) <= is_refusal.sum() * 2 // 3))
    results, lines = judged(custom, safe, harmful, KEEP["p10"])
    with capsys.disabled():
        title = (
            f"{task} p10 + {NUM_REFUSALS} refusals, safe reference: {reference} ({len(safe.rows)})"
        )
        print(f"\n{title}, keep {KEEP['p10']:.0%}", HEAD, sep="\n")
        print("\n".join(lines))
    default = results["push-pull default (relaxed .9)"]
    assert default["refusals"] >= 0.75
    assert default["ap"] >= results["centroid difference"]["ap"]


def test_the_safe_anchor_check_knows_matched_from_swapped_references(load, capsys):
    harmful = load("harmful_reference").vectors
    wrong = []
    with capsys.disabled():
        print(f"\n{'custom':14s} {'safe':24s} {'mixing':>7s} {'uncovered':>9s} {'snr':>6s} verdict")
    for task in TASKS:
        for rate in ("p10", "p30"):
            custom = load(f"custom_{task}_{rate}")
            for anchor in TASKS:
                every = load(f"safe_{anchor}")
                spread = np.linspace(0, len(every.rows) - 1, 50).astype(int)
                few = np.isin(np.arange(len(every.rows)), spread)
                for kind, safe in (
                    ("all", every),
                    ("task rows", every.where(~every.is_refusal)),
                    ("50 rows", every.where(few)),
                    ("refusals", every.where(every.is_refusal)),
                ):
                    center = pooled_mean(safe.vectors)
                    match = anchor_match(custom.vectors, safe.vectors, center=center)
                    coverage = reference_coverage(
                        custom.vectors, safe.vectors, harmful, center=center
                    )
                    fits = task == anchor and kind != "refusals"
                    if match.matched != fits:
                        wrong.append((task, rate, anchor, kind, match.mixing))
                    collapse = weight_collapse(
                        fit_of(
                            custom, safe, load("harmful_reference"), center, optimizer="one_shot",
                            reference_relaxation=1.0,
                        )
                    )  # fmt: skip
                    with capsys.disabled():
                        print(
                            f"{task:9s} {rate:4s} {anchor + ', ' + kind:24s} {match.mixing:7.3f} "
                            f"{coverage.uncovered_share:9.4f} {collapse.signal_to_noise:6.1f} "
                            f"{'match' if match.matched else 'MISMATCH'}"
                            f"{'' if coverage.covered else ', uncovered rows'}"
                        )
    assert not wrong


@pytest.mark.parametrize("n", [6_000, 20_000])
def test_a_whole_solve_takes_well_under_a_minute(benchmark, n):
    rng = np.random.default_rng(0)
    custom, safe, harmful = (
        rng.normal(size=(num, 384)).astype(np.float32) + 0.05 * np.arange(384) % shift
        for num, shift in ((n, 7), (1_650, 5), (1_242, 3))
    )
    pull, push = cosine_cost(custom, safe), cosine_cost(custom, harmful)
    learn_weights(pull, push, max_steps=1)  # compile outside the clock
    fit = benchmark.pedantic(lambda: learn_weights(pull, push), rounds=1)
    benchmark.extra_info |= {"n": n, "num_steps": fit.num_steps}
    assert fit.converged
    assert benchmark.stats["max"] < 60
