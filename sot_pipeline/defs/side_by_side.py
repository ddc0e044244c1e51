"""Several trainings, side by side: each trained, evaluated and kept by itself."""

import dataclasses
import hashlib
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.evaluation import evaluate_adapter, evaluation_files, labelled
from sot_pipeline.defs.cached_asset import Stage
from sot_pipeline.defs.code_version import code_version
from sot_pipeline.defs.defended import Safety
from sot_pipeline.defs.retention import parts_in_use
from sot_pipeline.defs.store import Artifact, Stored, fingerprint_of
from sot_pipeline.defs.training import train_adapter


class Training(NamedTuple):
    """One training: `rows` with `messages`, one weight each.

    `kept_tokens`: which answer tokens of each row are learnt, for methods that drop tokens.
    """

    method: str
    seed: int
    defence: str
    rows: pl.DataFrame
    weights: np.ndarray
    kept_tokens: list[np.ndarray] | None = None


def train_and_evaluate(
    stage: Stage, base_model: Stored, safety: Safety, trainings: list[Training], asset: str
) -> tuple[list[pl.DataFrame], list[str]]:
    """Scores of each training, in order, and the fingerprints of what is kept of them.

    A killed attempt goes on where it was; trainings on the same rows are done once.
    """
    fingerprints = [_trained_fingerprint(stage, base_model, safety, t) for t in trainings]
    with parts_in_use(stage.store, stage.task, asset, "trained_methods", fingerprints):
        return _train_all(stage, base_model, safety, trainings), fingerprints


def _train_all(
    stage: Stage, base_model: Stored, safety: Safety, trainings: list[Training]
) -> list[pl.DataFrame]:
    """Scores of each training, in order; several at once where the runtime allows it."""
    num_workers = min(stage.num_workers, len(trainings))
    if num_workers <= 1:
        return [_trained(stage, base_model, safety, training) for training in trainings]
    # the workers are what runs side by side; each training is one process, whatever is set
    runtime = dataclasses.replace(stage.training, num_processes=1, apart=False)
    quiet = dataclasses.replace(stage, log=_silent, training=runtime)
    progress = stage.progress("trainings")
    progress(0, len(trainings))
    # spawned, not forked: a fork of a process that runs jax or torch threads can hang
    with ProcessPoolExecutor(
        num_workers, mp_context=get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        futures = [pool.submit(_trained, quiet, base_model, safety, t) for t in trainings]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                progress(done, len(trainings))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # one has failed: what waits would only delay it
            raise
        return [future.result() for future in futures]


def _end_with_parent() -> None:
    """A killed parent closes nothing that its workers wait on: they would stay, with their
    models."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _silent(line: str) -> None:
    """The log of a worker process; its parent tells what happens."""


def _trained_fingerprint(
    stage: Stage, base_model: Stored, safety: Safety, training: Training
) -> str:
    return fingerprint_of(
        {
            "code": _code(),
            "base_model": base_model.data_version,
            # of these nothing but the conversations is learnt
            "rows": _digest(training.rows["messages"]),
            "weights": training.weights.tolist(),
            "kept_tokens": training.kept_tokens and [row.tolist() for row in training.kept_tokens],
            "seed": training.seed,
            "finetuning": stage.settings.finetuning.model_dump(exclude={"seed", "weighted"}),
            "defence": stage.settings.defence.of(training.defence),
            "safety": safety.versions(training.defence),
            "evaluation": stage.settings.evaluation.model_dump(),
            "prompts": evaluation_files(stage.files, stage.settings),
        }
    )


@cache
def _code() -> str:
    """Of a training, not of the asset that asks for it: comparison and experiments share them."""
    return code_version(_trained)


def _digest(messages: pl.Series) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in messages:
        digest.update(f"{text}\n".encode())
    return digest.hexdigest()


def _trained(stage: Stage, base_model: Stored, safety: Safety, training: Training) -> pl.DataFrame:
    """Train and evaluate one method; kept in the store, so a killed comparison goes on."""
    method, seed, rows = training.method, training.seed, training.rows
    fingerprint = _trained_fingerprint(stage, base_model, safety, training)
    stored = stage.store.find("trained_methods", fingerprint)
    if stored is None:

        def build(directory: Path) -> tuple[Artifact, Mapping[str, Any]]:
            stage.log(f"{method}, seed {seed}: {rows.height:,} rows")
            adapter = directory / "adapter"
            info = train_adapter(
                stage, base_model, rows, training.weights, seed, adapter, method, training.defence,
                safety, training.kept_tokens,
            ).info  # fmt: skip
            scores, answers = evaluate_adapter(stage, base_model, adapter, method)
            answers.write_parquet(directory / "answers.parquet")
            table = labelled(scores, method, seed, info)
            told = {name: value for name, value in info.items() if value is not None}
            return Artifact(table=table, metadata=told), {"lineage": {}, "method": method}

        stored = stage.store.write("trained_methods", fingerprint, build)
    # methods that choose the same rows share one training, under a name each
    return stored.table().with_columns(method=pl.lit(method))
