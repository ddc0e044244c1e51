"""Entropic transport between the custom rows and one reference, solved again and again.

The unknown is one potential per reference row, `g`; the rows' potentials follow from it in closed
form. A sweep takes `g` to the plan's column masses and costs one pass over the kernel; the update
of `g` is done here in float64: extrapolated Sinkhorn steps, which the dual value keeps uphill, and
Newton's method where epsilon is so small that they hardly lead on.
"""

from typing import NamedTuple

import jax
import numpy as np

from sot_pipeline.transport.anderson import MEMORY, Step, extrapolate
from sot_pipeline.transport.tiles import Precision, RowCosts, Storage, Tiles

_MOST_COLUMNS_OF_NEWTON = 4_096
_LIGHTEST = -80.0  # a log-weight below this counts for no column


class Transport(NamedTuple):
    """One solved problem."""

    ot_cost: float  # unit of the cost
    potential: np.ndarray  # [n] float64, gradient of `ot_cost` in the weights
    g: np.ndarray  # [m] float64; holds epsilon * log(b)
    marginal_error: float  # L1
    num_sweeps: int


class _Dual(NamedTuple):
    value: float
    g: np.ndarray
    column_mass: np.ndarray
    error: float
    potential: np.ndarray


class ReferenceTransport:
    """Semi-relaxed entropic OT of weighted rows against a uniform reference.

    The problem is that of `sinkhorn.entropic_ot`; each solve starts from the potentials of the
    last.

    Args:
        costs: Where costs come from.
        epsilon: Regularisation strength, unit of the cost.
        tau_b: 1: every reference row gets its mass; 0: reference rows take what comes.
        storage: How the kernel is held, see `tiles`.
        precision: Of the sums.
    """

    def __init__(
        self,
        costs: RowCosts,
        *,
        epsilon: float,
        tau_b: float,
        storage: Storage,
        precision: Precision = "float32",
    ) -> None:
        self.epsilon, self.tau_b, self.precision = float(epsilon), tau_b, precision
        # free columns need one sweep in all: nothing to store it for
        kept: Storage = "recomputed" if tau_b == 0 else storage
        self.tiles = Tiles(costs, epsilon=epsilon, storage=kept, precision=precision)
        self._log_b = -np.log(costs.num_columns)
        self.g = np.full(costs.num_columns, self.epsilon * self._log_b)
        self._free: Transport | None = None

    def solve(self, log_weights: np.ndarray, *, threshold: float, max_sweeps: int) -> Transport:
        """Solve for row weights `[n]` (natural logs, any number of them -inf or tiny).

        Stops at an L1 marginal error of `threshold`; read `marginal_error`.
        """
        with jax.enable_x64(self.precision == "float64"):
            return self._solve(log_weights, threshold, max_sweeps)

    def _solve(self, log_weights: np.ndarray, threshold: float, max_sweeps: int) -> Transport:
        weights = np.exp(log_weights)
        if self.tau_b == 0 and self._free is not None:  # its potentials depend on no weight
            return self._free._replace(ot_cost=float(weights @ self._free.potential))
        masses = self.tiles.place(weights)
        first = self.tiles.num_sweeps
        last = first + max_sweeps
        at = self._evaluate(self.g, masses, weights)
        if self.tau_b > 0:
            at = self._sinkhorn(at, masses, weights, threshold, last)
            if at.error > threshold and self.tiles.num_sweeps < last and self._newton_pays:
                at = self._newton(at, masses, weights, threshold, last)
        self.g = at.g
        solved = Transport(at.value, at.potential, at.g, at.error, self.tiles.num_sweeps - first)
        if self.tau_b == 0:
            self._free = solved
        return solved

    def _sinkhorn(self, at: "_Dual", masses, weights, threshold: float, last: int) -> "_Dual":
        """Alternating updates, extrapolated; given up where they hardly lead on."""
        memory, errors = [], [at.error]
        floor = float(np.finfo(self.precision).tiny) * 1e8
        while at.error > threshold and self.tiles.num_sweeps < last:
            if self._newton_pays and len(errors) > 20 and errors[-1] > 0.1 * errors[-20]:
                break
            gamma = at.g - self.epsilon * self._log_b
            # a column without mass would ask for an infinite step; this one is as good
            excess = np.log(np.maximum(at.column_mass, floor)) - self._log_b
            step = self.tau_b * (gamma - self.epsilon * excess) - gamma
            memory = [*memory[1 - MEMORY :], Step(at.g, step - step.mean() * (self.tau_b == 1))]
            there = self._evaluate(extrapolate(memory), masses, weights)
            if there.value < at.value - self._noise and len(memory) > 1:
                # the plain step always leads up
                memory = memory[-1:]
                there = self._evaluate(extrapolate(memory), masses, weights)
            at = there
            errors.append(at.error)
        return at

    def _newton(self, at: "_Dual", masses, weights, threshold: float, last: int) -> "_Dual":
        """Damped Newton ascent of the concave dual in `g`: for an epsilon that is small."""
        damping = 1e-8
        while at.error > threshold and self.tiles.num_sweeps < last:
            wanted = self._wanted(at.g - self.epsilon * self._log_b)
            hessian = np.diag(at.column_mass) - self.tiles.curvature(at.g, masses)
            hessian /= self.epsilon
            if self.tau_b < 1:
                hessian += np.diag(wanted / self._rho)
            slope = wanted - at.column_mass
            size = np.trace(hessian) / len(hessian) + 1e-300
            while True:
                matrix = hessian + damping * size * np.eye(len(hessian)) + size / len(hessian)
                move = np.linalg.solve(matrix, slope)
                move *= min(1.0, 10 * self.epsilon / (np.abs(move).max() + 1e-300))
                there = self._evaluate(at.g + move, masses, weights)
                if there.value >= at.value + 1e-4 * slope @ move or there.error < 0.5 * at.error:
                    damping = max(damping / 10, 1e-12)
                    break
                damping = 10 * damping
                if damping > 1e6 or self.tiles.num_sweeps >= last:
                    return at
            at = there
        return at

    def _evaluate(self, g: np.ndarray, masses, weights: np.ndarray) -> "_Dual":
        rows, column_mass = self.tiles.sweep(g, masses)
        # at once: a later sweep may absorb other potentials
        potential = self.tiles.potential(rows)
        gamma = g - self.epsilon * self._log_b
        error = float(np.abs(column_mass - self._wanted(gamma)).sum()) if self.tau_b > 0 else 0.0
        value = float(weights @ potential) + self._value(gamma)
        return _Dual(value, g, column_mass, error, potential)

    def start_from(self, potential: np.ndarray, log_weights: np.ndarray) -> None:
        """Take the column potentials that answer row potentials `[n]` of a similar problem."""
        if self.tau_b == 0:
            return
        with jax.enable_x64(self.precision == "float64"):
            exponent = potential / self.epsilon + np.maximum(log_weights, _LIGHTEST)
            gamma = -self.tau_b * self.epsilon * self.tiles.log_column_sums(exponent)
            self.g = gamma - gamma.mean() * (self.tau_b == 1) + self.epsilon * self._log_b

    @property
    def _noise(self) -> float:
        """Rounding of the dual value, whose terms are of the size of the potentials."""
        return 8 * float(np.finfo(self.precision).eps) * float(np.abs(self.g).max() + self.epsilon)

    @property
    def _newton_pays(self) -> bool:
        """Where its matrix of m x m costs less than hundreds of sweeps."""
        return self.tiles.num_columns <= _MOST_COLUMNS_OF_NEWTON

    @property
    def _rho(self) -> float:
        return self.epsilon * self.tau_b / (1 - self.tau_b)

    def _wanted(self, gamma: np.ndarray) -> np.ndarray:
        """Column masses that `gamma` is optimal for."""
        b = np.exp(self._log_b)
        return np.full_like(gamma, b) if self.tau_b == 1 else b * np.exp(-gamma / self._rho)

    def _value(self, gamma: np.ndarray) -> float:
        """The part of the dual value that belongs to the reference."""
        if self.tau_b == 0:
            return 0.0
        if self.tau_b == 1:
            return float(gamma.mean())
        return float(-self._rho * np.expm1(-gamma / self._rho).mean())
