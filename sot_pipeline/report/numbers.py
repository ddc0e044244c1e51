"""What the sentences, tables and figures of a report have in common."""

from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.report.data import ReportData


class Numbers(NamedTuple):
    """Derived once from the ledger.

    `log10_relative`: `[rows]`, log10 of the weight relative to uniform (0 = 1/n; -inf = weight 0).
    `above`: `[rows]` bool, above the cut; `kept` differs from it where a reviewer decided.
    `cut`: on that scale, half way between the last row above it and the first below; None if all
    rows are above it or all are below. `effective_sample_size`: 1 / sum w^2, in rows.
    `nearer_harmful_*`: share of those rows whose nearest reference row is a harmful one, or None.
    """

    num_rows: int
    num_kept: int
    num_removed: int
    log10_relative: np.ndarray
    kept: np.ndarray
    above: np.ndarray
    cut: float | None
    effective_sample_size: float
    nearer_harmful_removed: float | None
    nearer_harmful_kept: float | None


def numbers_of(data: ReportData) -> Numbers:
    """The `Numbers` of a report."""
    log_weights = data.ledger["log_weight"].to_numpy()
    kept = data.ledger["kept"].to_numpy().astype(bool)
    relative = log10_relative_weights(log_weights)
    weights = 10.0**relative / len(relative)
    above = kept
    if data.num_kept_by_cut is not None:
        above = data.ledger["rank"].to_numpy() <= data.num_kept_by_cut
    nearer = None
    if {"safe_similarity", "harmful_similarity"} <= set(data.ledger.columns):
        nearer = (data.ledger["harmful_similarity"] > data.ledger["safe_similarity"]).to_numpy()
    return Numbers(
        num_rows=len(kept),
        num_kept=int(kept.sum()),
        num_removed=int((~kept).sum()),
        log10_relative=relative,
        kept=kept,
        above=above,
        cut=cut_of(relative, above),
        effective_sample_size=float(1 / np.sum(weights**2)),
        nearer_harmful_removed=_share(nearer, ~kept),
        nearer_harmful_kept=_share(nearer, kept),
    )


def log10_relative_weights(log_weights: np.ndarray) -> np.ndarray:
    """log10 of n * softmax(log_weights): 0 where a row has the uniform weight 1/n."""
    log_weights = np.asarray(log_weights, dtype=np.float64)
    highest = log_weights.max()
    log_total = highest + np.log(np.exp(log_weights - highest).sum())
    return (log_weights - log_total + np.log(len(log_weights))) / np.log(10)


def cut_of(relative: np.ndarray, kept: np.ndarray) -> float | None:
    """Half way between the lowest kept and the highest removed value; None without both."""
    if kept.all() or not kept.any():
        return None
    low, high = float(relative[~kept].max()), float(relative[kept].min())
    return (low + high) / 2 if np.isfinite(low) else high


def _share(mask: np.ndarray | None, among: np.ndarray) -> float | None:
    return None if mask is None or not among.any() else float(mask[among].mean())


def mean_score(evaluation: pl.DataFrame, method: str, score: str) -> float | None:
    """The mean over seeds, or None if there is no value."""
    values = evaluation.filter((pl.col("method") == method) & (pl.col("score") == score))["value"]
    values = values.cast(pl.Float64).drop_nulls().drop_nans()
    return float(values.to_numpy().mean()) if len(values) else None


def percent(share: float) -> str:
    """A share as percent, with one decimal unless that is 0."""
    return f"{100 * share:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}%"
