"""What the paper reports as a trend, and whether an experiment shows it too.

A difference is reproduced if no seed of one side reaches a seed of the other, contradicted if so the
other way round, and undecided else, as where both sides are at the end of the scale. What is said of
a whole sweep, and of shares of a gain, is about means over the seeds. The figures quoted are of arXiv 2601.07200 (ablation: its Table
3; others: its text), as far as public notes tell them.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import polars as pl

Verdict = Literal["reproduced", "contradicted", "undecided", "not measured"]
HMS, AVERAGE, ACCURACY = "harmfulness_score", "average", "accuracy"
AS_GOOD = 0.05  # HmS that two references may differ by and still be interchangeable


class Trend(NamedTuple):
    """`claim`: in words, with the paper's figures; `found`: the figures here."""

    claim: str
    found: str
    verdict: Verdict


def trends(experiment: str, table: pl.DataFrame) -> list[Trend]:
    """The paper's trends that an experiment can show.

    Args:
        experiment: "ablation", "lambda", "keep", "contamination" or "embedders".
        table: `variation, parameter, seed, score, value`.
    """
    return [trend(table) for trend in _TRENDS[experiment]]


def _values(table: pl.DataFrame, variation: str, score: str) -> list[float]:
    chosen = table.filter(pl.col("variation") == variation, pl.col("score") == score)
    return chosen.drop_nulls("value")["value"].to_list()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _less(claim: str, low: str, high: str, score: str = HMS) -> Callable[[pl.DataFrame], Trend]:
    """`low` has the lower score."""

    def trend(table: pl.DataFrame) -> Trend:
        below, above = (_values(table, name, score) for name in (low, high))
        if not below or not above:
            return Trend(claim, "-", "not measured")
        found = f"{low} {_mean(below):.3f}, {high} {_mean(above):.3f}"
        return Trend(claim, found, _ordered(below, above))

    return trend


def _ordered(below: Sequence[float], above: Sequence[float]) -> Verdict:
    if max(below) < min(above):
        return "reproduced"
    return "contradicted" if min(below) > max(above) else "undecided"


def _interchangeable(claim: str, one: str, other: str) -> Callable[[pl.DataFrame], Trend]:
    def trend(table: pl.DataFrame) -> Trend:
        first, second = (_values(table, name, HMS) for name in (one, other))
        if not first or not second:
            return Trend(claim, "-", "not measured")
        gap = abs(_mean(first) - _mean(second))
        found = f"{one} {_mean(first):.3f}, {other} {_mean(second):.3f}"
        apart = _ordered(first, second) != "undecided"
        if gap <= AS_GOOD:
            return Trend(claim, found, "reproduced")
        return Trend(claim, found, "contradicted" if apart else "undecided")

    return trend


def _carried_by_the_cut(table: pl.DataFrame) -> Trend:
    claim = "the cut alone brings most of the gain (paper: .221 of .229 HmS)"
    sft, cut, full = (_values(table, name, HMS) for name in ("sft", "top_k_only", "full"))
    if not (sft and cut and full):
        return Trend(claim, "-", "not measured")
    gain = _mean(sft) - _mean(full)
    if gain <= 0:
        return Trend(claim, f"no gain: sft {_mean(sft):.3f}, full {_mean(full):.3f}", "undecided")
    share = (_mean(sft) - _mean(cut)) / gain
    verdict: Verdict = "reproduced" if share > 0.5 else "contradicted"
    return Trend(claim, f"{share:.0%} of the gain", verdict)


def _half_is_pareto(table: pl.DataFrame) -> Trend:
    claim = "lambda .5 is not beaten in both HmS and usefulness (paper: its Pareto point)"
    points = {
        parameter: tuple(_mean(_values(table, name, score)) for score in (HMS, AVERAGE))
        for name, parameter in table.select("variation", "parameter").unique().iter_rows()
        if _values(table, name, HMS) and _values(table, name, AVERAGE)
    }
    if 0.5 not in points:
        return Trend(claim, "-", "not measured")
    own = points[0.5]
    better = sorted(
        push
        for push, (harm, average) in points.items()
        if harm <= own[0] and average >= own[1] and (harm, average) != own
    )
    equal = [push for push, point in points.items() if point == own and push != 0.5]
    found = f"HmS {own[0]:.3f}, Average {own[1]:.3f}"
    if better:
        return Trend(claim, f"{found}; beaten by {', '.join(map(str, better))}", "contradicted")
    if len(equal) == len(points) - 1:
        return Trend(claim, f"{found}, as at every lambda", "undecided")
    return Trend(claim, found, "reproduced")


