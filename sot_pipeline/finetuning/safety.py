"""What training-time defences learn safety from, as texts and as tokens."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.defences.defence import SafetyData
from sot_pipeline.finetuning.rows import Rows, tokenize
from sot_pipeline.rendering import Conversation, render


class SafetyTexts(NamedTuple):
    """None of it may come from an evaluation set.

    Attributes:
        demonstrations: Harmful requests, each with the answer of a safe model.
        harmless_prompts: Harmless requests, without their answers.
    """

    demonstrations: Sequence[Conversation] = ()
    harmless_prompts: Sequence[Conversation] = ()


def tokenize_safety(tokenizer: Any, texts: SafetyTexts, max_length: int) -> SafetyData:
    """As the defences read it; prompts end where the answer begins."""
    prompts = [_prompt(conversation) for conversation in texts.demonstrations]
    weights = np.ones(len(texts.demonstrations))
    return SafetyData(
        demonstrations=_demonstrations(tokenizer, texts, weights, max_length),
        harmful_prompts=[_tokens(tokenizer, prompt, max_length) for prompt in prompts],
        harmless_prompts=[_tokens(tokenizer, p, max_length) for p in texts.harmless_prompts],
    )


def _demonstrations(
    tokenizer: Any, texts: SafetyTexts, weights: np.ndarray, max_length: int
) -> Rows:
    try:
        return tokenize(tokenizer, texts.demonstrations, weights, max_length)
    except InputError as error:
        raise InputError(f"safety demonstrations, {error}") from None


def _prompt(conversation: Conversation) -> Conversation:
    """The turns before the last answer."""
    last = max(k for k, turn in enumerate(conversation) if turn["role"] == "assistant")
    return conversation[:last]


def _tokens(tokenizer: Any, prompt: Conversation, max_length: int) -> torch.Tensor:
    ids = render(tokenizer, prompt, add_generation_prompt=True)
    return torch.tensor(ids[-max_length:])
