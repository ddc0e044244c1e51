"""One training run of a task, as its settings ask for it, here or in a process of its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.base_model import base_model_path
from sot_pipeline.defs.cached_asset import Stage
from sot_pipeline.defs.defended import Defended, Safety, defended
from sot_pipeline.defs.pipes import run_job
from sot_pipeline.defs.store import Stored
from sot_pipeline.errors import InputError

if TYPE_CHECKING:
    from sot_pipeline.finetuning.train import FinetuneResult


class Training(NamedTuple):
    """What a training leaves beside its adapter.

    Attributes:
        info: Numbers for people and for later assets.
        log: A row per optimiser step: `step`, and the values of `StepReport`.
    """

    info: Mapping[str, Any]
    log: pl.DataFrame


def train_adapter(
    stage: Stage,
    base_model: Stored,
    rows: pl.DataFrame,
    weights: np.ndarray,
    seed: int,
    out: Path,
    method: str = "sot",
    defence: str = "none",
    safety: Safety = Safety(),
    kept_tokens: list[np.ndarray] | None = None,
) -> Training:
    """Fine-tune an adapter on rows with their weights, and write it to `out`.

    Args:
        method: Of a comparison; names what is kept while training.
        defence: See `methods.READS`.
        safety: What it learns from.
        kept_tokens: Of each row, which answer tokens are learnt; None: all.

    Raises:
        InputError: as `finetune_lora`.
        TrainingFailed: a training process died.
    """
    from sot_pipeline.finetuning.job import DefenceChoice, TrainingJob, write_rows

    path, revision = base_model_path(base_model)
    lesson = defended(stage.settings.defence, defence, rows, weights, seed, safety)
    folder = stage.scratch / f"job-{method}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if kept_tokens is not None and lesson.num_added:
        raise InputError(
            f"{method}: a method that drops tokens cannot be combined with {defence}, which adds "
            "rows; compare another defence"
        )
    write_rows(folder / "rows.parquet", lesson.conversations, lesson.weights, kept_tokens)
    texts = {
        "demonstrations": lesson.demonstrations, "harmless_prompts": lesson.harmless_prompts
    }  # fmt: skip
    (folder / "safety.json").write_text(json.dumps(texts))
    job = TrainingJob(
        name=f"{stage.task}, {method}, seed {seed}",
        base=path,
        base_revision=revision,
        rows=folder / "rows.parquet",
        output_dir=out,
        result=folder / "result.json",
        recipe=stage.settings.finetuning.model_dump(exclude={"weighted", "seed"}) | {"seed": seed},
        defence=DefenceChoice(name=lesson.defence, options=dict(lesson.options)),
        safety=folder / "safety.json",
        # one folder per training: several run at once, and each drops what it finds there
        checkpoint_dir=stage.scratch / f"checkpoints-{method}-{seed}",
        tracking=stage.training.tracking,
    )
    return _told(run_job(stage, job, folder, len(lesson.conversations)), defence, lesson)


def _told(result: "FinetuneResult", defence: str, lesson: Defended) -> Training:
    losses = result.loss_trace
    tenth = max(1, len(losses) // 10)
    seconds = sum(values["seconds"] for values in result.trace)
    effective = float(np.mean([values["effective_rows"] for values in result.trace]))
    info = {
        "defence": defence,
        "num_rows": len(lesson.conversations),
        "num_safety_rows": lesson.num_added,
        "num_steps": result.num_steps,
        "num_tokens": result.num_tokens,
        "num_truncated": result.num_truncated,
        "num_resumed": result.num_resumed,
        "training_seconds": round(seconds, 2),
        "tokens_per_second": round(result.num_tokens / seconds),
        "seconds_per_step": seconds / len(result.trace),
        "defence_seconds_per_step": float(
            np.mean([values["defence_seconds"] for values in result.trace])
        ),
        "peak_memory_bytes": result.peak_memory,
        "effective_rows": round(effective, 2),
        "loss_first": float(np.mean(losses[:tenth])),
        "loss_last": float(np.mean(losses[-tenth:])),
    }
    log = pl.DataFrame(result.trace).with_row_index("step", offset=1)
    return Training(info, log)


def loss_plots(log: pl.DataFrame) -> dict[str, bytes]:
    """A training log's loss as Dagster shows it."""
    from sot_pipeline.report.figures import loss_trace_png

    return {"loss": loss_trace_png(log["loss"].to_numpy(), width_px=400)}
