"""The training loop.

Several processes (`accelerate launch`, `torchrun`) each compute a share of every step and add up
their gradients once a step. What is trained is small, so that one sum of a flat array costs less
than a wrapper that overlaps it, and defences may run further passes of their own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from peft import PeftModel
from torch import Tensor

from sot_pipeline.finetuning.batching import micro_batches, packed, padded, plan_steps
from sot_pipeline.finetuning.checkpoint import load_checkpoint, restore, save_checkpoint
from sot_pipeline.finetuning.defences.defence import Defence, Run, SafetyData
from sot_pipeline.finetuning.loss import batch_loss, require_exact_packing
from sot_pipeline.finetuning.recipe import Recipe
from sot_pipeline.finetuning.rows import Rows
from sot_pipeline.finetuning.weighted_nll import token_weights
from sot_pipeline.language_model import is_out_of_memory

BETAS = (0.9, 0.95)  # of AdamW, as the field fine-tunes; no weight decay


class StepReport(NamedTuple):
    """One optimiser step.

    Attributes:
        step: 1 for the first.
        values: `loss` (weighted, nats), `learning_rate`, `gradient_norm` (before clipping),
            `tokens` (without padding), `effective_rows` (1 / sum of squared shares of the
            step's weights), `seconds`, `defence_seconds`, and what the defence tells.
    """

    step: int
    num_steps: int
    values: Mapping[str, float]


def remove_dropout(model: torch.nn.Module) -> None:
    """Every dropout of a model to zero: its modules, and what forward passes read as a number."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


class Checkpoints(NamedTuple):
    """Where a run can be taken up again, and the run it belongs to.

    One is written once `every` steps or `seconds` have passed since the last.
    """

    directory: Path
    plan: Mapping[str, Any]
    every: int | None
    seconds: float


class Loop:
    """A run over all its steps; `trace` tells what it did.

    Args:
        rows: Their weights as `weighted_nll.scaled` gives them.
    """

    def __init__(
        self,
        model: PeftModel,
        rows: Rows,
        recipe: Recipe,
        accelerator: Accelerator,
        defence: Defence,
        safety: SafetyData,
    ) -> None:
        self.model, self.rows, self.recipe = model, rows, recipe
        self.accelerator, self.defence = accelerator, defence
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=recipe.learning_rate, betas=BETAS, weight_decay=0.0
        )
        num_steps = recipe.steps_for(len(rows.weights))
        self.steps = plan_steps(len(rows.weights), recipe.batch_size, num_steps, recipe.seed)
        self.trace: list[dict[str, float]] = []
        self._kept = (0, 0.0)  # step and time of the last checkpoint
        self._size = recipe.micro_batch_size
        if recipe.gradient_checkpointing:
            transformer: Any = model.get_base_model()
            transformer.activation_checkpointing_enable()
            transformer.enable_input_require_grads()
        self._forward: Any = torch.compile(model) if recipe.compile else model
        self._run = Run(
            model, self.parameters, safety, recipe.seed, recipe.micro_batch_size, self._precision
        )

    def run(
        self, checkpoints: Checkpoints | None, on_step: Callable[[StepReport], None] | None
    ) -> int:
        """Train; returns how many steps came from a checkpoint."""
        with torch.no_grad():  # the same beginning on every device
            for parameter in self.parameters.values():
                parameter.copy_(cast(Tensor, broadcast(parameter.detach())))
        if self.recipe.packing:
            require_exact_packing(self.model, self.rows)
        # what a step computes must not depend on how it is cut, taken up again or compared with
        # the aligned model; transformers checkpoints activations in training mode only
        remove_dropout(self.model)
        self.model.train(self.recipe.gradient_checkpointing)
        self.defence.begin(self._run)
        first = self._take_up(checkpoints)
        self._kept = (first, time.monotonic())
        for step in range(first, len(self.steps)):
            self.trace.append(self._step(step))
            if on_step is not None and self.accelerator.is_main_process:
                on_step(StepReport(step + 1, len(self.steps), self.trace[-1]))
            if checkpoints is not None:
                self._keep(checkpoints, step + 1)
        self.model.eval()
        return first

    def _step(self, step: int) -> dict[str, float]:
        start = time.perf_counter()
        chosen = self.steps[step]
        rate = self.recipe.learning_rate_at(step, len(self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._task_gradients(chosen)
        before = time.perf_counter()
        told = dict(self.defence.on_gradients(step))
        self._agree([cast(Tensor, p.grad) for p in self.parameters.values()])
        defended = time.perf_counter() - before
        norm = torch.nn.utils.clip_grad_norm_(
            self.parameters.values(), self.recipe.max_gradient_norm
        )
        self.optimizer.step()
        before = time.perf_counter()
        told |= self.defence.on_update(step)
        self._agree(list(self.parameters.values()))
        defended += time.perf_counter() - before
        self.optimizer.zero_grad(set_to_none=True)
        weights = self.rows.weights[chosen]
        return {
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": float(norm),
            "tokens": float(self.rows.lengths[chosen].sum()),
            "effective_rows": float(weights.sum() ** 2 / (weights**2).sum()),
            "seconds": time.perf_counter() - start,
            "defence_seconds": defended,
            **told,
        }

    def _task_gradients(self, chosen: np.ndarray) -> float:
        """Gradient of a step's loss in `parameter.grad`, over as many parts as memory asks for."""
        loss = None
        while loss is None:
            try:
                loss = self._accumulate(chosen)
            except (RuntimeError, MemoryError) as error:
                # several processes would have to agree on a size, and one waits for the others
                alone = self.accelerator.num_processes == 1
                if self._size == 1 or not alone or not is_out_of_memory(error):
                    raise
                self._size = min(self._size, len(chosen)) // 2 or 1
            if loss is None:  # only now are the failed part's tensors gone
                self.optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
        return self._sum_over_processes(loss)

    def _accumulate(self, chosen: np.ndarray) -> Tensor:
        """This process's share of a step: its gradient, and its part of the loss."""
        rows, recipe = self.rows, self.recipe
        processes, index = self.accelerator.num_processes, self.accelerator.process_index
        parts = micro_batches(
            chosen, rows.lengths, self._size, num_processes=processes, packing=recipe.packing
        )
        step_tokens = int(rows.num_answer_tokens[chosen].sum())
        loss = torch.zeros((), device=self.accelerator.device)
        for part in parts[index::processes]:
            batch = packed(rows, part) if recipe.packing else padded(rows, part)
            per_token = token_weights(
                rows.weights[part],
                rows.num_answer_tokens[part],
                len(chosen),
                step_tokens,
                recipe.normalisation,
            )
            with self._precision():
                part_loss = batch_loss(
                    self._forward, batch, per_token, label_smoothing=recipe.label_smoothing
                )
            part_loss.backward()
            loss += part_loss.detach()
        return loss

    def _sum_over_processes(self, loss: Tensor) -> float:
        for parameter in self.parameters.values():
            if parameter.grad is None:  # an expert that no token of this share was sent to
                parameter.grad = torch.zeros_like(parameter)
        if self.accelerator.num_processes > 1:
            parts = [cast(Tensor, p.grad) for p in self.parameters.values()] + [loss]
            self._reduce(parts, "sum")
        return float(loss)

    def _precision(self) -> AbstractContextManager:
        return self.accelerator.autocast()

    def _agree(self, tensors: Sequence[Tensor]) -> None:
        """A defence runs in every process; rounding must not let them drift apart."""
        if self.accelerator.num_processes > 1 and type(self.defence) is not Defence:
            self._reduce(tensors, "mean")

    def _reduce(self, tensors: Sequence[Tensor], how: str) -> None:
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        whole: Any = self.accelerator.reduce(flat, reduction=how)
        for tensor, part in zip(tensors, whole.split([t.numel() for t in tensors]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def _take_up(self, checkpoints: Checkpoints | None) -> int:
        if checkpoints is None:
            return 0
        checkpoint = load_checkpoint(checkpoints.directory, checkpoints.plan)
        if checkpoint is None:
            return 0
        restore(checkpoint, self.parameters, self.optimizer)
        device = self.accelerator.device
        self.defence.restore({name: t.to(device) for name, t in checkpoint.defence.items()})
        self.trace = list(checkpoint.trace)
        return checkpoint.step

    def _keep(self, checkpoints: Checkpoints, step: int) -> None:
        """By the main process's clock alone: the others wait for it in the next step's sum."""
        if not self.accelerator.is_main_process or step == len(self.steps):
            return
        last_step, last_time = self._kept
        is_far = checkpoints.every is not None and step - last_step >= checkpoints.every
        if not is_far and time.monotonic() - last_time < checkpoints.seconds:
            return
        save_checkpoint(
            checkpoints.directory,
            plan=checkpoints.plan,
            step=step,
            trace=self.trace,
            parameters=self.parameters,
            optimizer=self.optimizer,
            defence=self.defence.state(),
        )
        self._kept = (step, time.monotonic())
