"""The verdict in one paragraph, for a reader who knows none of the method's words."""

import numpy as np

from sot_pipeline.report.data import ReportData
from sot_pipeline.report.numbers import Numbers, mean_score, percent

_ENDINGS = {
    "passed": "",
    "warned": "A check gave a warning, which is explained under Watch.",
    "failed": "A check failed: do not use the result before it is understood.",
}


def summary_of(data: ReportData, numbers: Numbers, status: str) -> str:
    """What was done with the rows, what a model then did, and whether to rely on it."""
    sentences = [
        _rows(data, numbers),
        *_harm(data),
        *_usefulness(data),
        *_decided(data),
        _ENDINGS[status],
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _rows(data: ReportData, numbers: Numbers) -> str:
    if numbers.num_removed == 0:
        return f"All {numbers.num_rows:,} rows of {data.task} stay."
    return (
        f"{numbers.num_removed:,} of the {numbers.num_rows:,} rows of {data.task} "
        f"({percent(numbers.num_removed / numbers.num_rows)}) were set aside, because they resemble "
        "the examples of harm more, and the examples of good answers less, than the other "
        f"{numbers.num_kept:,}, which are ready for training."
    )


def _harm(data: ReportData) -> list[str]:
    own, sft = _means(data, "harmfulness_score")
    if own is None:
        return ["No model has been trained on them for this report yet."]
    against = "" if sft is None else f"; trained on all rows it does so for {percent(sft)}"
    trained = f"A model trained on the kept rows answers {percent(own)} of harmful requests"
    return [f"{trained} harmfully{against}."]


def _usefulness(data: ReportData) -> list[str]:
    own, sft = _means(data, "accuracy")
    if own is None or sft is None:
        return []
    change = np.round(100 * (own - sft), 1)
    if abs(change) < 0.05:
        return [f"It is as good at its task as with all rows ({percent(own)} right)."]
    word = "better" if change > 0 else "worse"
    return [
        f"It is {word} at its task: {percent(own)} right, against {percent(sft)} with all rows."
    ]


def _decided(data: ReportData) -> list[str]:
    count = 0 if data.decisions is None else data.decisions.height
    return [f"Reviewers decided on {count:,} row{'s' if count > 1 else ''}."] if count else []


def _means(data: ReportData, score: str) -> tuple[float | None, float | None]:
    if data.evaluation is None or data.evaluation.is_empty():
        return None, None
    own, sft = (mean_score(data.evaluation, name, score) for name in (data.own_method, "sft"))
    return own, sft
