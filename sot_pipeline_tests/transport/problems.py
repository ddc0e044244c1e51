"""Transport problems that the tests of this folder share."""

from typing import NamedTuple

import numpy as np


class Problem(NamedTuple):
    pull_cost: np.ndarray  # [n, m_safe]
    push_cost: np.ndarray  # [n, m_harmful]


def random_problem(n: int = 12, m_safe: int = 5, m_harmful: int = 7, seed: int = 0) -> Problem:
    """Costs with no structure, in [0, 2], float64."""
    rng = np.random.default_rng(seed)
    return Problem(rng.uniform(0, 2, (n, m_safe)), rng.uniform(0, 2, (n, m_harmful)))


class Clusters(NamedTuple):
    """Embeddings of three sets; the last `num_harmful` custom rows lie among the harmful ones."""

    custom: np.ndarray
    safe: np.ndarray
    harmful: np.ndarray
    is_harmful: np.ndarray


def clusters(
    num_custom: int = 60, num_harmful: int = 6, num_reference: int = 20, dimension: int = 8, seed=0
) -> Clusters:
    rng = np.random.default_rng(seed)
    safe_axis, harmful_axis = np.eye(dimension)[:2]

    def around(axis: np.ndarray, num: int) -> np.ndarray:
        return (axis + 0.3 * rng.normal(size=(num, dimension))).astype(np.float32)

    is_harmful = np.arange(num_custom) >= num_custom - num_harmful
    custom = np.where(
        is_harmful[:, None], around(harmful_axis, num_custom), around(safe_axis, num_custom)
    )
    return Clusters(
        custom, around(safe_axis, num_reference), around(harmful_axis, num_reference), is_harmful
    )
