"""From log-weights to a decision: which rows to keep, and how much each of them counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sot_pipeline.errors import InputError


class NearestReference(NamedTuple):
    """The reference row that is cheapest for each custom row."""

    indices: np.ndarray  # [n] int64, row of the reference
    costs: np.ndarray  # [n], unit of the cost


def top_k(
    log_weights: np.ndarray,
    *,
    keep_fraction: float | None = None,
    keep_count: int | None = None,
) -> np.ndarray:
    """Mask of the rows with the largest log-weights.

    Args:
        log_weights: `[n]`, any scale; -inf is allowed.
        keep_fraction: Share of rows to keep, in (0, 1]; rounded to the nearest count (halves
            to the larger), at least one row.
        keep_count: Number of rows to keep, 1 to n. Give exactly one of the two.

    Returns:
        `[n]` bool, with exactly that many True. Ties are broken by row order: the earlier row
        is kept.
    """
    log_weights = _vector(log_weights, "log_weights")
    n = len(log_weights)
    if np.isnan(log_weights).any():
        raise InputError(
            f"log_weights: row {np.flatnonzero(np.isnan(log_weights))[0]} is NaN and cannot be "
            "ranked; look at the convergence of the fit"
        )
    if (keep_fraction is None) == (keep_count is None):
        raise InputError(
            f"keep_fraction={keep_fraction}, keep_count={keep_count}; give exactly one of them"
        )
    if keep_fraction is not None:
        if not 0 < keep_fraction <= 1:
            raise InputError(f"keep_fraction={keep_fraction}; expected a share in (0, 1]")
        keep_count = max(1, int(np.floor(keep_fraction * n + 0.5)))
    if keep_count is None or keep_count != int(keep_count) or not 1 <= keep_count <= n:
        raise InputError(f"keep_count={keep_count}; expected a whole number from 1 to {n}")
    kept = np.zeros(n, dtype=bool)
    kept[np.argsort(-log_weights, kind="stable")[: int(keep_count)]] = True
    return kept


def ranks(log_weights: np.ndarray) -> np.ndarray:
    """Rank of each row, 1 for the largest log-weight; ties by row order, as in `top_k`."""
    order = np.argsort(-_vector(log_weights, "log_weights"), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    return rank


def training_weights(
    log_weights: np.ndarray,
    kept: np.ndarray,
    *,
    temperature: float = 1.0,
    clip: tuple[float, float] = (0.2, 5.0),
) -> np.ndarray:
    """Weights of the kept rows in the training loss: softmax, mean 1, bounded.

    Args:
        log_weights: `[n]`, natural logs.
        kept: `[n]` bool mask, as from `top_k`; at least one row.
        temperature: > 0; log-weights are divided by it. Large: all rows count alike.
        clip: Smallest and largest weight, `0 <= low <= 1 <= high`. The mean is 1 after clipping
            too: the weights inside the bounds are scaled, those at a bound stay there.

    Returns:
        `[k]` float64 in the order of the kept rows, within `clip`, mean 1.
    """
    log_weights = _vector(log_weights, "log_weights")
    kept = np.asarray(kept)
    low, high = clip
    if kept.dtype != bool or kept.shape != log_weights.shape or not kept.any():
        raise InputError(
            f"kept is an array of {kept.dtype} of shape {kept.shape} with {np.sum(kept)} rows "
            f"kept; expected a bool mask of shape {log_weights.shape} that keeps at least one row"
        )
    if not 0 < temperature < np.inf:
        raise InputError(f"temperature={temperature}; expected a finite number > 0")
    if not 0 <= low <= 1 <= high:
        raise InputError(f"clip={clip}; expected low <= 1 <= high, neither negative")
    logits = log_weights[kept] / temperature
    if not np.isfinite(logits).all():
        raise InputError("a kept row has a log-weight that is not finite; keep fewer rows")
    # the mean of clip(scale * w, low, high) rises with scale: bisect for the scale of mean 1
    scale_free = logits - logits.max()

    def clipped(shift: float) -> np.ndarray:
        return np.clip(np.exp(np.minimum(scale_free + shift, 700)), low, high)

    # the mean of the clipped weights rises with the shift: bisect for the one of mean 1
    lower, upper = -1.0, np.log(len(logits)) - scale_free.min() + 1
    for _ in range(100):
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if clipped(middle).mean() < 1 else (lower, middle)
    return clipped(upper)


def effective_sample_size(weights: np.ndarray) -> float:
    """`(sum w)^2 / sum w^2`: n for equal weights (nothing learned), 1 for a single one."""
    weights = _vector(weights, "weights")
    if (weights < 0).any() or not np.isfinite(weights).all() or weights.sum() == 0:
        raise InputError("weights must be finite, >= 0 and not all 0")
    shares = weights / weights.max()
    return float(shares.sum() ** 2 / (shares**2).sum())


def nearest_reference(cost: np.ndarray) -> NearestReference:
    """Which row of a reference each custom row is nearest to.

    Args:
        cost: `[n, m]`, as `pull_cost` or `push_cost`; ties go to the earlier reference row.
    """
    cost = np.asarray(cost)
    if cost.ndim != 2 or cost.shape[1] == 0:
        raise InputError(f"cost has shape {cost.shape}; expected [custom rows, reference rows]")
    indices = cost.argmin(axis=1)
    return NearestReference(indices, np.take_along_axis(cost, indices[:, None], axis=1)[:, 0])


def _vector(values: np.ndarray | Sequence[float], name: str) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or len(vector) == 0:
        raise InputError(f"{name} has shape {vector.shape}; expected one number per row, not empty")
    return vector
