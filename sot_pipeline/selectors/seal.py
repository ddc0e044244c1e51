"""SEAL: row weights that make a model, fine-tuned with them, good on safe data.

    min over w   L_safe(theta(w))     with theta(w) = argmin over theta of sum_i softmax(w)_i l_i(theta)

by the memory-efficient penalty form, one joint loop over an adapter theta and log-weights w:

    theta  descends   alpha L_safe + (1 - alpha) mean over the batch of n softmax(w)_i l_i
    w      descends   mean over the batch of n softmax(w)_i l_i,      l_i held fixed

with l_i the mean loss of row i's answer tokens and alpha 1 in the first epoch, a little less in
each later one. The model follows the safe data, and rows that it then finds unlikely are pushed
down.

Source: Shen, Chen, Das, Chen, "SEAL: Safety-enhanced Aligned LLM Fine-tuning via Bilevel Data
Selection" (ICLR 2025, arXiv 2410.07471), and what its public code does (hanshen95/SEAL).

What differs, and why:

* A row's weight belongs to its position in the given list. The code numbers rows after a length
  filter and selects by numbers before it.
* Every custom row is seen once an epoch, the safe rows as often as needed. The code ends an epoch
  with the shorter of the two sets.
* `optimizer` "mirror" moves a seen row by its loss less its batch's mean and no other row. The
  paper's "adam" divides each weight's gradient by its own size: what remains is how often and how
  lately a row was seen, far more than how large its loss was. On the demo's world, one epoch, the
  AUROC of harmful rows against refusals is 1.00 with "mirror" and 0.75 with "adam".
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.batching import micro_batches
from sot_pipeline.finetuning.loop import BETAS, remove_dropout
from sot_pipeline.finetuning.lora import add_lora
from sot_pipeline.finetuning.rows import Rows
from sot_pipeline.language_model import load_language_model
from sot_pipeline.rendering import Conversation
from sot_pipeline.selectors.answer_losses import (
    Learnable,
    learnable_rows,
    precision,
    row_losses,
)

_INITIAL = 0.1  # of each log-weight, as in the code; only differences count
_RATES = {"mirror": 0.1, "adam": 5e-3}


@dataclass(frozen=True)
class SealRecipe:
    """LoRA, both optimisers, batches; the defaults are the paper's for an 8B model but `optimizer`.

    Attributes:
        learning_rate: Of the adapter (AdamW, constant).
        optimizer: Of the log-weights: "mirror" or "adam" (of all rows in each step, as the paper).
        weight_learning_rate: Of the log-weights; None: 0.1 for "mirror", which only scales them
            as long as they stay small, 0.005 for "adam".
        safe_share_decay: What alpha loses with each epoch.
        batch_size: Rows per step, of each set; at least 2, so that a batch has a mean.
        micro_batch_size: Rows per forward pass; does not change the result, only the memory.
        max_length: Tokens; longer rows lose their beginning, never their answer.
    """

    rank: int = 16
    lora_alpha: int = 16
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    learning_rate: float = 1e-5
    optimizer: Literal["mirror", "adam"] = "mirror"
    weight_learning_rate: float | None = None
    safe_share_decay: float = 0.03
    num_epochs: int = 3
    batch_size: int = 64
    micro_batch_size: int = 8
    max_length: int = 2048
    max_gradient_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in _RATES:
            raise InputError(f"optimizer is {self.optimizer!r}; expected 'mirror' or 'adam'")
        if self.batch_size < 2 or self.num_epochs < 1:
            raise InputError(
                f"batch_size={self.batch_size}, num_epochs={self.num_epochs}; expected at least 2 "
                "rows a step and one epoch"
            )


class SealResult(NamedTuple):
    """What was learnt of each row.

    Attributes:
        log_weights: By position in the given list; rows without an answer rank last.
        custom_losses: Nats, as each row was met; NaN for rows without an answer.
        safe_losses: Mean of the step's safe rows, nats.
        num_truncated: Custom rows that were cut to the longest length.
        num_without_answer: Custom rows without a token to learn.
    """

    log_weights: Float[np.ndarray, " n"]
    custom_losses: Float[np.ndarray, "epochs n"]
    safe_losses: Float[np.ndarray, " steps"]
    num_truncated: int
    num_without_answer: int


def seal(
    base: str | Path,
    custom: Sequence[Conversation],
    safe: Sequence[Conversation],
    recipe: SealRecipe = SealRecipe(),
    *,
    base_revision: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SealResult:
    """Learn one log-weight per custom row together with an adapter that is thrown away.

    Args:
        base: Directory or Hugging Face id of the model that is to be fine-tuned.
        safe: Rows with answers; any number, none of them from an evaluation set.
        progress: Called as (steps done, steps in all).

    Returns:
        `SealResult`. On a CPU the same arguments give the same numbers.

    Raises:
        InputError: no answers to learn from, unknown target modules, a
            loss that is not finite.
    """
    lm = load_language_model(base, revision=base_revision)
    rows = learnable_rows("custom", lm.tokenizer, custom, recipe.max_length)
    model = add_lora(
        lm.model,
        rank=recipe.rank,
        lora_alpha=recipe.lora_alpha,
        target_modules=recipe.target_modules,
        seed=recipe.seed,
        base_revision=lm.revision,
    )
    remove_dropout(model)
    model.eval()
    safe_rows = learnable_rows("safe", lm.tokenizer, safe, recipe.max_length).rows
    learner = _Learner(model, rows.rows, safe_rows, recipe)
    custom_losses, safe_losses = learner.run(progress)
    return SealResult(
        _at_positions(learner.log_weights, rows, len(custom)),
        _spread(custom_losses, rows, len(custom)),
        safe_losses,
        rows.rows.num_truncated,
        len(custom) - len(rows.positions),
    )


class _Learner:
    """The joint loop over adapter and log-weights; numbers rows as `custom` does."""

    def __init__(self, model: torch.nn.Module, custom: Rows, safe: Rows, recipe: SealRecipe):
        self._model, self._custom, self._safe, self._recipe = model, custom, safe, recipe
        self._device = next(model.parameters()).device
        self._learnt = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._learnt, lr=recipe.learning_rate, betas=BETAS, weight_decay=0.0
        )
        start = torch.full((len(custom.weights),), _INITIAL, dtype=torch.float64)
        self._log_weights = start.requires_grad_(recipe.optimizer == "adam")
        self._rate = recipe.weight_learning_rate or _RATES[recipe.optimizer]
        if recipe.optimizer == "adam":
            self._weight_optimizer = torch.optim.Adam([start], lr=self._rate, betas=BETAS)

    @property
    def log_weights(self) -> Float[np.ndarray, " rows"]:
        return self._log_weights.detach().numpy().copy()

    def run(self, progress: Callable[[int, int], None] | None) -> tuple[np.ndarray, np.ndarray]:
        """Losses of the custom rows [epochs, rows] and of the safe batches [steps]."""
        recipe, num_rows = self._recipe, len(self._custom.weights)
        rng = np.random.default_rng(recipe.seed)
        safe_batches = _endless(len(self._safe.weights), recipe.batch_size, rng)
        num_batches = math.ceil(num_rows / recipe.batch_size)
        custom_losses, safe_losses = np.full((recipe.num_epochs, num_rows), np.nan), []
        for epoch in range(recipe.num_epochs):
            alpha = max(0.0, 1.0 - epoch * recipe.safe_share_decay)
            for chosen in np.array_split(rng.permutation(num_rows), num_batches):
                safe_losses.append(self._follow_safe(next(safe_batches), alpha))
                custom_losses[epoch, chosen] = losses = self._follow_custom(chosen, alpha)
                if not np.isfinite([safe_losses[-1], *losses]).all():
                    raise InputError(
                        f"step {len(safe_losses)}: a loss is not finite. Lower the learning rate "
                        f"({recipe.learning_rate}), or load the model in float32."
                    )
                self._update(chosen, losses)
                if progress:
                    progress(len(safe_losses), recipe.num_epochs * num_batches)
        return custom_losses, np.array(safe_losses)

    def _follow_safe(self, chosen: Int[np.ndarray, " batch"], alpha: float) -> float:
        """Add alpha times the safe rows' gradient; their mean loss."""
        losses = self._backward(self._safe, chosen, np.full(len(chosen), alpha / len(chosen)))
        return float(losses.mean())

    def _follow_custom(
        self, chosen: Int[np.ndarray, " batch"], alpha: float
    ) -> Float[np.ndarray, " batch"]:
        """Add (1 - alpha) times the weighted custom rows' gradient; the loss of each."""
        shares = torch.softmax(self._log_weights.detach(), dim=0).numpy()[chosen] * len(
            self._log_weights
        )
        return self._backward(self._custom, chosen, (1 - alpha) * shares / len(chosen))

    def _backward(
        self, rows: Rows, chosen: np.ndarray, per_row: Float[np.ndarray, " batch"]
    ) -> Float[np.ndarray, " batch"]:
        losses, place = np.empty(len(chosen)), {row: k for k, row in enumerate(chosen.tolist())}
        needed = bool(per_row.any())  # in the first epoch custom rows are only looked at
        for part in micro_batches(chosen, rows.lengths, self._recipe.micro_batch_size):
            at = [place[row] for row in part.tolist()]
            with torch.set_grad_enabled(needed), precision(self._device):
                part_losses = row_losses(self._model, rows, part)
            if needed:
                (part_losses * torch.as_tensor(per_row[at]).to(part_losses)).sum().backward()
            losses[at] = part_losses.detach().double().cpu().numpy()
        return losses

    def _update(self, chosen: Int[np.ndarray, " batch"], losses: np.ndarray) -> None:
        torch.nn.utils.clip_grad_norm_(self._learnt, self._recipe.max_gradient_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        fixed, index = torch.as_tensor(losses), torch.as_tensor(chosen)
        if self._recipe.optimizer == "mirror":
            self._log_weights[index] -= self._rate * (fixed - fixed.mean())
            return
        shares = len(self._log_weights) * torch.softmax(self._log_weights, dim=0)
        self._weight_optimizer.zero_grad()
        (shares[index] * fixed).mean().backward()
        self._weight_optimizer.step()


def _endless(num_rows: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches of a set, over and over, each time in another order."""
    while True:
        order = rng.permutation(num_rows)
        yield from np.array_split(order, math.ceil(num_rows / batch_size))


def _at_positions(values: np.ndarray, rows: Learnable, num_rows: int) -> np.ndarray:
    everywhere = np.full(num_rows, values.min() - 1.0)
    everywhere[rows.positions] = values
    return everywhere


def _spread(losses: np.ndarray, rows: Learnable, num_rows: int) -> np.ndarray:
    everywhere = np.full((len(losses), num_rows), np.nan)
    everywhere[:, rows.positions] = losses
    return everywhere
