"""Which rows make up each optimiser step, and how they lie in memory."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sot_pipeline.finetuning.rows import Rows


def num_steps_for(num_rows: int, batch_size: int, num_epochs: float) -> int:
    """Optimiser steps that see each row `num_epochs` times, rounded up."""
    return max(1, math.ceil(round(num_rows * num_epochs / batch_size, 9)))


def plan_steps(num_rows: int, batch_size: int, num_steps: int, seed: int) -> list[np.ndarray]:
    """Rows of each optimiser step: epoch after epoch, each a fresh permutation.

    Steps are drawn without regard to length, so that length cannot bias what is learned
    together; only inside a step are rows grouped by length (`micro_batches`).
    """
    rng = np.random.default_rng(seed)
    batch_size = min(batch_size, num_rows)
    needed = num_steps * batch_size
    epochs = [rng.permutation(num_rows) for _ in range(math.ceil(needed / num_rows))]
    rows = np.concatenate(epochs)[:needed]
    return list(rows.reshape(num_steps, batch_size))


def micro_batches(
    rows: np.ndarray,
    lengths: np.ndarray,
    size: int,
    *,
    num_processes: int = 1,
    packing: bool = False,
) -> list[np.ndarray]:
    """Split a step's rows into parts, one for every process at least.

    Parts to be padded hold rows of similar length, so that little is padding; they hold at most
    `size` rows and differ by at most one row. Parts to be packed hold about equally many tokens,
    since attention costs the square of a line's length; they hold `size` rows on average.
    """
    num_parts = max(math.ceil(len(rows) / size), min(num_processes, len(rows)))
    if packing:
        return _of_equal_tokens(rows, lengths, num_parts)
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    return np.array_split(ordered, num_parts)


def _of_equal_tokens(rows: np.ndarray, lengths: np.ndarray, num_parts: int) -> list[np.ndarray]:
    """Longest first, each to the part that has the fewest tokens so far (Graham, 1969)."""
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    tokens = np.zeros(num_parts, dtype=np.int64)
    for row in rows[np.argsort(-lengths[rows], kind="stable")].tolist():
        part = int(tokens.argmin())
        parts[part].append(row)
        tokens[part] += lengths[row]
    return [np.array(part) for part in parts]


class Batch(NamedTuple):
    """Rows as a model reads them, and what is learnt from them.

    Attributes:
        token_ids: Padded rows, or (1, tokens) of rows one behind the other.
        attention_mask: 1 on tokens, 0 on pads; None where rows are packed.
        position_ids: Where rows are packed: begins again at 0 with each row, which is how
            transformers knows the borders that attention may not cross; else None.
        kept: Positions that predict a token to learn in any line of the batch; logits are
            needed there only.
        targets: The token behind each kept position.
        row_of: Row (within the batch) of each kept position; -1 where nothing is learnt.
    """

    token_ids: Int[Tensor, "lines tokens"]
    attention_mask: Int[Tensor, "lines tokens"] | None
    position_ids: Int[Tensor, "lines tokens"] | None
    kept: Int[Tensor, " kept"]
    targets: Int[Tensor, "lines kept"]
    row_of: Int[Tensor, "lines kept"]

    def spread(self, per_row: Float[Tensor, " rows"]) -> Float[Tensor, "lines kept"]:
        """A value per row at each kept position that belongs to it, zero elsewhere."""
        return torch.where(self.row_of >= 0, per_row[self.row_of.clamp(min=0)], 0.0)


def padded(rows: Rows, chosen: np.ndarray) -> Batch:
    """One line per row, padded on the right with token 0.

    With a causal mask no real token sees a pad, whatever the pad's id.
    """
    token_ids = pad_sequence([rows.token_ids[i] for i in chosen], batch_first=True)
    is_answer = pad_sequence([rows.is_answer[i] for i in chosen], batch_first=True)
    lengths = torch.as_tensor(rows.lengths[chosen])
    mask = torch.arange(token_ids.shape[1])[None] < lengths[:, None]
    row_of = torch.arange(len(chosen))[:, None].expand_as(is_answer)
    return _batch(token_ids, is_answer, row_of, mask.long(), None)


def packed(rows: Rows, chosen: np.ndarray) -> Batch:
    """All rows in one line, one behind the other, without padding."""
    token_ids = torch.cat([rows.token_ids[i] for i in chosen])[None]
    is_answer = torch.cat([rows.is_answer[i] for i in chosen])[None]
    lengths = torch.as_tensor(rows.lengths[chosen])
    row_of = torch.repeat_interleave(torch.arange(len(chosen)), lengths)[None]
    positions = torch.cat([torch.arange(length) for length in lengths.tolist()])[None]
    return _batch(token_ids, is_answer, row_of, None, positions)


def _batch(
    token_ids: Tensor,
    is_answer: Tensor,
    row_of: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
) -> Batch:
    predicts = is_answer[:, 1:]  # position t predicts token t + 1
    kept = predicts.any(dim=0).nonzero().squeeze(1)
    learnt = torch.where(predicts[:, kept], row_of[:, 1:][:, kept], -1)
    return Batch(token_ids, attention_mask, position_ids, kept, token_ids[:, kept + 1], learnt)
