"""One training run of a task, as its settings ask for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.base_model import base_model_path
from sot_pipeline.defs.cached_asset import Stage
from sot_pipeline.defs.defended import Safety, defended
from sot_pipeline.defs.store import Stored


def run_training(
    stage: Stage,
    base_model: Stored,
    rows: pl.DataFrame,
    weights: np.ndarray,
    seed: int,
    out: Path,
    method: str = "sot",
    defence: str = "none",
    safety: Safety = Safety(),
) -> Mapping[str, Any]:
    from sot_pipeline.finetuning.defences.registry import make_defence
    from sot_pipeline.finetuning.recipe import Recipe
    from sot_pipeline.finetuning.safety import SafetyTexts
    from sot_pipeline.finetuning.train import finetune_lora

    path, revision = base_model_path(base_model)
    options = stage.settings.finetuning.model_dump(exclude={"weighted", "seed"})
    lesson = defended(stage.settings.defence, defence, rows, weights, seed, safety)
    progress = stage.progress("steps")
    result = finetune_lora(
        path,
        lesson.conversations,
        lesson.weights,
        out,
        Recipe(**options, seed=seed),
        base_revision=revision,
        defence=make_defence(lesson.defence, lesson.options),
        safety=SafetyTexts(lesson.demonstrations, lesson.harmless_prompts),
        # one folder per training: several run at once, and each drops what it finds there
        checkpoint_dir=stage.scratch / f"checkpoints-{method}-{seed}",
        on_step=lambda report: progress(report.step, report.num_steps),
    )
    return {
        "defence": defence,
        "num_rows": len(lesson.conversations),
        "num_safety_rows": lesson.num_added,
        "num_steps": result.num_steps,
        "num_tokens": result.num_tokens,
        "num_truncated": result.num_truncated,
        "training_seconds": round(result.seconds, 2),
        "seconds_per_step": float(np.mean([step["seconds"] for step in result.trace])),
        "defence_seconds_per_step": float(
            np.mean([step["defence_seconds"] for step in result.trace])
        ),
        "peak_memory_bytes": result.peak_memory,
        "loss_first": float(np.mean(result.loss_trace[: max(1, len(result.loss_trace) // 10)])),
        "loss_last": float(np.mean(result.loss_trace[-max(1, len(result.loss_trace) // 10) :])),
    }
