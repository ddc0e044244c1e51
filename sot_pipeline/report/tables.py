"""Rows of the report's tables, ready to print."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.report.data import ReportData
from sot_pipeline.report.methods import (
    GIVEN_THE_TRUTH,
    described,
    legend,
    reading_order,
    selection_of,
)
from sot_pipeline.report.numbers import mean_score
from sot_pipeline.visible import excerpt

EXCERPT_LENGTH = 600
ID_LENGTH = 80
MAX_REASONS = 12
SCORES = {  # name: (short, long, which way is better)
    "harmfulness_score": ("HmS", "harmfulness", "lower"),
    "helpfulness_score": ("HpS", "helpfulness", "higher"),
    "helpfulness_raw": ("HpS, 1 to 5", "helpfulness as graded", "higher"),
    "accuracy": ("Accuracy", "task accuracy", "higher"),
    "task_loss": ("Task loss", "nats per token of the right answers", "lower"),
    "over_refusal": ("Over-refusal", "harmless prompts refused", "lower"),
    "average": ("Average", "see below", "higher"),
}


class Cell(NamedTuple):
    """A score to print; `interval` and `note` may be empty."""

    value: str
    interval: str
    is_best: bool = False


class ScoreRow(NamedTuple):
    """A line of the results: a method's mean over its seeds, or one seed of it."""

    method: str
    description: str
    seed: str
    cells: list[Cell]


class CostRow(NamedTuple):
    """What a method's training took, means over its seeds, as text."""

    method: str
    seconds: str
    seconds_per_step: str
    defence_seconds_per_step: str
    peak_memory: str


class ScoreTable(NamedTuple):
    """The results: `heads` are (short, long, better) per column, `rows` one per method,
    `seed_rows` one per method and seed if any method has several, `costs` one per training,
    `legend` (name, meaning) of the defences."""

    heads: list[tuple[str, str, str]]
    rows: list[ScoreRow]
    seed_rows: list[ScoreRow]
    num_missing: int
    num_judged: int
    costs: list[CostRow]
    legend: list[tuple[str, str]]


def score_table(evaluation: pl.DataFrame) -> ScoreTable:
    """Methods in reading order: the mean over seeds (or the only seed), then each seed."""
    present = evaluation["score"].unique(maintain_order=True).to_list()
    scores = [s for s in SCORES if s in present] + [s for s in present if s not in SCORES]
    methods = reading_order(evaluation["method"].unique())
    values = {
        (row["method"], row["seed"], row["score"]): row for row in evaluation.iter_rows(named=True)
    }
    seeds = {m: sorted({s for (n, s, _) in values if n == m}, key=str) for m in methods}
    best = _best(evaluation, scores, methods)
    rows: list[ScoreRow] = []
    seed_rows: list[ScoreRow] = []
    for method in methods:
        text = described(method)
        for seed in seeds[method]:
            cells = [_cell(values.get((method, seed, score))) for score in scores]
            seed_rows.append(ScoreRow(method, text, "–" if seed is None else str(seed), cells))
        if len(seeds[method]) > 1:
            columns = [[values.get((method, seed, k)) for seed in seeds[method]] for k in scores]
            cells = [_mean_cell(column) for column in columns]
            rows.append(ScoreRow(method, text, f"mean of {len(seeds[method])}", cells))
        else:
            rows.append(seed_rows[-1])
        marked = [
            cell._replace(is_best=method in best[score])
            for cell, score in zip(rows[-1].cells, scores, strict=True)
        ]
        rows[-1] = rows[-1]._replace(cells=marked)
    missing, judged = (
        int(evaluation[column].sum() or 0) if column in evaluation.columns else 0
        for column in ("num_missing", "num_judged")
    )
    heads = [SCORES.get(s, (s, "", "")) for s in scores]
    several = any(len(found) > 1 for found in seeds.values())
    return ScoreTable(
        heads,
        rows,
        seed_rows if several else [],
        missing,
        judged,
        _costs(evaluation, methods),
        legend(methods),
    )


def _costs(evaluation: pl.DataFrame, methods: list[str]) -> list[CostRow]:
    if "seconds_per_step" not in evaluation.columns:
        return []
    measured = evaluation.filter(pl.col("seconds_per_step").is_not_null())
    columns = ("seconds", "seconds_per_step", "defence_seconds_per_step", "peak_memory_bytes")
    means = measured.group_by("method").agg(pl.col(columns).mean())
    found = {row["method"]: row for row in means.iter_rows(named=True)}
    return [
        CostRow(
            method,
            f"{row['seconds']:,.0f}",
            f"{row['seconds_per_step']:.3f}",
            f"{row['defence_seconds_per_step']:.3f}",
            "–" if (peak := row["peak_memory_bytes"]) is None else f"{peak / 1e9:.2f}",
        )
        for method in methods
        if (row := found.get(method)) is not None
    ]


def _best(evaluation: pl.DataFrame, scores: list[str], methods: list[str]) -> dict[str, set[str]]:
    """By score: the best of the methods that are not given the truth; none if all are equal."""
    best: dict[str, set[str]] = {}
    for score in scores:
        sign = {"lower": 1, "higher": -1}.get(SCORES.get(score, ("", "", ""))[2], 0)
        means = {
            m: sign * v
            for m in methods
            if selection_of(m) not in GIVEN_THE_TRUTH
            and (v := mean_score(evaluation, m, score)) is not None
        }
        least = min(means.values(), default=0.0)
        found = {m for m, v in means.items() if v <= least + 1e-9}
        best[score] = found if sign and len(found) < len(means) else set()
    return best


def _cell(row: dict[str, Any] | None) -> Cell:
    if row is None or not _is_number(row["value"]):
        return Cell("–", "")
    known = _is_number(row["low"]) and _is_number(row["high"])
    digits = _digits(row["score"])
    interval = f"{row['low']:.{digits}f} – {row['high']:.{digits}f}" if known else ""
    return Cell(f"{row['value']:.{digits}f}", interval)


def _mean_cell(rows: list[dict[str, Any] | None]) -> Cell:
    known = [row for row in rows if row is not None and _is_number(row["value"])]
    if not known:
        return Cell("–", "")
    values, digits = [row["value"] for row in known], _digits(known[0]["score"])
    limits = f"{min(values):.{digits}f} … {max(values):.{digits}f}"
    return Cell(f"{np.mean(values):.{digits}f}", limits)


def _digits(score: str) -> int:
    return 4 if score == "task_loss" else 3  # losses are small


def _is_number(value: Any) -> bool:
    return value is not None and np.isfinite(value)


def rejected_rows(data: ReportData) -> list[dict[str, str]]:
    """text_set, line, reason and detail of the first `data.max_rows` rejected rows."""
    if data.rejected is None:
        return []
    names = ("text_set", "line", "reason", "detail")
    return [
        {name: excerpt(str(row.get(name, "")), EXCERPT_LENGTH) for name in names}
        for row in data.rejected.head(data.max_rows).iter_rows(named=True)
    ]


def rejected_reasons(rejected: pl.DataFrame) -> list[tuple[str, str, int]]:
    """(text set, reason, count) of the most frequent reasons."""
    frame = (
        rejected if "text_set" in rejected.columns else rejected.with_columns(text_set=pl.lit(""))
    )
    counts = frame.group_by("text_set", "reason", maintain_order=True).len()
    rows = counts.sort("len", descending=True, maintain_order=True).head(MAX_REASONS).rows()
    return [(excerpt(name, ID_LENGTH), excerpt(reason, ID_LENGTH), n) for name, reason, n in rows]
