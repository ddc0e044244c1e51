"""How likely a model finds the right answers: usefulness that needs no judge, and still tells
models apart when all of them answer rightly."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from sot_pipeline.errors import InputError
from sot_pipeline.evaluation.batches import run_halving
from sot_pipeline.language_model import Conversation, LanguageModel
from sot_pipeline.rendering import RenderedConversation, render_with_answer_mask

# Padded tokens of a forward pass: the logits of that many answer tokens take 2 GB in bfloat16 at a
# vocabulary of 128,000
_TOKENS = 8_192
_FLOAT_TOKENS = 256  # of them in float32 at once


@torch.inference_mode()
def reference_losses(
    lm: LanguageModel,
    prompts: Sequence[Conversation],
    references: Sequence[str],
    *,
    batch_size: int,
) -> list[float | None]:
    """Mean loss of each prompt's reference answer, its end token included, nats per token.

    Args:
        prompts: Conversations that end with the turn to answer; earlier answers are read, not
            scored.

        batch_size: Most prompts at once; fewer where they are long, and halved where memory runs
            out.

    Returns:
        None for a prompt that does not fit the model's context with its reference, or an empty
        reference.
    """
    rendered = (_rendered(lm, *pair) for pair in zip(prompts, references, strict=True))
    rows = {place: row for place, row in enumerate(rendered) if row is not None}
    losses: list[float | None] = [None] * len(prompts)
    batches = _batches({place: len(row.token_ids) for place, row in rows.items()}, batch_size)
    for places, found in run_halving(
        batches, lambda places: _losses(lm, [rows[p] for p in places])
    ):
        for place, loss in zip(places, found, strict=True):
            losses[place] = loss
    return losses


def _batches(lengths: dict[int, int], batch_size: int) -> Iterator[list[int]]:
    """Rows of similar length; the longest first: if memory runs out, it does so at once."""
    order = sorted(lengths, key=lambda row: (-lengths[row], row))
    start = 0
    while start < len(order):
        size = max(1, min(batch_size, _TOKENS // lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _rendered(
    lm: LanguageModel, prompt: Conversation, reference: str
) -> RenderedConversation | None:
    answered = [
        *({**turn, "train": False} if turn["role"] == "assistant" else turn for turn in prompt),
        {"role": "assistant", "content": reference},
    ]
    try:
        row = render_with_answer_mask(lm.tokenizer, answered)
    except InputError:  # nothing to score, or a template that cannot take it
        return None
    context = getattr(lm.model.config.get_text_config(), "max_position_embeddings", None)
    return None if context is not None and len(row.token_ids) > context else row


def _losses(lm: LanguageModel, rows: list[RenderedConversation]) -> list[float]:
    longest = max(len(row.token_ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    attended, scored = torch.zeros_like(ids), torch.zeros(ids.shape, dtype=torch.bool)
    for line, row in enumerate(rows):
        length = len(row.token_ids)
        ids[line, :length] = torch.tensor(row.token_ids)
        scored[line, :length] = torch.tensor(row.is_answer, dtype=torch.bool)
        attended[line, :length] = 1
    predicts = scored[:, 1:]
    kept = predicts.any(0).nonzero()[:, 0]
    logits = _logits(lm, ids.to(lm.device), attended.to(lm.device), kept.to(lm.device))
    losses = []
    for line, own in enumerate(predicts):
        places = own[kept].nonzero()[:, 0].to(lm.device)
        losses.append(_mean_loss(logits[line], places, ids[line, 1:][own].to(lm.device)))
    return losses


def _logits(
    lm: LanguageModel,
    ids: Int[Tensor, "rows tokens"],
    attended: Int[Tensor, "rows tokens"],
    kept: Int[Tensor, " kept"],
) -> Float[Tensor, "rows kept vocabulary"]:
    """Logits at the positions that predict an answer token of one of the rows: those of a whole
    prompt can be the largest array of all."""
    model: Any = lm.model
    inputs = {"input_ids": ids, "attention_mask": attended, "use_cache": False}
    forward = getattr(model, "get_base_model", lambda: model)().forward  # of a peft model
    if "logits_to_keep" in inspect.signature(forward).parameters:
        return model(**inputs, logits_to_keep=kept).logits
    return model(**inputs).logits[:, kept]


def _mean_loss(
    logits: Float[Tensor, "kept vocabulary"],
    places: Int[Tensor, " answer"],
    targets: Int[Tensor, " answer"],
) -> float:
    """Nats per token, in float32 slice by slice."""
    total = torch.zeros((), device=logits.device)
    for start in range(0, len(places), _FLOAT_TOKENS):
        part = slice(start, start + _FLOAT_TOKENS)
        total += cross_entropy(logits[places[part]].float(), targets[part], reduction="sum")
    return (total / len(places)).item()
