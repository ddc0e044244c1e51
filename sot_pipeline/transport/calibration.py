"""A cut with a stated risk: how many harmful rows are there, and which rows can stay?

Each reference is split at random into a part that the weights are learned against and a part that
is held out. The held-out harmful rows then show where harmful rows score that the solve was not
told of, and three answers follow:

- a p-value for each custom row, the share of harmful rows that look at least as safe as it does;
- a cut that keeps a harmful row with probability at most `max_false_keep_rate` (split conformal);
- the contamination, the share of the custom rows that score like the held-out harmful ones.

**What the rate covers.** Take a harmful custom row that is exchangeable with the rows of the
harmful reference. Its chance to be kept, over the draw of all rows and the split, is at most the
rate, for any number of rows and any settings of the solve. The custom and the held-out rows are
solved for together, so that the solve treats all of them alike; without that the statement would
be approximate.

**What it does not cover.** Harm unlike the reference; a reference whose rows come in groups (many
answers to one prompt), where held-out rows have relatives in the fitted part. And one split can
be unlucky: given the split, the rate scatters around its mean by about `sqrt(rate / num_held_out)`.
Harmless rows in the harmful reference do no harm: they score high and make the cut stricter.

Source: Vovk et al. (2005); Bates et al., "Testing for outliers with conformal p-values" (2023).
The contamination estimate is best-bin estimation (Garg et al., 2021) kept away from the tail.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from sot_pipeline.errors import InputError
from sot_pipeline.transport.cost import cosine_cost, pooled_mean
from sot_pipeline.transport.push_pull import PushPullFit, RowScores, learn_weights, score_rows

# From measurements on real rows (bench_calibration.py):
HELD_OUT_SHARE = 0.5  # 0.3 gives the same cut, and estimates that scatter twice as much
LEAST_HARM_BELOW = 0.8  # nearer the tail the estimate hangs on how extreme the harm is


class Split(NamedTuple):
    """Positions of a reference's rows, ascending; every row is in one of the two parts."""

    fitted: np.ndarray
    held_out: np.ndarray


class Calibration(NamedTuple):
    """One solve on the fitted parts, and the scores of all rows that were not in them."""

    fit: PushPullFit  # its rows: custom, held-out harmful, held-out safe
    center: np.ndarray | None  # that the costs were taken from; of the safe reference's fitted part
    safe_split: Split
    harmful_split: Split
    custom: RowScores  # log-weights of the custom rows; the weights sum to 1
    held_out_harmful: np.ndarray  # log-weights on the same scale
    held_out_safe: np.ndarray
    log_total: float  # what that scale lies below the fit's own


class Contamination(NamedTuple):
    """Share of the custom rows that score like the harmful reference, with an interval."""

    share: float
    low: float
    high: float


class CalibratedCut(NamedTuple):
    """Rows that score above `threshold` stay."""

    kept: np.ndarray  # [n] bool
    threshold: float  # a held-out harmful row's score; inf if nothing can stay
    rate: float  # of held-out harmful rows at the threshold and above, never above the stated one


def split_rows(num_rows: int, held_out_share: float, seed: int | tuple[int, ...]) -> Split:
    """Split positions at random, at least one row in each part."""
    if not 0 < held_out_share < 1:
        raise InputError(f"held_out_share={held_out_share}; expected a share between 0 and 1")
    if num_rows < 2:
        raise InputError(f"a reference of {num_rows} rows cannot be split; give at least 2 rows")
    num_held_out = int(np.clip(np.floor(held_out_share * num_rows + 0.5), 1, num_rows - 1))
    order = np.random.default_rng(seed).permutation(num_rows)
    return Split(np.sort(order[num_held_out:]), np.sort(order[:num_held_out]))


