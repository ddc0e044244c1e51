"""The paper's experiments, each an asset of its own; see `defs.experiments`."""

from pathlib import Path

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.evaluation import evaluation_files
from sot_pipeline.defs.assets.texts import read_beside
from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.experiments import (
    Rows,
    Variation,
    all_rows,
    labelled_rows,
    purified,
    run,
    solved,
    solved_costs,
    vectors_of,
)
from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.sources import file_identity, local_model_identity
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.errors import InputError

SHARED = ("texts", "transport", "selection", "finetuning", "evaluation", "experiments.seeds")
MATCHED_MARGIN = 0.1  # of the rows, removed beside as many as are harmful


def _files(files: TaskFile, settings: Settings):
    named = {**evaluation_files(files, settings)}
    if files.labels is not None:
        named["labels"] = file_identity(files.labels)
    return named


def _and(*names: str):
    """Also the text sets that only an experiment reads."""

    def source(files: TaskFile, settings: Settings):
        paths = {name: getattr(files.experiments, name) for name in names}
        paths["custom_clean"] = files.custom_clean if "contamination" in names else None
        read = {name: file_identity(path) for name, path in paths.items() if path is not None}
        return {**_files(files, settings), **read}

    return source


@cached_asset(
    group="experiments",
    kinds={"jax", "torch", "duckdb"},
    settings=(*SHARED, "embedding"),
    source=_and("swapped_harmful", "general_safe"),
)
def ablation(
    stage: Stage,
    custom_texts: pl.DataFrame,
    pull_cost: np.ndarray,
    push_cost: np.ndarray,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
    aligned_base_model: Stored,
) -> Artifact:
    """Which part of the method does what: all rows, the cut alone, cut and weights, pull only,
    push only, another harmful reference, a safe reference that is not about the task."""
    rows = labelled_rows(stage, custom_texts)
    full = solved_costs(stage, pull_cost, push_cost)
    variations = [
        all_rows(rows),
        purified(stage, rows, full, "top_k_only", weighted=False),
        purified(stage, rows, full, "full"),
        *(
            purified(stage, rows, solved_costs(stage, pull_cost, push_cost, lambda_push=push), name)
            for name, push in (("pull_only", 0.0), ("push_only", 1.0))
        ),
    ]
    named = stage.files.experiments
    left_out = []
    if named.swapped_harmful is None:
        left_out.append("swapped_harmful: the task's file names no experiments.swapped_harmful")
    else:
        swapped = vectors_of(stage, _harmful(stage, named.swapped_harmful), aligned_base_model)
        weights = solved(stage, custom_embeddings, safe_embeddings, swapped)
        variations.append(purified(stage, rows, weights, "swapped_harmful"))
    if named.general_safe is None:
        left_out.append("general_safe: the task's file names no experiments.general_safe")
    else:
        general = vectors_of(stage, read_beside(stage, named.general_safe), aligned_base_model)
        weights = solved(stage, custom_embeddings, general, harmful_embeddings)
        variations.append(purified(stage, rows, weights, "general_safe"))
    return run(stage, aligned_base_model, variations, "ablation", left_out)


@cached_asset(
    group="experiments",
    kinds={"jax", "torch", "duckdb"},
    settings=(*SHARED, "experiments.lambdas"),
    source=_files,
)
def lambda_sweep(
    stage: Stage,
    custom_texts: pl.DataFrame,
    pull_cost: np.ndarray,
    push_cost: np.ndarray,
    aligned_base_model: Stored,
) -> Artifact:
    """Pull against push: the same task at every lambda of `experiments.lambdas`."""
    rows = labelled_rows(stage, custom_texts)
    variations = [
        purified(
            stage,
            rows,
            solved_costs(stage, pull_cost, push_cost, lambda_push=push),
            f"lambda {push:g}",
            parameter=push,
        )
        for push in stage.settings.experiments.lambdas
    ]
    return run(stage, aligned_base_model, variations, "lambda_sweep")


@cached_asset(
    group="experiments",
    kinds={"jax", "torch", "duckdb"},
    settings=(*SHARED, "experiments.keep_fractions"),
    source=_files,
)
def keep_sweep(
    stage: Stage,
    custom_texts: pl.DataFrame,
    sample_weights: pl.DataFrame,
    aligned_base_model: Stored,
) -> Artifact:
    """How much to cut: the same weights with every share of `experiments.keep_fractions` kept."""
    rows = labelled_rows(stage, custom_texts)
    log_weights = sample_weights["log_weight"].to_numpy()
    variations = [
        purified(stage, rows, log_weights, f"keep {share:g}", keep_fraction=share, parameter=share)
        for share in stage.settings.experiments.keep_fractions
    ]
    return run(stage, aligned_base_model, variations, "keep_sweep")


