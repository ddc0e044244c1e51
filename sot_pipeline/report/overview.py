"""The figures under the verdict, and how the weights and the cut were found."""

from typing import NamedTuple

from sot_pipeline.report.data import ReportData
from sot_pipeline.report.numbers import Numbers, mean_score, percent


class KeyFigure(NamedTuple):
    label: str
    value: str
    note: str


def key_figures(data: ReportData, numbers: Numbers) -> list[KeyFigure]:
    shown = [
        KeyFigure("Rows kept", f"{numbers.num_kept:,}", f"of {numbers.num_rows:,}"),
        KeyFigure(
            "Rows removed",
            f"{numbers.num_removed:,}",
            percent(numbers.num_removed / numbers.num_rows),
        ),
        KeyFigure(
            "Effective sample size",
            percent(numbers.effective_sample_size / numbers.num_rows),
            f"{numbers.effective_sample_size:,.0f} rows; 100 % = nothing learned",
        ),
    ]
    if data.cut is not None:
        low, high = percent(data.cut.contamination_low), percent(data.cut.contamination_high)
        shown.append(
            KeyFigure("Estimated harm", percent(data.cut.contamination), f"{low} to {high}")
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
            shown.append(KeyFigure(label, f"{own:.3f}", against + better))
    return shown


def fit_facts(data: ReportData) -> list[tuple[str, str]]:
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
