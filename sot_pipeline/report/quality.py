"""How well each compared selection finds the harmful rows, as tables that a page has room for."""

from typing import NamedTuple

import polars as pl

from sot_pipeline.report.comparison import NO_SCORES, Line, lines
from sot_pipeline.report.comparison import table as comparison_table
from sot_pipeline.report.data import ReportData


class QualityTable(NamedTuple):
    """How well each selection finds the harmful rows of a `source`; `cells`: (value, interval)."""

    source: str
    heads: list[str]
    rows: list[tuple[str, list[tuple[str, str]]]]


def quality_tables(data: ReportData) -> list[QualityTable]:
    """One table per source of harm, none where the truth about the rows is not known."""
    if data.quality is None:
        return []
    sources = data.quality["source"].unique(maintain_order=True)
    nothing = pl.DataFrame(schema=NO_SCORES)
    return [
        _quality_table(source, lines(data.quality, nothing, data.selection_costs, source))
        for source in sources
    ]


def _quality_table(source: str, found: list[Line]) -> QualityTable:
    heads, cells = comparison_table(found)
    rows = [
        (
            name,
            [
                (value, interval.rstrip(")"))
                for value, _, interval in (c.partition(" (") for c in rest)
            ],
        )
        for name, *rest in cells
    ]
    return QualityTable(source, heads, rows)
