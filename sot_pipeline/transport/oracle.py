"""The energy of Eq. 5 at given weights, for a descent: two transport problems, solved warm."""

from typing import NamedTuple

import numpy as np

from sot_pipeline.errors import InputError
from sot_pipeline.transport.descent import Energy
from sot_pipeline.transport.fit import PushPullFit
from sot_pipeline.transport.reference import ReferenceTransport, Transport
from sot_pipeline.transport.tiles import Precision, RowCosts, Storage

_FIRST_ERROR = 1e-2  # of the marginals, before any residual is known
_SHARE_OF_RESIDUAL = 0.1


class Solved(NamedTuple):
    """Both transport problems at some weights."""

    pull: Transport
    push: Transport


class PushPull:
    """Oracle of the unregularised Eq. 5: each call solves both problems, warm from the last.

    Args:
        pull, push: Costs of the same custom rows.
        threshold: L1 error of the marginals to solve to in the end; no less than the precision
            allows.
        scale: Unit of residuals, see `aim`.
        adaptive: Start with a larger error, which `aim` makes smaller.
        largest_cost: Sets the size of rounding errors.
    """

    def __init__(
        self,
        pull: RowCosts,
        push: RowCosts,
        *,
        lambda_push: float,
        epsilon: float,
        reference_relaxation: float,
        threshold: float,
        scale: float,
        adaptive: bool,
        max_sweeps: int,
        largest_cost: float,
        storages: tuple[Storage, Storage],
        precision: Precision,
        init: PushPullFit | None = None,
    ) -> None:
        self.lambda_push, self.epsilon = lambda_push, epsilon
        self.reference_relaxation = reference_relaxation
        self.problems = [
            ReferenceTransport(
                costs,
                epsilon=epsilon,
                tau_b=1.0 - reference_relaxation,
                storage=storage,
                precision=precision,
            )
            for costs, storage in zip((pull, push), storages, strict=True)
        ]
        self.precision = precision
        machine_epsilon = float(np.finfo(precision).eps)
        self._rounding = 2 * machine_epsilon * largest_cost
        self._least_error = 20 * machine_epsilon  # of the sums that make the column masses
        self.accepted_error = max(threshold, self._least_error)
        self.threshold = max(_FIRST_ERROR, self.accepted_error) if adaptive else self.accepted_error
        self.scale = scale
        self.max_sweeps = max_sweeps
        self.first_storages = [problem.tiles.storage for problem in self.problems]
        if init is not None:
            self._start_from(init)

    def __call__(self, log_weights: np.ndarray) -> Energy:
        pull, push = (
            problem.solve(log_weights, threshold=self.threshold, max_sweeps=self.max_sweeps)
            for problem in self.problems
        )
        gradient = self._combine(pull.potential, push.potential)
        value = self._combine(pull.ot_cost, push.ot_cost)
        # a marginal error moves the dual value by its square
        noise = self._rounding + self.epsilon * self.threshold**2
        return Energy(value, gradient, Solved(pull, push), noise)

    @property
    def num_sweeps(self) -> int:
        """Passes over the costs to one reference, so far."""
        return sum(problem.tiles.num_sweeps for problem in self.problems)

    def aim(self, residual: float) -> bool:
        """Solve as exactly as a step from this residual needs; says whether that is more so."""
        # potentials are off by about epsilon times the error of the marginals
        wanted = max(_SHARE_OF_RESIDUAL * residual * self.scale / self.epsilon, self.accepted_error)
        more_exact = wanted < self.threshold
        self.threshold = min(wanted, self.threshold)
        return more_exact

    def sharpen(self) -> bool:
        """Solve more exactly from now on, if the floating point allows it."""
        can = self.threshold > self._least_error
        self.threshold = max(self.threshold / 10, self._least_error)
        return can

    def recompute(self) -> bool:
        """Use exact costs from now on, where the kernel was rounded; says whether it was."""
        rounded = any(problem.tiles.storage == "float16" for problem in self.problems)
        for problem in self.problems:
            problem.tiles.recompute()
        return rounded

    def _start_from(self, init: PushPullFit) -> None:
        num_rows = self.problems[0].tiles.num_rows
        if len(init.log_weights) != num_rows:
            raise InputError(
                f"init is a fit of {len(init.log_weights)} custom samples, the costs have "
                f"{num_rows} rows; start without init, or from a fit of these samples"
            )
        carried = init.epsilon * init.solved_at
        for problem, f in zip(self.problems, (init.f_pull, init.f_push), strict=True):
            problem.start_from(f - carried, init.solved_at)

    def _combine(self, pull, push):
        return (1 - self.lambda_push) * pull - self.lambda_push * push
