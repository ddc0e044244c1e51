"""Scores that are there without another solve, and would have decided otherwise."""

import numpy as np
from jaxtyping import Bool, Float

from sot_pipeline.explanations.counterfactuals import best

METHODS = {
    "pull_alone": "likeness to the safe reference alone",
    "push_alone": "distance from the harmful reference alone",
    "nearest_rows": "its nearest row of each reference alone",
}


def disagreeing_methods(
    scores: dict[str, Float[np.ndarray, " n"]], kept: Bool[np.ndarray, " n"], count: int
) -> list[list[str]]:
    """For each row the methods that would put it on the other side, keeping as many rows.

    Args:
        scores: By method, high = keep.
        kept: The rows that stay.
        count: Rows that the cut keeps; reviewers may have kept more or fewer.
    """
    differs = {name: best(values, count) != kept for name, values in scores.items()}
    names: list[list[str]] = [[] for _ in range(len(kept))]
    for name, mask in differs.items():
        for row in np.flatnonzero(mask):
            names[row].append(name)
    return names
