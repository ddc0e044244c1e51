"""Answers of a model: greedy, in batches of prompts of similar length, with a key-value cache."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from sot_pipeline.errors import InputError
from sot_pipeline.evaluation.batches import run_halving
from sot_pipeline.language_model import (
    Conversation,
    LanguageModel,
    render,
    render_with_answer_mask,
)


@torch.inference_mode()
def generate_answers(
    lm: LanguageModel,
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """The model's greedy answer to each conversation, as text without special tokens.

    Plain greedy decoding: penalties and sampling that the model's generation config asks for
    are left aside, so that answers of different models are comparable. An answer ends with
    any end token of the model, the tokenizer or the chat template.

    Args:
        lm: The model; its answers do not depend on how prompts are batched, up to rounding.
        conversations: Each ends with the turn to answer.
        max_new_tokens: Longest answer in tokens; less where the model's context ends.
        batch_size: Prompts at once; halved where memory runs out.
        progress: Called as (prompts done, prompts in all).

    Raises:
        InputError: A conversation that the template refuses, or that fills the context.
    """
    prompts = [render(lm.tokenizer, turns, add_generation_prompt=True) for turns in conversations]
    room = _room(lm, prompts, max_new_tokens)
    # The longest first: if memory runs out, it does so at once.
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), row))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    answers = [""] * len(prompts)
    done = 0

    def generate(rows: Sequence[int]) -> list[list[int]]:
        return _generate(lm, [prompts[row] for row in rows], [room[row] for row in rows])

    for rows, generated in run_halving(batches, generate):
        for row, ids in zip(rows, generated, strict=True):
            answers[row] = _decode(lm, ids)
        done += len(rows)
        if progress:
            progress(done, len(prompts))
    return answers


def end_tokens(lm: LanguageModel) -> set[int]:
    """Ids that end an answer: of the model, of the tokenizer, and of the chat template.

    A base model's own end token is not the one that its chat template closes a turn with;
    an adapter trained on the template has learnt the latter.
    """
    generation: Any = lm.model.generation_config
    configured = generation.eos_token_id if generation else None
    ends = {*(configured if isinstance(configured, list) else [configured])}
    ends.add(lm.tokenizer.eos_token_id)
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
    rendered = render_with_answer_mask(lm.tokenizer, probe)
    last = max(i for i, is_answer in enumerate(rendered.is_answer) if is_answer)
    if rendered.token_ids[last] in lm.tokenizer.added_tokens_decoder:  # else it is ordinary text
        ends.add(rendered.token_ids[last])
    return {end for end in ends if end is not None}


def _room(lm: LanguageModel, prompts: list[list[int]], max_new_tokens: int) -> list[int]:
    """How many tokens each answer may have."""
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}: at least one token is needed.")
    config = lm.model.config.get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    if context is None:
        return [max_new_tokens] * len(prompts)
    for i, prompt in enumerate(prompts):
        if len(prompt) >= context:
            raise InputError(
                f"Evaluation prompt {i + 1} has {len(prompt):,} tokens, the model reads {context:,} "
                "with its answer. Shorten or remove it."
            )
    return [min(max_new_tokens, context - len(prompt)) for prompt in prompts]


def _generate(lm: LanguageModel, prompts: list[list[int]], room: list[int]) -> list[list[int]]:
    """Token ids of the answers to one batch, without their end tokens."""
    model = getattr(lm.model, "get_base_model", lambda: lm.model)()  # of a peft model
    ends, answers = end_tokens(lm), [[] for _ in prompts]
    takes = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
    ids, mask = _pad_left(prompts, lm.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    rows, alive = list(range(len(prompts))), set(range(len(prompts)))
    while True:
        if "position_ids" in takes:
            options["position_ids"] = positions
        logits = model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options
        ).logits
        chosen = logits[:, -1].argmax(-1)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            if row in alive and token not in ends:
                answers[row].append(token)
            if token in ends or len(answers[row]) >= room[row]:
                alive.discard(row)
        if not alive:
            return answers
        positions = positions[:, -1:] + 1
        if len(alive) <= 0.75 * len(rows):  # answers that ended no longer cost anything
            kept = torch.tensor([i for i, row in enumerate(rows) if row in alive], device=lm.device)
            cache.batch_select_indices(kept)
            mask, positions, chosen = mask[kept], positions[kept], chosen[kept]
            rows = [row for row in rows if row in alive]
        ids = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)


def _decode(lm: LanguageModel, token_ids: list[int]) -> str:
    text = lm.tokenizer.decode(token_ids, skip_special_tokens=True)
    assert isinstance(text, str)  # one row, not a list of them
    return text.strip()


def _pad_left(
    token_ids: list[list[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask [rows, longest row]; the mask comes from the lengths."""
    longest = max(map(len, token_ids))
    filled = [[0] * (longest - len(row)) + list(row) for row in token_ids]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in token_ids]
    return torch.tensor(filled, device=device), torch.tensor(mask, device=device)
