"""The aligned base model, the LoRA adapter on the purified rows, and what both answer."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.retention import parts_in_use
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.sources import file_identity
from sot_pipeline.defs.store import Artifact, Stored, fingerprint_of
from sot_pipeline.errors import InputError

LOSS_WENT_DOWN = CheckSpec("loss_went_down", "The training loss ends below where it began.")
VERDICTS_READABLE = CheckSpec(
    "verdicts_readable", "The judge's answers could be read; unreadable ones are missing values."
)


def _base_model_identity(files: TaskFile, settings: Settings) -> Mapping[str, Any]:
    name = settings.base_model.name
    if name is None or name == "demo":
        return {}
    if Path(name).is_dir():
        from sot_pipeline.language_model import directory_fingerprint

        return {"directory": directory_fingerprint(Path(name))}
    return {}


@cached_asset(
    group="adapter",
    kinds={"torch", "huggingface"},
    settings=("base_model",),
    source=_base_model_identity,
)
def aligned_base_model(stage: Stage) -> Artifact:
    """The frozen, safety-aligned model: the demo's is trained here, any other is named with
    its resolved revision."""
    name = stage.settings.base_model.name
    if name is None:
        document: dict[str, Any] = {"source": "none", "name": None, "revision": None}
        return Artifact(document=document, metadata={"model": "none configured"})
    if name == "demo":
        from sot_pipeline.demo.aligned_model import train_aligned_model

        info = train_aligned_model(stage.directory / "model", progress=stage.progress("steps"))
        document = {"source": "demo", "name": "demo", "revision": None}
        return Artifact(document=document, metadata={"model": "demo", **info})

    from sot_pipeline.language_model import resolve_model

    resolved, revision = resolve_model(name, revision=stage.settings.base_model.revision)
    source = "directory" if revision is None else "hub"
    document = {"source": source, "name": str(resolved), "revision": revision}
    return Artifact(document=document, metadata={"model": name, "revision": revision or "-"})


def base_model_path(base_model: Stored) -> tuple[str, str | None]:
    """Where the base model lies: a directory or a hub id, and its revision.

    Raises:
        InputError: the task names no base model.
    """
    document = base_model.document
    if document["source"] == "none":
        raise InputError(
            "no base model is set for this task: give one with `--base-model` (a Hugging Face "
            "id or a directory), or base_model.name in the task's file"
        )
    if document["source"] == "demo":
        return str(base_model.directory / "model"), None
    return document["name"], document["revision"]


def _train(
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


@cached_asset(
    group="adapter",
    kinds={"torch", "huggingface"},
    settings=("finetuning",),
    checks=(LOSS_WENT_DOWN,),
)
def adapter(stage: Stage, training_samples: pl.DataFrame, aligned_base_model: Stored) -> Artifact:
    """The LoRA adapter, fine-tuned on the purified rows with their learned weights."""
    settings = stage.settings.finetuning
    info = _train(
        stage,
        aligned_base_model,
        training_samples,
        training_samples["sample_weight"].to_numpy(),
        settings.seed,
        stage.directory / "adapter",
    )
    first, last = info["loss_first"], info["loss_last"]
    return Artifact(
        document={**info, "seed": settings.seed},
        metadata=info,
        checks=(
            check(
                LOSS_WENT_DOWN,
                last < first,
                f"mean loss of the first tenth of steps {first:.3f}, of the last {last:.3f}",
                first=first,
                last=last,
            ),
        ),
    )


def _evaluation_files(files: TaskFile, settings: Settings) -> Mapping[str, Any]:
    prompts = files.evaluation.model_dump()
    return {name: file_identity(path) for name, path in prompts.items() if path is not None}


def _evaluate(
    stage: Stage, base_model: Stored, adapter_directory: Path | None, label: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Scores and answers of one model: the base, or the base with an adapter."""
    from sot_pipeline.evaluation.run import evaluate_model
    from sot_pipeline.language_model import load_language_model

    path, revision = base_model_path(base_model)
    settings = stage.settings.evaluation
    return evaluate_model(
        load_language_model(path, revision=revision, adapter=adapter_directory),
        _prompt_sets(stage),
        make_judge(settings),
        accuracy_mode=settings.accuracy,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        num_resamples=settings.num_resamples,
        progress=stage.progress("prompts", f"answers of {label}"),
    )


