"""How many rows of two references stand on the wrong side, and which ones.

Confident learning (Northcutt, Jiang & Chuang 2021, "Confident learning: estimating uncertainty in
dataset labels"): a classifier that did not see a row says how likely either side is; a row counts
as confidently of a side from the mean probability on that the side's own rows have. The share of a
side's confident rows that are confidently of the other side estimates its rate of flipped labels.
"""

from typing import NamedTuple

import numpy as np

from sot_pipeline.errors import InputError
from sot_pipeline.references.directions import unit_rows

NUM_FOLDS, NUM_SPLITS = 5, 3
FEWEST_ROWS = 20  # of a side; below, a fold trains on hardly anything
_CONFIDENCE = 0.95


class FlipRate(NamedTuple):
    """Of one reference. Flips are only visible against the other reference: a harmless row among
    harmful ones counts if it looks like a row of the safe reference."""

    rate: float  # [0, 1]; low where many labels of one side only are flipped: see the interval
    # From the exact lower limit of `rate` to the exact upper limit of the share of rows that the
    # classifier gives to the other side at all, 2.5 % each. Rows that are hard to tell lie between.
    low: float
    high: float
    # [k] int64: as many rows as the rate says ("prune by noise rate"), those that are least likely of
    # their own side, the surest first; never one that is rather of its own side
    suspicious: np.ndarray
    probability: np.ndarray  # [n] that a row is of its own side, from folds without it


def flip_rates(
    safe: np.ndarray,
    harmful: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[FlipRate, FlipRate]:
    """Estimate the share of mislabelled rows of either reference.

    Args:
        safe: Embeddings `[n, d]`, any unit.
        harmful: Embeddings `[m, d]` of the same model.
        groups: `[n + m]` int, rows of equal number stay in one fold: copies of a row vouch for
            each other's label otherwise. None: no copies.
        seed: Of the folds.

    Returns:
        Of the safe, then of the harmful reference.

    Raises:
        InputError: fewer than `FEWEST_ROWS` rows of either, different dimensions, bad vectors.
    """
    _check(safe, harmful)
    features = np.concatenate([unit_rows(safe), unit_rows(harmful)])
    is_harmful = np.arange(len(features)) >= len(safe)
    copies = np.arange(len(features)) if groups is None else np.asarray(groups)
    harm = np.mean(
        [
            _held_out_probability(features, is_harmful, copies, seed + split)
            for split in range(NUM_SPLITS)
        ],
        axis=0,
    )
    from_safe, from_harmful = 1 - harm[~is_harmful], harm[is_harmful]
    thresholds = float(from_safe.mean()), float(from_harmful.mean())
    return (
        _flip_rate(from_safe, *thresholds),
        _flip_rate(from_harmful, *thresholds[::-1]),
    )


def _held_out_probability(
    features: np.ndarray, is_harmful: np.ndarray, copies: np.ndarray, seed: int
) -> np.ndarray:
    """`[rows]` probability of "harmful" of a classifier that saw neither the row nor a copy."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    _, first, group = np.unique(copies, return_index=True, return_inverse=True)
    fold_of_group = np.empty(len(first), dtype=np.int64)
    for side in (False, True):  # each side is dealt out evenly
        own = np.flatnonzero(is_harmful[first] == side)
        fold_of_group[rng.permutation(own)] = np.arange(len(own)) % NUM_FOLDS
    fold = fold_of_group[group]
    probability = np.empty(len(features))
    for held_out in range(NUM_FOLDS):
        out = fold == held_out
        if len(np.unique(is_harmful[~out])) < 2:  # all rows of a side are copies of each other
            probability[out] = 0.5
            continue
        classifier = LogisticRegression(C=1.0, max_iter=1_000, class_weight="balanced")
        classifier.fit(features[~out], is_harmful[~out])
        if out.any():
            probability[out] = classifier.predict_proba(features[out])[:, 1]
    return probability


def _flip_rate(own: np.ndarray, own_threshold: float, other_threshold: float) -> FlipRate:
    other = 1 - own
    gone = (other >= other_threshold) & (other > 0.5)
    stays = (own >= own_threshold) & (own >= 0.5)
    num_gone, num_confident = int(gone.sum()), int(gone.sum() + stays.sum())
    num_contradicted = int((other > 0.5).sum())
    rate = num_gone / max(1, num_confident)
    lowest = np.argsort(own, kind="stable")[: round(rate * len(own))]
    return FlipRate(
        rate=rate,
        low=_exact_limits(num_gone, num_confident)[0],
        high=_exact_limits(max(num_contradicted, num_gone), len(own))[1],
        suspicious=lowest[own[lowest] < 0.5],
        probability=own,
    )


def _exact_limits(count: int, total: int) -> tuple[float, float]:
    """Clopper-Pearson limits of a share."""
    from scipy.stats import beta

    tail = (1 - _CONFIDENCE) / 2
    low = float(beta.ppf(tail, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, total - count)) if count < total else 1.0
    return low, high


def _check(safe: np.ndarray, harmful: np.ndarray) -> None:
    for name, vectors in (("safe", safe), ("harmful", harmful)):
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise InputError(
                f"{name} vectors have shape {vectors.shape}, or are not all finite; expected "
                "finite numbers [rows, dimensions]"
            )
        if len(vectors) < FEWEST_ROWS:
            raise InputError(
                f"the {name} reference has {len(vectors)} rows; estimating flipped labels takes "
                f"{FEWEST_ROWS}"
            )
    if safe.shape[1] != harmful.shape[1]:
        raise InputError(
            f"safe vectors have {safe.shape[1]} dimensions, harmful ones {harmful.shape[1]}: they "
            "come from different models. Embed both with the same model."
        )
