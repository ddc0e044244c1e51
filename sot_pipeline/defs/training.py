"""One training run of a task, as its settings ask for it, here or in a process of its own."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.base_model import base_model_path
from sot_pipeline.defs.cached_asset import Stage
from sot_pipeline.defs.defended import Defended, Safety, defended
from sot_pipeline.defs.store import Stored
from sot_pipeline.progress import listener

if TYPE_CHECKING:
    from sot_pipeline.finetuning.job import TrainingJob
    from sot_pipeline.finetuning.loop import StepReport
    from sot_pipeline.finetuning.train import FinetuneResult

SMALL_MODEL = 200_000_000  # bytes of weights; starting a process takes about as long as training


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
) -> Training:
    """Fine-tune an adapter on rows with their weights, and write it to `out`.

    Args:
        method: Of a comparison; names what is kept while training.
        defence: See `methods.READS`.
        safety: What it learns from.

    Raises:
        InputError: as `finetune_lora`.
        TrainingFailed: a training process died.
    """
    from sot_pipeline.finetuning.job import DefenceChoice, TrainingJob, write_rows

    path, revision = base_model_path(base_model)
    lesson = defended(stage.settings.defence, defence, rows, weights, seed, safety)
    folder = stage.scratch / f"job-{method}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "rows.parquet", lesson.conversations, lesson.weights)
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
    return _told(_run(stage, job, folder), defence, lesson)


def _run(stage: Stage, job: "TrainingJob", folder: Path) -> "FinetuneResult":
    num_processes = _num_processes(stage)
    if not _is_apart(stage, job, num_processes):
        return _run_here(stage, job)
    from sot_pipeline.defs.pipes import watched
    from sot_pipeline.finetuning.launch import run_apart

    with watched() as environment:
        return run_apart(
            job,
            folder,
            num_processes=num_processes,
            # the trainer itself says how far it is where a run's event log takes it
            on_step=_progress(stage, say=None if environment else stage.log),
            environment=environment,
        )


def _run_here(stage: Stage, job: "TrainingJob") -> "FinetuneResult":
    from sot_pipeline.finetuning.job import train
    from sot_pipeline.finetuning.tracking import tracked

    with tracked(job.tracking, job.name, job.recipe, _progress(stage, say=stage.log)) as on_step:
        return train(job, on_step)


def _progress(stage: Stage, say: Callable[[str], None] | None) -> "Callable[[StepReport], None]":
    from sot_pipeline.finetuning.tracking import progress_lines

    label = stage.directory.name.rsplit("-", 1)[0]
    lines = progress_lines(lambda line: say(f"{label}: {line}")) if say else None

    def on_step(report: "StepReport") -> None:
        listener().advanced(label, "steps", report.step, report.num_steps)
        if lines is not None:
            lines(report)

    return on_step


def _num_processes(stage: Stage) -> int:
    import torch

    return stage.training.num_processes or max(1, torch.cuda.device_count())


def _is_apart(stage: Stage, job: "TrainingJob", num_processes: int) -> bool:
    """By default unless a small model is trained on the CPU, where there is little memory to
    give back and little to crash."""
    import torch

    if stage.training.apart is not None and num_processes == 1:
        return stage.training.apart
    weights = [path.stat().st_size for path in Path(job.base).glob("*.safetensors")]
    small = bool(weights) and sum(weights) <= SMALL_MODEL
    return num_processes > 1 or torch.cuda.is_available() or not small


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
        "training_seconds": round(result.seconds, 2),
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
