"""Two coordinates per text, for a map that a reader can interpret."""

from typing import NamedTuple

import numpy as np

_MAX_FITTED_ROWS = 20_000
_MAX_ITERATIONS = 500


class EmbeddingMap(NamedTuple):
    """Coordinates `[rows, 2]` of the three sets, float64, on the same axes."""

    custom: np.ndarray
    safe: np.ndarray
    harmful: np.ndarray


def embedding_map(custom: np.ndarray, safe: np.ndarray, harmful: np.ndarray) -> EmbeddingMap:
    """Project embeddings to a plane whose first axis has a meaning.

    Rows are scaled to length 1, as the cosine cost sees them. x runs along the difference of the
    centroids, harmful minus safe, with 0 half way: to the right is towards the harmful reference.
    y is the direction in which the pooled rest varies most. Deterministic: no random start, and
    the sign of y is fixed by its largest component.

    Args:
        custom, safe, harmful: `[rows, d]`, any float type; safe and harmful not empty.

    Returns:
        `EmbeddingMap`. If the centroids coincide, x is the main direction and y the second.
    """
    sets = [_unit_rows(vectors) for vectors in (custom, safe, harmful)]
    safe_centre, harmful_centre = sets[1].mean(axis=0), sets[2].mean(axis=0)
    middle = (safe_centre + harmful_centre) / 2
    pooled = np.concatenate([_thinned(vectors) for vectors in sets])
    pooled = pooled - pooled.mean(axis=0)
    difference = harmful_centre - safe_centre
    length = np.linalg.norm(difference)
    x = difference / length if length > 1e-9 else _main_direction(pooled)
    rest = pooled - np.outer(pooled @ x, x)
    y = _main_direction(rest)
    plane = np.stack([x, y], axis=1)
    return EmbeddingMap(*((vectors - middle) @ plane for vectors in sets))


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _thinned(vectors: np.ndarray) -> np.ndarray:
    step = -(-len(vectors) // _MAX_FITTED_ROWS) or 1
    return vectors[::step]


def _main_direction(rows: np.ndarray) -> np.ndarray:
    """The first right singular vector, by power iteration from the column of most variance."""
    direction = np.zeros(rows.shape[1])
    direction[np.argmax((rows**2).sum(axis=0))] = 1.0
    for _ in range(_MAX_ITERATIONS):
        image = rows.T @ (rows @ direction)
        length = np.linalg.norm(image)
        if length < 1e-12:
            return np.zeros_like(direction)  # no variation is left
        image /= length
        if np.linalg.norm(image - direction) < 1e-9:
            break
        direction = image
    return direction * (np.sign(direction[np.argmax(np.abs(direction))]) or 1.0)
