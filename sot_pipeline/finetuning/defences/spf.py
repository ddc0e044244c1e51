"""SPF: safety-preserving fine-tuning by gradient projection (arXiv 2601.10141).

The safety gradient of very few samples, matrix by matrix, is nearly low-rank; a task step that
has no component against its leading directions leaves safety as it is, to first order. What the
public texts leave open (where to project under LoRA, how often to compute the directions) is an
option here, measured in the benchmarks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.defences.adapted import (
    Adapted,
    adapted_matrices,
    weight_gradients,
)
from sot_pipeline.finetuning.defences.defence import Defence, Run, some_demonstrations
from sot_pipeline.finetuning.defences.subspace import (
    Subspace,
    leading_subspace,
    without_conflicts,
    without_conflicts_in_product,
    without_subspace,
)
from sot_pipeline.finetuning.loss import mean_loss_gradients

Pair = tuple[Tensor, Tensor]  # gradients, or movements, of A and B


@dataclass
class Spf(Defence):
    """Remove from each step what would undo safety, to first order.

    Attributes:
        rank: Directions per matrix.
        refresh: Steps between two computations of the directions; 0: once, at the start.
        num_samples: Demonstrations that the safety gradient is taken from. The paper finds one
            enough; in this project's demo it is not.
        space: "weight": directions of the whole matrix, and the movement of B A in it;
            "parameter": directions of A and of B, each by itself. At the start A has no gradient,
            as B is zero, so that "parameter" with refresh 0 never constrains A.
        mode: "basis": remove conflicting components only; "two_sided": where the step as a whole
            conflicts, remove all it has in the subspace ("parameter" only).
        project: "gradient", before the optimiser; or "update", what the optimiser made of it, as
            Adam's scaling of each coordinate brings back part of what was removed before it.
    """

    rank: int = 10
    refresh: int = 10
    num_samples: int = 64
    space: Literal["weight", "parameter"] = "weight"
    mode: Literal["basis", "two_sided"] = "basis"
    project: Literal["gradient", "update"] = "gradient"

    def __post_init__(self) -> None:
        if self.space not in ("weight", "parameter") or self.mode not in ("basis", "two_sided"):
            raise InputError(
                f"spf: space {self.space!r}, mode {self.mode!r}; expected 'weight' or 'parameter', "
                "'basis' or 'two_sided'"
            )
        if self.project not in ("gradient", "update"):
            raise InputError(f"spf: project {self.project!r}; expected 'gradient' or 'update'")
        if self.mode == "two_sided" and self.space == "weight":
            raise InputError("spf: mode 'two_sided' needs space 'parameter'")
        if self.rank < 1 or self.refresh < 0 or self.num_samples < 1:
            raise InputError("spf: expected rank >= 1, refresh >= 0, num_samples >= 1")

    def begin(self, run: Run) -> None:
        super().begin(run)
        self._rows = some_demonstrations(run, "spf", self.num_samples)
        self._matrices = adapted_matrices(run.model)
        self._spaces: dict[str, Subspace] = {}
        self._safety_loss = 0.0
        self._before: list[Pair] = []

    def on_gradients(self, step: int) -> Mapping[str, float]:
        if not self._spaces or (self.refresh and step % self.refresh == 0):
            self._compute_directions()
        if self.project == "update":
            self._before = [(m.a.detach().clone(), m.b.detach().clone()) for m in self._matrices]
            return {}
        return self._apply(_gradients, _set_gradients)

    def on_update(self, step: int) -> Mapping[str, float]:
        if self.project == "gradient":
            return {}
        before = dict(zip((m.name for m in self._matrices), self._before, strict=True))

        def movement(matrix: Adapted) -> Pair:  # against the descent, as a gradient is
            a, b = before[matrix.name]
            return a - matrix.a.detach(), b - matrix.b.detach()

        def move(matrix: Adapted, pair: Pair) -> None:
            a, b = before[matrix.name]
            with torch.no_grad():
                matrix.a.copy_(a - pair[0])
                matrix.b.copy_(b - pair[1])

        return self._apply(movement, move, before)

    def state(self) -> dict[str, Tensor]:
        return {
            f"{name}/{field}": value
            for name, space in self._spaces.items()
            for field, value in space._asdict().items()
        } | {"safety_loss": torch.tensor(self._safety_loss, dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._safety_loss = float(state["safety_loss"])
        names = {key.rsplit("/", 1)[0] for key in state if "/" in key}
        self._spaces = {
            name: Subspace(*(state[f"{name}/{field}"] for field in Subspace._fields))
            for name in names
        }

    def _compute_directions(self) -> None:
        if self.space == "weight":
            loss, gradients = weight_gradients(
                self.run.model,
                self._matrices,
                self._rows,
                size=self.run.size,
                precision=self.run.autocast,
            )
        else:
            loss, gradients = self._parameter_gradients()
        self._safety_loss = loss
        self._spaces = {}
        for name in list(gradients):  # a large model's gradients need not all be there at the end
            self._spaces[name] = leading_subspace(gradients.pop(name), self.rank)

    def _parameter_gradients(self) -> tuple[float, dict[str, Tensor]]:
        factors = {f"{m.name}.{part}": getattr(m, part) for m in self._matrices for part in "ab"}
        loss, gradients = mean_loss_gradients(
            self.run.model,
            self._rows,
            list(factors.values()),
            size=self.run.size,
            precision=self.run.autocast,
        )
        return loss, dict(zip(factors, gradients, strict=True))

    def _apply(
        self,
        read: Callable[[Adapted], Pair],
        write: Callable[[Adapted, Pair], None],
        at: Mapping[str, Pair] | None = None,
    ) -> dict[str, float]:
        """Project every matrix's pair; `at` are the factors' values where they have moved."""
        conflicts = directions = 0
        for matrix in self._matrices:
            a, b = at[matrix.name] if at else (matrix.a.detach(), matrix.b.detach())
            pair, found = self._projected(matrix, read(matrix), a, b)
            if found:  # else bit by bit what it was
                write(matrix, pair)
            conflicts += found
            directions += self._num_directions(matrix)
        return {
            "spf_conflicts": conflicts / max(directions, 1),
            "spf_safety_loss": self._safety_loss,
        }

    def _projected(self, matrix: Adapted, pair: Pair, a: Tensor, b: Tensor) -> tuple[Pair, int]:
        if self.space == "weight":
            space = self._spaces[matrix.name]
            new_a, new_b, found = without_conflicts_in_product(*pair, a, b, matrix.scaling, space)
            return (new_a, new_b), found
        remove = without_conflicts if self.mode == "basis" else without_subspace
        new_a, found_a = remove(pair[0], self._spaces[f"{matrix.name}.a"])
        new_b, found_b = remove(pair[1], self._spaces[f"{matrix.name}.b"])
        return (new_a, new_b), found_a + found_b

    def _num_directions(self, matrix: Adapted) -> int:
        names = [matrix.name] if self.space == "weight" else [f"{matrix.name}.{p}" for p in "ab"]
        if self.mode == "two_sided":
            return len(names)
        return sum(int((self._spaces[name].s > 0).sum()) for name in names)


def _gradients(matrix: Adapted) -> Pair:
    assert matrix.a.grad is not None
    assert matrix.b.grad is not None
    return matrix.a.grad, matrix.b.grad


def _set_gradients(matrix: Adapted, pair: Pair) -> None:
    matrix.a.grad, matrix.b.grad = pair
