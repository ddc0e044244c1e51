"""A few rows that stand for many: what a person is asked to read."""

from typing import NamedTuple

import numpy as np

from sot_pipeline.errors import InputError

# Of the references' own nearest-neighbour distances: a row farther from both is a candidate. At .99,
# the mark of the check on custom rows, hardly a row of an attack collection is; of .9, .75 and .5
# this detects most afterwards (benchmarks/README.md, "How far is far")
REACH_QUANTILE = 0.75
MOST_ROWS = 8_192  # whose closeness to each other is held at once: 256 MiB
NEAR_DUPLICATE = 0.9  # closeness; a row this close to a chosen one is not shown too


class Representatives(NamedTuple):
    """Chosen rows, the one that adds most first."""

    rows: np.ndarray  # [k] int64, of the given rows
    cluster_sizes: np.ndarray  # [k] rows within reach that are nearest to this one, with itself
    num_within_reach: np.ndarray  # [k] rows within reach; some may be within that of others too
    num_covered: int  # rows within reach of any


def representatives(
    directions: np.ndarray, count: int, *, reach: float, weights: np.ndarray, seed: int = 0
) -> Representatives:
    """Choose a few rows that together lie close to as many as can be, weighty ones first.

    Greedily, each row is the one that adds most, times its own weight, to

        sum_i weights_i max over chosen j of closeness_ij,   closeness = max(0, 1 - cost / reach)

    so that a row nothing speaks for is not shown for the company it keeps. Chosen by measurement
    over random rows, farthest-first and k-medoids (benchmarks/README.md, "References that learn
    from attacks"): among benign rows more of what it proposes is harmful, and as many proposals
    detect more; in a collection of attacks alone it is level with random rows and k-medoids.

    Args:
        directions: Unit vectors `[n, d]`; the cost is one minus their cosine.
        count: Most rows to choose; fewer where no further row adds anything.
        reach: Cost from which on a row does not stand for another, > 0.
        weights: `[n]`, >= 0; a row of weight 0 is not chosen.
        seed: Of the draw where there are more than `MOST_ROWS` rows: the others are neither
            chosen nor counted.
    """
    num_rows = len(directions)
    if not (
        reach > 0 and count >= 1 and len(weights) == num_rows and np.min(weights, initial=0) >= 0
    ):
        raise InputError(
            f"count={count}, reach={reach}, {len(weights)} weights for {num_rows} rows; expected "
            "count >= 1, reach > 0 and one weight >= 0 per row"
        )
    drawn = np.arange(num_rows)
    if num_rows > MOST_ROWS:
        drawn = np.sort(np.random.default_rng(seed).permutation(num_rows)[:MOST_ROWS])
    closeness = _closeness(directions[drawn], reach)
    chosen = np.array(_greedy(closeness, weights[drawn].astype(np.float32), count), dtype=np.int64)
    to_chosen = closeness[:, chosen]
    is_near = to_chosen > 0
    covered = is_near.any(axis=1)
    nearest = to_chosen[covered].argmax(axis=1) if len(chosen) else np.zeros(0, dtype=np.int64)
    return Representatives(
        rows=drawn[chosen],
        cluster_sizes=np.bincount(nearest, minlength=len(chosen)),
        num_within_reach=is_near.sum(axis=0),
        num_covered=int(covered.sum()),
    )


def suspicion(log_weights: np.ndarray, own_log_weights: np.ndarray) -> np.ndarray:
    """Share of a task's own rows that weigh more than each row, in [0, 1]."""
    ordered = np.sort(own_log_weights)
    return 1 - np.searchsorted(ordered, log_weights, side="right") / len(ordered)


def _closeness(directions: np.ndarray, reach: float) -> np.ndarray:
    """`[n, n]` float32, 1 for equal directions, 0 beyond the reach."""
    closeness = directions.astype(np.float32) @ directions.T.astype(np.float32)
    np.subtract(closeness, 1 - reach, out=closeness)
    np.divide(closeness, reach, out=closeness)
    return np.clip(closeness, 0, 1, out=closeness)


def _greedy(closeness: np.ndarray, weights: np.ndarray, count: int) -> list[int]:
    chosen: list[int] = []
    best = np.zeros(len(closeness), dtype=np.float32)  # closeness to the nearest chosen row
    gains = weights * (closeness @ weights)
    while len(chosen) < count and gains.max(initial=0) > 0:
        # what a row adds only shrinks as others are chosen: the first that stays in front, once
        # brought up to date, is the best of all
        row = int(gains.argmax())
        gains[row] = weights[row] * (weights @ np.maximum(closeness[row] - best, 0))
        if gains.argmax() == row and gains[row] > 0:
            chosen.append(row)
            best = np.maximum(best, closeness[row])
            gains[closeness[row] >= NEAR_DUPLICATE] = 0
    return chosen
