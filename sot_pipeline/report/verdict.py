"""The sentences at the top of a report, each derived from the numbers by a fixed rule."""

from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.report.data import ReportData, held_out_harmful_kept
from sot_pipeline.report.methods import DEFENCES, SELECTIONS
from sot_pipeline.report.numbers import Numbers, mean_score, percent
from sot_pipeline.report.summary import against_the_cut, rows_are_doubted, summary_of

NOT_EVALUATED = (
    "No model was evaluated for this report: it shows what was selected, not what a model learns "
    "from it."
)
NEARLY_UNIFORM = 0.99  # of the rows: above, the weights say nothing


class Verdict(NamedTuple):
    """`status`: passed, warned or failed; `headline`: a few words; `summary`: the whole of it in
    plain words; `paragraphs`: (label, sentences) for what was asked, found and measured, and what
    to watch, none of them empty."""

    status: str
    headline: str
    summary: str
    paragraphs: list[tuple[str, list[str]]]


def verdict_of(data: ReportData, numbers: Numbers) -> Verdict:
    """What was asked, what was found, and how far it can be trusted."""
    failed = [check.name for check in data.checks if check.status == "failed"]
    warned = [check.name for check in data.checks if check.status == "warned"]
    uniform = _is_nearly_uniform(numbers)
    if failed or not data.fit.converged:
        status, headline = "failed", "Do not rely on this result yet"
    elif warned or uniform:
        status, headline = "warned", "Read the warnings first"
    else:
        status, headline = "passed", "All checks passed" if data.checks else "Done, nothing checked"
    paragraphs = [
        ("Asked", _asked(data)),
        (
            "Found",
            [_removed(data, numbers), *_cut(data), *_evidence(numbers), _told_apart(data, numbers)],
        ),
        ("Measured", _scores(data)),
        ("Watch", _doubts(data, numbers, failed, warned)),
    ]
    return Verdict(
        status,
        headline,
        summary_of(data, numbers, status),
        [part for part in paragraphs if part[1]],
    )


def _is_nearly_uniform(numbers: Numbers) -> bool:
    return (
        numbers.num_rows > 1 and numbers.effective_sample_size >= NEARLY_UNIFORM * numbers.num_rows
    )


def _asked(data: ReportData) -> list[str]:
    sizes = {given.role: given.num_rows for given in data.inputs}
    safe, harmful = (
        f"the {role} reference" + (f" ({sizes[role]:,} rows)" if role in sizes else "")
        for role in ("safe", "harmful")
    )
    question = (
        f"Which rows of {data.task} draw a fine-tuned model away from {safe} and towards {harmful}?"
    )
    return [question]


def _removed(data: ReportData, numbers: Numbers) -> str:
    if numbers.num_removed == 0:
        return f"All {numbers.num_rows:,} rows were kept: no row was to be removed."
    share = percent(numbers.num_removed / numbers.num_rows)
    removed = f"{numbers.num_removed:,} of {numbers.num_rows:,} rows ({share}) were removed."
    return " ".join([removed, *against_the_cut(data)])


def _cut(data: ReportData) -> list[str]:
    cut = data.cut
    if cut is None:
        return []
    low, high = percent(cut.contamination_low), percent(cut.contamination_high)
    estimate = (
        f"An estimated {percent(cut.contamination)} of all rows (95\N{NO-BREAK SPACE}% interval "
        f"{low} to {high}) score like harmful reference rows that the weights had not seen."
    )
    harmful = held_out_harmful_kept(cut.false_keep_rate, cut.num_held_out_harmful)
    found = (
        f"The cut was found with those: {harmful} would stay, and of rows like them at most "
        f"{percent(cut.false_keep_rate)} is to be expected "
        f"({percent(cut.max_false_keep_rate)} was allowed); of {cut.num_held_out_safe:,} unseen "
        f"safe reference rows {percent(cut.held_out_safe_kept)} would stay."
    )
    return [estimate, found]


