"""Do the references fit the custom set, and did the solve learn anything?

Scores with a pass rule each. The thresholds were calibrated on real rows (three tasks, matched and
swapped safe references, 10 % and 30 % contamination; all-MiniLM-L6-v2 vectors of prompt and answer
apart, of whole rows where it says so, centred on the safe reference); the table of figures is
printed by `sot_pipeline_tests/benchmarks/bench_real_selection.py`.
"""

from typing import Literal, NamedTuple

import numpy as np

from sot_pipeline.transport.cost import cosine_cost
from sot_pipeline.transport.fit import PushPullFit

# matched references: 0.33-0.49 (50 rows: 0.28-0.43; 20: 0.15-0.43); swapped ones: 0.00-0.04 (20 or
# 50 rows: up to 0.10, of whole rows up to 0.18), refusals alone: 0.03-0.06
LEAST_MIXING = 0.2
# matched: 0.0002-0.011 (50 rows: up to 0.032); swapped: 0.23-0.83, but 0-0.006 where the reference
# is general and surrounds the task; refusals alone: 0.17-0.47
MOST_UNCOVERED = 0.05
# real references: 15-41 (50 rows of each: 2.6-7.9; 20: 1.9-4.9); both of one population: 0.5-2.4
LEAST_SIGNAL_TO_NOISE = 2.5
_FEWEST_ROWS = 10
_CHUNK = 4_096


class AnchorMatch(NamedTuple):
    """Is the safe reference about the task of the custom rows?"""

    mixing: float  # [0, 1]; the smaller of the two below; 0.5 if both sets are one population
    safe_beside_custom: float  # share of safe rows whose nearest neighbour is a custom row
    custom_beside_safe: float  # share of custom rows whose nearest neighbour is a safe row
    threshold: float
    matched: bool | None  # None: too few rows to say


class ReferenceCoverage(NamedTuple):
    """Do custom rows lie where a reference is?"""

    uncovered_share: float  # [0, 1]
    uncovered: np.ndarray  # [n] bool: beyond both radii
    safe_radius: float  # unit of the cost
    harmful_radius: float
    threshold: float
    covered: bool


class WeightCollapse(NamedTuple):
    """Did the solve tell samples apart without throwing most of them away?"""

    verdict: Literal["none", "nothing_learned", "degenerate"]
    effective_share: float  # effective sample size / n
    signal_to_noise: float  # spread of the potentials over what chance alone would give


def anchor_match(
    custom: np.ndarray,
    safe: np.ndarray,
    *,
    center: np.ndarray | None = None,
    num_sampled: int = 1_000,
    seed: int = 0,
) -> AnchorMatch:
    """Nearest-neighbour test of custom rows against the safe reference.

    Take as many custom rows at random as there are safe rows, and look whose nearest neighbour
    in the mixture is of the other set. For two samples of one population that is half of the
    rows; for two topics, hardly any. The expectation over the random rows is computed exactly.
    Rows of only one set (refusals of a safe reference, contamination of a custom set) lower it:
    the threshold leaves room for both.

    Args:
        custom: Embeddings `[n, d]`, contaminated or not.
        safe: Embeddings `[m, d]`.
        center: As for `cosine_cost`.
        num_sampled: Custom rows whose neighbours are looked up; cost `num_sampled * n`.
        seed: Of their choice.
    """
    num_custom, num_safe = len(custom), len(safe)
    if min(num_custom, num_safe) < _FEWEST_ROWS:
        nan = float("nan")
        return AnchorMatch(nan, nan, nan, LEAST_MIXING, None)
    nearest_safe = np.empty(num_custom, dtype=np.float32)
    nearest_other_safe = _nearest_in_set(safe, center)
    num_closer = np.zeros(num_safe)
    for rows in _chunks(num_custom):
        cost = cosine_cost(custom[rows], safe, center=center)
        nearest_safe[rows] = cost.min(axis=1)
        num_closer += (cost < nearest_other_safe).sum(axis=0)
    safe_beside_custom = np.mean(1 - (1 - num_closer / num_custom) ** (num_safe - 1))

    chosen = np.random.default_rng(seed).permutation(num_custom)[:num_sampled]
    cost = cosine_cost(custom[chosen], custom, center=center)
    cost[np.arange(len(chosen)), chosen] = np.inf
    closer = (cost < nearest_safe[chosen, None]).sum(axis=1) / (num_custom - 1)
    custom_beside_safe = np.mean((1 - closer) ** num_safe)

    mixing = float(min(safe_beside_custom, custom_beside_safe))
    return AnchorMatch(
        mixing,
        float(safe_beside_custom),
        float(custom_beside_safe),
        LEAST_MIXING,
        mixing >= LEAST_MIXING,
    )


