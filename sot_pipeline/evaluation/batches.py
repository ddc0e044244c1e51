"""Batches of rows that are halved where memory runs out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from sot_pipeline.language_model import is_out_of_memory

Result = TypeVar("Result")


def run_halving(
    batches: Iterable[Sequence[int]], run: Callable[[Sequence[int]], Result]
) -> Iterator[tuple[Sequence[int], Result]]:
    """Each batch with what `run` makes of it; two halves in its place where memory runs out.

    Raises:
        RuntimeError, MemoryError: what `run` raises for another reason, or for a single row.
    """
    waiting = deque(batches)
    while waiting:
        rows = waiting.popleft()
        found: list[Result] = []
        try:
            found.append(run(rows))
        except (RuntimeError, MemoryError) as error:
            if len(rows) == 1 or not is_out_of_memory(error):
                raise
        if found:
            yield rows, found.pop()
            continue
        torch.cuda.empty_cache()  # only now are the failed batch's tensors gone
        half = len(rows) // 2
        waiting.extendleft((rows[half:], rows[:half]))
