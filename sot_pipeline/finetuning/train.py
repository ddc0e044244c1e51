"""One training loop; the weights are an argument of it."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.batching import micro_batches, num_steps_for, plan_steps
from sot_pipeline.finetuning.checkpoint import load_checkpoint, restore, save_checkpoint
from sot_pipeline.finetuning.lora import add_lora, save_adapter
from sot_pipeline.finetuning.weighted_nll import token_nll, weighted_nll
from sot_pipeline.language_model import (
    Conversation,
    is_out_of_memory,
    load_language_model,
    render_with_answer_mask,
)

BETAS = (0.9, 0.95)
MAX_GRADIENT_NORM = 1.0


class FinetuneResult(NamedTuple):
    """What a training run did.

    Attributes:
        loss_trace: Weighted loss of each optimiser step, nats.
        num_tokens: Tokens that went through the model, padding not counted.
        num_truncated: Rows that were cut to `max_length`.
        num_resumed: Optimiser steps that came from a checkpoint.
        seconds: Of this process; what came from a checkpoint is not in it.
    """

    loss_trace: list[float]
    num_steps: int
    num_tokens: int
    num_truncated: int
    num_resumed: int
    seconds: float


@dataclass(frozen=True)
class _Recipe:
    rank: int
    lora_alpha: int
    target_modules: tuple[str, ...]
    learning_rate: float
    schedule: str
    warmup_steps: int
    num_steps: int
    batch_size: int
    micro_batch_size: int
    max_length: int
    seed: int


class _Rows(NamedTuple):
    token_ids: list[Tensor]
    is_answer: list[Tensor]
    weights: np.ndarray
    lengths: np.ndarray
    num_truncated: int


def finetune_lora(
    base: str | Path,
    conversations: Sequence[Conversation],
    weights: np.ndarray,
    output_dir: Path,
    *,
    base_revision: str | None = None,
    rank: int = 16,
    lora_alpha: int = 16,
    target_modules: tuple[str, ...] = ("q_proj", "v_proj"),
    learning_rate: float = 1e-4,
    schedule: str = "constant",
    warmup_fraction: float = 0.03,
    num_epochs: float | None = 2.0,
    num_steps: int | None = None,
    batch_size: int = 64,
    micro_batch_size: int = 8,
    max_length: int = 2048,
    seed: int = 0,
    checkpoint_dir: Path | None = None,
    checkpoint_every: int = 50,
    progress: Callable[[int, int], None] | None = None,
) -> FinetuneResult:
    """Fine-tune a LoRA adapter with one weight per conversation, and write it.

    Args:
        base: Directory or Hugging Face id of the frozen model.
        weights: One per conversation, >= 0, any scale; ones give plain fine-tuning. A row of
            weight zero is left out as if it were not there.
        output_dir: Where the adapter goes, as peft and vLLM load it.
        learning_rate: Of AdamW, reached after the warm-up.
        schedule: "constant" or "cosine" (to zero), after a linear warm-up.
        num_epochs, num_steps: How long to train; give one, the other None.
        batch_size: Rows per optimiser step over all devices.
        micro_batch_size: Rows per forward pass; does not change the result, only the memory.
            Halved where memory runs out (on one device).
        max_length: Tokens; longer rows lose their beginning, never their answer.
        checkpoint_dir: Where training can be taken up again; None keeps no checkpoints.
        progress: Called as `progress(step, num_steps)`.

    Returns:
        `FinetuneResult`. On a CPU the same arguments give the same adapter.

    Raises:
        InputError: weights that do not fit, unknown target modules, rows without an answer.
    """
    start = time.perf_counter()
    conversations, weights = _drop_weightless(conversations, weights)
    if (num_epochs is None) == (num_steps is None):
        raise InputError("give either num_epochs or num_steps, and None for the other")
    if schedule not in ("constant", "cosine"):
        raise InputError(f"schedule is {schedule!r}; expected 'constant' or 'cosine'")
    if num_steps is None:
        assert num_epochs is not None
        num_steps = num_steps_for(len(conversations), batch_size, num_epochs)
    recipe = _Recipe(
        rank=rank,
        lora_alpha=lora_alpha,
        target_modules=tuple(target_modules),
        learning_rate=learning_rate,
        schedule=schedule,
        warmup_steps=math.ceil(warmup_fraction * num_steps),
        num_steps=num_steps,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        max_length=max_length,
        seed=seed,
    )
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    rows_per_step = min(batch_size, len(conversations))
    if rows_per_step < accelerator.num_processes:
        raise InputError(
            f"a step has {rows_per_step} rows, fewer than the {accelerator.num_processes} "
            "processes: raise batch_size or start fewer processes"
        )
    base_model = load_language_model(
        base, revision=base_revision, device=str(accelerator.device), dtype="auto"
    )
    rows = _tokenize(base_model.tokenizer, conversations, weights, max_length)
    model = add_lora(
        base_model.model,
        rank=rank,
        lora_alpha=lora_alpha,
        target_modules=recipe.target_modules,
        seed=seed,
        base_revision=base_model.revision,
    )
    plan = {**asdict(recipe), "base": base_model.fingerprint, "rows": _identity(rows)}
    losses, num_resumed = _train(
        model, rows, recipe, accelerator, plan, checkpoint_dir, checkpoint_every, progress
    )
    seconds = time.perf_counter() - start
    if accelerator.is_main_process:
        card = {
            "base_model": base_model.name,
            "base_revision": base_model.revision or "-",
            "rows": len(conversations),
            "loss_at_the_end": f"{losses[-1]:.4f}",
            **asdict(recipe),
        }
        save_adapter(model, base_model.tokenizer, output_dir, card)
    accelerator.wait_for_everyone()  # nobody looks for the adapter before it is written
    steps = plan_steps(len(conversations), batch_size, num_steps, seed)
    return FinetuneResult(
        loss_trace=losses,
        num_steps=num_steps,
        num_tokens=int(sum(rows.lengths[step].sum() for step in steps)),
        num_truncated=rows.num_truncated,
        num_resumed=num_resumed,
        seconds=seconds,
    )


def batch_loss(model: torch.nn.Module, rows: _Rows, chosen: np.ndarray, total: float) -> Tensor:
    """Loss of some rows as their share of a step whose weights sum to `total`.

    Right padding with a causal mask: no real token sees a pad, whatever the pad's id.
    """
    device = next(model.parameters()).device
    token_ids = torch.nn.utils.rnn.pad_sequence(
        [rows.token_ids[i] for i in chosen], batch_first=True
    ).to(device)
    is_answer = torch.nn.utils.rnn.pad_sequence(
        [rows.is_answer[i] for i in chosen], batch_first=True
    ).to(device)
    lengths = torch.as_tensor(rows.lengths[chosen], device=device)
    mask = torch.arange(token_ids.shape[1], device=device)[None] < lengths[:, None]
    logits = model(input_ids=token_ids, attention_mask=mask.long(), use_cache=False).logits
    weights = torch.as_tensor(rows.weights[chosen], dtype=torch.float32, device=device)
    return weighted_nll(token_nll(logits, token_ids), is_answer, weights, total_weight=total)


def _train(
    model: PeftModel,
    rows: _Rows,
    recipe: _Recipe,
    accelerator: Accelerator,
    plan: dict[str, Any],
    checkpoint_dir: Path | None,
    checkpoint_every: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[float], int]:
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=recipe.learning_rate, betas=BETAS, weight_decay=0.0
    )
    prepared, optimizer = accelerator.prepare(model, optimizer)
    first, losses = 0, []
    checkpoint = load_checkpoint(checkpoint_dir, plan) if checkpoint_dir is not None else None
    if checkpoint is not None:
        restore(checkpoint, parameters, optimizer.optimizer)
        first, losses = checkpoint.step, list(checkpoint.loss_trace)
    prepared.train()
    steps = plan_steps(len(rows.weights), recipe.batch_size, recipe.num_steps, recipe.seed)
    size = recipe.micro_batch_size
    for step in range(first, recipe.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        loss, size = _step(prepared, optimizer, rows, steps[step], size, accelerator)
        losses.append(loss)
        if progress is not None:
            progress(step + 1, recipe.num_steps)
        last = step + 1 == recipe.num_steps
        if checkpoint_dir is not None and (step + 1) % checkpoint_every == 0 and not last:
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                save_checkpoint(
                    checkpoint_dir,
                    plan=plan,
                    step=step + 1,
                    loss_trace=losses,
                    parameters=parameters,
                    optimizer=optimizer.optimizer,
                )
    model.eval()
    return losses, first


def _step(
    model: torch.nn.Module,
    optimizer: Any,
    rows: _Rows,
    chosen: np.ndarray,
    size: int,
    accelerator: Accelerator,
) -> tuple[float, int]:
    """One optimiser step on the whole global batch, in as many parts as memory asks for.

    Returns the loss, and the rows per part that fitted into memory.
    """
    loss = None
    while loss is None:
        try:
            loss = _accumulate(model, rows, chosen, size, accelerator)
        except (RuntimeError, MemoryError) as error:
            # several processes would have to agree on a size, and one waits in its collective
            if size == 1 or accelerator.num_processes > 1 or not is_out_of_memory(error):
                raise
            size = min(size, len(chosen)) // 2 or 1
        if loss is None:  # only now are the failed part's tensors gone
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
    accelerator.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(accelerator.reduce(loss, reduction="sum")), size  # type: ignore[arg-type]


def _accumulate(
    model: torch.nn.Module,
    rows: _Rows,
    chosen: np.ndarray,
    size: int,
    accelerator: Accelerator,
) -> Tensor:
    """Gradient of a step's loss; returns this process's share of the loss."""
    total = float(rows.weights[chosen].sum())
    parts = micro_batches(chosen, rows.lengths, size, num_processes=accelerator.num_processes)
    share = parts[accelerator.process_index :: accelerator.num_processes]
    loss = torch.zeros((), device=accelerator.device)
    for index, part in enumerate(share):
        # processes exchange gradients only at a step's last part
        last = index == len(share) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            part_loss = batch_loss(model, rows, part, total)
            # data-parallel training averages the gradients of the processes
            accelerator.backward(part_loss * accelerator.num_processes)
        loss += part_loss.detach()
    return loss


def _schedule(step: int, recipe: _Recipe) -> float:
    """Factor of the learning rate at a step, 0 to 1."""
    if step < recipe.warmup_steps:
        return (step + 1) / (recipe.warmup_steps + 1)
    if recipe.schedule == "constant":
        return 1.0
    remaining = recipe.num_steps - recipe.warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup_steps) / remaining))


def _drop_weightless(
    conversations: Sequence[Conversation], weights: np.ndarray
) -> tuple[list[Conversation], np.ndarray]:
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(conversations),):
        raise InputError(
            f"got {len(conversations)} conversations and weights of shape {weights.shape}; "
            "expected one weight per conversation"
        )
    wrong = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if len(wrong):
        raise InputError(
            f"weight of row {wrong[0]} is {weights[wrong[0]]} ({len(wrong)} such rows); expected "
            "finite numbers >= 0"
        )
    kept = np.flatnonzero(weights).tolist()
    if not kept:
        raise InputError(
            f"none of the {len(conversations)} rows has a weight above 0: there is nothing to learn"
        )
    return [conversations[i] for i in kept], weights[kept]


def _tokenize(
    tokenizer: Any, conversations: Sequence[Conversation], weights: np.ndarray, max_length: int
) -> _Rows:
    token_ids, is_answer, num_truncated = [], [], 0
    for index, conversation in enumerate(conversations):
        try:
            rendered = render_with_answer_mask(tokenizer, conversation, max_length=max_length)
        except InputError as error:
            raise InputError(f"row {index}: {error}") from None
        token_ids.append(torch.tensor(rendered.token_ids))
        is_answer.append(torch.tensor(rendered.is_answer))
        num_truncated += rendered.num_cut > 0
    lengths = np.array([len(ids) for ids in token_ids])
    return _Rows(token_ids, is_answer, weights, lengths, num_truncated)


def _identity(rows: _Rows) -> str:
    """Hash of everything that the rows bring into training."""
    digest = hashlib.blake2b(rows.weights.tobytes(), digest_size=16)
    for ids, answers in zip(rows.token_ids, rows.is_answer, strict=True):
        digest.update(ids.numpy().tobytes())
        digest.update(answers.numpy().tobytes())
    return digest.hexdigest()