def calibrate(
    custom: np.ndarray,
    safe: np.ndarray,
    harmful: np.ndarray,
    *,
    held_out_share: float = HELD_OUT_SHARE,
    seed: int = 0,
    centre: bool = True,
    learn: Callable[[np.ndarray, np.ndarray], PushPullFit] = learn_weights,
) -> Calibration:
    """Learn weights against one part of the references and score the rest with them.

    Args:
        custom, safe, harmful: Embeddings `[rows, d]` of one model.
        held_out_share: Of each reference, between 0 and 1.
        seed: Of the two splits.
        centre: Take angles from the mean of the safe reference's fitted part.
        learn: `learn_weights` with its settings bound.

    Returns:
        `Calibration`. Read its `fit.converged`; the stated rate holds without, the ranking may
        not be worth much.

    Raises:
        InputError: settings out of range, references of one row, unusable embeddings.
    """
    safe, harmful = np.asarray(safe), np.asarray(harmful)
    safe_split = split_rows(len(safe), held_out_share, (seed, 0))
    harmful_split = split_rows(len(harmful), held_out_share, (seed, 1))
    references = safe[safe_split.fitted], harmful[harmful_split.fitted]
    # nothing that shapes the score may tell a held-out row from a custom one: not the centre,
    # of which neither is a part, and not the solve, of which both are
    center = pooled_mean(references[0]) if centre else None
    rows = (np.asarray(custom), harmful[harmful_split.held_out], safe[safe_split.held_out])
    pull_cost, push_cost = (
        np.concatenate([cosine_cost(part, reference, center=center) for part in rows])
        for reference in references
    )
    fit = learn(pull_cost, push_cost)
    scores = score_rows(fit, (pull_cost, push_cost))
    n, num_harmful = len(rows[0]), len(rows[1])
    log_total = float(np.logaddexp.reduce(scores.log_weights[:n]))
    log_weights = scores.log_weights - log_total
    return Calibration(
        fit=fit,
        center=center,
        safe_split=safe_split,
        harmful_split=harmful_split,
        custom=RowScores(log_weights[:n], scores.pull_scores[:n], scores.push_scores[:n]),
        held_out_harmful=log_weights[n : n + num_harmful],
        held_out_safe=log_weights[n + num_harmful :],
        log_total=log_total,
    )


def p_values(scores: np.ndarray, held_out_harmful: np.ndarray) -> np.ndarray:
    """For each row, how often a harmful row scores at least as high: small means unlike harm.

    Args:
        scores: `[n]`, high = keep.
        held_out_harmful: `[m]`, on the same scale, from rows that the scores do not know.

    Returns:
        `[n]` in `[1 / (m + 1), 1]`. For a row exchangeable with the held-out ones the chance of
        a value of at most t is at most t, for every t; ties make it smaller.
    """
    scores, held_out = _finite(scores, "scores"), _finite(held_out_harmful, "held_out_harmful")
    num_as_high = len(held_out) - np.searchsorted(np.sort(held_out), scores, side="left")
    return (1 + num_as_high) / (1 + len(held_out))