def _falls_with_the_cut(table: pl.DataFrame) -> Trend:
    claim = "the more is cut, the less harm is left (paper: the hard cut carries the gain)"
    found = _by_parameter(table, "", HMS)
    if len(found) < 2:
        return Trend(claim, "-", "not measured")
    return Trend(claim, _series(found), _monotone([mean for _, mean in found]))


def _sft_grows(table: pl.DataFrame) -> Trend:
    claim = "plain fine-tuning gets more harmful with the harmful share"
    found = _by_parameter(table, "sft,", HMS)
    if len(found) < 2:
        return Trend(claim, "-", "not measured")
    return Trend(claim, _series(found), _monotone([mean for _, mean in found]))


def _below_sft(table: pl.DataFrame) -> Trend:
    claim = "at every harmful share the purified rows give less harm than all rows"
    sft, own = (dict(_by_parameter(table, name, HMS)) for name in ("sft,", "sot,"))
    shares = sorted(share for share in sft if share > 0 and share in own)
    if not shares:
        return Trend(claim, "-", "not measured")
    found = ", ".join(f"{share:g}: {own[share]:.3f} of {sft[share]:.3f}" for share in shares)
    verdicts = {_ordered(_at(table, "sot,", share), _at(table, "sft,", share)) for share in shares}
    for verdict in ("contradicted", "undecided"):
        if verdict in verdicts:
            return Trend(claim, found, verdict)
    return Trend(claim, found, "reproduced")


def _at(table: pl.DataFrame, prefix: str, parameter: float) -> list[float]:
    """HmS of each seed."""
    chosen = table.filter(
        pl.col("variation").str.starts_with(prefix),
        pl.col("parameter") == parameter,
        pl.col("score") == HMS,
    )
    return chosen.drop_nulls("value")["value"].to_list()


def _by_parameter(table: pl.DataFrame, prefix: str, score: str) -> list[tuple[float, float]]:
    """(parameter, mean) in order of the parameter."""
    chosen = table.filter(
        pl.col("variation").str.starts_with(prefix), pl.col("score") == score
    ).drop_nulls(["parameter", "value"])
    means = chosen.group_by("parameter").agg(pl.col("value").mean()).sort("parameter")
    return [(float(parameter), float(value)) for parameter, value in means.iter_rows()]


def _series(points: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{parameter:g}: {value:.3f}" for parameter, value in points)


def _monotone(values: Sequence[float]) -> Verdict:
    """Rising, but for differences that the scale's ends hide."""
    if values[-1] <= values[0]:
        return "undecided" if values[-1] == values[0] else "contradicted"
    rising = all(later >= earlier - 0.02 for earlier, later in itertools.pairwise(values))
    return "reproduced" if rising else "undecided"


_TRENDS: dict[str, tuple[Callable[[pl.DataFrame], Trend], ...]] = {
    "ablation": (
        _less("the cut alone lowers HmS (paper: .205 against .426)", "top_k_only", "sft"),
        _less("cut and weights lower HmS further (paper: .197 against .205)", "full", "top_k_only"),
        _carried_by_the_cut,
        _interchangeable(
            "another harmful reference does as well (paper: .194 against .197)",
            "swapped_harmful",
            "full",
        ),
        _less(
            "a safe reference that is not about the task is worse than no selection (paper: .543 "
            "against .426)",
            "sft",
            "general_safe",
        ),
        _less(
            "and worse than one about the task (paper: .543 against .197)", "full", "general_safe"
        ),
        _less("pull and push together beat the pull alone", "full", "pull_only"),
        _less("and the push alone", "full", "push_only"),
    ),
    "lambda": (_half_is_pareto,),
    "keep": (_falls_with_the_cut,),
    "contamination": (_sft_grows, _below_sft),
    "embedders": (
        _less("the aligned model's own vectors lower HmS", "base", "sft"),
        _less("so do those of another encoder: it need not be the model", "minilm", "sft"),
    ),
}
