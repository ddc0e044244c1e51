"""The rows that a reader looks at first, ready to print without a script."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sot_pipeline.report.data import ReportData
from sot_pipeline.report.numbers import Numbers
from sot_pipeline.report.row_order import near_the_cut, removed_first
from sot_pipeline.visible import excerpt

EXCERPT_LENGTH = 600
REASON_LENGTH = 1_500
ID_LENGTH = 80


class TextRow(NamedTuple):
    """A removed or borderline row. `weight` is relative to uniform; `harmful` and `safe`:
    (similarity, id) of the nearest reference rows; `excerpts`: (label, text)."""

    rank: str
    weight: str
    line: str
    sample_id: str
    source_id: str
    category: str
    kept: bool
    harmful: tuple[str, str]
    safe: tuple[str, str]
    reason: str
    excerpts: list[tuple[str, str]]


class DecisionRow(NamedTuple):
    """What a reviewer decided on a row; `rank` and `line` are empty for a row that is gone."""

    sample_id: str
    line: str
    rank: str
    decision: str
    reviewer: str
    note: str
    decided: str


Change = Callable[[str], str]


def removed_rows(data: ReportData, numbers: Numbers, shown_text: Change) -> list[TextRow]:
    """The removed rows, lowest weight first, at most `data.max_rows`."""
    return _text_rows(data, numbers, removed_first(numbers)[: data.max_rows], shown_text)


def borderline_rows(
    data: ReportData, numbers: Numbers, shown_text: Change
) -> tuple[list[TextRow], list[TextRow]]:
    """(removed, kept) rows next to the cut, nearest first; none without a cut."""
    removed, kept = near_the_cut(numbers, min(data.num_borderline, data.max_rows))
    return (
        _text_rows(data, numbers, removed, shown_text),
        _text_rows(data, numbers, kept, shown_text),
    )


def decision_rows(data: ReportData) -> list[DecisionRow]:
    """The reviewers' decisions, latest first, at most `data.max_rows`."""
    if data.decisions is None:
        return []
    rows = data.decisions.sort("decided", "sample_id", descending=[True, False], nulls_last=True)
    places = data.ledger.join(rows, on="sample_id", how="semi")
    known = {
        name: (str(line), f"{rank:,}")
        for name, line, rank in places.select("sample_id", "line", "rank").iter_rows()
    }
    return [
        DecisionRow(
            text(row, "sample_id"),
            *known.get(row["sample_id"], ("", "")),
            *(text(row, name) for name in ("decision", "reviewer", "note", "decided")),
        )
        for row in rows.head(data.max_rows).iter_rows(named=True)
    ]


def text(row: dict[str, Any], name: str) -> str:
    length = EXCERPT_LENGTH if name == "note" else ID_LENGTH
    return excerpt(str(row.get(name) or ""), length)


def _text_rows(
    data: ReportData, numbers: Numbers, order: np.ndarray, shown_text: Change
) -> list[TextRow]:
    rows = data.ledger[order.tolist()].iter_rows(named=True)
    relative = 10.0 ** numbers.log10_relative[order]
    return [
        TextRow(
            rank=f"{row['rank']:,}",
            weight=times_uniform(weight),
            line=str(row["line"]),
            sample_id=text(row, "sample_id"),
            source_id=text(row, "source_id"),
            category=text(row, "category"),
            kept=bool(row["kept"]),
            harmful=_nearest(row, "harmful"),
            safe=_nearest(row, "safe"),
            reason=excerpt(str(row.get("explanation") or row.get("reason") or ""), REASON_LENGTH),
            excerpts=_excerpts(row, shown_text) if data.show_text else [],
        )
        for row, weight in zip(rows, relative, strict=True)
    ]


def _nearest(row: dict[str, Any], reference: str) -> tuple[str, str]:
    similarity = row.get(f"{reference}_similarity")
    return "–" if similarity is None else f"{similarity:.3f}", text(row, f"nearest_{reference}")


def _excerpts(row: dict[str, Any], shown_text: Change) -> list[tuple[str, str]]:
    return [
        (name, excerpt(found, EXCERPT_LENGTH, shown_text))
        for name in ("prompt", "response")
        if isinstance(found := row.get(name), str)
    ]


def times_uniform(weight: float) -> str:
    """A relative weight with two significant digits, without exponents where one can do."""
    if weight == 0:
        return "0"
    if weight < 0.001:
        return f"{weight:.1e}"
    return f"{weight:#.2g}".rstrip(".") if weight < 99.5 else f"{weight:,.0f}"
