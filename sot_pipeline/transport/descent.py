"""Descent on the simplex in log-weights: mirror descent with Anderson steps, and Adam.

Both minimise `E(w) + tau KL(w | uniform)`, where an `Oracle` gives the value and gradient of E.
Nothing here knows of transport; arrays are float64 NumPy, one entry per sample.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from scipy.optimize import brentq

from sot_pipeline.transport.anderson import MEMORY, Step, extrapolate

_SMALLEST_DAMPING = 1e-7
_LARGEST_DAMPING = 1e3  # only where tau = 0: there a full step is no fixed point, just a unit


class Energy(NamedTuple):
    """E at some weights, and whatever the oracle wants to find again at the end."""

    value: float
    gradient: np.ndarray  # [n], up to a constant
    detail: Any = None
    noise: float = 0.0  # a difference of values below this says nothing


class Descent(NamedTuple):
    """Where a descent ended."""

    log_weights: np.ndarray  # the last point at which the energy was taken
    energy: Energy
    tau: float
    residual: float
    converged: bool
    objective_trace: np.ndarray  # one entry per accepted step, the start first
    residual_trace: np.ndarray
    num_steps: int  # evaluations of the energy, rejected ones included

    def followed_by(self, later: "Descent") -> "Descent":
        """The later one, which started where this one ended, with the history of both."""
        return later._replace(
            objective_trace=np.concatenate([self.objective_trace, later.objective_trace]),
            residual_trace=np.concatenate([self.residual_trace, later.residual_trace]),
            num_steps=self.num_steps + later.num_steps,
        )


Oracle = Callable[[np.ndarray], Energy]
Progress = Callable[[int, int], None]


def mirror_descent(
    oracle: Oracle,
    log_weights: np.ndarray,
    choose_tau: Callable[[np.ndarray], float],
    *,
    scale: float,
    tolerance: float,
    max_steps: int,
    aim: Callable[[float], bool] = lambda residual: False,
    sharpen: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> Descent:
    """Find log-weights that reproduce themselves: `log w = -G(w) / tau + const`.

    A full step replaces the log-weights by `-G / tau`; a damped one goes part of the way, which
    is mirror descent (with the entropy term taken implicitly). Steps are extrapolated from the
    last few (Anderson), and taken back with more damping where they raise both the objective
    and the residual. With `tau = 0` a full step is `-G / scale` from where it stands.

    Args:
        oracle: Energy at log-weights.
        log_weights: Start, `[n]`, natural logs.
        choose_tau: Strength of the entropy term for a gradient (constant, or to reach an ESS).
        scale: Unit of the gradient, > 0, that makes residuals dimensionless.
        tolerance: Largest residual (see `stationarity_residual`) that counts as converged.
        max_steps: Most evaluations of the energy.
        aim: Told the residual reached before each step, so that the oracle may be only as exact
            as that needs, and 0 where the tolerance is met; says whether it got more exact.
        sharpen: Asked where steps lead nowhere; makes the oracle more exact and says whether it
            could. Where no step leads down and it cannot, the descent ends.
        progress: Called as `progress(done, max_steps)`.
    """
    here = normalise(log_weights)
    energy = oracle(here)
    num_steps, damping, since = 1, 1.0, 0
    memory: list[Step] = []
    trace: list[_Judgement] = []
    while True:
        tau = choose_tau(energy.gradient)
        at = _judge(here, energy, tau, scale)
        trace.append(at)
        if progress is not None:
            progress(num_steps, max_steps)
        if num_steps >= max_steps or not np.isfinite(at.residual):
            break
        if at.residual <= tolerance:
            if not aim(0.0):
                break
            energy, num_steps = oracle(here), num_steps + 1
            continue
        aim(at.residual)
        step = Step(here, _full_step(here, energy.gradient, tau, scale))
        memory = [*memory[1 - MEMORY :], step] if tau > 0 else [step]
        while num_steps < max_steps and damping >= _SMALLEST_DAMPING:
            there = normalise(extrapolate(memory, damping))
            trial = oracle(there)
            num_steps += 1
            noise = max(1e-12 * scale, energy.noise, trial.noise)
            if _better(_judge(there, trial, tau, scale), at, noise):
                here, energy = there, trial
                damping = min(1.5 * damping, 1.0 if tau > 0 else _LARGEST_DAMPING)
                break
            memory, damping = [step], damping / 4
        no_way_down = damping < _SMALLEST_DAMPING
        if (no_way_down or _stagnates(trace[since:])) and sharpen():
            energy, memory, damping, since = oracle(here), [], 1.0, len(trace)
            num_steps += 1
        elif no_way_down:
            break
    return _descent(here, energy, tau, trace, tolerance, num_steps)


def adam(
    oracle: Oracle,
    log_weights: np.ndarray,
    choose_tau: Callable[[np.ndarray], float],
    *,
    scale: float,
    tolerance: float,
    max_steps: int,
    learning_rate: float,
    progress: Progress | None = None,
) -> Descent:
    """Adam on softmax logits, the usual choice of the literature.

    It moves every logit at the same speed whatever its gradient, so it ranks worse than mirror
    descent long before it converges; it is here for fidelity.
    """
    here = normalise(log_weights)
    first, second = np.zeros_like(here), np.zeros_like(here)
    trace: list[_Judgement] = []
    while True:
        energy = oracle(here)
        tau = choose_tau(energy.gradient)
        trace.append(_judge(here, energy, tau, scale))
        step = len(trace)
        if progress is not None:
            progress(step, max_steps)
        if trace[-1].residual <= tolerance or step >= max_steps:
            return _descent(here, energy, tau, trace, tolerance, step)
        weights, slope = np.exp(here), energy.gradient + tau * here
        gradient = weights * (slope - weights @ slope)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        size = np.sqrt(second / (1 - 0.999**step)) + 1e-12
        here = normalise(here - learning_rate * first / (1 - 0.9**step) / size)


def normalise(log_weights: np.ndarray) -> np.ndarray:
    """Shift so that the weights sum to 1."""
    return log_weights - _log_sum_exp(log_weights)


def effective_sample_size(log_weights: np.ndarray) -> float:
    """`(sum w)^2 / sum w^2`, from 1 to n, of log-weights however small."""
    return float(np.exp(2 * _log_sum_exp(log_weights) - _log_sum_exp(2 * log_weights)))


def stationarity_residual(
    log_weights: np.ndarray, gradient: np.ndarray, tau: float, scale: float
) -> float:
    """How far weights are from stationary, in units of `scale`; 0 at a stationary point.

    With `tau > 0` the standard deviation over the samples of `G + tau log w`, every sample
    counting alike, so that the ranking of the lightest ones is covered too. With `tau = 0` the
    Frank-Wolfe gap `<w, G> - min G`, since weights may vanish.
    """
    if tau > 0:
        return float(np.std(gradient + tau * log_weights)) / scale
    return float(np.exp(log_weights) @ gradient - gradient.min()) / scale


def tau_for_ess(gradient: np.ndarray, target: float) -> float:
    """The `tau` at which `softmax(-gradient / tau)` has the effective sample size asked for.

    The effective sample size rises with tau from 1 (or the number of ties at the minimum) to n.
    """
    spread = float(np.std(gradient))
    if spread == 0:
        return 0.0  # nothing to tell samples apart by: no tau spreads the weights

    def excess(log_tau: float) -> float:
        return effective_sample_size(-gradient / np.exp(log_tau)) - target

    low, high = np.log(spread) - 7.0, np.log(spread) + 12.0
    if excess(low) >= 0 or excess(high) <= 0:
        return float(np.exp(low if excess(low) >= 0 else high))
    return float(np.exp(cast(float, brentq(excess, low, high, xtol=1e-10))))


def _log_sum_exp(values: np.ndarray) -> float:
    largest = values.max()
    return float(largest + np.log(np.exp(values - largest).sum()))


class _Judgement(NamedTuple):
    objective: float
    residual: float


def _judge(log_weights: np.ndarray, energy: Energy, tau: float, scale: float) -> _Judgement:
    weights = np.exp(log_weights)
    divergence = float(weights @ (log_weights + np.log(len(weights))))  # KL(w | uniform)
    return _Judgement(
        energy.value + tau * divergence,
        stationarity_residual(log_weights, energy.gradient, tau, scale),
    )


def _better(there: _Judgement, here: _Judgement, noise: float) -> bool:
    """Less objective; where only noise is left in it, less residual."""
    rise = there.objective - here.objective
    return rise < -noise or (rise < 100 * noise and there.residual < here.residual)


def _stagnates(trace: list[_Judgement]) -> bool:
    """Five steps without a tenth less residual: what is left may be the oracle's error."""
    residuals = [judgement.residual for judgement in trace]
    return len(residuals) > 5 and min(residuals[-5:]) > 0.9 * min(residuals[:-5])


def _full_step(
    log_weights: np.ndarray, gradient: np.ndarray, tau: float, scale: float
) -> np.ndarray:
    if tau == 0:
        return -(gradient - gradient.mean()) / scale
    step = -gradient / tau - log_weights
    return step - step.mean()


def _descent(
    log_weights: np.ndarray,
    energy: Energy,
    tau: float,
    trace: list[_Judgement],
    tolerance: float,
    num_steps: int,
) -> Descent:
    residual = trace[-1].residual
    return Descent(
        log_weights=log_weights,
        energy=energy,
        tau=tau,
        residual=residual,
        converged=residual <= tolerance,
        objective_trace=np.array([judgement.objective for judgement in trace]),
        residual_trace=np.array([judgement.residual for judgement in trace]),
        num_steps=num_steps,
    )
