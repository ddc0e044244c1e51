"""TOSS: each answer token under a model of the safe set and one of the harmful set.

    token score = nll_safe - nll_harmful            high: the token sounds like the harmful set

Two LoRA adapters of the same base learn one set each. The tokens that score highest over the whole
custom set are left out of training; as a selector of rows, a row weighs minus its mean score.

Source: TOSS (ICLR 2026, arXiv 2603.01185), with the safe reference as its "utility" set; it drops
a tenth of the tokens. How long the two models learn is ours. Its TOSS-Pro, which repeats this with
references trained on what was kept, is not here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.batching import padded
from sot_pipeline.finetuning.recipe import Recipe
from sot_pipeline.finetuning.train import finetune_lora
from sot_pipeline.language_model import load_language_model
from sot_pipeline.rendering import Conversation
from sot_pipeline.selectors.answer_losses import (
    Learnable,
    learnable_rows,
    precision,
    token_losses,
)


@dataclass(frozen=True)
class TossRecipe:
    """How both reference models learn; the words are those of `finetuning.recipe.Recipe`.

    Attributes:
        micro_batch_size: Rows per forward pass, in training and in scoring.
        max_length: Tokens; to train on `kept_tokens` of the result, use the same there.
    """

    rank: int = 16
    lora_alpha: int = 16
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    learning_rate: float = 1e-4
    num_epochs: float = 3.0
    batch_size: int = 16
    micro_batch_size: int = 8
    max_length: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"rank": 1, "batch_size": 1, "micro_batch_size": 1, "max_length": 2}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {lowest}")
        if not (self.num_epochs > 0 and self.learning_rate > 0):
            raise InputError(
                f"num_epochs={self.num_epochs}, learning_rate={self.learning_rate}; expected "
                "numbers above 0"
            )

    def training(self, num_rows: int) -> Recipe:
        """For a set of so many rows: a step never counts more than there are."""
        fields: dict[str, Any] = dict(vars(self))
        fields["batch_size"] = max(1, min(self.batch_size, num_rows))
        return Recipe(**fields)


class TossResult(NamedTuple):
    """Scores of rows and of tokens.

    Attributes:
        log_weights: Minus the mean score of a row's tokens, nats.
        token_scores: Of each row, one per answer token as fine-tuning finds them; empty where a
            row has none. Such rows rank last.
        num_truncated: Rows that were cut to the longest length.
        num_without_answer: Rows without a token to score.
    """

    log_weights: Float[np.ndarray, " n"]
    token_scores: list[Float[np.ndarray, " answer_tokens"]]
    num_truncated: int
    num_without_answer: int


def toss(
    base: str | Path,
    custom: Sequence[Conversation],
    safe: Sequence[Conversation],
    harmful: Sequence[Conversation],
    recipe: TossRecipe = TossRecipe(),
    *,
    base_revision: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TossResult:
    """Train the two reference models and score every answer token of the custom rows.

    Args:
        base: Directory or Hugging Face id of the model that is to be fine-tuned.
        safe, harmful: Rows with answers, none of them from an evaluation set.
        progress: Called as (rows done, rows in all), training and scoring together.

    Returns:
        `TossResult`. On a CPU the same arguments give the same numbers.

    Raises:
        InputError: a reference row without an answer, custom rows without any.
    """
    learnt = _rows_to_learn(safe, recipe) + _rows_to_learn(harmful, recipe)
    work = _Work(progress, learnt + 2 * len(custom))
    found = []
    for name, rows in (("safe", safe), ("harmful", harmful)):
        with TemporaryDirectory(prefix="toss-") as folder:
            adapter = Path(folder) / name
            _learn(base, name, rows, adapter, recipe, base_revision, work)
            found.append(_losses(base, adapter, custom, recipe, base_revision, work))
    (scored, safe_nll), (_, harmful_nll) = found
    token_scores = [np.zeros(0, dtype=np.float32) for _ in custom]
    for position, one, other in zip(scored.positions, safe_nll, harmful_nll, strict=True):
        token_scores[position] = one - other
    work.advance(work.total - work.done)  # rows without an answer were passed over
    return TossResult(
        _row_weights(token_scores),
        token_scores,
        scored.rows.num_truncated,
        len(custom) - len(scored.positions),
    )


def kept_tokens(
    token_scores: Sequence[Float[np.ndarray, " answer_tokens"]], drop_fraction: float = 0.1
) -> list[Bool[np.ndarray, " answer_tokens"]]:
    """Which tokens to train on, for `finetune_lora`: all but the highest scores of the whole set.

    Args:
        drop_fraction: Of all tokens, in [0, 1); rounded down. Of equal scores the later goes.

    Raises:
        InputError: a share out of range, scores that are not finite.
    """
    if not 0 <= drop_fraction < 1:
        raise InputError(f"drop_fraction={drop_fraction}; expected a share in [0, 1)")
    lengths = [len(row) for row in token_scores]
    scores = np.concatenate([np.zeros(0), *token_scores])
    if not np.isfinite(scores).all():
        raise InputError("token scores that are not finite cannot be ranked")
    kept = np.ones(len(scores), dtype=bool)
    num_dropped = math.floor(drop_fraction * len(scores) + 1e-9)
    kept[np.argsort(scores, kind="stable")[len(scores) - num_dropped :]] = False
    return np.split(kept, np.cumsum(lengths)[:-1]) if lengths else []


def _row_weights(token_scores: list[np.ndarray]) -> Float[np.ndarray, " n"]:
    means = np.array([row.mean(dtype=np.float64) if len(row) else np.nan for row in token_scores])
    return np.where(np.isnan(means), -np.nanmax(means) - 1.0, -means)


class _Work:
    """Rows done, in training and in scoring, told as they are."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self.total, self.done = progress, total, 0

    def advance(self, rows: int) -> None:
        self.done += rows
        if self._progress and rows:
            self._progress(self.done, self.total)


