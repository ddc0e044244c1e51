"""How many rows of each category the cut took."""

from typing import NamedTuple

import polars as pl

from sot_pipeline.report.data import ReportData
from sot_pipeline.visible import excerpt

COLUMNS = {  # of the ledger: (title, what it says)
    "category": ("Category of the rows", "as the custom set names it"),
    "harmful_category": (
        "Nearest kind of harm",
        "the category of the harmful reference rows that each row is pushed from most",
    ),
}
MAX_CATEGORIES = 40
UNNAMED = "none given"
_NAME_LENGTH = 80


class CategoryRow(NamedTuple):
    """A category's `num_removed` of `num_rows`; `share_of_all`: of all removed rows."""

    name: str
    num_rows: int
    num_removed: int

    @property
    def share(self) -> float:
        return self.num_removed / self.num_rows


class CategoryTable(NamedTuple):
    """Categories, most removed rows first; `num_left_out`: those that are not listed."""

    title: str
    note: str
    rows: list[CategoryRow]
    num_left_out: int


def category_tables(data: ReportData) -> list[CategoryTable]:
    """One table per kind of category that the rows carry; none where they carry none."""
    return [
        _table(data.ledger, column)
        for column in COLUMNS
        if column in data.ledger.columns and data.ledger[column].null_count() < len(data.ledger)
    ]


def _table(ledger: pl.DataFrame, column: str) -> CategoryTable:
    found = (
        ledger.group_by(column)
        .agg(num_rows=pl.len(), num_removed=(~pl.col("kept")).sum())
        .sort("num_removed", "num_rows", column, descending=[True, True, False], nulls_last=True)
    )
    rows = [
        CategoryRow(UNNAMED if name is None else excerpt(str(name), _NAME_LENGTH), int(n), int(r))
        for name, n, r in found.iter_rows()
    ]
    title, note = COLUMNS[column]
    return CategoryTable(title, note, rows[:MAX_CATEGORIES], max(0, len(rows) - MAX_CATEGORIES))
