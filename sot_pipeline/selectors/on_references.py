"""The simple scores on vectors that any elaborate one must beat.

All see directions only: vectors are brought to length one first.
"""

import numpy as np
from jaxtyping import Float

from sot_pipeline.errors import InputError

_BLOCK_ENTRIES = 16_000_000  # cosines held at once


def logistic_regression(
    custom: Float[np.ndarray, "n d"],
    safe: Float[np.ndarray, "q d"],
    harmful: Float[np.ndarray, "m d"],
    *,
    strength: float = 1.0,
) -> Float[np.ndarray, " n"]:
    """Log-odds of "safe" by a linear classifier of the references, both counting alike.

    Args:
        strength: Inverse of the l2 penalty, > 0 (scikit-learn's `C`).

    Raises:
        InputError: vectors that do not fit together or have no direction.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import

    x, q, m = _directions(custom, safe, harmful)
    classifier = LogisticRegression(C=strength, max_iter=1_000, class_weight="balanced")
    classifier.fit(np.concatenate([q, m]), np.arange(len(q) + len(m)) < len(q))
    return np.asarray(classifier.decision_function(x), dtype=np.float64)


def nearest_neighbours(
    custom: Float[np.ndarray, "n d"],
    safe: Float[np.ndarray, "q d"],
    harmful: Float[np.ndarray, "m d"],
    *,
    num_neighbours: int = 20,
) -> Float[np.ndarray, " n"]:
    """Mean cosine to the nearest safe rows less that to the nearest harmful ones, in [-2, 2].

    Args:
        num_neighbours: Of each reference; all of a smaller one. Neighbours hold for the
            reference's density: unlike a count of votes, the margin does not depend on its size.

    Raises:
        InputError: vectors that do not fit together or have no direction.
    """
    if num_neighbours < 1:
        raise InputError(f"num_neighbours is {num_neighbours}; expected at least 1")
    x, q, m = _directions(custom, safe, harmful)
    return _nearness(x, q, num_neighbours) - _nearness(x, m, num_neighbours)


def centroid(
    custom: Float[np.ndarray, "n d"],
    safe: Float[np.ndarray, "q d"],
    harmful: Float[np.ndarray, "m d"],
) -> Float[np.ndarray, " n"]:
    """Mean cosine to the safe rows less that to the harmful ones, in [-2, 2].

    Raises:
        InputError: vectors that do not fit together or have no direction.
    """
    x, q, m = _directions(custom, safe, harmful)
    direction = q.mean(axis=0, dtype=np.float64) - m.mean(axis=0, dtype=np.float64)
    return np.asarray(x @ direction, dtype=np.float64)


def _nearness(x: np.ndarray, y: np.ndarray, count: int) -> Float[np.ndarray, " n"]:
    """Mean cosine to the nearest of `y`; never more than a block of the cosines in memory."""
    count = min(count, len(y))
    nearness = np.empty(len(x))
    size = max(1, _BLOCK_ENTRIES // len(y))
    for start in range(0, len(x), size):
        cosines = x[start : start + size] @ y.T
        nearest = np.partition(cosines, -count, axis=1)[:, -count:]
        nearness[start : start + size] = nearest.mean(axis=1, dtype=np.float64)
    return nearness


def _directions(*sets: np.ndarray) -> list[np.ndarray]:
    names = ("custom", "safe", "harmful")
    for name, vectors in zip(names, sets, strict=True):
        if vectors.ndim != 2 or vectors.shape[1] != sets[0].shape[-1] or not len(vectors):
            raise InputError(
                f"{name} vectors have shape {vectors.shape}, custom ones {sets[0].shape}; expected "
                "rows of as many numbers. Embed all sets with the same model and view."
            )
    return [_unit(name, vectors) for name, vectors in zip(names, sets, strict=True)]


def _unit(name: str, vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        raise InputError(
            f"{name} row {wrong[0]} has a vector of length {lengths[wrong[0], 0]} ({len(wrong)} "
            "such rows), which has no direction. Embed the set again with another model."
        )
    return vectors / lengths
