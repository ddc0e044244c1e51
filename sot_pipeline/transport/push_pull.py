"""Eq. 5: weights that pull the custom set to the safe reference and push it from the harmful one.

    minimise over w on the simplex
        (1 - lambda) OT_eps(P(w), safe) - lambda OT_eps(P(w), harmful) + tau KL(w | uniform)

P(w) puts weight w_i on custom sample i; both references carry uniform mass, enforced exactly or
relaxed (`reference_relaxation`). The gradient is closed (envelope theorem): with the dual
potentials `pull_i` and `push_i` of sample i it is `G_i = (1 - lambda) pull_i - lambda push_i`, and
at the minimiser `tau log w_i = -G_i + const`. Samples are ranked by `log_weights`, never by
`weights`, whose smallest entries may vanish in floating point.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypedDict, Unpack, cast, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sot_pipeline.errors import InputError
from sot_pipeline.transport.cost import (
    Spreads,
    check_embeddings,
    checked_costs,
    pooled_mean,
    spreads,
)
from sot_pipeline.transport.descent import (
    Descent,
    Progress,
    adam,
    effective_sample_size,
    mirror_descent,
    normalise,
    stationarity_residual,
    tau_for_ess,
)
from sot_pipeline.transport.fit import (
    PushPullFit,
    RowScores,
    extend,
    score_rows,
    scores_from_potentials,
)
from sot_pipeline.transport.oracle import PushPull, Solved
from sot_pipeline.transport.sinkhorn import entropic_ot
from sot_pipeline.transport.tiles import RowCosts, Storage
from sot_pipeline.transport.vectors import (
    cosine_columns,
    free_memory,
    spreads_of_cosines,
    storage_within,
)

__all__ = [
    "PushPullFit",
    "RowScores",
    "extend",
    "learn_weights",
    "learn_weights_from_embeddings",
    "push_pull_objective",
    "score_rows",
]

Optimizer = Literal["mirror", "adam", "one_shot"]

# Defaults, one set for all tasks, from measurements on real rows (bench_reference_mixes.py):
EPSILON_IN_SPREADS = 2.0  # near 1 follows single neighbours, above 4 only the centroids
REFERENCE_RELAXATION = 0.9  # balanced forces custom mass onto every row of a mixed reference
TARGET_ESS = 0.5
FLOAT32_TOLERANCE = 2e-4  # residuals are known to about 1e-5 in float32
FLOAT32_EPSILON_IN_STDS = 0.25  # below, balanced plans hold entries that float32 cannot
SMALLEST_TAU_IN_STDS = 1e-3  # a target ESS must not blow rounding up into weights


class Options(TypedDict, total=False):
    """Keyword arguments of `learn_weights`, where they are passed on."""

    lambda_push: float
    epsilon: float | None
    tau: float | None
    target_ess: float | None
    reference_relaxation: float | None
    optimizer: Optimizer
    init: PushPullFit | None
    tolerance: float
    max_steps: int
    learning_rate: float
    max_sinkhorn_iterations: int
    progress: Progress | None


def learn_weights(
    pull_cost: np.ndarray,
    push_cost: np.ndarray,
    *,
    lambda_push: float = 0.5,
    epsilon: float | None = None,
    tau: float | None = None,
    target_ess: float | None = None,
    reference_relaxation: float | None = None,
    optimizer: Optimizer = "mirror",
    init: PushPullFit | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 200,
    learning_rate: float = 0.05,
    max_sinkhorn_iterations: int = 2_000,
    progress: Progress | None = None,
) -> PushPullFit:
    """Solve Eq. 5 for the weights of the custom samples.

    Args:
        pull_cost: `[n, m_safe]`, NumPy or JAX, costs to the safe reference, >= 0.
        push_cost: `[n, m_harmful]`, costs to the harmful reference, same rows.
        lambda_push: In [0, 1]; 0 pulls only, 1 pushes only.
        epsilon: Entropic regularisation of both problems, > 0, in the unit of the costs. None
            takes `EPSILON_IN_SPREADS` times the costs' spread within a row (see `cost.Spreads`).
        tau: Strength of the pull to uniform weights, >= 0, in the unit of the costs. With 0 the
            minimisers are sparse and most log-weights run away; give it or `target_ess`.
        target_ess: Effective sample size to reach, as a share of n in (0, 1); tau follows from
            it. None and no tau: `TARGET_ESS`.
        reference_relaxation: In [0, 1]. 0 makes all of a reference take part (balanced OT); 1
            lets each sample be compared with whatever is near it, so that rows of a reference
            that match nothing go unused. The marginal penalty is `epsilon (1 - r) / r`. None:
            `REFERENCE_RELAXATION`.
        optimizer: "mirror" converges to `tolerance`; "one_shot" stops at the potentials of
            uniform weights; "adam" runs on logits for fidelity with the literature.
        init: An earlier fit of the same custom samples; its references may have been others.
        tolerance: Largest stationarity residual that counts as converged. Below
            `FLOAT32_TOLERANCE` the solve runs in float64, else in float32.
        max_steps: Most evaluations of the two transport problems.
        learning_rate: Of "adam", in nats per step.
        max_sinkhorn_iterations: Most sweeps for one transport problem.
        progress: Called as `progress(done, max_steps)`.

    Returns:
        `PushPullFit`. Read its `converged`: nothing raises when the solve falls short.

    Raises:
        InputError: costs that do not fit together, or settings out of range.
    """
    pull_cost, push_cost = checked_costs(pull_cost, push_cost)
    options = Options(
        lambda_push=lambda_push,
        epsilon=epsilon,
        tau=tau,
        target_ess=target_ess,
        reference_relaxation=reference_relaxation,
        optimizer=optimizer,
        init=init,
        tolerance=tolerance,
        max_steps=max_steps,
        learning_rate=learning_rate,
        max_sinkhorn_iterations=max_sinkhorn_iterations,
        progress=progress,
    )
    return _learn(
        RowCosts(pull_cost, pull_cost.shape[1]),
        RowCosts(push_cost, push_cost.shape[1]),
        spreads=spreads(pull_cost, push_cost),
        largest_cost=max(float(pull_cost.max()), float(push_cost.max())),
        storages=None,
        **options,
    )


def learn_weights_from_embeddings(
    custom: np.ndarray,
    safe: np.ndarray,
    harmful: np.ndarray,
    *,
    center: np.ndarray | Literal["safe"] | None = "safe",
    memory_limit: int | None = None,
    **options: Unpack[Options],
) -> PushPullFit:
    """Solve Eq. 5 for cosine costs, without ever holding them.

    What is held are the two kernels, in float32, or in float16 where that does not fit, or not
    at all: then costs are computed anew in every sweep. The fit's `storage` says which. After a
    solve on a float16 kernel the result is checked, and where needed finished, on exact costs.

    Args:
        custom: Embeddings `[n, d]`, any unit; a memory-mapped array is read in tiles.
        safe: `[m_safe, d]`, of the same model.
        harmful: `[m_harmful, d]`.
        center: Point that angles are taken from, as in `cosine_cost`; "safe" takes
            `pooled_mean(safe)`, None the origin. The fit keeps it.
        memory_limit: Most bytes to hold beside the embeddings, on all devices together. None:
            half of what is free (on a GPU: of its memory).
        options: As for `learn_weights`.

    Returns:
        `PushPullFit`, with the references that `extend` needs for vectors of new rows.

    Raises:
        InputError: embeddings that do not fit together or have no direction, settings out of
            range, or a limit below what even recomputing needs.
    """
    if isinstance(center, str) and center != "safe":
        raise InputError(f'center={center!r}; expected "safe", a point [d], or None for the origin')
    if np.ndim(safe) == 2 == np.ndim(harmful) and np.shape(safe)[1] != np.shape(harmful)[1]:
        raise InputError(
            f"safe has {np.shape(safe)[1]} dimensions, harmful {np.shape(harmful)[1]}: they come "
            "from different models. Embed all with the same model."
        )
    point = pooled_mean(safe) if isinstance(center, str) else center
    columns = [cosine_columns(reference, point) for reference in (safe, harmful)]
    check_embeddings(custom, "custom", width=columns[0].directions.shape[1])
    pull, push = (RowCosts(custom, len(c.directions), c) for c in columns)
    limit = free_memory() // 2 if memory_limit is None else memory_limit
    fit = _learn(
        pull,
        push,
        spreads=spreads_of_cosines(custom, *columns),
        largest_cost=2.0,
        storages=storage_within(limit, pull, push),
        **options,
    )
    return fit._replace(
        safe_directions=np.asarray(columns[0].directions),
        harmful_directions=np.asarray(columns[1].directions),
        center=np.asarray(columns[0].center),
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


def _learn(
    pull: RowCosts,
    push: RowCosts,
    *,
    spreads: Spreads,
    largest_cost: float,
    storages: tuple[Storage, Storage] | None,
    lambda_push: float = 0.5,
    epsilon: float | None = None,
    tau: float | None = None,
    target_ess: float | None = None,
    reference_relaxation: float | None = None,
    optimizer: Optimizer = "mirror",
    init: PushPullFit | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 200,
    learning_rate: float = 0.05,
    max_sinkhorn_iterations: int = 2_000,
    progress: Progress | None = None,
) -> PushPullFit:
    relaxation = REFERENCE_RELAXATION if reference_relaxation is None else reference_relaxation
    _check_settings(
        lambda_push, epsilon, relaxation, optimizer, tolerance, max_steps, learning_rate
    )
    scale = spreads.pooled_std
    epsilon = EPSILON_IN_SPREADS * spreads.within_rows if epsilon is None else float(epsilon)
    num_rows = len(pull.rows)
    choose_tau = _tau_rule(tau, target_ess, num_rows, scale, optimizer)
    coarse = tolerance >= FLOAT32_TOLERANCE and epsilon >= FLOAT32_EPSILON_IN_STDS * scale
    precision = "float32" if coarse else "float64"
    oracle = PushPull(
        pull,
        push,
        lambda_push=lambda_push,
        epsilon=epsilon,
        reference_relaxation=float(relaxation),
        # an error of the marginals moves the potentials by about epsilon times as much
        threshold=min(0.05 * tolerance * scale / epsilon, 1e-3),
        scale=scale,
        # near the answer, or with a closed form, the first solve may as well be the last
        adaptive=optimizer == "mirror" and init is None and relaxation < 1,
        max_sweeps=max_sinkhorn_iterations,
        largest_cost=largest_cost,
        storages=(precision, precision) if storages is None else storages,
        precision=precision,
        init=init,
    )
    start = np.zeros(num_rows) if init is None else np.asarray(init.solved_at)
    settings = {"scale": scale, "tolerance": tolerance, "progress": progress}
    if optimizer == "mirror":
        exactness = {"aim": oracle.aim, "sharpen": oracle.sharpen}
        descend = partial(mirror_descent, oracle, choose_tau=choose_tau, **exactness, **settings)
        descent = descend(start, max_steps=max_steps)
        if oracle.recompute():
            descent = descent.followed_by(
                descend(descent.log_weights, max_steps=max(1, max_steps - descent.num_steps))
            )
    elif optimizer == "adam":
        settings["learning_rate"] = learning_rate
        descent = adam(oracle, start, choose_tau, max_steps=max_steps, **settings)
    else:
        descent = mirror_descent(oracle, 0 * start, choose_tau, max_steps=1, **settings)
    return _fit(oracle, descent, optimizer, tolerance, scale)


def _fit(
    oracle: PushPull, descent: Descent, optimizer: str, tolerance: float, scale: float
) -> PushPullFit:
    pull, push = cast(Solved, descent.energy.detail)
    tau = descent.tau
    log_weights, score_scale = _respond(descent, optimizer)
    residual, settled = descent.residual, descent.converged
    if optimizer == "one_shot":  # no fixed point is sought; say how far from one it stops
        residual = stationarity_residual(log_weights, oracle(log_weights).gradient, tau, scale)
        settled = True
    marginal_errors = (pull.marginal_error, push.marginal_error)
    carried = oracle.epsilon * descent.log_weights  # ott-jax's convention: f holds it
    fit = PushPullFit(
        log_weights=log_weights,
        weights=np.exp(log_weights),
        solved_at=descent.log_weights,
        pull_scores=np.empty(0),
        push_scores=np.empty(0),
        f_pull=pull.potential + carried,
        g_pull=pull.g,
        f_push=push.potential + carried,
        g_push=push.g,
        objective_trace=descent.objective_trace,
        residual_trace=descent.residual_trace,
        converged=settled and max(marginal_errors) <= oracle.accepted_error,
        residual=residual,
        tolerance=tolerance,
        marginal_errors=marginal_errors,
        num_steps=descent.num_steps,
        num_sweeps=oracle.num_sweeps,
        storage="+".join(dict.fromkeys(oracle.first_storages)),
        precision=oracle.precision,
        cost_std=scale,
        epsilon=oracle.epsilon,
        tau=tau,
        lambda_push=oracle.lambda_push,
        reference_relaxation=oracle.reference_relaxation,
        optimizer=optimizer,
        effective_sample_size=effective_sample_size(log_weights),
        score_scale=score_scale,
        pull_mean=float(pull.potential.mean()),
        push_mean=float(push.potential.mean()),
        mean_log_weight=float(log_weights.mean()),
    )
    scores = scores_from_potentials(fit, pull.potential, push.potential)
    return fit._replace(pull_scores=scores.pull_scores, push_scores=scores.push_scores)


def _respond(descent: Descent, optimizer: str) -> tuple[np.ndarray, float]:
    """The log-weights to return, and how many nats a unit of the potentials is worth in them."""
    gradient, tau = descent.energy.gradient, descent.tau
    if tau > 0 and optimizer != "adam":
        # the weights that the potentials ask for: at the optimum those they were solved at, and
        # always an exact function of the potentials, so that scores add up and rows extend
        return normalise(-gradient / tau), 1 / tau
    variance = float(np.var(gradient))
    covariance = float(np.mean((gradient - gradient.mean()) * descent.log_weights))
    return descent.log_weights, -covariance / variance if variance > 0 else 0.0


def _tau_rule(
    tau: float | None, target_ess: float | None, num_samples: int, scale: float, optimizer: str
) -> Callable[[np.ndarray], float]:
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
    target = 1 + share * (num_samples - 1)
    return lambda gradient: max(tau_for_ess(gradient, target), SMALLEST_TAU_IN_STDS * scale)


def _check_settings(
    lambda_push: float,
    epsilon: float | None,
    reference_relaxation: float,
    optimizer: str,
    tolerance: float,
    max_steps: int,
    learning_rate: float,
) -> None:
    if not 0 <= lambda_push <= 1:
        raise InputError(f"lambda_push={lambda_push}; expected 0 (pull only) to 1 (push only)")
    if epsilon is not None and not 0 < epsilon < np.inf:
        raise InputError(f"epsilon={epsilon}; expected a number > 0 in the unit of the costs")
    if not 0 <= reference_relaxation <= 1:
        raise InputError(
            f"reference_relaxation={reference_relaxation}; expected 0 (balanced) to 1 (free)"
        )
    if optimizer not in get_args(Optimizer):
        raise InputError(f"optimizer={optimizer!r}; expected one of {get_args(Optimizer)}")
    if not (tolerance > 0 and max_steps >= 1 and learning_rate > 0):
        raise InputError(
            f"tolerance={tolerance}, max_steps={max_steps}, learning_rate={learning_rate}; "
            "expected numbers > 0"
        )
