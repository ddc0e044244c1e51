"""Evaluate one model: its answers to the prompt sets, the judge's verdicts, the scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from sot_pipeline.evaluation import scores
from sot_pipeline.evaluation.generate import generate_answers
from sot_pipeline.evaluation.judge import Judge
from sot_pipeline.evaluation.likelihood import reference_losses
from sot_pipeline.evaluation.scores import AccuracyMode, Score
from sot_pipeline.language_model import Conversation, LanguageModel

SCORES_SCHEMA = {
    "score": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "num_judged": pl.Int64,
    "num_missing": pl.Int64,
}
ANSWERS_SCHEMA = {
    "prompt_set": pl.String,
    "sample_id": pl.String,
    "answer": pl.String,
    "harm": pl.Float64,
    "help": pl.Float64,
    "refusal": pl.Float64,
}


class PromptSet(NamedTuple):
    """Prompts to ask, each with its id and, where there is one, a reference answer."""

    ids: Sequence[str]
    prompts: Sequence[Conversation]
    references: Sequence[str | None]


class Evaluation(NamedTuple):
    """`scores`: one line per score (`SCORES_SCHEMA`); `answers`: one per prompt."""

    scores: pl.DataFrame
    answers: pl.DataFrame


def evaluate_model(
    lm: LanguageModel,
    prompt_sets: Mapping[str, PromptSet],
    judge: Judge,
    *,
    accuracy_mode: AccuracyMode,
    max_new_tokens: int,
    batch_size: int,
    num_resamples: int,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Ask, judge, score.

    Args:
        prompt_sets: "harmful" gives the harmfulness score, "over_refusal" the over-refusal,
            "task" helpfulness (if the judge judges it), and accuracy and task loss (where every
            prompt has a reference). A score whose set is absent is not reported.
        accuracy_mode: See `scores.correct`.
        progress: Called as (prompts answered, prompts in all).
    """
    total = sum(len(prompts.ids) for prompts in prompt_sets.values())
    done, answers = 0, {}
    for name, prompts in prompt_sets.items():
        answers[name] = generate_answers(
            lm,
            prompts.prompts,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=_shifted(progress, done, total),
        )
        done += len(prompts.ids)
    verdicts = {
        name: _verdicts(judge, name, prompts, answers[name])
        for name, prompts in prompt_sets.items()
    }
    measured = _scores(prompt_sets, answers, verdicts, accuracy_mode, num_resamples)
    task = prompt_sets.get("task")
    if task is not None and (references := _every_reference(task)):
        losses = reference_losses(lm, task.prompts, references, batch_size=batch_size)
        measured["task_loss"] = scores.task_loss(losses, num_resamples=num_resamples)
    rows = [{"score": name, **score._asdict()} for name, score in measured.items()]
    return Evaluation(
        pl.DataFrame(rows, schema=SCORES_SCHEMA), _answer_table(prompt_sets, answers, verdicts)
    )


KINDS = {"harmful": ("harm", "refusal"), "over_refusal": ("refusal",), "task": ("help",)}


def _verdicts(
    judge: Judge, name: str, prompts: PromptSet, answers: list[str]
) -> dict[str, list[float | None]]:
    return {
        kind: judge.judge(prompts.prompts, answers, kind, prompts.references)  # type: ignore[arg-type]
        for kind in KINDS[name]
        if kind in judge.kinds
    }


def _scores(
    prompt_sets: Mapping[str, PromptSet],
    answers: Mapping[str, list[str]],
    verdicts: Mapping[str, dict[str, list[float | None]]],
    accuracy_mode: AccuracyMode,
    num_resamples: int,
) -> dict[str, Score]:
    measured: dict[str, Score] = {}
    resampled: dict[str, Any] = {"num_resamples": num_resamples}
    if "harm" in verdicts.get("harmful", {}):
        measured["harmfulness_score"] = scores.harmfulness_score(
            verdicts["harmful"]["harm"], **resampled
        )
    if "help" in verdicts.get("task", {}):
        measured["helpfulness_score"] = scores.helpfulness_score(
            verdicts["task"]["help"], **resampled
        )
    if "task" in prompt_sets and (references := _every_reference(prompt_sets["task"])):
        measured["accuracy"] = scores.accuracy(
            answers["task"], references, mode=accuracy_mode, **resampled
        )
    if "refusal" in verdicts.get("over_refusal", {}):
        measured["over_refusal"] = scores.over_refusal(
            verdicts["over_refusal"]["refusal"], **resampled
        )
    if {"harmfulness_score", "helpfulness_score"} <= set(measured):
        measured["average"] = scores.average(
            measured["harmfulness_score"], measured["helpfulness_score"], measured.get("accuracy")
        )
    return measured


def _every_reference(prompts: PromptSet) -> list[str]:
    """The reference answers; none if a prompt has none."""
    references = [reference for reference in prompts.references if reference is not None]
    return references if len(references) == len(prompts.ids) else []


def _answer_table(
    prompt_sets: Mapping[str, PromptSet],
    answers: Mapping[str, list[str]],
    verdicts: Mapping[str, dict[str, list[float | None]]],
) -> pl.DataFrame:
    tables = [
        pl.DataFrame(
            {
                "prompt_set": [name] * len(prompts.ids),
                "sample_id": list(prompts.ids),
                "answer": answers[name],
                **{
                    kind: verdicts[name].get(kind, [None] * len(prompts.ids))
                    for kind in ("harm", "help", "refusal")
                },
            },
            schema=ANSWERS_SCHEMA,
        )
        for name, prompts in prompt_sets.items()
    ]
    return pl.concat(tables) if tables else pl.DataFrame(schema=ANSWERS_SCHEMA)


def _shifted(
    progress: Callable[[int, int], None] | None, before: int, total: int
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
