"""LARF: closeness to harmful and to safe rows at the layer that refusals hang on.

Source: Li et al., "Layer-Aware Representation Filtering" (EMNLP 2025, arXiv 2507.18631): hidden
states of the last token, a layer found by scaling weights, the mean cosine to about a hundred
unsafe rows less that to about a hundred rows that refuse. Here from the paper alone; which of the
layer's weights are scaled and how ties are broken is ours.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from sot_pipeline.errors import InputError
from sot_pipeline.evaluation.generate import generate_answers
from sot_pipeline.language_model import Conversation, LanguageModel
from sot_pipeline.selectors.on_references import centroid


def larf(
    custom: Float[np.ndarray, "n d"],
    safe: Float[np.ndarray, "q d"],
    harmful: Float[np.ndarray, "m d"],
) -> Float[np.ndarray, " n"]:
    """Minus (mean cosine to the harmful rows less that to the safe rows), in [-2, 2].

    Args:
        custom, safe, harmful: States of one layer, see `last_token_states` and `sensitive_layer`.
            In the paper the safe rows are refusals of harmful requests.

    Raises:
        InputError: states that do not fit together or have no direction.
    """
    return centroid(custom, safe, harmful)


def sensitive_layer(
    lm: LanguageModel,
    prompts: Sequence[Conversation],
    is_refusal: Callable[[str], bool],
    *,
    scale: float = 1.1,
    max_new_tokens: int = 32,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """The layer whose scaling changes most how often the model refuses; the first of equal ones.

    Args:
        prompts: Harmless ones that look risky, which an aligned model refuses now and then; none
            of them from an evaluation set.
        is_refusal: Of the text of an answer.
        scale, max_new_tokens, batch_size, progress: As for `refusals_by_layer`.

    Returns:
        The layer's index in `last_token_states`: 1 for the output of the first block.

    Raises:
        InputError: no layer changes the number of refusals.
    """
    counts = refusals_by_layer(
        lm, prompts, is_refusal, scale=scale, max_new_tokens=max_new_tokens,
        batch_size=batch_size, progress=progress,
    )  # fmt: skip
    changes = np.abs(counts[1:] - counts[0])
    if not changes.any():
        raise InputError(
            f"the model refuses {counts[0]} of {len(prompts)} prompts whichever layer is scaled by "
            f"{scale}: raise the scale, give more prompts that are nearly refused, or choose a "
            "layer yourself"
        )
    return int(changes.argmax()) + 1


def refusals_by_layer(
    lm: LanguageModel,
    prompts: Sequence[Conversation],
    is_refusal: Callable[[str], bool],
    *,
    scale: float = 1.1,
    max_new_tokens: int = 32,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Int[np.ndarray, " layers"]:
    """How many prompts are refused: as the model is, then with each block's weights scaled.

    Args:
        max_new_tokens: Of an answer; a refusal shows in its first words.
        progress: Called as (answers done, answers in all).

    Raises:
        InputError: no prompts, or a model whose blocks cannot be found.
    """
    if not prompts:
        raise InputError("no prompts to watch refusals on; give harmless ones that look risky")
    blocks = _blocks(lm)
    total = len(prompts) * (len(blocks) + 1)
    counts: list[int] = []

    def report(done: int, _: int) -> None:
        if progress:
            progress(len(counts) * len(prompts) + done, total)

    def count() -> None:
        answers = generate_answers(
            lm, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=report
        )
        counts.append(sum(map(is_refusal, answers)))

    count()
    for block in blocks:
        with _scaled(block, scale):
            count()
    return np.array(counts)


@contextmanager
def _scaled(block: torch.nn.Module, scale: float) -> Iterator[None]:
    """All of a block's parameters times `scale`; afterwards what they were, bit by bit."""
    parameters = list(block.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]  # dividing would round
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.mul_(scale)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def _blocks(lm: LanguageModel) -> list[torch.nn.Module]:
    """The decoder's blocks: its one list of as many modules as the model has layers."""
    model: Any = getattr(lm.model, "get_base_model", lambda: lm.model)()
    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    raise InputError(f"{type(model).__name__} has no list of its {count} blocks to scale")
