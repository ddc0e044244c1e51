"""The rows of a training set as tokens, with what each is worth."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sot_pipeline.errors import InputError
from sot_pipeline.rendering import Conversation, render_rows_with_answer_masks


class Rows(NamedTuple):
    """Tokenised conversations.

    Attributes:
        token_ids: Of each row, (tokens,), int64.
        is_answer: True on the tokens to learn, (tokens,), bool; at least one a row, never the
            first token, which nothing predicts.
        weights: Of each row, >= 0, any scale.
        lengths: Tokens of each row.
        num_answer_tokens: Tokens to learn of each row.
        num_truncated: Rows that were cut to the longest length.
    """

    token_ids: list[Tensor]
    is_answer: list[Tensor]
    weights: Float[np.ndarray, " rows"]
    lengths: Int[np.ndarray, " rows"]
    num_answer_tokens: Int[np.ndarray, " rows"]
    num_truncated: int


def tokenize(
    tokenizer: Any,
    conversations: Sequence[Conversation],
    weights: Float[np.ndarray, " rows"],
    max_length: int,
) -> Rows:
    """Tokens and answer masks of conversations.

    Raises:
        InputError: naming the row that cannot be learnt and why.
    """
    token_ids, is_answer, num_truncated = [], [], 0
    rendered = render_rows_with_answer_masks(tokenizer, conversations, max_length=max_length)
    for index, row in enumerate(rendered):
        mask = torch.tensor(row.is_answer)
        mask[0] = False  # no token comes before it
        if not mask.any():
            raise InputError(f"row {index}: nothing comes before the only token to learn")
        token_ids.append(torch.tensor(row.token_ids))
        is_answer.append(mask)
        num_truncated += row.num_cut > 0
    return Rows(
        token_ids,
        is_answer,
        weights,
        np.array([len(ids) for ids in token_ids]),
        np.array([int(mask.sum()) for mask in is_answer]),
        num_truncated,
    )


def drop_weightless(
    conversations: Sequence[Conversation], weights: np.ndarray
) -> tuple[list[Conversation], Float[np.ndarray, " rows"]]:
    """Conversations of a weight above zero, and their weights.

    Raises:
        InputError: weights that do not fit, or none above zero.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(conversations),):
        raise InputError(
            f"got {len(conversations)} conversations and weights of shape {weights.shape}; "
            "expected one weight per conversation"
        )
    wrong = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if len(wrong):
        raise InputError(
            f"weight of row {wrong[0]} is {weights[wrong[0]]} ({len(wrong)} such rows); expected "
            "finite numbers >= 0"
        )
    kept = np.flatnonzero(weights).tolist()
    if not kept:
        raise InputError(
            f"none of the {len(conversations)} rows has a weight above 0: there is nothing to learn"
        )
    return [conversations[i] for i in kept], weights[kept]


def first_rows(rows: Rows, count: int) -> Rows:
    """The first `count` of them, or all."""
    return Rows(
        rows.token_ids[:count],
        rows.is_answer[:count],
        rows.weights[:count],
        rows.lengths[:count],
        rows.num_answer_tokens[:count],
        rows.num_truncated,
    )


def identity(rows: Rows) -> str:
    """Hash of everything that rows bring into training."""
    digest = hashlib.blake2b(rows.weights.tobytes(), digest_size=16)
    for ids, answers in zip(rows.token_ids, rows.is_answer, strict=True):
        digest.update(ids.numpy().tobytes())
        digest.update(answers.numpy().tobytes())
    return digest.hexdigest()


def prompts_identity(prompts: Sequence[Tensor]) -> str:
    """Hash of prompts, their borders included."""
    digest = hashlib.blake2b(digest_size=16)
    for ids in prompts:
        digest.update(len(ids).to_bytes(8, "little"))
        digest.update(ids.numpy().tobytes())
    return digest.hexdigest()
