"""Which custom rows no reference reaches, and which reference rows the custom rows lie near."""

from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.report.data import Coverage, ReportData
from sot_pipeline.visible import excerpt

MAX_FARTHEST = 25
MAX_CATEGORIES = 40
_LENGTH = 80


class FarRow(NamedTuple):
    """A custom row that neither reference reaches; costs to the nearest rows, as text."""

    line: str
    sample_id: str
    category: str
    kept: bool
    safe_cost: str
    harmful_cost: str


class ReachedCategory(NamedTuple):
    """A category of a reference: its rows, the custom rows whose nearest row of that reference is
    one of them, how many of these were removed, and their median similarity, as text."""

    text_set: str
    name: str
    num_rows: int
    num_near: int
    num_removed: int
    similarity: str


class CoverageTables(NamedTuple):
    """`by_category`: (category of custom rows, uncovered rows, all rows)."""

    share: float
    num_uncovered: int
    most_expected: float
    safe_radius: float
    harmful_radius: float
    farthest: list[FarRow]
    by_category: list[tuple[str, int, int]]
    reached: list[ReachedCategory]


def coverage_tables(data: ReportData) -> CoverageTables | None:
    """What `data.coverage` means for the rows, the farthest first."""
    if data.coverage is None:
        return None
    found = data.coverage
    return CoverageTables(
        float(np.mean(found.uncovered)),
        int(found.uncovered.sum()),
        found.most_expected,
        found.safe_radius,
        found.harmful_radius,
        _farthest(data, found),
        _by_category(data.ledger, found),
        _reached(data),
    )


def _farthest(data: ReportData, found: Coverage) -> list[FarRow]:
    rows = np.flatnonzero(found.uncovered)
    # how far beyond the nearer of the two reaches
    beyond = np.minimum(
        found.safe_cost[rows] - found.safe_radius, found.harmful_cost[rows] - found.harmful_radius
    )
    rows = rows[np.argsort(-beyond, kind="stable")][:MAX_FARTHEST]
    return [
        FarRow(
            str(row["line"]),
            excerpt(str(row["sample_id"]), _LENGTH),
            excerpt(str(row.get("category") or ""), _LENGTH),
            bool(row["kept"]),
            f"{found.safe_cost[place]:.2f}",
            f"{found.harmful_cost[place]:.2f}",
        )
        for place, row in zip(rows, data.ledger[rows.tolist()].iter_rows(named=True), strict=True)
    ]


def _by_category(ledger: pl.DataFrame, found: Coverage) -> list[tuple[str, int, int]]:
    if "category" not in ledger.columns or not found.uncovered.any():
        return []
    counts = (
        ledger.select("category", uncovered=pl.Series(found.uncovered))
        .drop_nulls("category")
        .group_by("category")
        .agg(num_far=pl.col("uncovered").sum(), num_rows=pl.len())
        .filter(pl.col("num_far") > 0)
        .sort("num_far", "category", descending=[True, False])
    )
    return [
        (excerpt(str(name), _LENGTH), far, rows)
        for name, far, rows in counts.head(MAX_CATEGORIES).iter_rows()
    ]


def _reached(data: ReportData) -> list[ReachedCategory]:
    references = data.references
    if references is None or "category" not in references.columns:
        return []
    return [
        row
        for text_set in ("safe", "harmful")
        if {f"nearest_{text_set}", f"{text_set}_similarity"} <= set(data.ledger.columns)
        for row in _reached_of(data.ledger, references, text_set)
    ][: 2 * MAX_CATEGORIES]


def _reached_of(
    ledger: pl.DataFrame, references: pl.DataFrame, text_set: str
) -> list[ReachedCategory]:
    own = references.filter(pl.col("text_set") == text_set).drop_nulls("category")
    near = ledger.select(
        "kept",
        sample_id=f"nearest_{text_set}",
        similarity=f"{text_set}_similarity",
    ).join(own.select("sample_id", "category"), on="sample_id")
    table = (
        own.group_by("category")
        .len("num_rows")
        .join(
            near.group_by("category").agg(
                num_near=pl.len(),
                num_removed=(~pl.col("kept")).sum(),
                similarity=pl.col("similarity").median(),
            ),
            on="category",
            how="left",
        )
        .fill_null(0)
        .sort("num_near", "category", descending=[True, False])
    )
    return [
        ReachedCategory(
            text_set,
            excerpt(str(row["category"]), _LENGTH),
            row["num_rows"],
            row["num_near"],
            row["num_removed"],
            f"{row['similarity']:.2f}" if row["num_near"] else "–",
        )
        for row in table.head(MAX_CATEGORIES).iter_rows(named=True)
    ]
