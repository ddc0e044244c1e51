"""What would have to be different for a row to be on the other side of the cut.

Three questions, each about one number alone, all else as it is:

- **keep fraction**: exact. A row at rank r of n stays if at least r rows stay, that is from the
  share r / n on (`selection.top_k` rounds, so that a setting up to half a row smaller does too).
- **false-keep rate** of a calibrated cut: exact, with the same held-out rows and contamination.
- **lambda**: with the transport held as it was solved, and with as many rows kept. The
  log-weights are `const + ((1 - lambda) * -pull + lambda * push) / tau` in the two potentials, so
  each row's score is a straight line in lambda and the cut is the k-th highest of these lines.
  What is held fixed are the potentials; a real solve at another lambda moves them, because
  the weights that are transported move. Sides are exact at each of `LAMBDA_STEPS` equal steps;
  inside a step the change is put where the row's line meets the chord of the cut. A row that
  changes sides twice inside one step is missed.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

LAMBDA_STEPS = 1_000  # of [0, 1]


class Potentials(NamedTuple):
    """Both dual potentials of each custom row (gradients of `ot_cost`), unit of the cost."""

    pull: Float[np.ndarray, " n"]
    push: Float[np.ndarray, " n"]


def ranks_of(scores: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """1 for the highest score; ties by row order, as in `selection.top_k`."""
    rank = np.empty(len(scores), dtype=np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return rank


def best(scores: Float[np.ndarray, " n"], count: int) -> Bool[np.ndarray, " n"]:
    """Mask of the `count` highest scores; ties by row order, as in `selection.top_k`."""
    if count <= 0 or count >= len(scores):
        return np.full(len(scores), count > 0)
    return _cut(scores, count)[0]


def keep_fraction_needed(rank: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Least share of the rows that can stay with this row among them: rank / n."""
    return rank / max(1, len(rank))


def false_keep_rate_needed(
    scores: Float[np.ndarray, " n"],
    held_out_harmful: Float[np.ndarray, " m"],
    *,
    contamination: float,
) -> Float[np.ndarray, " n"]:
    """Least `max_false_keep_rate` at which `calibrated_cut` keeps each row; NaN: at none below 1.

    Within the stated rate the calibrated cut goes where kept rows minus twice the harmful ones
    expected among them is largest; a row stays from the first rate on whose best cut spares it.
    """
    held_out = np.sort(np.asarray(held_out_harmful, dtype=np.float64))
    m, n = len(held_out), len(scores)
    num_as_high = m - np.searchsorted(held_out, scores, side="left")
    place = 1 + num_as_high  # the row stays where the cut's place is at least this
    # as `calibrated_cut` counts them, through the p-values
    values = np.sort(place / (m + 1))
    rates = np.arange(m + 1) / (m + 1)
    gain = np.searchsorted(values, rates, side="right") - 2 * contamination * n * rates
    before = np.r_[-np.inf, np.maximum.accumulate(gain)[:-1]]
    records = np.flatnonzero(gain > before)  # where the cut moves on, were more allowed
    found = np.searchsorted(records, place)
    known = found < len(records)
    return np.where(known, rates[records[np.minimum(found, len(records) - 1)]], np.nan)


def lambda_change(
    potentials: Potentials, kept: Bool[np.ndarray, " n"], lambda_push: float
) -> Float[np.ndarray, " n"]:
    """The lambda nearest to `lambda_push` at which each row would change sides.

    The transport is held as solved and as many rows are kept; see the module for what is exact.

    Args:
        kept: The rows that the cut kept. Where the potentials' own order puts a row on the other
            side already, its answer is NaN: its fate hangs on more than they say.

    Returns:
        In [0, 1]; NaN where the row changes sides at no lambda.
    """
    score = -np.asarray(potentials.pull, dtype=np.float64)
    slope = np.asarray(potentials.push, dtype=np.float64) - score
    count = int(kept.sum())
    usable = best(score + lambda_push * slope, count) == kept
    grid = np.arange(LAMBDA_STEPS + 1) / LAMBDA_STEPS
    above = _first_change(score, slope, count, np.r_[lambda_push, grid[grid > lambda_push]])
    below = _first_change(score, slope, count, np.r_[lambda_push, grid[grid < lambda_push][::-1]])
    nearer = np.where(
        np.nan_to_num(np.abs(below - lambda_push), nan=np.inf)
        < np.nan_to_num(np.abs(above - lambda_push), nan=np.inf),
        below,
        above,
    )
    return np.where(usable, nearer, np.nan)


def kept_at(potentials: Potentials, count: int, lambda_push: float) -> Bool[np.ndarray, " n"]:
    """The rows that would stay at another lambda, with the transport held as solved."""
    return best(-(1 - lambda_push) * potentials.pull + lambda_push * potentials.push, count)


def _first_change(
    score: np.ndarray, slope: np.ndarray, count: int, lambdas: np.ndarray
) -> np.ndarray:
    """Where each row first leaves the side that it has at `lambdas[0]`; NaN: nowhere."""
    found = np.full(len(score), np.nan)
    if count <= 0 or count >= len(score):
        return found
    side, cut = _cut(score + lambdas[0] * slope, count)
    for lower, upper in pairwise(lambdas):
        values = score + upper * slope
        next_side, next_cut = _cut(values, count)
        changed = np.flatnonzero((next_side != side) & np.isnan(found))
        margin = score[changed] + lower * slope[changed] - cut
        change = (values[changed] - next_cut) - margin
        share = np.divide(-margin, change, out=np.ones_like(margin), where=change != 0)
        found[changed] = lower + np.clip(share, 0, 1) * (upper - lower)
        cut = next_cut
    return found


def _cut(values: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """The `count` highest (neither none nor all), and the middle between them and the others."""
    place = len(values) - count
    around = np.partition(values, [place - 1, place])
    mask = values > around[place]
    level = np.flatnonzero(values == around[place])
    mask[level[: count - int(mask.sum())]] = True
    return mask, float(around[place - 1] + around[place]) / 2
