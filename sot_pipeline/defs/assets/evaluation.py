"""What the base model and the adapter answer, and what a judge says to it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sot_pipeline.defs.assets.base_model import base_model_path
from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.judges import judge_files, make_judge
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.sources import file_identity
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.errors import InputError

VERDICTS_READABLE = CheckSpec(
    "verdicts_readable", "The judge's answers could be read; unreadable ones are missing values."
)


def evaluation_files(files: TaskFile, settings: Settings) -> Mapping[str, Any]:
    prompts = files.evaluation.model_dump()
    read = {name: file_identity(path) for name, path in prompts.items() if path is not None}
    return {**read, **judge_files(settings.evaluation)}


def evaluate_adapter(
    stage: Stage, base_model: Stored, adapter_directory: Path | None, label: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Scores and answers of one model: the base, or the base with an adapter."""
    from sot_pipeline.evaluation.run import evaluate_model
    from sot_pipeline.language_model import load_language_model

    path, revision = base_model_path(base_model)
    settings = stage.settings.evaluation
    return evaluate_model(
        load_language_model(path, revision=revision, adapter=adapter_directory),
        prompt_sets(stage.files, settings.max_prompts),
        make_judge(settings, row_cache=stage.row_cache),
        accuracy_mode=settings.accuracy,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        num_resamples=settings.num_resamples,
        progress=stage.progress("prompts", f"answers of {label}"),
    )


def prompt_sets(files: TaskFile, max_prompts: int | None = None) -> dict[str, Any]:
    """A task's evaluation prompts by set, the first ones only if asked.

    Raises:
        InputError: a row cannot be read.
    """
    from sot_pipeline.evaluation.run import PromptSet
    from sot_pipeline.texts.conversation import prompt_turns
    from sot_pipeline.texts.read import read_texts

    sets = {}
    for name, path in files.evaluation.model_dump().items():
        if path is None:
            continue
        text_set = read_texts(path, require_response=False)
        if text_set.rejected.height:
            _, line, reason, detail = text_set.rejected.row(0)
            raise InputError(f"{path}:{line}: {reason}: {detail}")
        rows = text_set.rows.head(max_prompts or text_set.rows.height)
        sets[name] = PromptSet(
            ids=rows["sample_id"].to_list(),
            prompts=[
                prompt_turns(json.loads(messages), has_response=response is not None)
                for messages, response in rows.select("messages", "response").iter_rows()
            ],
            references=rows["response"].to_list(),
        )
    return sets


@cached_asset(
    group="adapter",
    kinds={"torch", "duckdb"},
    settings=("evaluation", "finetuning", "defence.name"),
    source=evaluation_files,
    checks=(VERDICTS_READABLE,),
)
def evaluation(stage: Stage, adapter: Stored, aligned_base_model: Stored) -> Artifact:
    """HmS, HpS, accuracy and over-refusal of the base model and of the purified adapter; empty
    while the task names no prompts."""
    seed, own = stage.settings.finetuning.seed, str(stage.settings.own_method)
    base_scores, base_answers = evaluate_adapter(stage, aligned_base_model, None, "base")
    scores, answers = evaluate_adapter(
        stage, aligned_base_model, adapter.directory / "adapter", "the adapter"
    )
    table = pl.concat(
        [labelled(base_scores, "base", seed, {}), labelled(scores, own, seed, adapter.document)]
    )
    both = [labelled(base_answers, "base", seed), labelled(answers, own, seed)]
    pl.concat(both).write_parquet(stage.directory / "answers.parquet")
    missing, judged = int(table["num_missing"].sum()), int(table["num_judged"].sum())
    return Artifact(
        table=table,
        document={"judge": judge_name(stage)},
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


def judge_name(stage: Stage) -> str:
    judge = make_judge(stage.settings.evaluation, row_cache=stage.row_cache)
    return f"{judge.name} ({judge.fingerprint[:12]})"


# columns of the score table <- what a training tells of itself
COSTS = {
    "seconds": "training_seconds",
    "seconds_per_step": "seconds_per_step",
    "defence_seconds_per_step": "defence_seconds_per_step",
    "peak_memory_bytes": "peak_memory_bytes",
}


def labelled(
    table: pl.DataFrame, method: str, seed: int, training: Mapping[str, Any] | None = None
) -> pl.DataFrame:
    """A table with its method and seed; and, with what is known of the training, its costs."""
    columns = [pl.lit(method).alias("method"), pl.lit(seed, dtype=pl.Int64).alias("seed")]
    if training is not None:
        known = {"training_seconds": 0.0, **training}
        columns += [
            pl.lit(known.get(source), dtype=pl.Float64).alias(column)
            for column, source in COSTS.items()
        ]
    return table.select(*columns, pl.all())
