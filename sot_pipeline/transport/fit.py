"""What a solve of Eq. 5 leaves behind, and how it scores rows that it has not seen."""

from typing import NamedTuple

import jax
import numpy as np

from sot_pipeline.errors import InputError
from sot_pipeline.transport.cost import checked_costs
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
    num_steps: int
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


class RowScores(NamedTuple):
    """Log-weights of rows and the two parts that explain them; 0 is the fit's average row."""

    log_weights: np.ndarray
    pull_scores: np.ndarray
    push_scores: np.ndarray


def extend(fit: PushPullFit, pull_cost: np.ndarray, push_cost: np.ndarray) -> np.ndarray:
    """Log-weights of rows that were not in the fit, on the fit's scale, without a new solve.

    The dual potentials of the references carry over to any row through the soft c-transform;
    what follows is the log-weight the row would have got had it been a custom sample of
    negligible mass. For "mirror" with `tau > 0` and for "one_shot" a row of the fit gets its own
    log-weight back exactly. With `tau = 0` and for "adam" log-weights are no function of the
    potentials: the line through the fit's own rows that fits them best is used instead.

    Args:
        fit: From `learn_weights`.
        pull_cost: `[k, m_safe]`, costs of the new rows to the same safe reference, with the same
            centre.
        push_cost: `[k, m_harmful]`.

    Returns:
        `[k]` natural logs. A weight of 1/n, the average of the fit, is `-log(n)`.
    """
    return score_rows(fit, pull_cost, push_cost).log_weights


def score_rows(fit: PushPullFit, pull_cost: np.ndarray, push_cost: np.ndarray) -> RowScores:
    """As `extend`, with the two parts that explain each log-weight."""
    pull_cost, push_cost = checked_costs(pull_cost, push_cost)
    for name, cost, potential in (
        ("pull_cost", pull_cost, fit.g_pull),
        ("push_cost", push_cost, fit.g_push),
    ):
        if cost.shape[1] != len(potential):
            raise InputError(
                f"{name} has {cost.shape[1]} columns, the fit was made with a reference of "
                f"{len(potential)} rows; compute the costs to that same reference, or fit again"
            )
    return scores_from_potentials(
        fit,
        _extend_potential(pull_cost, fit.g_pull, fit.epsilon),
        _extend_potential(push_cost, fit.g_push, fit.epsilon),
    )


def scores_from_potentials(
    fit: PushPullFit, pull_potential: np.ndarray, push_potential: np.ndarray
) -> RowScores:
    """Scores of rows whose two potentials (gradients of `ot_cost`) are known."""
    pull = np.asarray(pull_potential, dtype=np.float64) - fit.pull_mean
    push = np.asarray(push_potential, dtype=np.float64) - fit.push_mean
    pull_scores = -fit.score_scale * (1 - fit.lambda_push) * pull
    push_scores = fit.score_scale * fit.lambda_push * push
    return RowScores(fit.mean_log_weight + pull_scores + push_scores, pull_scores, push_scores)


_extend_potential = jax.jit(soft_c_transform)