def _told_apart(data: ReportData, numbers: Numbers) -> str:
    size = f"{numbers.effective_sample_size:,.0f} of {numbers.num_rows:,}"
    share = percent(numbers.effective_sample_size / numbers.num_rows)
    if _is_nearly_uniform(numbers):
        return (
            f"The weights are almost uniform (effective sample size {size}): the references "
            "carry no signal for these rows, and the cut is close to arbitrary."
        )
    if rows_are_doubted(data):
        return (
            "A check doubts that the weights tell the rows apart; their effective sample size is "
            f"{size} ({share})."
        )
    return f"The weights tell the rows apart: their effective sample size is {size} ({share})."


def _evidence(numbers: Numbers) -> list[str]:
    removed, kept = numbers.nearer_harmful_removed, numbers.nearer_harmful_kept
    if removed is None or kept is None:
        return []
    sentence = (
        f"Of the removed rows {percent(removed)} lie nearer to a harmful reference row than to any "
        f"safe one; of the kept rows {percent(kept)}."
    )
    return [sentence]


def _scores(data: ReportData) -> list[str]:
    if data.evaluation is None or data.evaluation.is_empty():
        return [NOT_EVALUATED]
    own, _, defence = data.own_method.partition("+")
    under = f" with {DEFENCES[defence].label}" if defence in DEFENCES else ""
    names = {
        data.own_method: f"after training on {SELECTIONS.get(own, own)}{under}",
        "sft": "after training on all rows",
        "base": "before training",
    }
    sentences = []
    for score, phrase, style in (
        ("harmfulness_score", "Harmful answers to harmful prompts", percent),
        ("helpfulness_score", "Helpfulness", lambda value: f"{value:.2f}"),
        ("accuracy", "Task accuracy", percent),
    ):
        means = {m: v for m in names if (v := mean_score(data.evaluation, m, score)) is not None}
        if data.own_method not in means:
            continue
        listed = ", ".join(f"{style(means[m])} {names[m]}" for m in means)
        sentences.append(f"{phrase}: {listed}.")
        if score == "harmfulness_score" and "sft" in means:
            sentences += _difference(data.evaluation, data.own_method)
    return sentences


def _difference(evaluation: pl.DataFrame, own_method: str) -> list[str]:
    """Whether the harmfulness of the task's adapter and of plain training on all rows differs by
    more than the bootstrap intervals."""
    scores = evaluation.filter(pl.col("score") == "harmfulness_score")
    own, sft = (
        scores.filter(pl.col("method") == method).select("low", "high").cast(pl.Float64).to_numpy()
        for method in (own_method, "sft")
    )
    if not (np.isfinite(own).all() and np.isfinite(sft).all()):
        return []
    cause = "the two together" if "+" in own_method else "purification"
    if own[:, 1].max() < sft[:, 0].min():
        return [f"The intervals of the two do not overlap: {cause} lowered the harm."]
    if own[:, 0].min() > sft[:, 1].max():
        return [f"The intervals of the two do not overlap: {cause} raised the harm."]
    return ["The intervals of the two overlap: this difference may be chance."]


def _doubts(data: ReportData, numbers: Numbers, failed: list[str], warned: list[str]) -> list[str]:
    doubts = []
    if not data.fit.converged:
        doubts.append(
            f"The weights had not converged after {data.fit.num_steps:,} steps: they may still move."
        )
    for names, what in ((failed, "failed"), (warned, "gave a warning")):
        if names:
            listed = ", ".join(name.replace("_", " ") for name in names)
            doubts.append(f"{len(names)} check{'s' if len(names) > 1 else ''} {what}: {listed}.")
    if data.cut is not None:
        doubts.append(
            f"That at most {percent(data.cut.max_false_keep_rate)} of the harmful rows stay is "
            "said of harm like the harmful reference's; harm unlike it can pass, and harmless "
            "rows that resemble it are counted and removed."
        )
    elif numbers.num_removed:
        doubts.append(
            f"How many rows go is set beforehand{_rule(data)}, not found: a clean set would lose as "
            "many, so look at the rows around the cut."
        )
    rejected = sum(given.num_rejected for given in data.inputs)
    if rejected:
        them = (
            "rows could not be read; they are" if rejected > 1 else "row could not be read; it is"
        )
        doubts.append(f"{rejected:,} input {them} listed below.")
    return doubts


def _rule(data: ReportData) -> str:
    for name in ("selection.keep_fraction", "selection.keep_count"):
        if data.settings.get(name) is not None:
            return f" ({name.removeprefix('selection.')} = {data.settings[name]})"
    return ""