@cached_asset(
    group="experiments",
    kinds={"jax", "torch", "duckdb"},
    settings=(*SHARED, "embedding", "experiments.harmful_fractions"),
    source=_and("contamination"),
)
def contamination_sweep(
    stage: Stage,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
    aligned_base_model: Stored,
) -> Artifact:
    """How much harm: clean rows with every share of `experiments.harmful_fractions` harmful, of
    the same number of rows. All rows, the task's cut, and a cut that removes the harmful share
    and a tenth more (`matched`)."""
    clean, pool = _clean_and_pool(stage)
    vectors = [vectors_of(stage, texts, aligned_base_model) for texts in (clean, pool)]
    variations: list[Variation] = []
    for share in stage.settings.experiments.harmful_fractions:
        num_harmful = _num_harmful(share, clean.height, pool.height)
        harmless = _drawn(clean.height, clean.height - num_harmful, 0)
        harmful = _drawn(pool.height, num_harmful, 1)
        rows = Rows(
            pl.concat([clean[harmless.tolist()], pool[harmful.tolist()]]),
            pl.Series(["benign"] * len(harmless) + ["harmful"] * len(harmful)),
        )
        custom = np.concatenate([vectors[0][harmless], vectors[1][harmful]])
        log_weights = solved(stage, custom, safe_embeddings, harmful_embeddings)
        name = f"{100 * share:g} % harmful"
        matched = 1 - share - MATCHED_MARGIN
        variations += [
            all_rows(rows, f"sft, {name}", share),
            purified(stage, rows, log_weights, f"sot, {name}", parameter=share),
            purified(
                stage, rows, log_weights, f"sot matched, {name}", keep_fraction=matched,
                parameter=share,
            ),
        ]  # fmt: skip
    return run(stage, aligned_base_model, variations, "contamination_sweep")


def _clean_and_pool(stage: Stage) -> tuple[pl.DataFrame, pl.DataFrame]:
    if stage.files.custom_clean is None or stage.files.experiments.contamination is None:
        raise InputError(
            "the contamination sweep mixes harmful rows into clean ones: name both in the task's "
            "file, custom_clean and experiments.contamination"
        )
    files = (stage.files.custom_clean, stage.files.experiments.contamination)
    clean, pool = (read_beside(stage, path) for path in files)
    return clean, pool


def _harmful(stage: Stage, path: Path) -> pl.DataFrame:
    return read_beside(stage, path, require_response=not stage.settings.texts.prompt_only_harmful)


def _num_harmful(share: float, num_clean: int, num_pool: int) -> int:
    wanted = round(share * num_clean)
    if wanted > num_pool:
        raise InputError(
            f"experiments.harmful_fractions asks for {share:.0%} of {num_clean:,} rows, "
            f"{wanted:,} harmful ones, and experiments.contamination holds {num_pool:,}"
        )
    return wanted


def _drawn(population: int, count: int, seed: int) -> np.ndarray:
    """The first of a fixed order: a smaller share's rows are among a larger one's."""
    return np.sort(np.random.default_rng(seed).permutation(population)[:count])


@cached_asset(
    group="experiments",
    kinds={"jax", "torch", "duckdb"},
    settings=(*SHARED, "embedding.max_length", "experiments.encoders"),
    source=lambda files, settings: {
        **_files(files, settings),
        **{
            encoder: folder
            for encoder in settings.experiments.encoders
            if (folder := local_model_identity(encoder)) is not None
        },
    },
)
def embedder_swap(
    stage: Stage,
    custom_texts: pl.DataFrame,
    safe_texts: pl.DataFrame,
    harmful_texts: pl.DataFrame,
    aligned_base_model: Stored,
) -> Artifact:
    """Which encoder: the same task with the vectors of every one of `experiments.encoders`."""
    rows = labelled_rows(stage, custom_texts)
    variations = [all_rows(rows)]
    for encoder in stage.settings.experiments.encoders:
        vectors = [
            vectors_of(stage, texts, aligned_base_model, encoder)
            for texts in (custom_texts, safe_texts, harmful_texts)
        ]
        variations.append(purified(stage, rows, solved(stage, *vectors), encoder))
    return run(stage, aligned_base_model, variations, "embedder_swap")
