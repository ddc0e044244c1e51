"""What a training-time defence may do to a step, and what it knows."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor

from sot_pipeline.finetuning.rows import Rows


class SafetyData(NamedTuple):
    """What defences learn safety from; none of it may come from an evaluation set.

    Attributes:
        demonstrations: Harmful requests with the answers of a safe model, to learn from.
        harmful_prompts: Token ids of harmful requests up to where the answer begins.
        harmless_prompts: The same of harmless requests.
    """

    demonstrations: Rows
    harmful_prompts: Sequence[Tensor]
    harmless_prompts: Sequence[Tensor]


class Run(NamedTuple):
    """A training run as a defence sees it.

    Attributes:
        model: With its adapter; the frozen aligned model is `model.disable_adapter()`.
        parameters: What is trained, by name.
        safety: See `SafetyData`.
        seed: Of anything random; draw from (seed, step), so that a run taken up again in the
            middle draws the same.
        autocast: Context for forward passes, in the precision of the run.
        average: Replaces tensors by their mean over the processes of the run, in place.
    """

    model: PeftModel
    parameters: Mapping[str, torch.nn.Parameter]
    safety: SafetyData
    seed: int
    autocast: Callable[[], AbstractContextManager]
    average: Callable[[Sequence[Tensor]], None]


@dataclass
class Defence:
    """Plain fine-tuning; a method overrides what it changes.

    In each step the loop calls `on_gradients` when the gradient of the task's loss, summed over
    parts and processes, lies in `parameter.grad`, before it is clipped; and `on_update` after
    the optimiser has moved the parameters. Both return numbers for the training log. All
    processes call both, and must leave the same values behind.

    `state` is kept in checkpoints: what `begin` cannot make again from the aligned model.
    """

    def begin(self, run: Run) -> None:
        """Called once, before the first step, with the adapter as it begins."""
        self.run = run

    def on_gradients(self, step: int) -> Mapping[str, float]:
        return {}

    def on_update(self, step: int) -> Mapping[str, float]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up `state` again; called after `begin`, with the parameters of that moment."""
