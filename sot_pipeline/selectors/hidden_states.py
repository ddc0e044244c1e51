"""What each layer of a model holds at the end of a row."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from sot_pipeline.embedding.causal import CausalEncoder
from sot_pipeline.embedding.embed import plan_batches
from sot_pipeline.embedding.encoder import pad, pool
from sot_pipeline.errors import InputError
from sot_pipeline.language_model import Conversation, LanguageModel, is_out_of_memory


def last_token_states(
    lm: LanguageModel,
    conversations: Sequence[Conversation],
    *,
    max_length: int,
    layers: Sequence[int] | None = None,
    batch_tokens: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "layers n d"]:
    """Hidden states at the last token of each row.

    Layer 0 is the embedding output, layer k the output of the k-th block, the last one as the
    output layer reads it (after the final norm). Layer 0 tells nothing where the chat template
    ends every row with the same token.

    Args:
        max_length: In tokens; longer rows lose their beginning.
        layers: Which ones, in this order, -1 for the last; None: all. All layers of a large model
            are a large array: 100,000 rows of an 8B model need 1.6 GB a layer.
        batch_tokens: Of a forward pass, padding included; halved where memory runs out.
        progress: Called as (rows done, rows in all).

    Raises:
        InputError: A layer that the model does not have, a row that renders to nothing, states of
            another form or not finite.
    """
    model: Any = getattr(lm.model, "get_base_model", lambda: lm.model)()  # of a peft model
    chosen = _layer_numbers(layers, model.config.get_text_config().num_hidden_layers)
    encoder = CausalEncoder(
        lm._replace(model=model), max_length=max_length, batch_tokens=batch_tokens
    )
    token_ids = encoder.tokenize(conversations).token_ids
    states = np.empty((len(chosen), len(token_ids), encoder.dimension), dtype=np.float32)
    done = 0
    for rows, found in _in_batches(model.base_model, token_ids, chosen, encoder.batch_tokens):
        if not np.isfinite(found).all():
            raise InputError(
                "the model's hidden states are not finite: its numbers overflow, or its weights "
                "are damaged. Load it in float32, or choose another model."
            )
        states[:, rows] = found
        done += len(rows)
        if progress:
            progress(done, len(token_ids))
    return states


def _layer_numbers(layers: Sequence[int] | None, num_blocks: int) -> list[int]:
    if layers is None:
        return list(range(num_blocks + 1))
    wrong = [layer for layer in layers if not -num_blocks - 1 <= layer <= num_blocks]
    if wrong or not layers:
        raise InputError(
            f"layers={list(layers)}: the model has the layers 0 (embeddings) to {num_blocks}"
        )
    return [layer % (num_blocks + 1) for layer in layers]


def _in_batches(
    decoder: Any, token_ids: list[list[int]], layers: list[int], budget: int
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Row numbers and states of batches of rows of similar length, the longest first."""
    waiting = deque(plan_batches([len(ids) for ids in token_ids], budget))
    while waiting:
        rows, found = waiting.popleft(), None
        try:
            found = _batch_states(decoder, [token_ids[row] for row in rows], layers)
        except (RuntimeError, MemoryError) as error:
            if len(rows) == 1 or not is_out_of_memory(error):
                raise
        if found is None:  # only now are the failed batch's tensors gone
            torch.cuda.empty_cache()
            half = len(rows) // 2
            waiting.extendleft((rows[half:], rows[:half]))
            continue
        yield rows, found


@torch.inference_mode()
def _batch_states(decoder: Any, token_ids: list[list[int]], layers: list[int]) -> np.ndarray:
    ids, mask = pad(token_ids, side="right", device=decoder.device)
    states = decoder(
        input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True
    ).hidden_states
    if any(states[layer].ndim != 3 for layer in layers):
        raise InputError(
            f"{type(decoder).__name__} has hidden states of another form than (rows, tokens, "
            "width), which this selector cannot read"
        )
    return torch.stack([pool(states[layer], mask, "lasttoken") for layer in layers]).cpu().numpy()
