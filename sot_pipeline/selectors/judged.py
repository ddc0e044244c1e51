"""Each row judged by itself: how helpful its answer is, or how likely it is harmful."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from sot_pipeline.errors import InputError
from sot_pipeline.evaluation.judge import Judge
from sot_pipeline.rendering import Conversation
from sot_pipeline.selectors.turns import exchange

_LEAST = 1e-300  # probabilities of exactly 0 and 1 have no log-odds
_MOST = np.nextafter(1.0, 0.0)

Grade = float | None


class Judged(NamedTuple):
    """Log-weights, and the rows without a verdict or an answer, which rank last together."""

    log_weights: Float[np.ndarray, " n"]
    num_unreadable: int


class HarmClassifier(Protocol):
    """What `guard_scores` needs, as `evaluation.classifier_judge` has it."""

    def probabilities(
        self, prompts: Sequence[Conversation], answers: Sequence[str]
    ) -> list[float | None]: ...


def judge_scores(judge: Judge, conversations: Sequence[Conversation]) -> Judged:
    """A judge's grade of each row's own answer, 1 to 5.

    Source: AlpaGasus (Chen et al., ICLR 2024, arXiv 2307.08701), which keeps the rows that a
    language model grades 4.5 or more. It asks about quality, and a harmful answer may well have
    that. Grades are few: ties are many, and whoever cuts among them cuts by row order.

    Raises:
        InputError: The judge does not judge "help", or gave no verdict at all.
    """
    return _judged(lambda prompts, answers: judge.judge(prompts, answers, "help"), conversations)


def guard_scores(classifier: HarmClassifier, conversations: Sequence[Conversation]) -> Judged:
    """Minus the log-odds of harm, nats, by any sequence classifier.

    Raises:
        InputError: It gave no number at all.
    """
    return _judged(classifier.probabilities, conversations, _log_odds_of_safe)


def _log_odds_of_safe(probabilities: np.ndarray) -> np.ndarray:
    p = np.clip(probabilities, _LEAST, _MOST)
    return np.log1p(-p) - np.log(p)


def _judged(
    ask: Callable[[Sequence[Conversation], Sequence[str]], list[Grade]],
    conversations: Sequence[Conversation],
    scale: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Judged:
    exchanges = {i: found for i, row in enumerate(conversations) if (found := exchange(row))}
    verdicts = ask(
        [found.prompt for found in exchanges.values()],
        [found.answer for found in exchanges.values()],
    )
    grades = {i: v for i, v in zip(exchanges, verdicts, strict=True) if v is not None}
    if not grades:
        raise InputError(
            f"none of the {len(conversations)} rows has a verdict that could be read "
            f"({len(exchanges)} have a prompt and an answer). Look at the judge's answers, or "
            "choose another judge."
        )
    scores = scale(np.array(list(grades.values()), dtype=np.float64))
    log_weights = np.full(len(conversations), scores.min() - 1.0)
    log_weights[list(grades)] = scores
    return Judged(log_weights, len(conversations) - len(grades))
