"""What a solve of Eq. 5 leaves behind, and how it scores rows that it has not seen."""

from typing import NamedTuple

import jax
import numpy as np

from sot_pipeline.errors import InputError
from sot_pipeline.transport.cost import (
    check_embeddings,
    checked_costs,
    cosine_of_directions,
    directions_from,
)
from sot_pipeline.transport.sinkhorn import soft_c_transform


class PushPullFit(NamedTuple):
    """The minimiser of Eq. 5 and all that is needed to judge, extend or warm-start it."""

    log_weights: np.ndarray  # [n] natural logs; the weights sum to 1
    weights: np.ndarray  # [n]
    solved_at: np.ndarray  # [n] log-weights of the potentials; once converged near log_weights
    pull_scores: np.ndarray  # [n] nats: what closeness to the safe reference adds to log_weights
    push_scores: np.ndarray  # [n] nats: what distance from the harmful reference adds
    f_pull: np.ndarray  # [n] dual potentials in ott-jax's convention, unit of the cost
    g_pull: np.ndarray  # [m_safe]
    f_push: np.ndarray  # [n]
    g_push: np.ndarray  # [m_harmful]
    objective_trace: np.ndarray
    residual_trace: np.ndarray
    converged: bool  # residual <= tolerance and both transport problems solved
    residual: float  # of stationarity, in units of cost_std
    tolerance: float
    marginal_errors: tuple[float, float]  # pull, push; L1
    num_steps: int  # evaluations of the two transport problems
    num_sweeps: int  # passes over the costs to one reference
    storage: str  # of the kernels: float32, float64, float16 or recomputed; two joined by "+"
    precision: str  # of the sums: float32 or float64
    cost_std: float  # pooled standard deviation of the two costs
    epsilon: float  # unit of the cost
    tau: float  # unit of the cost
    lambda_push: float
    reference_relaxation: float
    optimizer: str
    effective_sample_size: float  # 1 / sum w^2, from 1 to n
    score_scale: float  # nats of log-weight per unit of potential: 1 / tau
    pull_mean: float  # mean potentials and log-weight of the fit's own rows: zero of the scores
    push_mean: float
    mean_log_weight: float
    # of a fit from embeddings, for the vectors of new rows
    safe_directions: np.ndarray | None = None  # [m_safe, d] unit vectors from the centre
    harmful_directions: np.ndarray | None = None  # [m_harmful, d]
    center: np.ndarray | None = None  # [d]


class RowScores(NamedTuple):
    """Log-weights of rows and the two parts that explain them; 0 is the fit's average row."""

    log_weights: np.ndarray
    pull_scores: np.ndarray
    push_scores: np.ndarray


NewRows = tuple[np.ndarray, np.ndarray] | np.ndarray


def carried_over(fit: PushPullFit, rows: np.ndarray) -> PushPullFit:
    """The fit as a starting point (`learn_weights(init=...)`) for a changed custom set.

    Args:
        rows: `[n]`, for each row of the new set its place in the fit, -1 where it is new; a new
            row starts as the average of those known. At least one must be known.

    Returns:
        The fit with log-weights and potentials for these rows; all else is as it was, so that it
        starts a solve and scores nothing.
    """
    if not (rows >= 0).any():
        raise InputError("none of the rows was in the earlier fit: start without it")
    if np.array_equal(rows, np.arange(len(fit.log_weights))):
        return fit

    def moved(values: np.ndarray) -> np.ndarray:
        known = values[rows[rows >= 0]]
        return np.where(rows >= 0, values[np.maximum(rows, 0)], known.mean())

    carried = fit.epsilon * fit.solved_at  # ott-jax's convention: f holds it
    log_weights = moved(fit.solved_at)
    log_weights -= np.logaddexp.reduce(log_weights)
    return fit._replace(
        log_weights=log_weights,
        weights=np.exp(log_weights),
        solved_at=log_weights,
        f_pull=moved(fit.f_pull - carried) + fit.epsilon * log_weights,
        f_push=moved(fit.f_push - carried) + fit.epsilon * log_weights,
    )


