"""Embed a list of conversations, each as one text: batches by length, every distinct text once, resumable."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sot_pipeline.embedding.encoder import Encoder
from sot_pipeline.embedding.row_cache import RowCache, row_key
from sot_pipeline.errors import InputError
from sot_pipeline.language_model import Conversation, is_out_of_memory

# Rows are sorted by length inside chunks of this many, never across: a row's batch depends
# on its chunk alone, and a kill leaves whole chunks behind.
CHUNK_ROWS = 4096


class EmbeddingResult(NamedTuple):
    """Vectors in row order, float32 [rows, dimension], as the encoder gives them.

    `num_embedded` counts the distinct texts that went through the model, `num_cached` the
    distinct texts found in the cache, `was_cut` [rows] marks the rows that were longer than the
    encoder reads, `num_tokens` counts the tokens of the distinct texts.
    """

    vectors: np.ndarray
    num_embedded: int
    num_cached: int
    was_cut: np.ndarray
    num_tokens: int

    @property
    def num_truncated(self) -> int:
        return int(self.was_cut.sum())


def embed(
    conversations: Sequence[Conversation],
    encoder: Encoder,
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EmbeddingResult:
    """One vector per conversation, in their order.

    Args:
        conversations: Rows that render to the same tokens go through the model once.
        encoder: From `load_encoder`.
        cache: Folder of the row cache, shared by all encoders; None keeps nothing. What was
            embedded before an interruption is found there again.
        progress: Called as (tokens done, tokens in all); cached rows count as done.

    Raises:
        InputError: A conversation that the encoder cannot render; a vector that is not finite.
    """
    tokens = encoder.tokenize(conversations)
    keys = [row_key(ids) for ids in tokens.token_ids]
    texts = dict(zip(keys, tokens.token_ids, strict=True))
    rows_of: dict[str, list[int]] = {key: [] for key in texts}
    for row, key in enumerate(keys):
        rows_of[key].append(row)
    vectors = np.empty((len(keys), encoder.dimension), dtype=np.float32)
    num_tokens = sum(map(len, texts.values()))
    missing = dict(texts)
    row_cache = RowCache(cache, encoder.fingerprint, encoder.dimension) if cache else None
    if row_cache:
        for key, vector in row_cache.get(texts):
            vectors[rows_of[key]] = vector
            del missing[key]
    done = num_tokens - sum(map(len, missing.values()))
    report = progress or (lambda done, total: None)
    report(done, num_tokens)
    try:
        for batch, embedded in _embed_in_batches(texts, missing.keys(), encoder):
            if row_cache:
                row_cache.put(batch, embedded)
            for key, vector in zip(batch, embedded, strict=True):
                vectors[rows_of[key]] = vector
                done += len(texts[key])
            report(done, num_tokens)
    finally:  # an interrupted run keeps what it has
        if row_cache:
            row_cache.flush()
    num_cached, was_cut = len(texts) - len(missing), np.array(tokens.was_cut, dtype=bool)
    return EmbeddingResult(vectors, len(missing), num_cached, was_cut, num_tokens)


def plan_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers of each batch of one chunk, longest first.

    A batch is filled while (rows x longest row) stays within `budget` tokens, padding
    included; a row longer than the budget gets a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _embed_in_batches(
    texts: dict[str, list[int]], missing: Set[str], encoder: Encoder
) -> Iterator[tuple[list[str], np.ndarray]]:
    keys, budget = list(texts), encoder.batch_tokens
    for start in range(0, len(keys), CHUNK_ROWS):
        # chunks of all rows, embedded or not: after a kill the rest falls into the same batches,
        # and a vector depends on its batch in the last digits
        chunk = [key for key in keys[start : start + CHUNK_ROWS] if key in missing]
        waiting = deque(plan_batches([len(texts[key]) for key in chunk], budget))
        while waiting:
            batch = [chunk[i] for i in waiting[0]]
            size = len(batch) * len(texts[batch[0]])
            if len(batch) > 1 and size > budget:
                rows, half = waiting.popleft(), len(batch) // 2
                waiting.extendleft((rows[half:], rows[:half]))
                continue
            try:
                embedded = encoder.embed_batch([texts[key] for key in batch])
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
                budget, embedded = size // 2, None  # for every later batch too
            if embedded is None:  # only now are the failed batch's tensors gone
                torch.cuda.empty_cache()
                continue
            if not np.isfinite(embedded).all():  # before it is cached
                raise InputError(
                    "The embedding model gave a vector that is not finite: its numbers overflow, or "
                    "its weights are damaged. Embed with dtype float32, or choose another model."
                )
            waiting.popleft()
            yield batch, embedded
