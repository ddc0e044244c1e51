"""The rows of a training set as tokens, with what each is worth."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
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
    kept_tokens: Sequence[Bool[np.ndarray, " answer_tokens"]] | None = None,
) -> Rows:
    """Tokens and answer masks of conversations.

    Args:
        kept_tokens: Which of each row's answer tokens to learn, at least one a row; the others
            are only read. None: all.

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
        if kept_tokens is not None:
            _keep(mask, kept_tokens[index], index)
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


def _keep(mask: Bool[Tensor, " tokens"], kept: np.ndarray, index: int) -> None:
    answers = mask.nonzero().squeeze(1)
    if len(kept) != len(answers):
        raise InputError(
            f"row {index}: kept_tokens speaks of {len(kept)} answer tokens, the row has "
            f"{len(answers)}. Score its tokens with the same model, tokenizer and max_length as "
            "they are learnt with."
        )
    mask[answers] = torch.as_tensor(kept, dtype=torch.bool)


def drop_weightless(
    conversations: Sequence[Conversation],
    weights: np.ndarray,
    kept_tokens: Sequence[np.ndarray] | None = None,
) -> tuple[list[Conversation], Float[np.ndarray, " rows"], list[np.ndarray] | None]:
    """Conversations of a weight above zero, their weights, and their kept tokens if given.

    A row that keeps no token is as one of weight zero.

    Raises:
        InputError: weights or kept tokens that do not fit, or no row left.
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
    if kept_tokens is not None:
        weights = np.where(_keeps_any(kept_tokens, len(conversations)), weights, 0.0)
    kept = np.flatnonzero(weights).tolist()
    if not kept:
        also = "" if kept_tokens is None else " and a token that is kept"
        raise InputError(
            f"none of the {len(conversations)} rows has a weight above 0{also}: there is nothing "
            "to learn"
        )
    tokens = None if kept_tokens is None else [np.asarray(kept_tokens[i]) for i in kept]
    return [conversations[i] for i in kept], weights[kept], tokens


def _keeps_any(kept_tokens: Sequence[np.ndarray], num_rows: int) -> Bool[np.ndarray, " rows"]:
    masks = [np.asarray(row) for row in kept_tokens]
    if len(masks) != num_rows:
        raise InputError(f"got {num_rows} conversations and kept_tokens for {len(masks)} of them")
    for index, mask in enumerate(masks):
        if mask.ndim != 1 or (mask.size and mask.dtype != bool):
            raise InputError(
                f"kept_tokens of row {index} are {mask.dtype} of shape {mask.shape}; expected one "
                "True or False for each of its answer tokens"
            )
    return np.array([mask.any() for mask in masks], dtype=bool)


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
