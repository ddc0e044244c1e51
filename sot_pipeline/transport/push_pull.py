"""Eq. 5: weights that pull the custom set to the safe reference and push it from the harmful one.

    minimise over w on the simplex
        (1 - lambda) OT_eps(P(w), safe) - lambda OT_eps(P(w), harmful) + tau KL(w | uniform)

P(w) puts weight w_i on custom sample i; both references carry uniform mass, enforced exactly or
relaxed (`reference_relaxation`). The gradient is closed (envelope theorem): with the dual
potentials `pull_i` and `push_i` of sample i it is `G_i = (1 - lambda) pull_i - lambda push_i`, and
at the minimiser `tau log w_i = -G_i + const`. Samples are ranked by `log_weights`, never by
`weights`, whose smallest entries may vanish in floating point.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sot_pipeline.errors import InputError
from sot_pipeline.transport.descent import (
    Descent,
    Energy,
    Progress,
    adam,
    mirror_descent,
    normalise,
    stationarity_residual,
    tau_for_ess,
)
from sot_pipeline.transport.sinkhorn import TransportResult, entropic_ot, soft_c_transform

EPSILON_IN_STDS = 2.0
TARGET_ESS = 0.5
REFERENCE_RELAXATION = 0.9
_LIGHTEST = 1e-30  # marginals are floored here: float32 has no logarithm far below


class PushPullFit(NamedTuple):
    """The minimiser of Eq. 5 and all that is needed to judge, extend or warm-start it."""

    log_weights: np.ndarray  # [n] natural logs; the weights sum to 1
    weights: np.ndarray  # [n]
    pull_scores: np.ndarray  # [n] nats: what closeness to the safe reference adds to log_weights
    push_scores: np.ndarray  # [n] nats: what distance from the harmful reference adds
    f_pull: np.ndarray  # [n] dual potentials in ott-jax's convention, unit of the cost
    g_pull: np.ndarray  # [m_safe]
    f_push: np.ndarray  # [n]
    g_push: np.ndarray  # [m_harmful]
    objective_trace: np.ndarray
    residual_trace: np.ndarray
    converged: bool  # residual <= tolerance and both transport problems solved
    residual: float  # of stationarity, in units of the pooled std of the costs
    tolerance: float
    marginal_errors: tuple[float, float]  # pull, push; L1
    num_steps: int
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


class _Solved(NamedTuple):
    pull: TransportResult
    push: TransportResult
    pull_gradient: np.ndarray  # [n] d OT / d w, unit of the cost
    push_gradient: np.ndarray


def learn_weights(
    pull_cost: np.ndarray,
    push_cost: np.ndarray,
    *,
    lambda_push: float = 0.5,
    epsilon: float | None = None,
    tau: float | None = None,
    target_ess: float | None = None,
    reference_relaxation: float = REFERENCE_RELAXATION,
    optimizer: Literal["mirror", "adam", "one_shot"] = "mirror",
    init: PushPullFit | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 200,
    learning_rate: float = 0.05,
    max_sinkhorn_iterations: int = 2_000,
    progress: Progress | None = None,
) -> PushPullFit:
    """Solve Eq. 5 for the weights of the custom samples.

    Args:
        pull_cost: `[n, m_safe]`, costs to the safe reference, >= 0.
        push_cost: `[n, m_harmful]`, costs to the harmful reference, same rows.
        lambda_push: In [0, 1]; 0 pulls only, 1 pushes only.
        epsilon: Entropic regularisation of both problems, > 0, in the unit of the costs. None
            takes `EPSILON_IN_STDS` times the pooled standard deviation of the two costs.
        tau: Strength of the pull to uniform weights, >= 0, in the unit of the costs. With 0 the
            minimisers are sparse and most log-weights run away; give it or `target_ess`.
        target_ess: Effective sample size to reach, as a share of n in (0, 1); tau follows from
            it. None and no tau: `TARGET_ESS`.
        reference_relaxation: In [0, 1]. 0 makes all of a reference take part (balanced OT); 1
            lets each sample be compared with whatever is near it, so that rows of a reference
            that match nothing go unused. The marginal penalty is `epsilon (1 - r) / r`.
        optimizer: "mirror" converges to `tolerance`; "one_shot" stops at the potentials of
            uniform weights; "adam" runs on logits for fidelity with the literature.
        init: An earlier fit of the same custom samples; its references may have been others.
        tolerance: Largest stationarity residual that counts as converged.
        max_steps: Most evaluations of the two transport problems.
        learning_rate: Of "adam", in nats per step.
        max_sinkhorn_iterations: Most iterations for one transport problem.
        progress: Called as `progress(done, max_steps)`.

    Returns:
        `PushPullFit`. Read its `converged`: nothing raises when the solve falls short.

    Raises:
        InputError: costs that do not fit together, or settings out of range.
    """
    pull_cost, push_cost = checked_costs(pull_cost, push_cost)
    _check_settings(lambda_push, epsilon, reference_relaxation, tolerance, max_steps)
    choose_tau = _tau_rule(tau, target_ess, len(pull_cost), optimizer)
    scale = pooled_std(pull_cost, push_cost)
    oracle = _PushPull(
        pull_cost,
        push_cost,
        lambda_push=lambda_push,
        epsilon=EPSILON_IN_STDS * scale if epsilon is None else float(epsilon),
        tau_b=1.0 - reference_relaxation,
        # an error of the marginals moves the potentials by about epsilon times as much
        threshold=max(0.1 * tolerance * scale / (epsilon or scale), 2e-6),
        max_iterations=max_sinkhorn_iterations,
        init=init,
    )
    start = np.zeros(len(pull_cost)) if init is None else np.asarray(init.log_weights)
    settings = {"scale": scale, "tolerance": tolerance, "progress": progress}
    if optimizer == "mirror":
        descent = mirror_descent(oracle, start, choose_tau, max_steps=max_steps, **settings)
    elif optimizer == "adam":
        settings["learning_rate"] = learning_rate
        descent = adam(oracle, start, choose_tau, max_steps=max_steps, **settings)
    else:
        descent = mirror_descent(oracle, 0 * start, choose_tau, max_steps=1, **settings)
    return _fit(oracle, descent, optimizer, reference_relaxation, tolerance, scale)


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
    return _scores(
        fit,
        _extend_potential(pull_cost, fit.g_pull, fit.epsilon),
        _extend_potential(push_cost, fit.g_push, fit.epsilon),
    )


def push_pull_objective(
    weights: Float[Array, " n"],
    pull_cost: Float[Array, "n m_safe"],
    push_cost: Float[Array, "n m_harmful"],
    *,
    lambda_push: float = 0.5,
    epsilon: float,
    tau: float = 0.0,
    reference_relaxation: float = 0.0,
    threshold: float = 1e-5,
    max_iterations: int = 2_000,
) -> Float[Array, ""]:
    """The value of Eq. 5; jit it with the settings bound. Reverse mode gives its gradient."""
    values = [
        entropic_ot(
            jnp.asarray(cost),
            weights,
            jnp.full(cost.shape[1], 1 / cost.shape[1], cost.dtype),
            epsilon,
            1.0 - reference_relaxation,
            threshold=threshold,
            max_iterations=max_iterations,
        ).ot_cost
        for cost in (pull_cost, push_cost)
    ]
    entropy = jnp.sum(jnp.where(weights > 0, weights * jnp.log(weights * len(weights)), 0))
    return (1 - lambda_push) * values[0] - lambda_push * values[1] + tau * entropy


def pooled_std(pull_cost: np.ndarray, push_cost: np.ndarray) -> float:
    """Root mean variance of the two costs; 1 where neither varies, so that it can divide."""
    variances = [float(np.var(cost, dtype=np.float64)) for cost in (pull_cost, push_cost)]
    std = float(np.sqrt(np.mean(variances)))
    return std if std > 1e-6 else 1.0


def checked_costs(pull_cost: np.ndarray, push_cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two costs as floating-point arrays of the same number of rows, or an InputError."""
    costs = []
    for name, values in (("pull_cost", pull_cost), ("push_cost", push_cost)):
        cost = np.asarray(values)
        if cost.ndim != 2 or 0 in cost.shape or cost.dtype.kind not in "fiu":
            raise InputError(
                f"{name} is an array of {cost.dtype} of shape {cost.shape}; expected numbers of "
                "shape [custom rows, reference rows], neither of them 0"
            )
        if not np.isfinite(cost).all() or cost.min() < 0:
            row = np.flatnonzero(~(np.isfinite(cost) & (cost >= 0)).all(axis=1))[0]
            raise InputError(
                f"{name}: row {row} holds a NaN, infinite or negative cost; expected finite "
                "costs >= 0, as cosine_cost gives. Compute the costs again."
            )
        costs.append(cost if cost.dtype in (np.float32, np.float64) else cost.astype(np.float32))
    if len(costs[0]) != len(costs[1]):
        raise InputError(
            f"pull_cost has {len(costs[0])} rows, push_cost {len(costs[1])}: both need one row "
            "per custom sample, in the same order"
        )
    return costs[0], costs[1]


