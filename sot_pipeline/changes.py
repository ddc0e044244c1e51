"""What differs between two purifications of a task, row by row, and which reference rows did it."""

from typing import NamedTuple

import numpy as np
import polars as pl


class Purification(NamedTuple):
    """One purification of a task, as far as a comparison needs it.

    Attributes:
        custom, safe, harmful: The text sets: `sample_id, source_id, file, line`, in order.
        rows: One line per custom row: `sample_id, kept, rank, log_weight`.
        training_weights: `sample_id, sample_weight` of the rows that stay.
        pull_cost, push_cost: `[n, m_safe]`, `[n, m_harmful]`.
        g_pull, g_push: Dual potentials of the references, unit of the cost.
        epsilon: Of both problems, unit of the cost.
        scores: Of the adapter that was trained on it, by name; empty where there is none.
        decisions: What reviewers had decided: `sample_id, decision, reviewer`; None: nothing.
    """

    custom: pl.DataFrame
    safe: pl.DataFrame
    harmful: pl.DataFrame
    rows: pl.DataFrame
    training_weights: pl.DataFrame
    pull_cost: np.ndarray
    push_cost: np.ndarray
    g_pull: np.ndarray
    g_push: np.ndarray
    epsilon: float
    scores: dict[str, float]
    decisions: pl.DataFrame | None = None


class Changes(NamedTuple):
    """Every row that came, went or changed sides, and the totals."""

    table: pl.DataFrame
    summary: dict[str, float | int]


SCHEMA = {
    "change": pl.String,
    "text_set": pl.String,
    "sample_id": pl.String,
    "source_id": pl.String,
    "file": pl.String,
    "line": pl.Int64,
    "rank_before": pl.Int64,
    "rank_after": pl.Int64,
    "log_weight_before": pl.Float64,
    "log_weight_after": pl.Float64,
    "because": pl.String,
    "because_of": pl.String,
    "share": pl.Float64,
}


def total_variation(before: pl.DataFrame, after: pl.DataFrame) -> float:
    """Share of the training weight that lies on other rows: 0 the same, 1 no row in common.

    Args:
        before, after: `sample_id, sample_weight`; weights are > 0 and need not sum to 1.
    """
    both = (
        before.select("sample_id", b=pl.col("sample_weight") / pl.col("sample_weight").sum())
        .join(
            after.select("sample_id", a=pl.col("sample_weight") / pl.col("sample_weight").sum()),
            on="sample_id",
            how="full",
            coalesce=True,
        )
        .fill_null(0.0)
    )
    return float((both["a"] - both["b"]).abs().sum()) / 2


def compare(before: Purification, after: Purification) -> Changes:
    """What changed from one purification of a task to another.

    Returns:
        A table of one line per change: `change` is `added` or `gone` (rows of a text set), or
        `newly_removed` or `newly_kept` (custom rows on the other side of the cut, with ranks and
        log-weights before and after). For the latter `because` and `because_of` name the changed
        reference row that holds the largest `share` of the row's transport plan, among those
        added (in the plan after) and those gone (in the plan before); null where no reference
        changed. Of a row that a reviewer moved they say so, and who it was. And a summary: counts, `moved` (total variation of the training weights),
        `weights_moved` (of the learned weights of all rows), and scores before and after.
    """
    flipped = _flipped(before, after)
    sides = [_rows_of(name, before, after) for name in ("custom", "safe", "harmful")]
    reasons = _with_decisions(_with_reasons(flipped, before, after), before, after)
    parts = [pl.DataFrame(schema=SCHEMA), *sides, reasons]
    table = pl.concat(parts, how="diagonal")
    counted = table.group_by("text_set", "change").len().rows()
    counts = {(text_set, change): count for text_set, change, count in counted}
    summary: dict[str, float | int] = {
        f"num_{name}_rows_{change}": counts.get((name, change), 0)
        for name in ("custom", "safe", "harmful")
        for change in ("added", "gone")
    }
    summary |= {
        f"num_{change}": counts.get(("custom", change), 0)
        for change in ("newly_removed", "newly_kept")
    }
    summary["moved"] = total_variation(before.training_weights, after.training_weights)
    summary["weights_moved"] = total_variation(_learned(before), _learned(after))
    for name in sorted({*before.scores, *after.scores}):
        for side, version in (("before", before), ("after", after)):
            if name in version.scores:
                summary[f"{name}_{side}"] = version.scores[name]
    return Changes(table, summary)


def _learned(version: Purification) -> pl.DataFrame:
    return version.rows.select("sample_id", sample_weight=pl.col("log_weight").exp())


def _rows_of(name: str, before: Purification, after: Purification) -> pl.DataFrame:
    """Rows of a text set that came or went."""
    old, new = (getattr(version, name) for version in (before, after))
    columns = ["sample_id", "source_id", "file", pl.col("line").cast(pl.Int64)]
    added = new.join(old, on="sample_id", how="anti", maintain_order="left")
    gone = old.join(new, on="sample_id", how="anti", maintain_order="left")
    return pl.concat(
        part.select(pl.lit(change).alias("change"), pl.lit(name).alias("text_set"), *columns)
        for change, part in (("added", added), ("gone", gone))
    )


