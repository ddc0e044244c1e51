"""Defences that only change which rows are learnt: safe rows among the task's own.

Rows are conversations with one weight each, as `train.finetune_lora` takes them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sot_pipeline.errors import InputError
from sot_pipeline.rendering import Conversation


class Mixed(NamedTuple):
    """Rows to learn: the task's own, then `num_added` safe ones."""

    conversations: list[Conversation]
    weights: Float[np.ndarray, " rows"]
    num_added: int


def with_demonstrations(
    conversations: Sequence[Conversation],
    weights: Float[np.ndarray, " rows"],
    demonstrations: Sequence[Conversation],
    *,
    share: float,
    seed: int,
) -> Mixed:
    """SafeInstr: demonstrations of safety among the rows, each of the rows' mean weight.

    Args:
        share: Of demonstrations among all rows, in (0, 1); 3 % in the paper. With fewer of them
            than that they are repeated, each as often as any other or once more.

    Raises:
        InputError: there is no demonstration, or the share is none.

    Source: Bianchi et al. (ICLR 2024), "Safety-Tuned LLaMAs".
    """
    if not demonstrations:
        raise InputError("safe_instr mixes demonstrations of safety in, and there is none")
    if not 0 < share < 1:
        raise InputError(f"the share of demonstrations is {share}; expected one between 0 and 1")
    chosen = spread(len(demonstrations), num_to_add(len(conversations), share), seed)
    added = [demonstrations[i] for i in chosen]
    return _appended(conversations, weights, added, float(np.mean(weights)))


def with_safe_rows(
    conversations: Sequence[Conversation],
    weights: Float[np.ndarray, " rows"],
    safe: Sequence[Conversation],
) -> Mixed:
    """The control of every method that knows a safe reference: learn its rows too, weight one."""
    return _appended(conversations, weights, safe, 1.0)


def num_to_add(num_rows: int, share: float) -> int:
    """Rows that are `share` of all once they are added; at least one."""
    return max(1, round(num_rows * share / (1 - share)))


def spread(population: int, count: int, seed: int) -> Int[np.ndarray, " count"]:
    """`count` places below `population`, no two of them more than once apart in frequency."""
    whole, rest = divmod(count, population)
    few = np.random.default_rng(seed).choice(population, rest, replace=False)
    return np.concatenate([np.tile(np.arange(population), whole), np.sort(few)])


def _appended(
    conversations: Sequence[Conversation],
    weights: np.ndarray,
    added: Sequence[Conversation],
    weight: float,
) -> Mixed:
    return Mixed(
        [*conversations, *added],
        np.concatenate([np.asarray(weights, dtype=np.float64), np.full(len(added), weight)]),
        len(added),
    )
