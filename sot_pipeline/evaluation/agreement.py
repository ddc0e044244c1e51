"""How far raters agree: accuracy, kappa, alpha, AC1, rank correlation, with bootstrap intervals.

Every measure sees the ratings as their distinct patterns and how often each occurs. A bootstrap
resample of the rows is then nothing but other counts of the same patterns, so a measure written
for a matrix of counts gives all resamples at once.

Which to read. Accuracy and AC1 are high wherever one category is rare and both raters know it;
kappa and alpha then ask for more than chance gives, and are low for a few misses (the kappa
paradox: Feinstein and Cicchetti 1990). Report both.

Sources: Cohen (1960, 1968); Krippendorff (2011), "Computing Krippendorff's alpha-reliability";
Gwet (2008), "Computing inter-rater reliability and its variance in the presence of high
agreement"; percentile bootstrap: Efron (1979).
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

# More distinct values than this are no categories; alpha and kappa would need their square.
MAX_VALUES = 64
_CHUNK = 4_000_000  # counts held at once

Ratings = Float[np.ndarray, "rows raters"]
Counts = Float[np.ndarray, "resamples patterns"]
Measured = Callable[[Counts], Float[np.ndarray, " resamples"]]


class Patterns(NamedTuple):
    """Distinct rows of ratings: `codes` count up the scale, -1 where a rating is missing."""

    codes: Int[np.ndarray, "patterns raters"]
    counts: Int[np.ndarray, " patterns"]
    num_values: int


class Estimate(NamedTuple):
    """A measure with its 95 % percentile interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


Measure = Callable[[Patterns], Measured]


def patterns_of(ratings: Ratings, values: Sequence[float] | None = None) -> Patterns:
    """Summarise ratings.

    Args:
        ratings: NaN where a rater gave none. Numbers in the order of the scale; for nominal
            measures any numbers that tell the categories apart.
        values: The whole scale, ascending, where some of it may not occur; default: what occurs.

    Raises:
        ValueError: A rating that is not on the scale.
    """
    ratings = np.asarray(ratings, dtype=float)
    known = ~np.isnan(ratings)
    scale = np.unique(ratings[known]) if values is None else np.asarray(values, dtype=float)
    codes = np.where(known, np.searchsorted(scale, ratings), -1)
    off = known & ~np.isin(ratings, scale)
    if off.any():
        raise ValueError(f"{ratings[off][0]} is a rating, expected one of {scale.tolist()}")
    distinct, counts = np.unique(codes, axis=0, return_counts=True)
    return Patterns(distinct, counts, len(scale))


def value_of(measure: Measure, ratings: Ratings, *, values: Sequence[float] | None = None) -> float:
    """The measure of all rows; NaN where it is not defined."""
    patterns = patterns_of(ratings, values)
    return float(measure(patterns)(patterns.counts[None].astype(float))[0])


