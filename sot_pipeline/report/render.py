"""A report as one HTML file that loads nothing."""

import base64
import hashlib
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sot_pipeline.report import figures
from sot_pipeline.report.comparison import (
    LOWER_IS_BETTER,
    NO_QUALITY,
    NO_SCORES,
    Line,
    lines,
    pareto,
)
from sot_pipeline.report.comparison import table as comparison_table
from sot_pipeline.report.data import ReportData
from sot_pipeline.report.methods import reading_order, selection_of
from sot_pipeline.report.numbers import Numbers, mean_score, numbers_of
from sot_pipeline.report.tables import (
    SCORES,
    borderline_rows,
    rejected_reasons,
    rejected_rows,
    removed_rows,
    score_table,
)
from sot_pipeline.report.verdict import percent, verdict_of
from sot_pipeline.report.visible import visible

_FOLDER = Path(__file__).parent
_SHARPNESS = 2  # pixels per page pixel
_FIGURE_WIDTH = 980


def render_report(data: ReportData) -> str:
    """The report as one HTML document (UTF-8), complete without a network.

    Whatever the rows hold, nothing of them is executed: all values are escaped, hidden
    characters are written out, and the content-security policy allows nothing but the page's
    own style and script, by hash, and images inside the page.
    """
    style, script = ((_FOLDER / f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    numbers = numbers_of(data)
    evaluated = data.evaluation is not None and not data.evaluation.is_empty()
    return _environment().get_template("report.html.jinja").render(
        data=data,
        numbers=numbers,
        policy=content_security_policy(style, script),
        style=Markup(style),  # the project's own files, not data
        script=Markup(script),
        verdict=verdict_of(data, numbers),
        key_figures=_key_figures(data, numbers),
        fit_facts=_fit_facts(data),
        scores=score_table(data.evaluation) if evaluated and data.evaluation is not None else None,
        quality=_quality_tables(data),
        figures=_figures(data, numbers),
        removed=removed_rows(data, numbers),
        borderline=borderline_rows(data, numbers),
        rejected=rejected_rows(data),
        rejected_reasons=rejected_reasons(data.rejected) if data.rejected is not None else [],
        num_rejected=0 if data.rejected is None else data.rejected.height,
    )  # fmt: skip


def content_security_policy(style: str, script: str) -> str:
    """Nothing from outside; inside, exactly this style and this script."""
    hashes = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    return (
        "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; "
        "base-uri 'none'; form-action 'none'"
    ).format(*hashes)


def _environment() -> Environment:
    def show(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=show,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class _Figure(NamedTuple):
    """Data URIs for light and dark pages; size on the page in pixels."""

    light: str
    dark: str
    alt: str
    width: int
    height: int


def _figures(data: ReportData, numbers: Numbers) -> dict[str, _Figure | None]:
    log_weights, kept = data.ledger["log_weight"].to_numpy(), numbers.kept
    trace = np.asarray(data.fit.objective_trace, dtype=np.float64)
    drawn: dict[str, _Figure | None] = {
        "histogram": _figure(
            partial(figures.weight_histogram_png, log_weights, kept),
            figures.weight_histogram_alt(log_weights, kept),
        ),
        "trace": None,
        "map": None,
        "scores": None,
        "pareto": None,
        "pareto_loss": None,
    }
    if trace.size:
        drawn["trace"] = _figure(
            partial(figures.objective_trace_png, trace), figures.objective_trace_alt(trace)
        )
    if data.points is not None:
        drawn["map"] = _figure(
            partial(figures.embedding_map_png, data.points, log_weights, kept),
            figures.embedding_map_alt(data.points, log_weights, kept),
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


def _pareto(data: ReportData, measure: str, label: str) -> _Figure | None:
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


def _quality_tables(data: ReportData) -> list[tuple[str, list[str], list[list[str]]]]:
    """(source of harm, heads, cells): how well each selection finds harmful rows."""
    if data.quality is None:
        return []
    sources = data.quality["source"].unique(maintain_order=True)
    nothing = pl.DataFrame(schema=NO_SCORES)
    return [
        (source, *comparison_table(lines(data.quality, nothing, data.selection_costs, source)))
        for source in sources
    ]


def _figure(draw: Callable[..., bytes], alt: str) -> _Figure:
    light, dark = (
        draw(width_px=_FIGURE_WIDTH, scale=_SHARPNESS, theme=theme) for theme in ("light", "dark")
    )
    width, height = struct.unpack(">II", light[16:24])  # from the PNG header
    return _Figure(
        _data_uri(light), _data_uri(dark), alt, width // _SHARPNESS, height // _SHARPNESS
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


class _KeyFigure(NamedTuple):
    label: str
    value: str
    note: str


def _key_figures(data: ReportData, numbers: Numbers) -> list[_KeyFigure]:
    shown = [
        _KeyFigure("Rows kept", f"{numbers.num_kept:,}", f"of {numbers.num_rows:,}"),
        _KeyFigure(
            "Rows removed",
            f"{numbers.num_removed:,}",
            percent(numbers.num_removed / numbers.num_rows),
        ),
        _KeyFigure(
            "Effective sample size",
            percent(numbers.effective_sample_size / numbers.num_rows),
            f"{numbers.effective_sample_size:,.0f} rows; 100 % = nothing learned",
        ),
    ]
    if data.cut is not None:
        low, high = percent(data.cut.contamination_low), percent(data.cut.contamination_high)
        shown.append(
            _KeyFigure("Estimated harm", percent(data.cut.contamination), f"{low} to {high}")
        )
    if data.evaluation is None:
        return shown
    for score, label, better in (
        ("harmfulness_score", "HmS, purified", "lower is better"),
        ("helpfulness_score", "HpS, purified", "higher is better"),
    ):
        own, sft = (mean_score(data.evaluation, m, score) for m in (data.own_method, "sft"))
        if own is not None:
            against = f"all rows {sft:.3f}; " if sft is not None else ""
            shown.append(_KeyFigure(label, f"{own:.3f}", against + better))
    return shown


def _fit_facts(data: ReportData) -> list[tuple[str, str]]:
    fit = data.fit
    facts = [
        ("λ push", f"{fit.lambda_push:g}"),
        ("ε", f"{fit.epsilon:.4g}"),
        ("τ", "–" if fit.tau is None else f"{fit.tau:.4g}"),
        ("Converged", f"{'yes' if fit.converged else 'NO'}, {fit.num_steps:,} steps"),
    ]
    if fit.residual is not None:
        limit = "" if fit.tolerance is None else f" (limit {fit.tolerance:.2g})"
        facts.append(("Residual", f"{fit.residual:.2g}{limit}"))
    if fit.marginal_errors:
        facts.append(
            ("Marginal errors", ", ".join(f"{error:.1e}" for error in fit.marginal_errors))
        )
    if data.cut is not None:
        held_out = f"{data.cut.num_held_out_safe:,} safe, {data.cut.num_held_out_harmful:,} harmful"
        facts += [
            ("Cut", f"false-keep rate at most {data.cut.max_false_keep_rate:g}"),
            ("Held out", f"{held_out} reference rows"),
        ]
    return facts