class _PushPull:
    """Oracle of the unregularised Eq. 5: each call solves both problems, warm from the last."""

    def __init__(self, pull_cost, push_cost, *, lambda_push, init, **settings):
        self.pull_cost, self.push_cost = jnp.asarray(pull_cost), jnp.asarray(push_cost)
        self.lambda_push, self.settings = lambda_push, settings
        n = len(pull_cost)
        if init is None:
            self.warm = (np.zeros(n), np.zeros(n))
        elif len(init.log_weights) == n:
            self.warm = (
                init.f_pull - init.epsilon * init.log_weights,
                init.f_push - init.epsilon * init.log_weights,
            )
        else:
            raise InputError(
                f"init is a fit of {len(init.log_weights)} custom samples, the costs have {n} "
                "rows; start without init, or from a fit of these samples"
            )

    def __call__(self, log_weights: np.ndarray) -> Energy:
        pull, push, pull_gradient, push_gradient = jax.device_get(
            _solve_both(self.pull_cost, self.push_cost, log_weights, *self.warm, **self.settings)
        )
        self.warm = (pull_gradient, push_gradient)
        return Energy(
            self.combine(float(pull.ot_cost), float(push.ot_cost)),
            np.asarray(self.combine(pull_gradient, push_gradient), dtype=np.float64),
            _Solved(pull, push, pull_gradient, push_gradient),
        )

    def combine(self, pull, push):
        return (1 - self.lambda_push) * pull - self.lambda_push * push


