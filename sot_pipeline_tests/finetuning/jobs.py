"""Training jobs as files, on a model of a few kilobytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sot_pipeline.finetuning.job import TrainingJob, write_rows

RECIPE = {"rank": 4, "lora_alpha": 8, "learning_rate": 1e-2, "num_epochs": None, "num_steps": 4,
          "batch_size": 4}  # fmt: skip


def make_job(
    base: Path,
    folder: Path,
    rows: Sequence[Any],
    weights: np.ndarray | None = None,
    *,
    recipe: dict[str, Any] | None = None,
    **fields: Any,
) -> TrainingJob:
    folder.mkdir(parents=True, exist_ok=True)
    weights = np.ones(len(rows)) if weights is None else np.asarray(weights)
    write_rows(folder / "rows.parquet", rows, weights)
    return TrainingJob(
        base=str(base),
        rows=folder / "rows.parquet",
        output_dir=folder / "adapter",
        result=folder / "result.json",
        recipe=RECIPE | (recipe or {}),
        **fields,
    )


def adapter_of(job: TrainingJob):
    from safetensors.torch import load_file

    return load_file(job.output_dir / "adapter_model.safetensors")