def extend(fit: PushPullFit, new_rows: NewRows) -> np.ndarray:
    """Log-weights of rows that were not in the fit, on the fit's scale, without a new solve.

    The dual potentials of the references carry over to any row through the soft c-transform;
    what follows is the log-weight the row would have got had it been a custom sample of
    negligible mass. For "mirror" with `tau > 0` and for "one_shot" a row of the fit gets its own
    log-weight back exactly. With `tau = 0` and for "adam" log-weights are no function of the
    potentials: the line through the fit's own rows that fits them best is used instead.

    Args:
        fit: From `learn_weights` or `learn_weights_from_embeddings`.
        new_rows: The costs `(pull_cost [k, m_safe], push_cost [k, m_harmful])` of the new rows
            to the same references, with the same centre; or, for a fit from embeddings, their
            vectors `[k, d]`.

    Returns:
        `[k]` natural logs. A weight of 1/n, the average of the fit, is `-log(n)`.
    """
    return score_rows(fit, new_rows).log_weights


def score_rows(fit: PushPullFit, new_rows: NewRows) -> RowScores:
    """As `extend`, with the two parts that explain each log-weight."""
    if isinstance(new_rows, np.ndarray):
        potentials = _potentials_of_vectors(fit, new_rows)
    else:
        potentials = _potentials_of_costs(fit, *checked_costs(*new_rows))
    return scores_from_potentials(fit, *potentials)


def scores_from_potentials(
    fit: PushPullFit, pull_potential: np.ndarray, push_potential: np.ndarray
) -> RowScores:
    """Scores of rows whose two potentials (gradients of `ot_cost`) are known."""
    pull = np.asarray(pull_potential, dtype=np.float64) - fit.pull_mean
    push = np.asarray(push_potential, dtype=np.float64) - fit.push_mean
    pull_scores = -fit.score_scale * (1 - fit.lambda_push) * pull
    push_scores = fit.score_scale * fit.lambda_push * push
    return RowScores(fit.mean_log_weight + pull_scores + push_scores, pull_scores, push_scores)


def _potentials_of_costs(
    fit: PushPullFit, pull_cost: np.ndarray, push_cost: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    for name, cost, potential in (
        ("pull_cost", pull_cost, fit.g_pull),
        ("push_cost", push_cost, fit.g_push),
    ):
        if cost.shape[1] != len(potential):
            raise InputError(
                f"{name} has {cost.shape[1]} columns, the fit was made with a reference of "
                f"{len(potential)} rows; compute the costs to that same reference, or fit again"
            )
    double = fit.precision == "float64"
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        pull, push = (
            np.asarray(
                _extend_potential(cost.astype(dtype, copy=False), g.astype(dtype), fit.epsilon)
            )
            for cost, g in ((pull_cost, fit.g_pull), (push_cost, fit.g_push))
        )
    return pull, push


def _potentials_of_vectors(fit: PushPullFit, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if fit.safe_directions is None or fit.harmful_directions is None or fit.center is None:
        raise InputError(
            "this fit was made from costs and does not know the references' vectors; pass the "
            "new rows' costs as (pull_cost, push_cost)"
        )
    width = fit.safe_directions.shape[1]
    check_embeddings(vectors, "new_rows", width=width)
    parts = []
    for start in range(0, len(vectors), _CHUNK):
        directions = directions_from(vectors[start : start + _CHUNK], fit.center)
        costs = (cosine_of_directions(directions, fit.safe_directions),
                 cosine_of_directions(directions, fit.harmful_directions))  # fmt: skip
        parts.append(_potentials_of_costs(fit, *costs))
    pull, push = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pull, push


_CHUNK = 16_384  # rows
_extend_potential = jax.jit(soft_c_transform)
