"""RefusalGuard, re-implemented from its description (arXiv 2605.01913).

The paper's loss, layers and constants are not public; this is a penalty on how far hidden states
move along directions that tell harmful from harmless prompts, as in ProCon (arXiv 2509.06795).
Results with it are results of a re-implementation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.defences.defence import Defence, Run, drawn
from sot_pipeline.finetuning.defences.hidden_states import last_token_states


@dataclass
class RefusalGuardReimpl(Defence):
    """Add strength * mean over layers and prompts of |U^T (h - h0)|^2 to the loss.

    U of a layer: the mean difference of harmful and harmless prompts, and the leading principal
    directions of harmful prompts around their mean.

    Attributes:
        strength: lambda.
        rank: Directions a layer.
        first_layer: Share of the layers that stay free, counted from the input.
        num_prompts: Prompts of each sort.
        batch_size: Anchor prompts a step.
        warmup_steps: First steps, in which the penalty is stronger.
        warmup_factor: By how much.
    """

    strength: float = 1.0
    rank: int = 4
    first_layer: float = 0.5
    num_prompts: int = 64
    batch_size: int = 16
    warmup_steps: int = 15
    warmup_factor: float = 5.0

    def __post_init__(self) -> None:
        if min(self.rank, self.num_prompts, self.batch_size) < 1 or self.strength < 0:
            raise InputError(
                "refusalguard_reimpl: expected rank, num_prompts and batch_size >= 1, strength >= 0"
            )
        if not 0 <= self.first_layer < 1:
            raise InputError("refusalguard_reimpl: expected 0 <= first_layer < 1")

    def begin(self, run: Run) -> None:
        super().begin(run)
        harmful = list(run.safety.harmful_prompts[: self.num_prompts])
        harmless = list(run.safety.harmless_prompts[: self.num_prompts])
        if not harmful or not harmless:
            raise InputError(
                f"refusalguard_reimpl needs prompts of both sorts; got {len(harmful)} harmful and "
                f"{len(harmless)} harmless ones"
            )
        self._anchors = harmful + harmless
        with torch.no_grad(), run.model.disable_adapter(), run.autocast():
            parts = [self._states(part) for part in self._parts(range(len(self._anchors)))]
        self._aligned = torch.cat(parts, dim=1)
        self._directions = torch.stack(
            [
                refusal_directions(layer[: len(harmful)], layer[len(harmful) :], self.rank)
                for layer in self._aligned
            ]
        )

    def on_gradients(self, step: int) -> Mapping[str, float]:
        chosen = drawn(self.run.seed, step, len(self._anchors), self.batch_size)
        warm = self.warmup_factor if step < self.warmup_steps else 1.0
        total = 0.0
        for part in self._parts(chosen):
            with self.run.autocast():
                moved = self._states(part) - self._aligned[:, part]
            along = torch.einsum("lpw,lwk->lpk", moved, self._directions)
            drift = (along**2).sum(dim=-1).mean() * (len(part) / len(chosen))
            (warm * self.strength * drift).backward()
            total += float(drift.detach())
        return {"refusalguard_drift": total}

    def _parts(self, chosen: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        return np.array_split(np.asarray(chosen), math.ceil(len(chosen) / self.run.size))

    def _states(self, part: np.ndarray) -> Float[Tensor, "layers part width"]:
        states = last_token_states(self.run.model, [self._anchors[i] for i in part])
        return states[math.floor(self.first_layer * len(states)) :]


def refusal_directions(
    harmful: Float[Tensor, "harmful width"], harmless: Float[Tensor, "harmless width"], rank: int
) -> Float[Tensor, "width k"]:
    """Orthonormal: the difference of the means first, then directions within the harmful ones."""
    difference = harmful.mean(dim=0) - harmless.mean(dim=0)
    _, s, within = torch.linalg.svd(harmful - harmful.mean(dim=0), full_matrices=False)
    within = within[s > 1e-6 * s[0]]  # few prompts do not span more
    found = torch.cat([difference[None], within[: max(rank - 1, 0)]])[:rank]
    return torch.linalg.qr(found.T).Q