@partial(jax.jit, static_argnames=("tau_b", "max_iterations"))
def _solve_both(
    pull_cost,
    push_cost,
    log_weights,
    pull_warm,
    push_warm,
    *,
    epsilon,
    tau_b,
    threshold,
    max_iterations,
):
    """Both transport problems at the given weights, and their gradients."""
    dtype = pull_cost.dtype
    a = jnp.maximum(jnp.exp(jnp.asarray(log_weights, dtype)), _LIGHTEST)
    solved, gradients = [], []
    for cost, warm in ((pull_cost, pull_warm), (push_cost, push_warm)):
        b = jnp.full(cost.shape[1], 1 / cost.shape[1], dtype)
        start = (jnp.asarray(warm, dtype) + epsilon * jnp.log(a), jnp.zeros_like(b))
        result = entropic_ot(
            cost, a, b, epsilon, tau_b, start, threshold=threshold, max_iterations=max_iterations
        )
        solved.append(result)
        gradients.append(result.f - epsilon * jnp.log(a))
    return *solved, *gradients


_extend_potential = jax.jit(soft_c_transform)


def _fit(
    oracle, descent: Descent, optimizer, reference_relaxation, tolerance, scale
) -> PushPullFit:
    solved: _Solved = descent.energy.detail
    gradient, tau = descent.energy.gradient, descent.tau
    if tau > 0 and optimizer != "adam":
        # the weights that the potentials ask for: at the optimum the same as those they were
        # solved at, and an exact function of the potentials always
        score_scale = 1 / tau
        log_weights = normalise(-gradient / tau)
    else:
        log_weights = descent.log_weights
        variance = float(np.var(gradient))
        score_scale = (
            -float(np.cov(gradient, log_weights, bias=True)[0, 1]) / variance if variance else 0.0
        )
    residual, converged = descent.residual, descent.converged
    if optimizer == "one_shot":
        energy = oracle(log_weights)
        residual = stationarity_residual(log_weights, energy.gradient, tau, scale)
        converged = True
    fit = PushPullFit(
        log_weights=log_weights,
        weights=np.exp(log_weights),
        pull_scores=np.empty(0),
        push_scores=np.empty(0),
        f_pull=solved.pull.f,
        g_pull=solved.pull.g,
        f_push=solved.push.f,
        g_push=solved.push.g,
        objective_trace=descent.objective_trace,
        residual_trace=descent.residual_trace,
        converged=converged and bool(solved.pull.converged) and bool(solved.push.converged),
        residual=residual,
        tolerance=tolerance,
        marginal_errors=(float(solved.pull.marginal_error), float(solved.push.marginal_error)),
        num_steps=descent.num_steps,
        epsilon=float(oracle.settings["epsilon"]),
        tau=tau,
        lambda_push=oracle.lambda_push,
        reference_relaxation=reference_relaxation,
        optimizer=optimizer,
        effective_sample_size=float(np.exp(-np.logaddexp.reduce(2 * log_weights))),
        score_scale=score_scale,
        pull_mean=float(np.mean(solved.pull_gradient, dtype=np.float64)),
        push_mean=float(np.mean(solved.push_gradient, dtype=np.float64)),
        mean_log_weight=float(log_weights.mean()),
    )
    scores = _scores(fit, solved.pull_gradient, solved.push_gradient)
    return fit._replace(pull_scores=scores.pull_scores, push_scores=scores.push_scores)


