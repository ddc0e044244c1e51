"""Which part of the safe reference serves the rivals that read it?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_rival_references.py

The safe references hold task rows and refusals of risky prompts. DSIR takes one of them, or both,
as its target; the difference of centroids, which is what LARF becomes on a sentence encoder's
vectors, takes them as its safe anchors, as LARF's authors take refusals. `wording` is what the
pipeline's DSIR reads: rows whose answers hold no words of refusal. The harmful rows' text is never
shown.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sot_pipeline.evaluation.judge import is_refusal
from sot_pipeline.selectors.dsir import dsir
from sot_pipeline.selectors.on_references import centroid
from sot_pipeline_tests.benchmarks.real_sets import KEEP, TASKS, describe

pytestmark = pytest.mark.bench
SMOOTHINGS = (0.01, 0.1, 1.0)
FEW = 50
HEAD = "| score | {} |\n|---|" + "---|" * len(TASKS)


def texts_of(rows: pl.DataFrame) -> list[str]:
    pairs = zip(rows["prompt"], rows["response"].fill_null(""), strict=True)
    return [f"{prompt}\n{response}" for prompt, response in pairs]


def parts_of(safe: pl.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows of each part of a safe reference."""
    refusal = (safe["label"] == "refusal").to_numpy()
    worded = np.array([is_refusal(answer or "") for answer in safe["response"]])
    yield "all", np.arange(len(safe))
    yield "refusals", np.flatnonzero(refusal)
    yield "wording", np.flatnonzero(~worded)
    yield "task rows", np.flatnonzero(~refusal)


def cells(found: list[dict[str, float]]) -> str:
    return " | ".join(f"{d['auroc']:.3f} / {d['ap']:.3f} / {d['share']:.1%}" for d in found)


def test_the_part_of_the_safe_reference_that_dsir_aims_at(load, shared_data: Path, capsys):
    shown: dict[str, list[dict[str, float]]] = {}
    for task in TASKS:
        custom = load(f"custom_{task}_p10")
        rows = pl.read_parquet(shared_data / f"custom_{task}_p10.parquet")
        safe = pl.read_parquet(shared_data / f"safe_{task}.parquet")
        raw, targets = texts_of(rows), np.array(texts_of(safe), dtype=object)
        parts = dict(parts_of(safe))
        parts[f"{FEW} task rows"] = np.random.default_rng(0).choice(
            parts["task rows"], FEW, replace=False
        )
        for name, part in parts.items():
            for smoothing in SMOOTHINGS if "task rows" in name else SMOOTHINGS[:1]:
                score = dsir(raw, targets[part], smoothing=smoothing)
                found = describe(custom, score, KEEP["p10"])
                shown.setdefault(f"DSIR, {name}, smoothing {smoothing:g}", []).append(found)
    with capsys.disabled():
        print(
            "\nAUROC / average precision / harmful rows left\n\n" + HEAD.format(" | ".join(TASKS))
        )
        for name, found in shown.items():
            print(f"| {name} | {cells(found)} |")
    task_rows, every = (shown[f"DSIR, {part}, smoothing 0.01"] for part in ("task rows", "all"))
    assert all(a["auroc"] > b["auroc"] for a, b in zip(task_rows, every, strict=True))


def test_the_safe_anchors_of_a_difference_of_centroids(load, shared_data: Path, capsys):
    harmful = load("harmful_reference")
    shown: dict[str, list[dict[str, float]]] = {}
    for task in TASKS:
        custom, safe = load(f"custom_{task}_p10"), load(f"safe_{task}")
        for name, part in parts_of(pl.read_parquet(shared_data / f"safe_{task}.parquet")):
            score = centroid(custom.vectors, safe.take(part).vectors, harmful.vectors)
            found = describe(custom, score, KEEP["p10"])
            shown.setdefault(f"centroids, {name}", []).append(found)
    with capsys.disabled():
        print(
            "\nAUROC / average precision / harmful rows left\n\n" + HEAD.format(" | ".join(TASKS))
        )
        for name, found in shown.items():
            print(f"| {name} | {cells(found)} |")
    assert all(d["auroc"] > 0.9 for d in shown["centroids, all"])
