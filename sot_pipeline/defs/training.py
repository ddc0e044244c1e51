"""One training run of a task, as its settings ask for it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.base_model import base_model_path
from sot_pipeline.defs.cached_asset import Stage
from sot_pipeline.defs.store import Stored


def run_training(
    stage: Stage,
    base_model: Stored,
    rows: pl.DataFrame,
    weights: np.ndarray,
    seed: int,
    out: Path,
    method: str = "sot",
) -> Mapping[str, Any]:
    from sot_pipeline.finetuning.recipe import Recipe
    from sot_pipeline.finetuning.train import finetune_lora

    path, revision = base_model_path(base_model)
    options = stage.settings.finetuning.model_dump(exclude={"weighted", "seed"})
    progress = stage.progress("steps")
    result = finetune_lora(
        path,
        [json.loads(messages) for messages in rows["messages"]],
        weights,
        out,
        Recipe(**options, seed=seed),
        base_revision=revision,
        # one folder per training: several run at once, and each drops what it finds there
        checkpoint_dir=stage.scratch / f"checkpoints-{method}-{seed}",
        on_step=lambda report: progress(report.step, report.num_steps),
    )
    return {
        "num_rows": rows.height,
        "num_steps": result.num_steps,
        "num_tokens": result.num_tokens,
        "num_truncated": result.num_truncated,
        "training_seconds": round(result.seconds, 2),
        "loss_first": float(np.mean(result.loss_trace[: max(1, len(result.loss_trace) // 10)])),
        "loss_last": float(np.mean(result.loss_trace[-max(1, len(result.loss_trace) // 10) :])),
    }