def _flipped(before: Purification, after: Purification) -> pl.DataFrame:
    """Custom rows of both versions that stayed in one and went in the other, best rank first."""
    columns = ["kept", "rank", "log_weight"]
    old, new = (
        version.rows.with_row_index("place").select("sample_id", "place", *columns)
        for version in (before, after)
    )
    return (
        new.join(old, on="sample_id", suffix="_before", maintain_order="left")
        .filter(pl.col("kept") != pl.col("kept_before"))
        .sort("rank")
        .join(after.custom.select("sample_id", "source_id", "file", "line"), on="sample_id",
              maintain_order="left")
        .select(
            pl.when("kept").then(pl.lit("newly_kept")).otherwise(pl.lit("newly_removed"))
            .alias("change"),
            pl.lit("custom").alias("text_set"),
            "sample_id", "source_id", "file", pl.col("line").cast(pl.Int64),
            pl.col("rank_before").cast(pl.Int64),
            pl.col("rank").cast(pl.Int64).alias("rank_after"),
            "log_weight_before",
            pl.col("log_weight").alias("log_weight_after"),
            "place", "place_before",
        )
    )  # fmt: skip


def _with_reasons(flipped: pl.DataFrame, before: Purification, after: Purification) -> pl.DataFrame:
    """Add, for each row, the changed reference row that its transport plan leans on most, among
    the changes that move a row this way."""
    newly_kept = (flipped["change"] == "newly_kept").to_numpy()
    share = np.zeros(flipped.height)
    because = np.full(flipped.height, None, dtype=object)
    because_of = np.full(flipped.height, None, dtype=object)
    for name in ("safe", "harmful"):
        for change, version, other, place in (
            ("added", after, before, "place"),
            ("gone", before, after, "place_before"),
        ):
            moved = np.flatnonzero(newly_kept == ((name == "safe") == (change == "added")))
            ids = getattr(version, name)["sample_id"]
            columns = np.flatnonzero(~ids.is_in(getattr(other, name)["sample_id"].implode()))
            if len(columns) == 0 or len(moved) == 0:
                continue
            shares = plan_shares(version, name, flipped[place].to_numpy()[moved])[:, columns]
            largest = shares.argmax(axis=1)
            found = shares[np.arange(len(shares)), largest]
            better = found > share[moved]
            rows = moved[better]
            share[rows] = found[better]
            because[rows] = f"{name} row {change}"
            because_of[rows] = ids.gather(columns[largest[better]]).to_numpy()
    return flipped.drop("place", "place_before").with_columns(
        pl.Series("because", because.tolist(), dtype=pl.String),
        pl.Series("because_of", because_of.tolist(), dtype=pl.String),
        share=pl.when(pl.Series(share > 0)).then(pl.Series(share)),
    )


def _with_decisions(
    flipped: pl.DataFrame, before: Purification, after: Purification
) -> pl.DataFrame:
    """Name the decision that put a row where it is now, or that no longer holds it where it was."""
    said, says = (_decisions_by_text(version.decisions) for version in (before, after))
    sides = {"newly_kept": ("keep", "drop"), "newly_removed": ("drop", "keep")}
    because: list[str | None] = []
    whose: list[str | None] = []
    for change, sample_id in flipped.select("change", "sample_id").iter_rows():
        here, there = sides[change]
        now, earlier = (by.get(sample_id.partition("-")[0]) for by in (says, said))
        if now and now[0] == here and (earlier is None or earlier[0] != here):
            because.append("a reviewer's decision")
            whose.append(now[1] or None)
        elif earlier and earlier[0] == there and (now is None or now[0] != there):
            because.append("a reviewer's decision withdrawn")
            whose.append(earlier[1] or None)
        else:
            because.append(None)
            whose.append(None)
    named = pl.Series("_because", because, dtype=pl.String)
    return flipped.with_columns(
        because=pl.coalesce(named, "because"),
        because_of=pl.when(named.is_null()).then("because_of").otherwise(
            pl.Series("_whose", whose, dtype=pl.String)
        ),
        share=pl.when(named.is_null()).then("share"),
    )  # fmt: skip


def _decisions_by_text(decisions: pl.DataFrame | None) -> dict[str, tuple[str, str]]:
    if decisions is None:
        return {}
    return {
        sample_id.partition("-")[0]: (decision, reviewer)
        for sample_id, decision, reviewer in decisions.select(
            "sample_id", "decision", "reviewer"
        ).iter_rows()
    }


def plan_shares(version: Purification, reference: str, rows: np.ndarray) -> np.ndarray:
    """How the optimal plan spreads custom rows over a reference: `[len(rows), m]`, rows sum to 1.

    Args:
        reference: "safe" or "harmful".
        rows: Places in the custom set.
    """
    cost, g = (
        (version.pull_cost, version.g_pull)
        if reference == "safe"
        else (version.push_cost, version.g_push)
    )
    exponents = (g - np.asarray(cost[rows], dtype=np.float64)) / version.epsilon
    shares = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