def _prompt_sets(stage: Stage) -> dict[str, Any]:
    from sot_pipeline.evaluation.run import PromptSet
    from sot_pipeline.texts.conversation import prompt_turns
    from sot_pipeline.texts.read import read_texts

    sets = {}
    for name, path in stage.files.evaluation.model_dump().items():
        if path is None:
            continue
        text_set = read_texts(path, require_response=False)
        if text_set.rejected.height:
            line, reason, detail = text_set.rejected.row(0)
            raise InputError(f"{path}:{line}: {reason}: {detail}")
        rows = text_set.rows.head(stage.settings.evaluation.max_prompts or text_set.rows.height)
        sets[name] = PromptSet(
            ids=rows["sample_id"].to_list(),
            prompts=[
                prompt_turns(json.loads(messages), has_response=response is not None)
                for messages, response in rows.select("messages", "response").iter_rows()
            ],
            references=rows["response"].to_list(),
        )
    return sets


def make_judge(settings: Any):
    """The judge that the evaluation settings name."""
    if settings.judge == "demo":
        from sot_pipeline.demo.judge import DemoJudge

        return DemoJudge()
    from sot_pipeline.evaluation.judge import KeywordJudge

    if settings.judge == "keyword":
        return KeywordJudge()
    if not settings.judge_base_url or not settings.judge_model:
        raise InputError(
            "the openai judge needs evaluation.judge_base_url and evaluation.judge_model, "
            "for example http://127.0.0.1:8000/v1 and the name of the served model"
        )
    from sot_pipeline.evaluation.openai_judge import OpenAIJudge

    return OpenAIJudge(
        base_url=settings.judge_base_url,
        model=settings.judge_model,
        api_key_env=settings.judge_api_key_env,
    )


@cached_asset(
    group="adapter",
    kinds={"torch", "duckdb"},
    settings=("evaluation", "finetuning"),
    source=_evaluation_files,
    checks=(VERDICTS_READABLE,),
)
def evaluation(stage: Stage, adapter: Stored, aligned_base_model: Stored) -> Artifact:
    """HmS, HpS, accuracy and over-refusal of the base model and of the purified adapter; empty
    while the task names no prompts."""
    seed = stage.settings.finetuning.seed
    base_scores, base_answers = _evaluate(stage, aligned_base_model, None, "base")
    scores, answers = _evaluate(
        stage, aligned_base_model, adapter.directory / "adapter", "the adapter"
    )
    seconds = adapter.document["training_seconds"]
    table = pl.concat(
        [_labelled(base_scores, "base", seed, 0.0), _labelled(scores, "sot", seed, seconds)]
    )
    both = [_labelled(base_answers, "base", seed), _labelled(answers, "sot", seed)]
    pl.concat(both).write_parquet(stage.directory / "answers.parquet")
    missing, judged = int(table["num_missing"].sum()), int(table["num_judged"].sum())
    return Artifact(
        table=table,
        document={"judge": _judge_name(stage)},
        metadata={
            f"{row['method']} {row['score']}": row["value"] for row in table.iter_rows(named=True)
        },
        checks=(
            check(
                VERDICTS_READABLE,
                missing == 0 and judged > 0,
                f"{missing:,} of {missing + judged:,} verdicts could not be read"
                if judged + missing
                else "nothing was judged: name prompts with `sot evaluate` or in the task's file",
                num_missing=missing,
            ),
        ),
    )


def _judge_name(stage: Stage) -> str:
    judge = make_judge(stage.settings.evaluation)
    return f"{judge.name} ({judge.fingerprint[:12]})"


def _labelled(
    table: pl.DataFrame, method: str, seed: int, seconds: float | None = None
) -> pl.DataFrame:
    columns = [pl.lit(method).alias("method"), pl.lit(seed, dtype=pl.Int64).alias("seed")]
    if seconds is not None:
        columns.append(pl.lit(seconds, dtype=pl.Float64).alias("seconds"))
    return table.select(*columns, pl.all())


@cached_asset(
    group="adapter",
    kinds={"torch", "duckdb"},
    settings=("finetuning", "evaluation", "comparison"),
    source=lambda files, settings: {
        **_evaluation_files(files, settings),
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
        document={"judge": _judge_name(stage)},
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
            "prompts": _evaluation_files(stage.files, stage.settings),
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
            info = _train(stage, base_model, rows, weights, seed, directory / "adapter", method)
            scores, answers = _evaluate(stage, base_model, directory / "adapter", method)
            answers.write_parquet(directory / "answers.parquet")
            table = _labelled(scores, method, seed, info["training_seconds"])
            return Artifact(table=table, metadata=info), {"lineage": {}, "method": method}

        stored = stage.store.write("trained_methods", fingerprint, build)
    # methods that choose the same rows share one training, under a name each
    return stored.table().with_columns(method=pl.lit(method))