def estimate_contamination(
    scores: np.ndarray, held_out_harmful: np.ndarray, *, confidence: float = 0.95
) -> Contamination:
    """How many of the rows come from the harmful reference's distribution, the rest unknown.

    Below any score lie at least `contamination * (share of harmful rows below it)` of the rows,
    with equality where no other row lies. So each held-out score gives an upper bound, and the
    least of them is the estimate. Only scores with at least `LEAST_HARM_BELOW` of the held-out
    rows below them are asked: in the tail the custom set's harm need not be as extreme as the
    reference's, and few rows decide. The other rows may have any distribution; the safe
    reference, which often holds refusals that the custom set does not, has no say.

    Where harmless rows score like harmful ones they are counted, which puts the estimate too high;
    that it is the least of many noisy shares puts it a little too low.

    Args:
        scores: `[n]`, high = keep.
        held_out_harmful: `[m]`, as for `p_values`.
        confidence: Of the interval. It covers the chance of the draw at the score that was
            chosen (exact binomial limits of both shares), not a difference between the harm in
            the custom set and in the reference.

    Source: best-bin estimation, Garg et al. (2021), "Mixture proportion estimation and PU
    learning"; the share above a fixed bound is Storey's (2002) estimate on `p_values`.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence}; expected a share between 0 and 1")
    scores, held_out = _finite(scores, "scores"), _finite(held_out_harmful, "held_out_harmful")
    n, m = len(scores), len(held_out)
    candidates = np.unique(held_out)
    num_harmful = np.searchsorted(np.sort(held_out), candidates, side="right")
    num_rows = np.searchsorted(np.sort(scores), candidates, side="right")
    usable = num_harmful >= LEAST_HARM_BELOW * m
    num_harmful, num_rows = num_harmful[usable], num_rows[usable]
    least = int(np.argmin(num_rows / num_harmful))
    k, h = int(num_rows[least]), int(num_harmful[least])
    tail = (1 - confidence) / 4  # two limits of two shares
    return Contamination(
        share=min(1.0, (k / n) / (h / m)),
        low=min(1.0, _lower_limit(k, n, tail) / _upper_limit(h, m, tail)),
        high=min(1.0, _upper_limit(k, n, tail) / _lower_limit(h, m, tail)),
    )


def calibrated_cut(
    scores: np.ndarray,
    held_out_harmful: np.ndarray,
    *,
    max_false_keep_rate: float,
    contamination: float,
) -> CalibratedCut:
    """Keep the rows that are unlike harm, at no more than a stated risk.

    Rows may stay whose p-value is at most `max_false_keep_rate`. Within that the cut goes where
    kept rows minus twice the harmful ones expected among them is largest: rows that are more
    likely harmful than not go even where the stated rate would let them stay. A stricter cut than
    the stated one keeps the guarantee.

    Args:
        scores: `[n]`, high = keep.
        held_out_harmful: `[m]`, as for `p_values`.
        max_false_keep_rate: Largest share of the harmful rows to keep, between 0 and 1.
        contamination: Share of harmful rows, as from `estimate_contamination`.

    Raises:
        InputError: too few held-out rows for the rate, naming how many it needs.
    """
    if not 0 <= contamination <= 1:
        raise InputError(f"contamination={contamination}; expected a share from 0 to 1")
    values = p_values(scores, held_out_harmful)
    m = len(held_out_harmful)
    needed = num_held_out_needed(max_false_keep_rate)
    if m < needed:
        raise InputError(
            f"max_false_keep_rate={max_false_keep_rate:g} needs {needed:,} held-out harmful rows, "
            f"there {'is' if m == 1 else 'are'} {m:,}: give a larger harmful reference, hold out "
            f"more of it, or allow a rate of {1 / (m + 1):.2g}"
        )
    # 1e-9: 0.29 * 100 is 28.999999999999996
    rates = np.arange(int(np.floor(max_false_keep_rate * (m + 1) + 1e-9)) + 1) / (m + 1)
    num_kept = np.searchsorted(np.sort(values), rates, side="right")
    place = int(np.argmax(num_kept - 2 * contamination * len(values) * rates))
    if place == 0:
        return CalibratedCut(np.zeros(len(values), dtype=bool), np.inf, 0.0)
    threshold = np.sort(np.asarray(held_out_harmful, dtype=np.float64))[m - place]
    return CalibratedCut(np.asarray(scores) > threshold, float(threshold), float(rates[place]))


def num_held_out_needed(max_false_keep_rate: float) -> int:
    """The fewest held-out harmful rows with which a row can be kept at this rate."""
    if not 0 < max_false_keep_rate < 1:
        raise InputError(
            f"max_false_keep_rate={max_false_keep_rate}; expected a share between 0 and 1"
        )
    return int(np.ceil(1 / max_false_keep_rate - 1e-9)) - 1


def _lower_limit(count: int, num: int, tail: float) -> float:
    """Clopper and Pearson's limit of a share of which `count / num` was seen."""
    return 0.0 if count == 0 else float(stats.beta.ppf(tail, count, num - count + 1))


def _upper_limit(count: int, num: int, tail: float) -> float:
    return 1.0 if count == num else float(stats.beta.ppf(1 - tail, count + 1, num - count))


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or len(vector) == 0 or not np.isfinite(vector).all():
        raise InputError(
            f"{name} has shape {vector.shape} and {np.sum(~np.isfinite(vector))} values that are "
            "not finite; expected one finite number per row, at least one row"
        )
    return vector