def _rows_to_learn(rows: Sequence[Conversation], recipe: TossRecipe) -> int:
    training = recipe.training(len(rows))
    return training.steps_for(len(rows)) * training.batch_size


def _learn(
    base: str | Path,
    name: str,
    rows: Sequence[Conversation],
    adapter: Path,
    recipe: TossRecipe,
    revision: str | None,
    work: _Work,
) -> None:
    training = recipe.training(len(rows))
    try:
        finetune_lora(
            base,
            rows,
            np.ones(len(rows)),
            adapter,
            training,
            base_revision=revision,
            on_step=lambda _: work.advance(training.batch_size),
        )
    except InputError as error:
        raise InputError(f"the model of the {name} reference cannot be trained: {error}") from None


@torch.inference_mode()
def _losses(
    base: str | Path,
    adapter: Path,
    custom: Sequence[Conversation],
    recipe: TossRecipe,
    revision: str | None,
    work: _Work,
) -> tuple[Learnable, list[np.ndarray]]:
    """Loss of each answer token of the learnable rows, nats, float32, in their order."""
    lm = load_language_model(base, revision=revision, adapter=adapter)
    scored = learnable_rows("custom", lm.tokenizer, custom, recipe.max_length)
    losses = [np.zeros(0, dtype=np.float32) for _ in scored.positions]
    order = np.argsort(-scored.rows.lengths, kind="stable")
    for part in np.array_split(order, math.ceil(len(order) / recipe.micro_batch_size)):
        batch = padded(scored.rows, part)
        with precision(lm.device):
            nll = token_losses(lm.model, batch).cpu().numpy()
        for i, row, learnt in zip(part, nll, (batch.row_of >= 0).numpy(), strict=True):
            losses[i] = row[learnt].astype(np.float32)
        work.advance(len(part))
    return scored, losses
