"""SPAG: after each task step, a step back toward safety where it is needed (arXiv 2605.28030).

The safe-sample gradient step of SPARD. The paper's step is implemented, not the one of its code,
which takes the length per tensor and passes it through the optimiser.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.defences.defence import Defence, Run, drawn, some_demonstrations
from sot_pipeline.finetuning.loss import mean_loss


@dataclass
class Spag(Defence):
    """Hold the loss of safe answers below a bound.

    Attributes:
        threshold: tau, nats a token: the loss that a safe answer may have.
        margin: By how much it may be passed before a step is taken.
        max_step: Longest step length; else (loss - tau) / |g|^2, which would reach tau if the
            loss were linear.
        num_samples: Demonstrations to draw from, one a step.
    """

    threshold: float = 0.2
    margin: float = 0.1
    max_step: float = 1.0
    num_samples: int = 64

    def __post_init__(self) -> None:
        if self.max_step <= 0 or self.margin < 0 or self.num_samples < 1:
            raise InputError("spag: expected max_step > 0, margin >= 0, num_samples >= 1")

    def begin(self, run: Run) -> None:
        super().begin(run)
        self._rows = some_demonstrations(run, "spag", self.num_samples)

    def on_update(self, step: int) -> Mapping[str, float]:
        chosen = drawn(self.run.seed, step, len(self._rows.weights), 1)
        with self.run.autocast():
            loss = mean_loss(self.run.model, self._rows, chosen)
        value, length = float(loss.detach()), 0.0
        if value > self.threshold + self.margin:
            length = self._descend(loss, value - self.threshold)
        return {"spag_loss": value, "spag_step": length}

    def _descend(self, loss: torch.Tensor, excess: float) -> float:
        parameters = list(self.run.parameters.values())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        squared = float(sum((g.double() ** 2).sum() for g in gradients))
        length = min(excess / squared, self.max_step) if squared > 0 else 0.0
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(length * gradient)
        return length
