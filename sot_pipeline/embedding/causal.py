"""A causal language model as encoder."""

import inspect
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from sot_pipeline.embedding.encoder import (
    Tokens,
    View,
    default_batch_tokens,
    encoder_fingerprint,
    pad,
    pool,
)
from sot_pipeline.language_model import Conversation, LanguageModel, render
from sot_pipeline.rendering import TODAY


class CausalEncoder:
    """Last layer of a frozen causal language model at the last token of a conversation."""

    view: View = "whole"

    def __init__(self, lm: LanguageModel, *, max_length: int, batch_tokens: int | None = None):
        self.lm = lm
        self._decoder = lm.model.base_model  # without the output layer: no logits are made
        config = lm.model.config.get_text_config()
        context = getattr(config, "max_position_embeddings", None)
        self.max_length = min(max_length, context or max_length)
        self.dimension = config.hidden_size
        self.batch_tokens = batch_tokens or default_batch_tokens(lm.device)
        self._takes_positions = (
            "position_ids" in inspect.signature(self._decoder.forward).parameters
        )
        self.fingerprint = encoder_fingerprint(
            model=lm.fingerprint,
            dtype=str(lm.model.dtype),
            pooling="last_token",
            rendering=_rendering(lm.tokenizer),
            max_length=self.max_length,
        )

    def tokenize(self, conversations: Sequence[Conversation]) -> Tokens:
        rows = [render(self.lm.tokenizer, conversation) for conversation in conversations]
        was_cut = [len(row) > self.max_length for row in rows]
        return Tokens([self._keep_end(row) for row in rows], was_cut)

    def _keep_end(self, row: list[int]) -> list[int]:
        if len(row) <= self.max_length:
            return row
        if row[0] == self.lm.tokenizer.bos_token_id:
            return row[:1] + row[1 - self.max_length :]
        return row[-self.max_length :]

    @torch.inference_mode()
    def embed_batch(self, token_ids: list[list[int]], *, padding_side: str = "right") -> np.ndarray:
        ids, mask = pad(token_ids, side=padding_side, device=self.lm.device)
        positions = {}
        if self._takes_positions:
            positions["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        out = self._decoder(input_ids=ids, attention_mask=mask, use_cache=False, **positions)
        return pool(out.last_hidden_state, mask, "lasttoken").cpu().numpy()


def _rendering(tokenizer: PreTrainedTokenizerBase) -> str:
    """What decides a row's tokens beside the tokenizer."""
    template = str(tokenizer.chat_template or "plain")
    if "strftime_now" in template:
        return f"{template} {TODAY}"
    return template
