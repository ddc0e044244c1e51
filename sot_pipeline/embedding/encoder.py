"""What `embed` needs of an encoder, and what all encoders share: padding, pooling."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch

from sot_pipeline.errors import InputError
from sot_pipeline.rendering import Conversation

CPU_BATCH_TOKENS, CUDA_BATCH_TOKENS = 8_192, 65_536

View = Literal["whole", "apart"]  # what of a row becomes its vector: `views.py`

# Raise when what an encoder computes changes, so that no old vector is served for it.
_CODE_VERSION = 1


class Tokens(NamedTuple):
    """Token ids of each row, cut to what the encoder reads, and whether they were cut."""

    token_ids: list[list[int]]
    was_cut: list[bool]


class Encoder(Protocol):
    """What `embed` needs: anything that changes a vector must change the fingerprint."""

    fingerprint: str
    dimension: int
    batch_tokens: int
    view: View  # that suits this kind of encoder

    def tokenize(self, conversations: Sequence[Conversation]) -> Tokens: ...

    def embed_batch(self, token_ids: list[list[int]]) -> np.ndarray:
        """Float32 [rows, dimension]; the vector of a row does not depend on its batch."""
        ...


def pad(
    token_ids: list[list[int]], *, side: str, device: torch.device, filler: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both int64 [rows, longest row].

    The mask comes from the lengths: a filler that is also a token of the text does no harm.
    """
    lengths = np.array([len(row) for row in token_ids])
    if lengths.min() == 0:
        raise InputError("A conversation renders to no token at all; there is nothing to embed.")
    column = np.arange(lengths.max())
    if side == "right":
        mask = column < lengths[:, None]
    else:
        mask = column >= lengths.max() - lengths[:, None]
    ids = np.full(mask.shape, filler, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in token_ids])
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).long().to(device)


def pool(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """One float32 vector per row of `hidden` [rows, tokens, dimension], padding left out."""
    if mode == "lasttoken":
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last].float()
    if mode == "cls":
        return hidden[:, 0].float()
    hidden, weight = hidden.float(), mask.unsqueeze(-1).float()
    if mode == "max":
        return hidden.masked_fill(weight == 0, -torch.inf).amax(1)
    return (hidden * weight).sum(1) / weight.sum(1)


def default_batch_tokens(device: torch.device) -> int:
    """Tokens of a batch, padding included, that keep the device busy at little memory."""
    return CUDA_BATCH_TOKENS if device.type == "cuda" else CPU_BATCH_TOKENS


def encoder_fingerprint(**parts: Any) -> str:
    """Hash (32 hex) of all that decides what an encoder computes."""
    content = json.dumps(parts | {"code": _CODE_VERSION}, sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
