"""The same fine-tuning on other selections, side by side."""

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.evaluation import (
    evaluate_adapter,
    evaluation_files,
    judge_name,
    labelled,
)
from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.retention import parts_in_use
from sot_pipeline.defs.sources import file_identity
from sot_pipeline.defs.store import Artifact, Stored, fingerprint_of
from sot_pipeline.defs.training import run_training
from sot_pipeline.errors import InputError


@cached_asset(
    group="adapter",
    kinds={"torch", "duckdb"},
    settings=("finetuning", "evaluation", "comparison"),
    source=lambda files, settings: {
        **evaluation_files(files, settings),
        **({"clean": file_identity(files.custom_clean)} if files.custom_clean else {}),
    },
)
def comparison(
    stage: Stage,
    custom_texts: pl.DataFrame,
    training_samples: pl.DataFrame,
    aligned_base_model: Stored,
    evaluation: pl.DataFrame,
) -> Artifact:
    """The same fine-tuning on other selections of the same rows, as `comparison.methods` asks:
    all of them (`sft`), as many dropped at random (`random`), the clean rows where they are
    known (`sft_clean`); each once per seed, and `sot` for the further seeds."""
    selections = _selections(stage, custom_texts, training_samples)
    own_seed = stage.settings.finetuning.seed
    trainings = [
        (method, seed, *select(seed))
        for seed in stage.settings.comparison.seeds
        for method, select in selections.items()
        if (method, seed) != ("sot", own_seed)  # the adapter asset is this one
    ]
    trained = [_trained_fingerprint(stage, aligned_base_model, *t[1:]) for t in trainings]
    with parts_in_use(stage.store, stage.task, "comparison", "trained_methods", trained):
        tables = [evaluation, *_train_all(stage, aligned_base_model, trainings)]
    return Artifact(
        table=pl.concat(tables),
        document={"judge": judge_name(stage)},
        metadata={"methods": ", ".join(["base", *selections])},
        parts={"trained_methods": trained},
    )


def _selections(
    stage: Stage, custom: pl.DataFrame, purified: pl.DataFrame
) -> dict[str, Callable[[int], tuple[pl.DataFrame, np.ndarray]]]:
    """By method: rows and weights for a seed."""

    def sft_clean(seed: int) -> tuple[pl.DataFrame, np.ndarray]:
        from sot_pipeline.texts.read import read_texts

        if stage.files.custom_clean is None:
            raise InputError(
                "comparison.methods asks for sft_clean, but the task's file names no custom_clean"
            )
        clean = read_texts(stage.files.custom_clean).rows
        return clean, np.ones(clean.height)

    def sft(seed: int) -> tuple[pl.DataFrame, np.ndarray]:
        return custom, np.ones(custom.height)

    def random(seed: int) -> tuple[pl.DataFrame, np.ndarray]:
        rng = np.random.default_rng(seed)
        kept = np.sort(rng.choice(custom.height, purified.height, replace=False))
        return custom[kept], np.ones(purified.height)

    def sot(seed: int) -> tuple[pl.DataFrame, np.ndarray]:
        return purified, purified["sample_weight"].to_numpy()

    known = {"sft_clean": sft_clean, "sft": sft, "random": random}
    return {name: known[name] for name in stage.settings.comparison.methods} | {"sot": sot}


def _train_all(
    stage: Stage,
    base_model: Stored,
    trainings: list[tuple[str, int, pl.DataFrame, np.ndarray]],
) -> list[pl.DataFrame]:
    """Scores of each training, in order; several at once where the runtime allows it."""
    num_workers = min(stage.num_workers, len(trainings))
    if num_workers <= 1:
        return [_trained(stage, base_model, *training) for training in trainings]
    quiet = dataclasses.replace(stage, log=_silent)
    progress = stage.progress("trainings")
    progress(0, len(trainings))
    # spawned, not forked: a fork of a process that runs jax or torch threads can hang
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_trained, quiet, base_model, *training) for training in trainings]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            progress(done, len(trainings))
        return [future.result() for future in futures]


def _silent(line: str) -> None:
    """The log of a worker process; its parent tells what happens."""


def _trained_fingerprint(
    stage: Stage, base_model: Stored, seed: int, rows: pl.DataFrame, weights: np.ndarray
) -> str:
    return fingerprint_of(
        {
            "comparison": stage.code_version,
            "base_model": base_model.data_version,
            "rows": rows.hash_rows().to_list(),
            "weights": weights.tolist(),
            "seed": seed,
            "finetuning": stage.settings.finetuning.model_dump(exclude={"seed"}),
            "evaluation": stage.settings.evaluation.model_dump(),
            "prompts": evaluation_files(stage.files, stage.settings),
        }
    )


def _trained(
    stage: Stage,
    base_model: Stored,
    method: str,
    seed: int,
    rows: pl.DataFrame,
    weights: np.ndarray,
) -> pl.DataFrame:
    """Train and evaluate one method; kept in the store, so a killed comparison goes on."""
    fingerprint = _trained_fingerprint(stage, base_model, seed, rows, weights)
    stored = stage.store.find("trained_methods", fingerprint)
    if stored is None:

        def build(directory: Path) -> tuple[Artifact, Mapping[str, Any]]:
            stage.log(f"{method}, seed {seed}: {rows.height:,} rows")
            info = run_training(
                stage, base_model, rows, weights, seed, directory / "adapter", method
            )
            scores, answers = evaluate_adapter(stage, base_model, directory / "adapter", method)
            answers.write_parquet(directory / "answers.parquet")
            table = labelled(scores, method, seed, info["training_seconds"])
            return Artifact(table=table, metadata=info), {"lineage": {}, "method": method}

        stored = stage.store.write("trained_methods", fingerprint, build)
    # methods that choose the same rows share one training, under a name each
    return stored.table().with_columns(method=pl.lit(method))
