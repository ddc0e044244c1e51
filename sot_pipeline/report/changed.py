"""What differs from the purification before."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from sot_pipeline.report.data import ReportData
from sot_pipeline.report.numbers import percent
from sot_pipeline.visible import excerpt

_LENGTH = 80
_SIDES = {"newly_removed": "removed now, kept before", "newly_kept": "kept now, removed before"}


class ChangedRow(NamedTuple):
    """A row on the other side of the cut. `because`: the reference row that did it, if one did."""

    what: str
    rank_before: str
    rank_after: str
    line: str
    sample_id: str
    source_id: str
    because: str
    because_of: str
    share: str


class Changed(NamedTuple):
    """`facts`: (label, text); `rows`: those that changed sides, `num_left_out` more are not listed."""

    facts: list[tuple[str, str]]
    rows: list[ChangedRow]
    num_left_out: int


def changed_since(data: ReportData) -> Changed | None:
    """None on a first purification, and where the one before is gone from the store."""
    if data.changes is None or not data.change_summary:
        return None
    flipped = data.changes.filter(pl.col("change").is_in(list(_SIDES)))
    rows = [_row(row) for row in flipped.head(data.max_rows).iter_rows(named=True)]
    return Changed(_facts(data.change_summary), rows, flipped.height - len(rows))


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    for name in ("custom", "safe", "harmful"):
        added, gone = (int(summary.get(f"num_{name}_rows_{what}", 0)) for what in ("added", "gone"))
        facts.append((f"{name.capitalize()} rows", f"{added:,} added, {gone:,} gone"))
    removed, kept = (int(summary.get(f"num_newly_{side}", 0)) for side in ("removed", "kept"))
    facts.append(("Changed sides", f"{removed:,} newly removed, {kept:,} newly kept"))
    if (moved := summary.get("moved")) is not None:
        facts.append(("Training weight", f"{percent(moved)} of it lies on other rows than before"))
    return facts


def _row(row: dict[str, Any]) -> ChangedRow:
    def text(name: str) -> str:
        return excerpt(str(row.get(name) or ""), _LENGTH)

    before, after = (
        "–" if row.get(name) is None else f"{row[name]:,}" for name in ("rank_before", "rank_after")
    )
    share = row.get("share")
    line = row.get("line")
    return ChangedRow(
        _SIDES[row["change"]], before, after, "–" if line is None else str(line),
        text("sample_id"), text("source_id"), text("because"), text("because_of"),
        "" if share is None else f"{percent(share)} of the row's mass",
    )  # fmt: skip
