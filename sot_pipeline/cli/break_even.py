"""The settings that would put a row on the other side of the cut, each as it may be typed in."""

import math
from typing import Any

_STEPS = 10_000  # four digits after the point
_NOISE = 1e-6  # of a step: a float just beside the number that is meant


def break_even_lines(row: dict[str, Any], num_rows: int) -> list[list[str]]:
    """Setting, its value now, and a value at which the row is on the other side.

    Values are rounded to four digits, away from the value now.

    Args:
        row: As from `ExplainedTask.evidence`; for a row that a reviewer decided about, the lines
            say what would change the cut's own answer.
        num_rows: Of the task.
    """
    by_cut = row["rank"] <= row["num_kept_by_cut"]
    changes = row["lambda_change"]
    far = None
    if changes is not None:
        far = _upwards(changes) if changes > row["lambda_push"] else _downwards(changes)
    own = _rate(row, by_cut) if row["max_false_keep_rate"] is not None else _share(row, by_cut,
                                                                                num_rows)  # fmt: skip
    return [own, ["lambda, matching held as it is", f"{row['lambda_push']:g}", _or_never(far)]]


def _share(row: dict[str, Any], by_cut: bool, num_rows: int) -> list[str]:
    if by_cut:  # one row fewer than its place; at least one row always stays
        fewer = row["rank"] - 1
        value = _downwards(fewer / num_rows) if fewer else None
    else:
        value = _upwards(row["keep_fraction_needed"])
    return ["share of rows kept", f"{row['keep_fraction']:.4g}", _or_never(value)]


def _rate(row: dict[str, Any], by_cut: bool) -> list[str]:
    needed = row["false_keep_rate_needed"]
    value = None
    if needed is not None:
        least = 1 / (row["num_held_out_harmful"] + 1)  # that so few rows can vouch for
        value = _below(needed, least) if by_cut else _upwards(needed)
    return ["false-keep rate", f"{row['max_false_keep_rate']:g}", _or_never(value)]


def _upwards(value: float) -> float:
    return math.ceil(value * _STEPS - _NOISE) / _STEPS


def _downwards(value: float) -> float:
    return math.floor(value * _STEPS + _NOISE) / _STEPS


def _below(value: float, least: float) -> float | None:
    """The nearest value that is less; None where that is less than can be."""
    found = (math.ceil(value * _STEPS - _NOISE) - 1) / _STEPS
    return found if found >= least else None


def _or_never(value: float | None) -> str:
    return "never" if value is None else f"{value:.4f}"
