"""The energy of Eq. 5 at given weights, for a descent: two transport problems, solved warm."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sot_pipeline.errors import InputError
from sot_pipeline.transport.descent import Energy
from sot_pipeline.transport.fit import PushPullFit
from sot_pipeline.transport.sinkhorn import TransportResult, entropic_ot

_LIGHTEST = 1e-30  # marginals are floored here: float32 has no logarithm far below


class Solved(NamedTuple):
    """Both transport problems at some weights."""

    pull: TransportResult
    push: TransportResult
    pull_gradient: np.ndarray  # [n] d OT / d w, unit of the cost
    push_gradient: np.ndarray


class PushPull:
    """Oracle of the unregularised Eq. 5: each call solves both problems, warm from the last."""

    def __init__(
        self,
        pull_cost: np.ndarray,
        push_cost: np.ndarray,
        *,
        lambda_push: float,
        epsilon: float,
        reference_relaxation: float,
        threshold: float,
        max_iterations: int,
        init: PushPullFit | None,
    ) -> None:
        self.costs = jnp.asarray(pull_cost), jnp.asarray(push_cost)
        self.lambda_push, self.epsilon = lambda_push, epsilon
        self.reference_relaxation = reference_relaxation
        # potentials are of the size of the costs; rounded, they leave some error of the marginals
        largest = max(float(cost.max()) for cost in self.costs)
        machine_epsilon = float(jnp.finfo(self.costs[0].dtype).eps)
        self.rounding = 2 * machine_epsilon * largest
        self._least_error = max(4 * self.rounding / epsilon, 10 * machine_epsilon)
        self.accepted_error = self.threshold = max(threshold, self._least_error)
        self.max_iterations = max_iterations
        num_samples = len(pull_cost)
        if init is None:
            self.warm = (np.zeros(num_samples), np.zeros(num_samples))
            return
        if len(init.log_weights) != num_samples:
            raise InputError(
                f"init is a fit of {len(init.log_weights)} custom samples, the costs have "
                f"{num_samples} rows; start without init, or from a fit of these samples"
            )
        carried = init.epsilon * init.solved_at
        self.warm = (init.f_pull - carried, init.f_push - carried)

    def __call__(self, log_weights: np.ndarray) -> Energy:
        solved = Solved(
            *jax.device_get(
                _solve_both(
                    *self.costs,
                    log_weights,
                    *self.warm,
                    self.epsilon,
                    self.threshold,
                    tau_b=1.0 - self.reference_relaxation,
                    max_iterations=self.max_iterations,
                )
            )
        )
        self.warm = (solved.pull_gradient, solved.push_gradient)
        gradient = self._combine(solved.pull_gradient, solved.push_gradient)
        value = self._combine(float(solved.pull.ot_cost), float(solved.push.ot_cost))
        return Energy(value, np.asarray(gradient, dtype=np.float64), solved)

    def sharpen(self) -> bool:
        """Solve more exactly from now on, if the floating point allows it."""
        can = self.threshold > self._least_error
        self.threshold = max(self.threshold / 10, self._least_error)
        return can

    def _combine(self, pull, push):
        return (1 - self.lambda_push) * pull - self.lambda_push * push


@partial(jax.jit, static_argnames=("tau_b", "max_iterations"))
def _solve_both(
    pull_cost: Float[Array, "n m_safe"],
    push_cost: Float[Array, "n m_harmful"],
    log_weights: Float[Array, " n"],
    pull_warm: Float[Array, " n"],
    push_warm: Float[Array, " n"],
    epsilon: float,
    threshold: float,
    *,
    tau_b: float,
    max_iterations: int,
) -> tuple[TransportResult, TransportResult, Float[Array, " n"], Float[Array, " n"]]:
    """Both transport problems at the given weights, and their gradients in the weights."""
    a = jnp.maximum(jnp.exp(jnp.asarray(log_weights, pull_cost.dtype)), _LIGHTEST)
    log_a = epsilon * jnp.log(a)

    def solve(cost: Array, warm: Array) -> TransportResult:
        b = jnp.full(cost.shape[1], 1 / cost.shape[1], cost.dtype)
        start = (jnp.asarray(warm, cost.dtype) + log_a, jnp.zeros_like(b))
        return entropic_ot(
            cost, a, b, epsilon, tau_b, start, threshold=threshold, max_iterations=max_iterations
        )

    pull, push = solve(pull_cost, pull_warm), solve(push_cost, push_warm)
    return pull, push, pull.f - log_a, push.f - log_a
