"""Row copies in proportion to weights, for trainers that know no weights.

Systematic resampling (Kitagawa 1996, section A.1; lower variance than drawing row by row): a row
of weight w is copied floor(e) or ceil(e) times, e = total * w / sum(w), and e times on average.
What it costs against weights in the loss: a row with e < 1 is missing with probability 1 - e, and
which rows are missing depends on the seed. A larger factor makes both small, at the price of a
longer file; the configurations divide the epochs by the factor, so training takes as long.
"""

import numpy as np

from sot_pipeline.errors import InputError

# Beyond this, expected copies of equal weights are whole numbers spoilt by rounding
_ROUNDING = 1e-9


def resampled_counts(weights: np.ndarray, *, factor: float = 1.0, seed: int = 0) -> np.ndarray:
    """How often each row is copied.

    Args:
        weights: `[n]`, >= 0, any scale, not all 0.
        factor: Copies per row on average, > 0; the total is n * factor, rounded, at least 1.
        seed: The same weights, factor and seed give the same copies.

    Returns:
        `[n]` int64. Equal weights and factor 1 give ones.

    Raises:
        InputError: weights that are no weights, a factor that is not positive.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 1 or not len(weights):
        raise InputError(f"weights have shape {weights.shape}; expected one number per row")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise InputError("weights must be finite, >= 0 and not all 0 to be resampled by")
    if not 0 < factor < np.inf:
        raise InputError(f"the resampling factor is {factor}; expected a finite number > 0")
    total = max(1, round(len(weights) * factor))
    shares = weights / weights.max()
    expected = shares * (total / shares.sum())
    whole = np.round(expected)
    expected = np.where(np.abs(expected - whole) < _ROUNDING * (1 + whole), whole, expected)
    counts = np.floor(expected).astype(np.int64)
    return counts + _one_more(expected - counts, total - int(counts.sum()), seed)


def _one_more(chances: np.ndarray, num: int, seed: int) -> np.ndarray:
    """0 or 1 per row, `num` ones in all, each row's with the chance that it states."""
    if num <= 0:
        return np.zeros(len(chances), dtype=np.int64)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(chances))  # rows that lie together must not exclude each other
    ends = np.cumsum(chances[order])
    ends *= num / ends[-1]
    ends[-1] = num
    # a grid of step 1 from a random start: as many points in a row's stretch as it is long
    crossed = np.ceil(np.concatenate([[0.0], ends]) - rng.random())
    crossed[0] = 0
    extra = np.zeros(len(chances), dtype=np.int64)
    extra[order] = np.diff(crossed).astype(np.int64)
    return extra
