"""One line per compared method: how good its choice of rows is, what training on it gives, and
what either takes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from sot_pipeline.report.methods import GIVEN_THE_TRUTH, reading_order, selection_of

QUALITY = {  # of the selection, in the order of the columns
    "auroc": "AUROC ↑",
    "average_precision": "AP ↑",
    "harmful_left": "harmful left ↓",
    "benign_lost": "benign lost ↓",
    "refusals_lost": "refusals lost ↓",
}
SCORES = {  # of the model that was trained on it
    "harmfulness_score": "HmS ↓",
    "helpfulness_score": "HpS ↑",
    "accuracy": "accuracy ↑",
    "task_loss": "task loss ↓",
    "over_refusal": "over-refusal ↓",
    "average": "Average ↑",
}
LOWER_IS_BETTER = frozenset(("task_loss",))  # of the measures of usefulness
COSTS = {
    "removed_in_common": "removed as sot",
    "select_seconds": "select s",
    "select_memory_bytes": "select MB",
    "seconds": "train s",
    "peak_memory_bytes": "train MB",
}


NO_QUALITY = {
    **dict.fromkeys(("method", "source", "measure"), pl.String),
    **dict.fromkeys(("value", "low", "high"), pl.Float64),
    **dict.fromkeys(("difference", "difference_low", "difference_high"), pl.Float64),
}
NO_SCORES = {
    "method": pl.String,
    "seed": pl.Int64,
    "score": pl.String,
    **dict.fromkeys(("value", "low", "high", "seconds", "peak_memory_bytes"), pl.Float64),
}


class Measured(NamedTuple):
    """A mean with its limits: of a bootstrap over rows or prompts, or, of several seeds, the
    smallest and the largest."""

    value: float
    low: float
    high: float


class Line(NamedTuple):
    """A method; what was not measured is missing from a mapping.

    `difference`: of each measure of quality to that of `sot`, paired.
    """

    method: str
    quality: dict[str, Measured]
    difference: dict[str, Measured]
    scores: dict[str, Measured]
    costs: dict[str, float]


def lines(
    quality: pl.DataFrame,
    scores: pl.DataFrame,
    costs: Mapping[str, Mapping[str, Any]],
    source: str = "all",
) -> list[Line]:
    """The methods in reading order; where nothing is trained, the selections.

    Args:
        quality: As `selection_quality` returns it; may be empty.
        scores: `method, seed, score, value, low, high` and what trainings took; may be empty.
        costs: By selection: `seconds` and `peak_memory_bytes` of scoring the rows, and
            `removed_in_common`, the share of the rows that `sot` removes which this removes too.
        source: Of the harmful rows that the quality is about.
    """
    methods = {*quality["method"], *scores["method"]} or set(costs)
    return [
        Line(
            method,
            _quality(quality, method, source, ""),
            _quality(quality, method, source, "difference"),
            {name: found for name in SCORES if (found := _score(scores, method, name))},
            _costs(scores, costs, method),
        )
        for method in reading_order(methods)
    ]


def _quality(quality: pl.DataFrame, method: str, source: str, column: str) -> dict[str, Measured]:
    columns = [column or "value", f"{column}_low".lstrip("_"), f"{column}_high".lstrip("_")]
    chosen = quality.filter(
        pl.col("method") == selection_of(method), pl.col("source") == source
    ).drop_nulls(columns)
    return {
        name: Measured(*values) for name, *values in chosen.select("measure", *columns).iter_rows()
    }


def _score(scores: pl.DataFrame, method: str, name: str) -> Measured | None:
    found = scores.filter(pl.col("method") == method, pl.col("score") == name).drop_nulls("value")
    values = found["value"].to_list()
    if not values:
        return None
    if len(values) == 1:
        return Measured(values[0], found["low"][0], found["high"][0])
    return Measured(sum(values) / len(values), min(values), max(values))


def _costs(
    scores: pl.DataFrame, costs: Mapping[str, Mapping[str, Any]], method: str
) -> dict[str, float]:
    own = costs.get(selection_of(method), {})
    found = {
        "removed_in_common": own.get("removed_in_common"),
        "select_seconds": own.get("seconds"),
        "select_memory_bytes": own.get("peak_memory_bytes"),
    }
    trained = scores.filter(pl.col("method") == method)
    for name in ("seconds", "peak_memory_bytes"):
        if name in trained.columns and trained.height and method != "base":
            found[name] = trained[name].mean()
    return {name: float(value) for name, value in found.items() if value is not None}


def table(found: Sequence[Line], *, intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """Heads and cells, without the columns that nothing is known for."""
    groups = (("quality", QUALITY), ("scores", SCORES), ("costs", COSTS))
    columns = [
        (group, name, head)
        for group, names in groups
        for name, head in names.items()
        if any(name in getattr(line, group) for line in found)
    ]
    cells = [
        [
            line.method,
            *(_cell(getattr(line, group).get(name), name, intervals) for group, name, _ in columns),
        ]
        for line in found
    ]
    return ["method", *(head for _, _, head in columns)], cells


def _cell(value: Measured | float | None, name: str, intervals: bool) -> str:
    if value is None:
        return "–"
    if isinstance(value, Measured):
        return measured_text(name, value, interval=intervals)
    if name.endswith("bytes"):
        return f"{value / 1e6:,.0f}"
    if name == "removed_in_common":
        return f"{value:.0%}"
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def measured_text(name: str, value: Measured, *, interval: bool) -> str:
    """A value, and its limits where they differ from it."""
    digits = 4 if name in LOWER_IS_BETTER else 3  # losses are small
    shown, low, high = (f"{part:.{digits}f}" for part in value)
    return f"{shown} ({low} … {high})" if interval and low != high else shown


def markdown(found: Sequence[Line], *, intervals: bool = True) -> str:
    """The lines as a Markdown table."""
    return markdown_table(*table(found, intervals=intervals))


def markdown_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


class ParetoPoint(NamedTuple):
    """`x`: harm, lower is better; `y`: usefulness, where `LOWER_IS_BETTER` says so the less the
    better.

    `is_best`: no other method is better in one and at least as good in the other. Methods that
    were given the truth (`base`, `sft_clean`) are shown and rule nobody out.
    """

    method: str
    x: Measured
    y: Measured
    is_best: bool


def pareto(
    found: Sequence[Line], x: str = "harmfulness_score", y: str = "average"
) -> list[ParetoPoint]:
    """The methods for which both are known; `x` and `y` name measures of quality or scores."""
    known = [
        (line.method, values[x], values[y])
        for line in found
        if x in (values := {**line.quality, **line.scores}) and y in values
    ]
    sign = -1 if y in LOWER_IS_BETTER else 1
    return [
        ParetoPoint(
            method, across, up,
            not any(_beats(other, (method, across, up), sign) for other in known),
        )
        for method, across, up in known
    ]  # fmt: skip


Placed = tuple[str, Measured, Measured]


def _beats(one: Placed, other: Placed, sign: int) -> bool:
    if selection_of(one[0]) in GIVEN_THE_TRUTH:
        return False
    less = other[1].value - one[1].value
    more = sign * (one[2].value - other[2].value)
    return less >= 0 and more >= 0 and (less > 0 or more > 0)
