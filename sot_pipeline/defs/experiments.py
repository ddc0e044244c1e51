"""The paper's experiments: one thing about a task changes, everything else stays.

An experiment is a list of variations; each is a set of rows with weights, which is trained on and
evaluated once per seed. Trainings are kept by what they learn from, so that variations which
choose the same rows, in whichever experiment or comparison, share one.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.embeddings import encoder_for
from sot_pipeline.defs.assets.transport import learner
from sot_pipeline.defs.cached_asset import Stage
from sot_pipeline.defs.defended import Safety
from sot_pipeline.defs.settings import EmbeddingSettings
from sot_pipeline.defs.side_by_side import Training, train_and_evaluate
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.errors import InputError


class Variation(NamedTuple):
    """Rows with one weight each, and what is known of them.

    `parameter`: what was varied, where it is a number.
    """

    name: str
    rows: pl.DataFrame
    weights: np.ndarray
    parameter: float | None = None
    facts: Mapping[str, float | None] = {}


class Rows(NamedTuple):
    """Custom rows and, where the truth is known, the label of each (null where it is not)."""

    table: pl.DataFrame
    labels: pl.Series | None


def labelled_rows(stage: Stage, custom_texts: pl.DataFrame) -> Rows:
    """The task's rows with the labels that its file names."""
    if stage.files.labels is None:
        return Rows(custom_texts, None)
    from sot_pipeline.texts.labels import read_labels

    labels = custom_texts.select("source_id").join(
        read_labels(stage.files.labels).select("source_id", "label"),
        on="source_id",
        how="left",
        maintain_order="left",
    )
    return Rows(custom_texts, labels["label"])


def all_rows(rows: Rows, name: str = "sft", parameter: float | None = None) -> Variation:
    """Plain fine-tuning."""
    kept = np.ones(rows.table.height, dtype=bool)
    return Variation(name, rows.table, np.ones(len(kept)), parameter, _facts(rows, kept))


def purified(
    stage: Stage,
    rows: Rows,
    log_weights: np.ndarray,
    name: str,
    *,
    keep_fraction: float | None = None,
    weighted: bool = True,
    parameter: float | None = None,
) -> Variation:
    """The rows that a Top-K cut leaves, as the task's settings cut but for what is given.

    Raises:
        InputError: the task's cut is a calibrated one, whose size is not the experiments' to vary.
    """
    from sot_pipeline.selection import top_k, training_weights

    selection = stage.settings.selection
    if selection.method != "top_k":
        raise InputError(
            f"selection.method is {selection.method}: the experiments vary a cut of a given size; "
            "make a task with selection.method top_k for them"
        )
    count = selection.keep_count if keep_fraction is None else None
    share = keep_fraction or (selection.keep_fraction if count is None else None)
    kept = top_k(log_weights, keep_fraction=share, keep_count=count)
    weights = training_weights(
        log_weights,
        kept,
        temperature=selection.temperature,
        clip=(selection.clip_low, selection.clip_high),
    )
    places = np.flatnonzero(kept).tolist()
    return Variation(
        name,
        rows.table[places],
        weights if weighted else np.ones(len(places)),
        parameter,
        _facts(rows, kept),
    )


def _facts(rows: Rows, kept: np.ndarray) -> dict[str, float | None]:
    facts: dict[str, float | None] = {"num_rows": float(kept.sum())}
    if rows.labels is None:
        return facts | {"harmful_left": None, "benign_lost": None, "refusals_lost": None}
    labels = rows.labels.to_numpy()
    known = rows.labels.is_not_null().to_numpy()
    groups = {
        "harmful_left": (labels == "harmful", kept),
        "benign_lost": (known & (labels != "harmful") & (labels != "refusal"), ~kept),
        "refusals_lost": (labels == "refusal", ~kept),
    }
    shares = {
        name: float(chosen[group].mean()) if group.any() else None
        for name, (group, chosen) in groups.items()
    }
    return facts | shares


def vectors_of(
    stage: Stage, texts: pl.DataFrame, base_model: Stored | None, encoder_name: str | None = None
) -> np.ndarray:
    """Vectors of rows that are no asset, through the row cache of those that are."""
    from sot_pipeline.embedding.views import embed_rows, view_for

    chosen = stage.settings.embedding
    if encoder_name is not None:
        chosen = EmbeddingSettings(encoder=encoder_name, max_length=chosen.max_length)
    encoder = encoder_for(chosen, base_model)
    return embed_rows(
        [json.loads(messages) for messages in texts["messages"]],
        encoder,
        view=view_for(encoder, chosen.view),
        cache=stage.row_cache,
        progress=stage.progress("tokens"),
    ).vectors


def solved(
    stage: Stage, custom: np.ndarray, safe: np.ndarray, harmful: np.ndarray, **changed: Any
) -> np.ndarray:
    """Log-weights of rows against two references, as the graph computes them.

    Raises:
        InputError: the solve did not reach its tolerance.
    """
    from sot_pipeline.transport.cost import cosine_cost, pooled_mean

    center = pooled_mean(safe) if stage.settings.transport.centre else None
    costs = [cosine_cost(custom, reference, center=center) for reference in (safe, harmful)]
    return solved_costs(stage, *costs, **changed)


def solved_costs(stage: Stage, pull: np.ndarray, push: np.ndarray, **changed: Any) -> np.ndarray:
    """As `solved`, of costs."""
    fit = learner(stage, **changed)(np.asarray(pull), np.asarray(push))
    if not fit.converged:
        told = ", ".join(f"{name} {value}" for name, value in changed.items()) or "this variation"
        raise InputError(
            f"the weights for {told} did not converge (residual {fit.residual:.2g} after "
            f"{fit.num_steps} steps): raise transport.max_steps or transport.epsilon_in_spreads"
        )
    return fit.log_weights


def run(
    stage: Stage,
    base_model: Stored,
    variations: Sequence[Variation],
    asset: str,
    left_out: Sequence[str] = (),
) -> Artifact:
    """Train and evaluate every variation once per seed.

    Returns:
        Table `variation, parameter, seed, score, value, low, high, num_rows, harmful_left,
        benign_lost, refusals_lost`.
    """
    names = [variation.name for variation in variations]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"two variations are called {', '.join(twice)}: name each value of the block "
            "`experiments` once"
        )
    pairs = [(v, seed) for v in variations for seed in stage.settings.experiments.seeds]
    trainings = [Training(v.name, seed, "none", v.rows, v.weights) for v, seed in pairs]
    tables, trained = train_and_evaluate(stage, base_model, Safety(), trainings, asset)
    table = pl.concat(
        [
            scores.select("seed", "score", "value", "low", "high").select(
                pl.lit(variation.name).alias("variation"),
                pl.lit(variation.parameter, pl.Float64).alias("parameter"),
                pl.all(),
                *(pl.lit(value, pl.Float64).alias(key) for key, value in variation.facts.items()),
            )
            for (variation, _), scores in zip(pairs, tables, strict=True)
        ]
    )
    told = {"variations": ", ".join(v.name for v in variations)}
    return Artifact(
        table=table,
        document={"left_out": list(left_out)},
        metadata=told | ({"left_out": "; ".join(left_out)} if left_out else {}),
        parts={"trained_methods": trained},
    )
