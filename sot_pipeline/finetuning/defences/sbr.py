"""SBR: hold the last hidden state of a few dangerous prompts where it was (arXiv 2605.05995)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.defences.defence import Defence, Run
from sot_pipeline.finetuning.defences.hidden_states import last_token_states


@dataclass
class Sbr(Defence):
    """Add strength * mean (h - h0)^2 to the loss, over prompts and dimensions.

    Attributes:
        strength: lambda. The mean is over the dimensions of the hidden state too, so that its
            meaning does not depend on the model's width.
        num_prompts: K dangerous prompts.
    """

    strength: float = 50.0
    num_prompts: int = 8

    def __post_init__(self) -> None:
        if self.strength < 0 or self.num_prompts < 1:
            raise InputError("sbr: expected strength >= 0, num_prompts >= 1")

    def begin(self, run: Run) -> None:
        super().begin(run)
        self._prompts = run.safety.harmful_prompts[: self.num_prompts]
        if not self._prompts:
            raise InputError("sbr needs harmful prompts: give it demonstrations of safety")
        with torch.no_grad(), run.model.disable_adapter(), run.autocast():
            self._aligned = last_token_states(run.model, self._prompts)[-1]

    def on_gradients(self, step: int) -> Mapping[str, float]:
        with self.run.autocast():
            states = last_token_states(self.run.model, self._prompts)[-1]
        drift = ((states - self._aligned) ** 2).mean()
        (self.strength * drift).backward()
        return {"sbr_drift": float(drift.detach())}
