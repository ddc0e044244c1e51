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
    by_cut = numbers.num_removed - data.num_dropped_against_cut
    share = percent(numbers.num_removed / numbers.num_rows)
    of_all = f"of the {numbers.num_rows:,} rows of {data.task} ({share})"
    sentences = [
        f"{numbers.num_removed:,} {of_all} were set aside.",
        _cut(data, by_cut) if by_cut else "",
        f"The other {numbers.num_kept:,} are ready for training.",
    ]
    return " ".join(filter(None, sentences))


def _cut(data: ReportData, count: int) -> str:
    """What put rows aside; a cut at a share that was set tells no likeness."""
    whom = "They" if not data.num_dropped_against_cut else _count(count)
    verb = "was" if whom.startswith("1 ") else "were"
    if data.cut is None:
        said = (
            f"{whom} {verb} ranked lowest between the examples of good answers and the examples of "
            "harm; how many go was set beforehand."
        )
    else:
        said = (
            f"{whom} {verb} found more like the examples of harm than like those of good answers."
        )
    return f"{said} A check doubts that this ranking says much." if rows_are_doubted(data) else said


def rows_are_doubted(data: ReportData) -> bool:
    """Whether a check found that the weights may not tell the rows apart."""
    return any(
        check.name == "weights_tell_rows_apart" and check.status != "passed"
        for check in data.checks
    )


def against_the_cut(data: ReportData) -> list[str]:
    """What reviewers moved, which the cut has no part in."""
    moved = (
        (data.num_dropped_against_cut, "removed", "kept"),
        (data.num_kept_against_cut, "kept", "removed"),
    )
    return [
        f"Reviewers {done} {_count(count)} that the cut would have {otherwise}."
        for count, done, otherwise in moved
        if count
    ]


def _count(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


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
    """`unsure` decides nothing."""
    if data.decisions is None:
        return against_the_cut(data)
    count = int(data.decisions["decision"].is_in(["keep", "drop"]).sum())
    return [*([f"Reviewers decided on {_count(count)}."] if count else []), *against_the_cut(data)]


def _means(data: ReportData, score: str) -> tuple[float | None, float | None]:
    if data.evaluation is None or data.evaluation.is_empty():
        return None, None
    own, sft = (mean_score(data.evaluation, name, score) for name in (data.own_method, "sft"))
    return own, sft
