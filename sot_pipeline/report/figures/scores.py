"""Scores of the compared methods, and harm against usefulness."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from sot_pipeline.report.figures.drawing import (
    COLOURS,
    Theme,
    figure_of,
    font_size,
    plain,
    png_of,
)

if TYPE_CHECKING:
    from sot_pipeline.report.comparison import ParetoPoint

_PANEL_PX = 130


def scores_png(
    evaluation: pl.DataFrame, heads: dict[str, tuple[str, str, str]], methods: list[str], *,
    own: str = "sot", width_px: int = 720, scale: float = 1, theme: Theme = "light",
) -> bytes:  # fmt: skip
    """Each score of each method with its interval, one panel per score.

    Args:
        evaluation: `method, seed, score, value, low, high`.
        heads: Score -> (short name, long name, which way is better), for the panels; the first
            ones that the width has room for.
        methods: From top to bottom.
        own: The one to stand out.
    """
    colours = COLOURS[theme]
    height = (56 + 30 * len(methods)) / width_px
    heads = dict(list(heads.items())[: max(1, width_px // _PANEL_PX)])
    figure, panels = figure_of(width_px, height, colours, num_panels=len(heads))
    for axes, (score, (short, _, better)) in zip(panels, heads.items(), strict=True):
        for place, method in enumerate(reversed(methods)):
            rows = evaluation.filter((pl.col("method") == method) & (pl.col("score") == score))
            colour = colours.kept if method == own else colours.ink
            rows = _known(rows).sort("seed")
            for y, row in zip(_spread(place, len(rows)), rows.iter_rows(named=True), strict=True):
                if row["low"] is not None and row["high"] is not None:
                    axes.plot([row["low"], row["high"]], [y, y], color=colour, alpha=0.55, lw=1.2)
                axes.plot(row["value"], y, "o", color=colour, markersize=4)
        arrow = {"lower": "← better", "higher": "better →"}.get(better, "")
        axes.set_title(f"{plain(short)}   {arrow}", size=font_size(width_px), color=colours.ink)
        axes.set_ylim(-0.6, len(methods) - 0.4)
        axes.set_yticks(range(len(methods)), [plain(m) for m in reversed(methods)])
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.12)
    return png_of(figure, width_px, scale)


def scores_alt(
    evaluation: pl.DataFrame, heads: dict[str, tuple[str, str, str]], methods: list[str]
) -> str:
    """The scores of the figure, in words."""
    parts = []
    for score, (short, _, better) in heads.items():
        values = [
            f"{method} {np.mean(rows['value'].to_numpy()):.3f}"
            for method in methods
            if len(
                rows := _known(
                    evaluation.filter((pl.col("method") == method) & (pl.col("score") == score))
                )
            )
        ]
        parts.append(f"{short} ({better} is better): {', '.join(values)}")
    return "Scores with their intervals. " + "; ".join(parts) + "."


def pareto_png(
    points: Sequence["ParetoPoint"], x_label: str, y_label: str, *, y_falls: bool = False,
    own: str = "sot", width_px: int = 720, scale: float = 1, theme: Theme = "light",
) -> bytes:  # fmt: skip
    """Harm against usefulness, a point per method with its limits; the methods that none beats
    are joined by a line. Better is always up and left.

    Args:
        points: As `comparison.pareto` returns them, one or more.
        y_falls: The less of `y` the better: its axis is turned round.
        own: The one to stand out.
    """
    colours = COLOURS[theme]
    figure, (axes,) = figure_of(width_px, 0.62, colours)
    for point in points:
        colour = colours.kept if point.method == own else colours.ink
        for limits, across in ((point.x, True), (point.y, False)):
            ends = [limits.low, limits.high]
            line = (ends, [point.y.value] * 2) if across else ([point.x.value] * 2, ends)
            axes.plot(*line, color=colour, alpha=0.3, lw=1)
        filled = colour if point.is_best else colours.paper
        axes.plot(point.x.value, point.y.value, "o", color=colour, mfc=filled, markersize=5)
    best = sorted((p.x.value, p.y.value) for p in points if p.is_best)
    axes.plot(*zip(*best, strict=True), color=colours.kept, lw=1.2, ls=":", zorder=1)
    for (x, y), methods in _places(points).items():
        names = (plain(method).replace(" ", "\u00a0") for method in methods)  # not broken
        text = textwrap.fill(", ".join(names), 34)
        axes.annotate(
            text, (x, y), xytext=(7, 4), textcoords="offset points", size=font_size(width_px) - 1,
            color=colours.ink, va="bottom",
        )  # fmt: skip
    axes.set_xlabel(f"{x_label}   ← better")
    axes.set_ylabel(f"{y_label}   better →")
    axes.margins(x=0.12, y=0.12)
    if y_falls:
        axes.invert_yaxis()
    return png_of(figure, width_px, scale)


def pareto_alt(points: Sequence["ParetoPoint"], x_label: str, y_label: str) -> str:
    """The points of the figure, in words."""
    told = [f"{p.method} {p.x.value:.3f}, {p.y.value:.3f}" for p in points]
    best = ", ".join(p.method for p in points if p.is_best)
    return f"{x_label} and {y_label} of each method: {'; '.join(told)}. Not beaten: {best}."


def _places(points: Sequence["ParetoPoint"]) -> dict[tuple[float, float], list[str]]:
    """Methods that would stand on each other share a label."""
    wide, high = (
        max(values) - min(values) or 1.0
        for values in ([p.x.value for p in points], [p.y.value for p in points])
    )
    places: dict[tuple[float, float], list[str]] = {}
    for point in points:
        near = next(
            (
                (x, y)
                for x, y in places
                if abs(x - point.x.value) < 0.03 * wide and abs(y - point.y.value) < 0.05 * high
            ),
            (point.x.value, point.y.value),
        )
        places.setdefault(near, []).append(point.method)
    return places


def _known(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("value").cast(pl.Float64).is_finite())  # null is not, either


def _spread(place: float, count: int) -> np.ndarray:
    """Heights of the seeds of one method, close to `place`."""
    return place + (np.linspace(0.24, -0.24, count) if count != 1 else np.zeros(1))
