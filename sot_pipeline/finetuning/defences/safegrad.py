"""SafeGrad: one conflict test on the whole gradient (arXiv 2508.07172).

The rank-one case of SPF: all parameters are one block, and the safety gradient its one direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.batching import padded
from sot_pipeline.finetuning.defences.defence import Defence, Run, drawn, some_demonstrations
from sot_pipeline.finetuning.loss import kept_logits, mean_loss

# At the aligned model itself the divergence has no gradient, but float32 writes one
ROUNDING = 1e-6  # of the task gradient's length


@dataclass
class SafeGrad(Defence):
    """Take away the task gradient's component against alignment, then add alignment's own.

    Attributes:
        rho: Share of the alignment gradient that is added.
        alignment: "kl": to the frozen aligned model on the answers of demonstrations, nats a
            token; "nll": of those answers.
        num_samples: Demonstrations to draw from.
        batch_size: Demonstrations a step.
    """

    rho: float = 1.0
    alignment: Literal["kl", "nll"] = "kl"
    num_samples: int = 64
    batch_size: int = 4

    def __post_init__(self) -> None:
        if self.alignment not in ("kl", "nll"):
            raise InputError(f"safegrad: alignment {self.alignment!r}; expected 'kl' or 'nll'")
        if self.num_samples < 1 or self.batch_size < 1 or self.rho < 0:
            raise InputError("safegrad: expected num_samples >= 1, batch_size >= 1, rho >= 0")

    def begin(self, run: Run) -> None:
        super().begin(run)
        self._rows = some_demonstrations(run, "safegrad", self.num_samples)

    def on_gradients(self, step: int) -> Mapping[str, float]:
        parameters = list(self.run.parameters.values())
        chosen = drawn(self.run.seed, step, len(self._rows.weights), self.batch_size)
        with self.run.autocast():
            loss = self._alignment_loss(chosen)
        aligned = torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(
                    loss, parameters, allow_unused=True, materialize_grads=True
                )
            ]
        )
        task = torch.cat([_gradient(p).flatten() for p in parameters])
        cosine = torch.nn.functional.cosine_similarity(task, aligned, dim=0)
        changed = without_conflict(task, aligned) + self.rho * aligned
        parts = changed.split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return {"safegrad_cosine": float(cosine), "safegrad_loss": float(loss.detach())}

    def _alignment_loss(self, chosen: np.ndarray) -> Float[Tensor, ""]:
        model = self.run.model
        if self.alignment == "nll":
            return mean_loss(model, self._rows, chosen)
        batch = padded(self._rows, chosen)
        with torch.no_grad(), model.disable_adapter():
            before = kept_logits(model, batch).float().log_softmax(dim=-1)
        now = kept_logits(model, batch).float().log_softmax(dim=-1)
        divergence = (before.exp() * (before - now)).sum(dim=-1)
        learnt = (batch.row_of >= 0).to(divergence)
        return (divergence * learnt).sum() / learnt.sum()


def without_conflict(
    task: Float[Tensor, " n"], aligned: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The task gradient, less its component along `aligned` where that is negative."""
    along = task @ aligned
    length = aligned @ aligned
    if not (along < 0 and length > ROUNDING**2 * (task @ task)):
        return task
    return task - along / length * aligned


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
