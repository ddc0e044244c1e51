"""Fine-tune an adapter: from conversations and weights to files that others load."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from transformers.utils import is_flash_attn_2_available

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.defences.defence import Defence
from sot_pipeline.finetuning.loop import Checkpoints, Loop, StepReport
from sot_pipeline.finetuning.lora import add_lora, save_adapter
from sot_pipeline.finetuning.memory import peak_memory
from sot_pipeline.finetuning.recipe import Recipe
from sot_pipeline.finetuning.rows import drop_weightless, identity, prompts_identity, tokenize
from sot_pipeline.finetuning.safety import SafetyTexts, tokenize_safety
from sot_pipeline.finetuning.weighted_nll import scaled
from sot_pipeline.language_model import Conversation, load_language_model


class FinetuneResult(NamedTuple):
    """What a training run did.

    Attributes:
        trace: The `StepReport.values` of each optimiser step.
        num_tokens: Tokens that went through the model, padding not counted.
        num_truncated: Rows that were cut to the longest length.
        num_resumed: Optimiser steps that came from a checkpoint.
        seconds: Of this process; what came from a checkpoint is not in it.
        peak_memory: Bytes; of the GPU where there is one, else of the process since it began;
            None where a process did much else.
    """

    trace: list[dict[str, float]]
    num_tokens: int
    num_truncated: int
    num_resumed: int
    seconds: float
    peak_memory: int | None

    @property
    def loss_trace(self) -> list[float]:
        return [values["loss"] for values in self.trace]

    @property
    def num_steps(self) -> int:
        return len(self.trace)


def finetune_lora(
    base: str | Path,
    conversations: Sequence[Conversation],
    weights: np.ndarray,
    output_dir: Path,
    recipe: Recipe = Recipe(),
    *,
    base_revision: str | None = None,
    kept_tokens: Sequence[np.ndarray] | None = None,
    defence: Defence | None = None,
    safety: SafetyTexts | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_every: int | None = None,
    checkpoint_seconds: float = 60.0,
    on_step: Callable[[StepReport], None] | None = None,
    card: Mapping[str, Any] | None = None,
) -> FinetuneResult:
    """Fine-tune a LoRA adapter with one weight per conversation, and write it.

    Args:
        base: Directory or Hugging Face id of the frozen model.
        weights: One per conversation, >= 0, any scale; ones give plain fine-tuning. A row of
            weight zero is left out as if it were not there.
        output_dir: Where the adapter goes, as peft and vLLM load it.
        kept_tokens: Of each conversation, which of its answer tokens (as `rows.tokenize` finds
            them at the recipe's longest length) to learn; the others are only read. A row that
            keeps none is left out. None: all.
        defence: What keeps the model safe while it learns; None: nothing.
        safety: What the defence learns from.
        checkpoint_dir: Where training can be taken up again; None keeps no checkpoints.
        checkpoint_every, checkpoint_seconds: Steps, or else seconds, of work that a crash may
            cost. When a checkpoint is written does not change what training gives.
        on_step: Called in the main process after each step.
        card: Further lines of the model card.

    Returns:
        `FinetuneResult`. On a CPU the same arguments give the same adapter.

    Raises:
        InputError: weights or kept tokens that do not fit, unknown target modules, rows without an answer.
    """
    start = time.perf_counter()
    conversations, weights, kept_tokens = drop_weightless(conversations, weights, kept_tokens)
    cuda = torch.cuda.is_available()
    accelerator = Accelerator(mixed_precision="bf16" if cuda else "no", cpu=not cuda)
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(accelerator.device)  # what came before is not ours
    _require_rows_for_all(min(recipe.batch_size, len(conversations)), accelerator.num_processes)
    lm = load_language_model(
        base,
        revision=base_revision,
        device=str(accelerator.device),
        dtype="auto",
        attn_implementation=attention_kernel(accelerator.device, packing=recipe.packing),
    )
    rows = tokenize(lm.tokenizer, conversations, weights, recipe.max_length, kept_tokens)
    rows = rows._replace(weights=scaled(rows.weights, rows.num_answer_tokens, recipe.normalisation))
    model = add_lora(
        lm.model,
        rank=recipe.rank,
        lora_alpha=recipe.lora_alpha,
        target_modules=recipe.target_modules,
        seed=recipe.seed,
        base_revision=lm.revision,
    )
    safe = tokenize_safety(lm.tokenizer, safety or SafetyTexts(), recipe.max_length)
    plan = {
        **asdict(recipe),
        "base": lm.fingerprint,
        "rows": identity(rows),
        "defence": repr(defence),
        "safety": [
            identity(safe.demonstrations),
            prompts_identity(safe.harmful_prompts),
            prompts_identity(safe.harmless_prompts),
        ],
    }
    loop = Loop(model, rows, recipe, accelerator, defence or Defence(), safe)
    checkpoints = None
    if checkpoint_dir is not None:
        checkpoints = Checkpoints(checkpoint_dir, plan, checkpoint_every, checkpoint_seconds)
    num_resumed = loop.run(checkpoints, on_step)
    result = FinetuneResult(
        trace=loop.trace,
        num_tokens=sum(int(rows.lengths[step].sum()) for step in loop.steps),
        num_truncated=rows.num_truncated,
        num_resumed=num_resumed,
        seconds=time.perf_counter() - start,
        peak_memory=peak_memory(accelerator.device),
    )
    if accelerator.is_main_process:
        about = {
            "base_model": lm.name,
            "base_revision": lm.revision or "-",
            "rows": len(conversations),
            "loss_at_the_end": f"{result.loss_trace[-1]:.4f}",
            **asdict(replace(recipe, num_epochs=None, num_steps=result.num_steps)),
            **(card or {}),
        }
        save_adapter(model, lm.tokenizer, output_dir, about)
    accelerator.wait_for_everyone()  # nobody looks for the adapter before it is written
    return result


def attention_kernel(device: torch.device, *, packing: bool) -> str | None:
    """FlashAttention for packed rows where it can run: other kernels compute, and mask away, what
    each row would see of the others. None: transformers' own choice."""
    usable = packing and device.type == "cuda" and is_flash_attn_2_available()
    return "flash_attention_2" if usable else None


def _require_rows_for_all(rows_per_step: int, num_processes: int) -> None:
    if rows_per_step < num_processes:
        raise InputError(
            f"a step has {rows_per_step} rows, fewer than the {num_processes} processes: raise "
            "batch_size or start fewer processes"
        )