def estimate(
    measure: Measure,
    ratings: Ratings,
    *,
    values: Sequence[float] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The measure of all rows, with the interval of bootstrap resamples of the rows.

    Resamples in which the measure is not defined (only one category is left) are left out of the
    interval. The same rows, in any order, and the same seed give the same interval.
    """
    patterns = patterns_of(ratings, values)
    total = int(patterns.counts.sum())
    measured = measure(patterns)
    value = float(measured(patterns.counts[None].astype(float))[0])
    if not total or math.isnan(value):
        return Estimate(value, math.nan, math.nan)
    rng, resampled = np.random.default_rng(seed), []
    step = max(1, _CHUNK // len(patterns.counts))
    for begin in range(0, num_resamples, step):
        size = min(step, num_resamples - begin)
        draws = rng.multinomial(total, patterns.counts / total, size=size)
        resampled.append(measured(draws.astype(float)))
    low, high = np.nanpercentile(np.concatenate(resampled), [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def accuracy(patterns: Patterns) -> Measured:
    """Share of the rows on which two raters say the same, of those that both rated."""
    first, second = _pair(patterns)
    both, same = (first >= 0) & (second >= 0), first == second
    return lambda counts: _ratio(counts @ (both & same), counts @ both)


def kappa(patterns: Patterns, *, weights: Literal["nominal", "quadratic"] = "nominal") -> Measured:
    """Cohen's kappa of two raters, over the rows that both rated.

    Args:
        weights: "quadratic" counts a disagreement by the square of the steps between the two
            values on the scale: for ordered values.
    """
    first, second = _pair(patterns)
    size = _num_categories(patterns)
    cells = _one_hot(np.where((first >= 0) & (second >= 0), first * size + second, -1), size**2)
    steps = np.subtract.outer(np.arange(size), np.arange(size))
    cost = (steps != 0).astype(float) if weights == "nominal" else steps.astype(float) ** 2

    def measured(counts: Counts) -> Float[np.ndarray, " resamples"]:
        table = (counts @ cells).reshape(-1, size, size)
        rows, columns = table.sum(2), table.sum(1)
        by_chance = np.einsum("bi,bj,ij->b", rows, columns, cost)
        return 1 - _ratio(np.einsum("bij,ij->b", table, cost) * rows.sum(1), by_chance)

    return measured


def alpha(patterns: Patterns, *, level: Literal["nominal", "ordinal"] = "nominal") -> Measured:
    """Krippendorff's alpha of two or more raters; rows with fewer than two ratings say nothing.

    Args:
        level: "ordinal" counts a disagreement by how many ratings lie between the two values.
    """
    size = _num_categories(patterns)
    votes = _votes(patterns, size)
    num_votes = votes.sum(1)
    pairs = votes[:, :, None] * (votes[:, None, :] - np.eye(size))
    share = np.where(num_votes > 1, 1 / np.maximum(num_votes - 1, 1), 0)
    coincidences = (pairs * share[:, None, None]).reshape(len(votes), size**2)

    def measured(counts: Counts) -> Float[np.ndarray, " resamples"]:
        observed = (counts @ coincidences).reshape(-1, size, size)
        margins = observed.sum(2)
        if level == "nominal":
            cost = np.broadcast_to(1 - np.eye(size), observed.shape)
        else:
            middle = np.cumsum(margins, axis=1) - margins / 2
            cost = (middle[:, :, None] - middle[:, None, :]) ** 2
        by_chance = np.einsum("bi,bj,bij->b", margins, margins, cost)
        found = np.einsum("bij,bij->b", observed, cost)
        return 1 - _ratio(found * (margins.sum(1) - 1), by_chance)

    return measured


def ac1(patterns: Patterns) -> Measured:
    """Gwet's AC1 of two or more raters: stable where one category is rare, as harm often is."""
    size = max(_num_categories(patterns), 2)
    votes = _votes(patterns, size)
    num_votes = votes.sum(1)
    rated, twice = num_votes > 0, num_votes > 1
    pairs = np.maximum(num_votes * (num_votes - 1), 1)
    agreeing = (votes * (votes - 1)).sum(1) / pairs
    shares = votes / np.maximum(num_votes, 1)[:, None]

    def measured(counts: Counts) -> Float[np.ndarray, " resamples"]:
        observed = _ratio(counts @ (agreeing * twice), counts @ twice)
        share = _ratio(counts @ shares, (counts @ rated)[:, None])
        by_chance = (share * (1 - share)).sum(1) / (size - 1)
        return _ratio(observed - by_chance, 1 - by_chance)

    return measured


def spearman(patterns: Patterns) -> Measured:
    """Spearman's rank correlation of two raters, ties at their middle rank."""
    first, second = _pair(patterns)
    both = (first >= 0) & (second >= 0)
    rank_first, rank_second = _ranks(first[both]), _ranks(second[both])

    def measured(counts: Counts) -> Float[np.ndarray, " resamples"]:
        counts = counts[:, both]
        x, y = rank_first(counts), rank_second(counts)
        covariance = (counts * x * y).sum(1)
        return _ratio(covariance, np.sqrt((counts * x * x).sum(1) * (counts * y * y).sum(1)))

    return measured


def _ranks(codes: np.ndarray) -> Callable[[Counts], Counts]:
    """Middle ranks of the patterns under given counts, from their mean."""
    _, place = np.unique(codes, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))

    def ranks(counts: Counts) -> Counts:
        if not len(codes):
            return counts
        ties = np.add.reduceat(counts[:, order], starts, axis=1)
        middle = np.cumsum(ties, axis=1) - ties / 2
        return (middle - counts.sum(1, keepdims=True) / 2)[:, place]

    return ranks


def _pair(patterns: Patterns) -> tuple[np.ndarray, np.ndarray]:
    num_raters = patterns.codes.shape[1]
    if num_raters != 2:
        raise ValueError(f"{num_raters} raters: this measure compares two; alpha and AC1 take more")
    return patterns.codes[:, 0], patterns.codes[:, 1]


def _num_categories(patterns: Patterns) -> int:
    if patterns.num_values > MAX_VALUES:
        raise ValueError(
            f"{patterns.num_values} distinct values: expected at most {MAX_VALUES} categories; "
            "round the ratings, or take Spearman's rho"
        )
    return max(patterns.num_values, 1)


def _votes(patterns: Patterns, size: int) -> Float[np.ndarray, "patterns values"]:
    """How many raters gave each value."""
    return sum(
        (_one_hot(codes, size) for codes in patterns.codes.T), np.zeros((len(patterns.codes), size))
    )


def _one_hot(codes: np.ndarray, size: int) -> Float[np.ndarray, "patterns values"]:
    return (codes[:, None] == np.arange(size)).astype(float)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
