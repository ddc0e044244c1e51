"""Which rows make up each optimiser step."""

import math

import numpy as np


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
    rows: np.ndarray, lengths: np.ndarray, size: int, *, num_processes: int = 1
) -> list[np.ndarray]:
    """Split a step's rows into parts of similar length, so that little is padding.

    Parts hold at most `size` rows and differ by at most one row; there is one for every
    process, since a process without a part would leave the others waiting.
    """
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    num_parts = max(math.ceil(len(rows) / size), min(num_processes, len(rows)))
    return np.array_split(ordered, num_parts)