def reference_coverage(
    custom: np.ndarray,
    safe: np.ndarray,
    harmful: np.ndarray,
    *,
    center: np.ndarray | None = None,
    quantile: float = 0.99,
) -> ReferenceCoverage:
    """Share of custom rows that are far from both references, so that neither can judge them.

    A reference reaches as far as the `quantile` of its own rows' nearest-neighbour distances; a
    reference of one row reaches nowhere.
    """
    near = np.zeros(len(custom), dtype=bool)
    radii = []
    for reference in (safe, harmful):
        radius = reach(reference, center=center, quantile=quantile)
        radii.append(radius)
        for rows in _chunks(len(custom)):
            near[rows] |= cosine_cost(custom[rows], reference, center=center).min(axis=1) <= radius
    share = float(np.mean(~near))
    return ReferenceCoverage(
        share, ~near, radii[0], radii[1], MOST_UNCOVERED, share <= MOST_UNCOVERED
    )


def reach(
    reference: np.ndarray, *, center: np.ndarray | None = None, quantile: float = 0.99
) -> float:
    """Cost up to which a reference `[m, d]` can judge a row: the `quantile` of the costs of its
    own rows to their nearest other row; 0 for a single row."""
    if len(reference) < 2:
        return 0.0
    return float(np.quantile(_nearest_in_set(reference, center), quantile))


def weight_collapse(fit: PushPullFit) -> WeightCollapse:
    """Read a fit for the two ways in which weights fail.

    "nothing_learned": weights are uniform, or the potentials vary no more than they would with
    costs drawn at random, in which case a target effective sample size spreads mere noise.
    "degenerate": fewer than 1 % of the samples (or not two of them) carry the weight.
    """
    num_samples = len(fit.log_weights)
    share = fit.effective_sample_size / num_samples
    # the average of m costs of this spread, drawn at random, varies by spread / sqrt(m)
    noise = fit.cost_std * np.hypot(
        (1 - fit.lambda_push) / np.sqrt(len(fit.g_pull)), fit.lambda_push / np.sqrt(len(fit.g_push))
    )
    signal_to_noise = float(np.std(fit.pull_scores + fit.push_scores) / fit.score_scale / noise)
    verdict: Literal["none", "nothing_learned", "degenerate"] = "none"
    if num_samples > 1 and fit.effective_sample_size < max(1.5, 0.01 * num_samples):
        verdict = "degenerate"
    elif share > 0.99 or signal_to_noise < LEAST_SIGNAL_TO_NOISE:
        verdict = "nothing_learned"
    return WeightCollapse(verdict, share, signal_to_noise)


def _nearest_in_set(vectors: np.ndarray, center: np.ndarray | None) -> np.ndarray:
    """Distance of each row to the nearest other row of its set; infinite for a single row."""
    nearest = np.empty(len(vectors), dtype=np.float32)
    for rows in _chunks(len(vectors)):
        cost = cosine_cost(vectors[rows], vectors, center=center)
        cost[np.arange(len(cost)), np.arange(rows.start, rows.start + len(cost))] = np.inf
        nearest[rows] = cost.min(axis=1)
    return nearest


def _chunks(num_rows: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, num_rows, _CHUNK)]