def _scores(fit: PushPullFit, pull_potential: np.ndarray, push_potential: np.ndarray) -> RowScores:
    pull = np.asarray(pull_potential, dtype=np.float64) - fit.pull_mean
    push = np.asarray(push_potential, dtype=np.float64) - fit.push_mean
    pull_scores = -fit.score_scale * (1 - fit.lambda_push) * pull
    push_scores = fit.score_scale * fit.lambda_push * push
    return RowScores(fit.mean_log_weight + pull_scores + push_scores, pull_scores, push_scores)


def _tau_rule(tau, target_ess, num_samples, optimizer):
    if tau is not None and target_ess is not None:
        raise InputError(f"got tau={tau} and target_ess={target_ess}; give one of them")
    if tau is not None:
        if not 0 <= tau < np.inf or (tau == 0 and optimizer == "one_shot"):
            raise InputError(
                f"tau={tau}; expected a finite number >= 0 in the unit of the costs (> 0 for "
                "one_shot), or target_ess instead"
            )
        return lambda gradient: float(tau)
    share = TARGET_ESS if target_ess is None else target_ess
    if not 0 < share < 1:
        raise InputError(
            f"target_ess={share}; expected a share of the custom samples between 0 and 1, "
            "exclusive: near 1 nothing is learned, near 0 a few samples carry all the weight"
        )
    return lambda gradient: tau_for_ess(gradient, 1 + share * (num_samples - 1))


def _check_settings(lambda_push, epsilon, reference_relaxation, tolerance, max_steps) -> None:
    if not 0 <= lambda_push <= 1:
        raise InputError(f"lambda_push={lambda_push}; expected 0 (pull only) to 1 (push only)")
    if epsilon is not None and not 0 < epsilon < np.inf:
        raise InputError(f"epsilon={epsilon}; expected a number > 0 in the unit of the costs")
    if not 0 <= reference_relaxation <= 1:
        raise InputError(
            f"reference_relaxation={reference_relaxation}; expected 0 (balanced) to 1 (free)"
        )
    if not tolerance > 0 or max_steps < 1:
        raise InputError(f"tolerance={tolerance}, max_steps={max_steps}; expected > 0 and >= 1")
