"""Anderson's extrapolation of a fixed-point iteration `x -> x + step(x)`.

Source: Anderson (1965); Walker and Ni (2011), the unconstrained least-squares form.
"""

from typing import NamedTuple

import numpy as np

MEMORY = 5  # past steps that are combined


class Step(NamedTuple):
    """A point and the plain step from it."""

    start: np.ndarray
    step: np.ndarray


def extrapolate(memory: list[Step], damping: float = 1.0) -> np.ndarray:
    """The affine combination of past points whose steps cancel best, moved by its step.

    Args:
        memory: Oldest first; the last one is where the iteration stands.
        damping: Share of the step that is taken.
    """
    last = memory[-1]
    there = last.start + damping * last.step
    if len(memory) > 1:
        turns = np.diff([step.step for step in memory], axis=0)
        moves = np.diff([step.start for step in memory], axis=0)
        # normal equations: the columns are few, and long where rows are many
        gram = turns @ turns.T
        gram[np.diag_indices_from(gram)] += 1e-14 * np.trace(gram) + 1e-300
        mix = np.linalg.solve(gram, turns @ last.step)
        there = there - mix @ (moves + damping * turns)
    return there
