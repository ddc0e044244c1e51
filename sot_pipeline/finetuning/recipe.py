"""How to train: everything beside the rows that decides an adapter."""

import math
from dataclasses import dataclass

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.batching import num_steps_for
from sot_pipeline.finetuning.weighted_nll import Normalisation


@dataclass(frozen=True)
class Recipe:
    """LoRA, optimiser and batches.

    Attributes:
        learning_rate: Of AdamW, reached after the warm-up.
        schedule: "constant" or "cosine" (to zero), after a linear warm-up.
        num_epochs, num_steps: How long to train; give one, the other None.
        batch_size: Rows per optimiser step over all devices.
        micro_batch_size: Rows per forward pass; does not change the result, only the memory.
            Halved where memory runs out (on one device).
        max_length: Tokens; longer rows lose their beginning, never their answer.
        normalisation: How answers of different lengths count, see `weighted_nll`.
        label_smoothing: Share of the target mass that is spread over the vocabulary.
        max_gradient_norm: A step's gradient is shortened to this length.
        packing: Lay the rows of a forward pass one behind the other instead of padding them;
            no row sees another.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        compile: Run the model through `torch.compile`.
        seed: Of the adapter's first values and the order of the rows.
    """

    rank: int = 16
    lora_alpha: int = 16
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    learning_rate: float = 1e-4
    schedule: str = "constant"
    warmup_fraction: float = 0.03
    num_epochs: float | None = 2.0
    num_steps: int | None = None
    batch_size: int = 64
    micro_batch_size: int = 8
    max_length: int = 2048
    normalisation: Normalisation = "sample_mean"
    label_smoothing: float = 0.0
    max_gradient_norm: float = 1.0
    packing: bool = False
    gradient_checkpointing: bool = False
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.num_epochs is None) == (self.num_steps is None):
            raise InputError("give either num_epochs or num_steps, and None for the other")
        if self.schedule not in ("constant", "cosine"):
            raise InputError(f"schedule is {self.schedule!r}; expected 'constant' or 'cosine'")
        if self.normalisation not in ("sample_mean", "token_mean", "sample_sum"):
            raise InputError(
                f"normalisation is {self.normalisation!r}; expected 'sample_mean', 'token_mean' "
                "or 'sample_sum'"
            )

    def steps_for(self, num_rows: int) -> int:
        """Optimiser steps on so many rows."""
        if self.num_steps is not None:
            return self.num_steps
        assert self.num_epochs is not None
        return num_steps_for(num_rows, self.batch_size, self.num_epochs)

    def learning_rate_at(self, step: int, num_steps: int) -> float:
        """Of a step, 0 <= step < num_steps."""
        warmup = math.ceil(self.warmup_fraction * num_steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - warmup) / (num_steps - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
