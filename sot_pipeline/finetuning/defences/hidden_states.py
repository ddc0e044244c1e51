"""What a model thinks of a prompt: hidden states of its last token."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sot_pipeline.errors import InputError


def last_token_states(
    model: PeftModel, prompts: Sequence[Tensor]
) -> Float[Tensor, "layers prompts width"]:
    """Hidden states after each layer, float32; the last as the output layer reads it.

    Right padding; the last token is found by the prompts' lengths.

    Raises:
        InputError: a model whose layers give something else.
    """
    device = next(model.parameters()).device
    token_ids = pad_sequence(list(prompts), batch_first=True).to(device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    mask = torch.arange(token_ids.shape[1], device=device)[None] < lengths[:, None]
    transformer: Any = model.get_base_model().base_model  # without the output layer
    states = transformer(
        input_ids=token_ids,
        attention_mask=mask.long(),
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states[1:]
    if any(layer.ndim != 3 for layer in states):
        raise InputError(
            f"{type(transformer).__name__} has hidden states of another form than (rows, tokens, "
            "width), which this defence cannot read"
        )
    rows = torch.arange(len(prompts), device=device)
    return torch.stack([layer[rows, lengths - 1] for layer in states]).float()
