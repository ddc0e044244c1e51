"""The figures of a page, as images inside it."""

import base64
import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.report import figures
from sot_pipeline.report.comparison import (
    LOWER_IS_BETTER,
    NO_QUALITY,
    NO_SCORES,
    Line,
    lines,
    pareto,
)
from sot_pipeline.report.data import ReportData
from sot_pipeline.report.methods import reading_order, selection_of
from sot_pipeline.report.numbers import Numbers
from sot_pipeline.report.tables import SCORES

_SHARPNESS = 2  # pixels per page pixel
_FIGURE_WIDTH = 980


class Picture(NamedTuple):
    """Data URIs for light and dark pages; size on the page in pixels."""

    light: str
    dark: str
    alt: str
    width: int
    height: int


def pictures_of(data: ReportData, numbers: Numbers) -> dict[str, Picture | None]:
    log_weights, kept = data.ledger["log_weight"].to_numpy(), numbers.above
    trace = np.asarray(data.fit.objective_trace, dtype=np.float64)
    drawn: dict[str, Picture | None] = {
        "histogram": _figure(
            partial(figures.weight_histogram_png, log_weights, kept),
            figures.weight_histogram_alt(log_weights, kept),
        ),
        "trace": None,
        "map": None,
        "neighbours": None,
        "scores": None,
        "pareto": None,
        "pareto_loss": None,
    }
    if trace.size:
        drawn["trace"] = _figure(
            partial(figures.objective_trace_png, trace), figures.objective_trace_alt(trace)
        )
    for name, points in (("map", data.points), ("neighbours", data.neighbours)):
        if points is not None:
            drawn[name] = _figure(
                partial(
                    figures.embedding_map_png, points, log_weights, kept, towards_harm=name == "map"
                ),
                figures.embedding_map_alt(points, log_weights, kept, towards_harm=name == "map"),
            )
    if data.evaluation is not None and not data.evaluation.is_empty():
        methods = reading_order(data.evaluation["method"].unique())
        present = set(data.evaluation["score"])
        heads = {score: head for score, head in SCORES.items() if score in present}
        arguments = (data.evaluation, heads, methods)
        if heads:
            drawn["scores"] = _figure(
                partial(figures.scores_png, *arguments, own=data.own_method),
                figures.scores_alt(*arguments),
            )
        drawn["pareto"] = _pareto(data, "average", "Average")
        drawn["pareto_loss"] = _pareto(data, "task_loss", "task loss")
    return drawn


def _pareto(data: ReportData, measure: str, label: str) -> Picture | None:
    points = pareto(_compared(data), y=measure)
    if len({selection_of(point.method) for point in points}) < 3:  # nothing to weigh up
        return None
    draw = partial(
        figures.pareto_png, points, "HmS", label, y_falls=measure in LOWER_IS_BETTER,
        own=data.own_method,
    )  # fmt: skip
    return _figure(draw, figures.pareto_alt(points, "HmS", label))


def _compared(data: ReportData) -> list[Line]:
    evaluation = data.evaluation if data.evaluation is not None else pl.DataFrame(schema=NO_SCORES)
    quality = data.quality if data.quality is not None else pl.DataFrame(schema=NO_QUALITY)
    return lines(quality, evaluation, data.selection_costs)


def _figure(draw: Callable[..., bytes], alt: str) -> Picture:
    light, dark = (
        draw(width_px=_FIGURE_WIDTH, scale=_SHARPNESS, theme=theme) for theme in ("light", "dark")
    )
    width, height = struct.unpack(">II", light[16:24])  # from the PNG header
    return Picture(
        _data_uri(light), _data_uri(dark), alt, width // _SHARPNESS, height // _SHARPNESS
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
