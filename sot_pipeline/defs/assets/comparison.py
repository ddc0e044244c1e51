"""The same fine-tuning on other selections and under other defences, side by side."""

import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.evaluation import (
    evaluate_adapter,
    evaluation_files,
    judge_name,
    labelled,
)
from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.defended import Safety
from sot_pipeline.defs.methods import Method, read_by
from sot_pipeline.defs.retention import parts_in_use
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.sources import file_identity
from sot_pipeline.defs.store import Artifact, Stored, fingerprint_of
from sot_pipeline.defs.training import train_adapter
from sot_pipeline.errors import InputError


class Training(NamedTuple):
    """One training of the comparison; `rows` with `messages`, one weight each."""

    method: str
    seed: int
    defence: str
    rows: pl.DataFrame
    weights: np.ndarray


Select = Callable[[int], tuple[pl.DataFrame, np.ndarray]]  # rows and weights for a seed


def _defences(settings: Settings) -> list[str]:
    return sorted({method.defence for method in _methods(settings)})


def _methods(settings: Settings) -> list[Method]:
    """What the task asks for and, for the further seeds, its adapter's own method."""
    asked = [Method.parse(method) for method in settings.comparison.methods]
    return list(dict.fromkeys([*asked, settings.own_method]))


@cached_asset(
    group="adapter",
    kinds={"torch", "duckdb"},
    settings=("finetuning", "evaluation", "comparison"),
    parts_of_settings=lambda settings: {
        "defence": {name: settings.defence.of(name) for name in _defences(settings)}
    },
    uses=lambda settings, name: name not in Safety._fields or name in read_by(_defences(settings)),
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
    safety_demonstrations: Stored,
    harmless_prompts: Stored,
    safe_texts: Stored,
) -> Artifact:
    """The same fine-tuning on other selections of the same rows and under other defences, as
    `comparison.methods` asks, each once per seed, and the adapter's own for the further seeds."""
    selections = _selections(stage, custom_texts, training_samples)
    safety = Safety(safety_demonstrations, harmless_prompts, safe_texts)
    own = stage.settings.own_method, stage.settings.finetuning.seed
    methods = _methods(stage.settings)
    trainings = [
        Training(str(method), seed, method.defence, *selections[method.selection](seed))
        for seed in stage.settings.comparison.seeds
        for method in methods
        if (method, seed) != own  # the adapter asset is this one
    ]
    trained = [_trained_fingerprint(stage, aligned_base_model, safety, t) for t in trainings]
    with parts_in_use(stage.store, stage.task, "comparison", "trained_methods", trained):
        tables = [evaluation, *_train_all(stage, aligned_base_model, safety, trainings)]
    return Artifact(
        table=pl.concat(tables),
        document={"judge": judge_name(stage), "own_method": str(own[0])},
        metadata={"methods": ", ".join(["base", *map(str, methods)])},
        parts={"trained_methods": trained},
    )


def _selections(stage: Stage, custom: pl.DataFrame, purified: pl.DataFrame) -> dict[str, Select]:
    """Rows and weights for a seed, by `methods.Selection`."""

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

    def sot_cut(seed: int) -> tuple[pl.DataFrame, np.ndarray]:
        return purified, np.ones(purified.height)

    return {select.__name__: select for select in (sft_clean, sft, random, sot, sot_cut)}


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
            "comparison": stage.code_version,
            "base_model": base_model.data_version,
            # of these nothing but the conversations is learnt
            "rows": _digest(training.rows["messages"]),
            "weights": training.weights.tolist(),
            "seed": training.seed,
            "finetuning": stage.settings.finetuning.model_dump(exclude={"seed", "weighted"}),
            "defence": stage.settings.defence.of(training.defence),
            "safety": safety.versions(training.defence),
            "evaluation": stage.settings.evaluation.model_dump(),
            "prompts": evaluation_files(stage.files, stage.settings),
        }
    )


def _digest(messages: pl.Series) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in messages:
        digest.update(f"{text}\n".encode())
    return digest.hexdigest()


def _trained(stage: Stage, base_model: Stored, safety: Safety, training: Training) -> pl.DataFrame:
    """Train and evaluate one method; kept in the store, so a killed comparison goes on."""
    method, seed, defence, rows, weights = training
    fingerprint = _trained_fingerprint(stage, base_model, safety, training)
    stored = stage.store.find("trained_methods", fingerprint)
    if stored is None:

        def build(directory: Path) -> tuple[Artifact, Mapping[str, Any]]:
            stage.log(f"{method}, seed {seed}: {rows.height:,} rows")
            adapter = directory / "adapter"
            info = train_adapter(
                stage, base_model, rows, weights, seed, adapter, method, defence, safety
            ).info
            scores, answers = evaluate_adapter(stage, base_model, adapter, method)
            answers.write_parquet(directory / "answers.parquet")
            table = labelled(scores, method, seed, info)
            told = {name: value for name, value in info.items() if value is not None}
            return Artifact(table=table, metadata=told), {"lineage": {}, "method": method}

        stored = stage.store.write("trained_methods", fingerprint, build)
    # methods that choose the same rows share one training, under a name each
    return stored.table().with_columns(method=pl.lit(method))
