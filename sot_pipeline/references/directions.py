"""Vectors as directions, which cosines are products of."""

import numpy as np
from jaxtyping import Float, Float32


def unit_rows(vectors: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Each row at length one; a row of zeros has no direction and stays."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
