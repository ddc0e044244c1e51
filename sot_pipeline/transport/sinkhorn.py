"""Entropic optimal transport: value, dual potentials and how far they are from converged."""

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn


class TransportResult(NamedTuple):
    """One solved problem. `plan = exp((f + g - cost) / epsilon)`, ott-jax's convention."""

    ot_cost: Float[Array, ""]  # unit of the cost
    f: Float[Array, " n"]  # unit of the cost; holds epsilon * log(a)
    g: Float[Array, " m"]  # unit of the cost; holds epsilon * log(b)
    converged: Bool[Array, ""]
    marginal_error: Float[Array, ""]  # L1 distance from the optimality of the marginals
    num_iterations: Int[Array, ""]


@partial(jax.jit, static_argnames=("tau_b", "max_iterations", "inner_iterations"))
def entropic_ot(
    cost: Float[Array, "n m"],
    a: Float[Array, " n"],
    b: Float[Array, " m"],
    epsilon: Float[Array, ""] | float,
    tau_b: float = 1.0,
    init: tuple[Float[Array, " n"], Float[Array, " m"]] | None = None,
    *,
    threshold: Float[Array, ""] | float = 1e-5,
    max_iterations: int = 2_000,
    inner_iterations: int = 1,
) -> TransportResult:
    """Entropic OT between two weighted sets, the second marginal enforced or relaxed.

    The value is the minimum over couplings P with rows summing to `a` of
    `<P, C> + epsilon KL(P | a b^T) + rho KL(columns of P | b)`, with
    `rho = epsilon * tau_b / (1 - tau_b)`. With `tau_b = 1` the columns sum to `b` exactly; with
    `tau_b = 0` they are free and the solution is a closed form, the soft minimum of each row.

    Args:
        cost: Ground cost, any unit.
        a: Source marginal on the simplex. A zero entry is allowed (`f` is -inf there); the
            gradient there is the `soft_c_transform` of `g`.
        b: Target marginal on the simplex, > 0.
        epsilon: Regularisation strength, > 0, in the unit of `cost`.
        tau_b: In [0, 1], how strongly the target marginal is enforced.
        init: Potentials `(f, g)` to start from, as in a `TransportResult`.
        threshold: Largest accepted L1 error of the marginals.
        max_iterations: Most Sinkhorn iterations.
        inner_iterations: Iterations between two looks at the error.

    Returns:
        `TransportResult`. The gradient of `ot_cost` in `a` is `f - epsilon log(a)` up to a
        constant; reverse mode gives the same through the envelope theorem, first order only.

    Source: Cuturi (2013); relaxed marginals: Chizat et al. (2018); solved by ott-jax in log
    mode. Nothing raises under jit: read `converged`.
    """
    if tau_b == 0.0:
        g = epsilon * jnp.log(b)
        converged, error, num_iterations = jnp.array(True), jnp.zeros(()), jnp.array(0)
    else:
        # With relaxed columns ott-jax measures the entropy of P against counting measure, which
        # is KL(P | a b^T) only for uniform b: moving epsilon log(b) into the cost mends that.
        moved = jnp.zeros_like(b) if tau_b == 1.0 else epsilon * jnp.log(b)
        moved_cost = cost if tau_b == 1.0 else cost - moved[None, :]
        f_start, g_start = (jnp.zeros_like(a), moved) if init is None else init
        solver = Sinkhorn(
            threshold=cast(float, threshold),
            inner_iterations=inner_iterations,
            max_iterations=max_iterations,
        )
        out = solver(
            LinearProblem(Geometry(moved_cost, epsilon=cast(float, epsilon)), a, b, tau_b=tau_b),
            init=(f_start, g_start - moved),
        )
        g, errors = out.g + moved, jnp.asarray(out.errors)
        converged, num_iterations = jnp.asarray(out.converged), jnp.asarray(out.n_iters)
        error = errors[num_iterations // inner_iterations - 1]

    g = jax.lax.stop_gradient(g)
    gradient = jax.lax.stop_gradient(soft_c_transform(cost, g, epsilon))
    value = jnp.sum(a * gradient) + _value_of_g(g - epsilon * jnp.log(b), b, epsilon, tau_b)
    f = jax.lax.stop_gradient(gradient + epsilon * jnp.log(a))
    return TransportResult(value, f, g, converged, error, num_iterations)


def soft_c_transform(
    cost: Float[Array, "n m"], g: Float[Array, " m"], epsilon: Float[Array, ""] | float
) -> Float[Array, " n"]:
    """Potential of every row of `cost` against a solved problem with potential `g`.

    For the rows of that problem it is the gradient of `ot_cost` in `a`, also where `a` is zero;
    for a row that was not in the problem, what its gradient would be if it had no mass.
    """
    return -epsilon * logsumexp((g[None, :] - cost) / epsilon, axis=1)


def _value_of_g(g, b, epsilon, tau_b):
    """The part of the dual value that belongs to the target marginal; `g` without log(b)."""
    if tau_b == 0.0:
        return jnp.zeros_like(g, shape=())
    if tau_b == 1.0:
        return jnp.sum(b * g)
    rho = epsilon * tau_b / (1 - tau_b)
    return -rho * jnp.sum(b * jnp.expm1(-g / rho))
