"""Which rows a reader wants to see first."""

import numpy as np

from sot_pipeline.report.data import ReportData
from sot_pipeline.report.numbers import Numbers


def near_the_cut(numbers: Numbers, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the rows next to the cut, nearest first: the `count` removed ones below it and the
    `count` kept ones above it. Rows that a reviewer put on the other side are neither. Empty
    without a cut."""
    if numbers.cut is None:
        nothing = np.empty(0, dtype=np.int64)
        return nothing, nothing
    order = np.argsort(numbers.log10_relative, kind="stable")
    kept, above = numbers.kept[order], numbers.above[order]
    removed, kept = order[~kept & ~above], order[kept & above]
    return removed[::-1][:count], kept[:count]


def removed_first(numbers: Numbers) -> np.ndarray:
    """Places of the removed rows, lowest weight first."""
    order = np.argsort(numbers.log10_relative, kind="stable")
    return order[~numbers.kept[order]]


def by_interest(data: ReportData, numbers: Numbers) -> np.ndarray:
    """Every place once: rows that a reviewer decided, rows at the cut, removed rows from the
    lowest weight, kept rows from the lowest weight."""
    order = np.argsort(numbers.log10_relative, kind="stable")
    parts = [
        np.flatnonzero(decided_rows(data)),
        *near_the_cut(numbers, data.num_borderline),
        order[~numbers.kept[order]],
        order[numbers.kept[order]],
    ]
    _, first = np.unique(places := np.concatenate(parts), return_index=True)
    return places[np.sort(first)]


def decided_rows(data: ReportData) -> np.ndarray:
    """`[rows]` bool: a reviewer decided on this one."""
    if data.decisions is None:
        return np.zeros(len(data.ledger), dtype=bool)
    return data.ledger["sample_id"].is_in(data.decisions["sample_id"].implode()).to_numpy()
