"""The loss of each answer token, and of each row, of a model that is being looked through."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.batching import Batch, padded
from sot_pipeline.finetuning.loss import kept_logits
from sot_pipeline.finetuning.rows import Rows, tokenize
from sot_pipeline.rendering import Conversation


class Learnable(NamedTuple):
    """The rows with answer tokens, and the position of each in the list they came from.

    Positions, not numbers of what is left, name a row everywhere: a row that falls out must not
    move the others' weights.
    """

    rows: Rows
    positions: Int[np.ndarray, " rows"]


def learnable_rows(
    name: str, tokenizer: Any, conversations: Sequence[Conversation], max_length: int
) -> Learnable:
    """Tokenise a set; rows without an answer, or with nothing before it, are left out.

    Args:
        name: Of the set, for messages.
        max_length: Tokens; longer rows lose their beginning, never their answer.

    Raises:
        InputError: a row with an answer that the chat template cannot take, or no row at all.
    """
    fits = [_has_answer(row) or _can_be_learnt(tokenizer, row, max_length) for row in conversations]
    positions = np.flatnonzero(fits)
    if not len(positions):
        raise InputError(
            f"none of the {len(conversations)} {name} rows has a prompt and an answer to learn from"
        )
    chosen = [conversations[i] for i in positions.tolist()]
    try:
        rows = tokenize(tokenizer, chosen, np.ones(len(chosen)), max_length)
    except InputError as error:
        raise InputError(
            f"{name} rows, counted without those that have no answer: {error}"
        ) from None
    return Learnable(rows, positions)


def _has_answer(conversation: Conversation) -> bool:
    return any(
        turn["role"] == "assistant" and turn.get("train", True) and turn["content"].strip()
        for turn in conversation[1:]
    )


def _can_be_learnt(tokenizer: Any, conversation: Conversation, max_length: int) -> bool:
    """An empty answer still has an end token to learn, in most templates."""
    try:
        tokenize(tokenizer, [conversation], np.ones(1), max_length)
    except InputError:
        return False
    return True


def token_losses(model: torch.nn.Module, batch: Batch) -> Float[Tensor, "lines kept"]:
    """Loss at each kept position, nats, float32; 0 where nothing is learnt."""
    logits = kept_logits(model, batch)
    targets = batch.targets.to(logits.device)
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), reduction="none"
    ).view_as(targets)
    return torch.where(batch.row_of.to(logits.device) >= 0, nll, 0.0)


def row_losses(
    model: torch.nn.Module, rows: Rows, chosen: Int[np.ndarray, " chosen"]
) -> Float[Tensor, " chosen"]:
    """Mean loss over each row's answer tokens, nats."""
    sums = token_losses(model, padded(rows, chosen)).sum(dim=1)
    return sums / torch.as_tensor(rows.num_answer_tokens[chosen]).to(sums)


def precision(device: torch.device) -> AbstractContextManager:
    """As fine-tuning computes: bfloat16 on a GPU, float32 elsewhere."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
