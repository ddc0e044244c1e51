"""What a training-time defence may do to a step, and what it knows."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.rows import Rows, first_rows


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
        size: Rows per forward pass that memory is asked for.
        autocast: Context for forward passes, in the precision of the run.
    """

    model: PeftModel
    parameters: Mapping[str, torch.nn.Parameter]
    safety: SafetyData
    seed: int
    size: int
    autocast: Callable[[], AbstractContextManager]


@dataclass
class Defence:
    """Plain fine-tuning; a method overrides what it changes.

    In each step the loop calls `on_gradients` when the gradient of the task's loss, summed over
    parts and processes, lies in `parameter.grad`, before it is clipped; and `on_update` after
    the optimiser has moved the parameters. Both return numbers for the training log. All
    processes call both; what they leave behind is averaged, so that rounding cannot part them.

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


def some_demonstrations(run: Run, name: str, count: int) -> Rows:
    """The first `count` demonstrations, or all there are.

    Raises:
        InputError: there is none.
    """
    if not len(run.safety.demonstrations.weights):
        raise InputError(
            f"{name} learns from demonstrations of safety (harmful requests with safe answers), "
            "and got none"
        )
    return first_rows(run.safety.demonstrations, count)


def drawn(seed: int, step: int, population: int, count: int) -> np.ndarray:
    """Places of a step's sample, the same whenever the step is done."""
    rng = np.random.default_rng([seed, step])
    return rng.choice(population, min(count, population), replace=False)
