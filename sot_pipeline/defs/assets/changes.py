"""What a new purification changed, and whether the adapter has to follow."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.reviews import reviews_as_shown
from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.store import Artifact, Store, Stored
from sot_pipeline.errors import InputError

ADAPTER_FOLLOWS = CheckSpec(
    "adapter_follows_selection",
    "The adapter learns from this selection, or from an earlier one that hardly differs.",
)
# of the purification's own artefacts; what a comparison of two versions reads
READ = (
    "custom_texts", "safe_texts", "harmful_texts", "explanations", "selected_samples",
    "pull_cost", "push_cost", "sample_weights",
)  # fmt: skip
READ_IF_THERE = ("review_decisions",)  # purifications of earlier code have none


@cached_asset(
    group="adapter",
    kinds={"polars", "duckdb"},
    settings=("repurification.retrain_tolerance", "finetuning.weighted"),
    checks=(ADAPTER_FOLLOWS,),
    content_versioned=True,
    follows="selected_samples",
)
def training_samples(
    stage: Stage, custom_texts: pl.DataFrame, selected_samples: pl.DataFrame
) -> Artifact:
    """The rows and weights that the adapter learns from: the selection, or what it learnt from
    before while the training weights have moved by no more than repurification.retrain_tolerance
    and each of those rows is still in the custom set."""
    from sot_pipeline.changes import total_variation

    weighted = stage.settings.finetuning.weighted
    table = selected_samples.select(
        "sample_id",
        "messages",
        pl.col("sample_weight") if weighted else pl.lit(1.0).alias("sample_weight"),
    )
    tolerance = stage.settings.repurification.retrain_tolerance
    if stage.previous is None:
        return _trained_on(table, "the first selection of the task", kept=False)
    earlier = stage.previous.table()
    moved = total_variation(earlier, table)
    num_gone = earlier.join(custom_texts, on="sample_id", how="anti").height
    movement = f"{moved:.2%} of the training weight moved (tolerance {tolerance:.2%})"
    if num_gone:
        movement = f"{num_gone:,} rows it had learnt from are no longer in the custom set"
    elif moved <= tolerance:
        return _trained_on(earlier, f"adapter kept: {movement}", kept=True, moved=moved)
    return _trained_on(table, f"trained on this selection: {movement}", kept=False, moved=moved)


def _trained_on(table: pl.DataFrame, reason: str, *, kept: bool, moved: float = 1.0) -> Artifact:
    document = {"kept": kept, "moved": moved, "reason": reason}
    return Artifact(
        table=table,
        document=document,
        metadata=document,
        checks=(check(ADAPTER_FOLLOWS, True, reason, moved=moved),),
    )


@cached_asset(
    group="report",
    kinds={"polars", "duckdb"},
    settings=("repurification.retrain_tolerance",),
    source=reviews_as_shown,
    follows="selected_samples",
)
def purification_changes(
    stage: Stage,
    custom_texts: Stored,
    safe_texts: Stored,
    harmful_texts: Stored,
    pull_cost: Stored,
    push_cost: Stored,
    sample_weights: Stored,
    selected_samples: Stored,
    explanations: Stored,
    review_decisions: Stored,
) -> Artifact:
    """What the latest change of rows, references or settings did: reference rows added and gone,
    custom rows that changed sides with the reference rows responsible, how far the weights moved.
    Empty for the first purification of a task."""
    from sot_pipeline.changes import SCHEMA, compare

    if stage.previous is None:
        return Artifact(
            table=pl.DataFrame(schema=SCHEMA),
            metadata={"selection_moved": False, "compared_with": "nothing: the first purification"},
        )
    inputs = (
        custom_texts, safe_texts, harmful_texts, pull_cost, push_cost, sample_weights,
        selected_samples, explanations, review_decisions,
    )  # fmt: skip
    now = {stored.asset: stored for stored in inputs}
    try:
        before = stored_version(stage.store, stage.previous)
    except InputError as gone:
        return Artifact(
            table=pl.DataFrame(schema=SCHEMA),
            metadata={"selection_moved": False, "compared_with": str(gone)},
        )
    changes = compare(purification(before), purification(now))
    tolerance = stage.settings.repurification.retrain_tolerance
    summary = {
        **changes.summary,
        "num_reference_rows_added": _count(changes.summary, "added"),
        "num_reference_rows_removed": _count(changes.summary, "gone"),
        "tolerance": tolerance,
        "selection_moved": changes.summary["moved"] > tolerance,
        "compared_with": before["selected_samples"].fingerprint,
    }
    return Artifact(table=changes.table, document=summary, metadata=summary)


def _count(summary: dict[str, Any], change: str) -> int:
    return sum(summary[f"num_{name}_rows_{change}"] for name in ("safe", "harmful"))


def stored_version(store: Store, changes: Stored) -> dict[str, Stored]:
    """The artefacts of a purification, found through its `purification_changes`.

    Raises:
        InputError: one of them has been removed.
    """
    versions = changes.manifest["inputs"]
    found = {name: store.find_version(name, versions[name]) for name in READ}
    gone = [name for name, stored in found.items() if stored is None]
    if gone:
        raise InputError(
            f"the purification of {changes.manifest['created']} can no longer be compared: its "
            f"{', '.join(gone)} left the store (`sot gc --keep-versions` says how many stay)"
        )
    for name in READ_IF_THERE:
        if name in versions:
            found[name] = store.find_version(name, versions[name])
    return {name: stored for name, stored in found.items() if stored is not None}


def evaluation_of(store: Store, task: str, changes: Stored) -> Stored | None:
    """The newest evaluation of an adapter that learnt from a purification; None: there is none.

    No input of `purification_changes`, which would wait for a training that it is not about.
    """
    found, versions = {changes.manifest["inputs"]["selected_samples"]}, []
    for made_of, name in pairwise(
        ("selected_samples", "training_samples", "adapter", "evaluation")
    ):
        history = store.history(task, name)
        versions = [stored for stored in history if stored.manifest["inputs"].get(made_of) in found]
        found = {stored.data_version for stored in versions}
    return versions[-1] if versions else None


def purification(artefacts: dict[str, Stored], evaluation: Stored | None = None):
    """A purification as the comparison reads it."""
    from sot_pipeline.changes import Purification

    # number by number: a fit of earlier code may have other fields
    fit = artefacts["sample_weights"].directory / "fit"
    potentials = {
        name: np.load(fit / f"{name}.npy", allow_pickle=False) for name in ("g_pull", "g_push")
    }
    texts = {
        name: _text_rows(artefacts[f"{name}_texts"].table())
        for name in ("custom", "safe", "harmful")
    }
    return Purification(
        **texts,
        rows=artefacts["explanations"].table(),
        training_weights=artefacts["selected_samples"].table(),
        pull_cost=artefacts["pull_cost"].array(),
        push_cost=artefacts["push_cost"].array(),
        **potentials,
        epsilon=json.loads((fit / "scalars.json").read_text())["epsilon"],
        scores=_scores(evaluation),
        decisions=artefacts["review_decisions"].table()
        if "review_decisions" in artefacts
        else None,
    )


def _text_rows(table: pl.DataFrame) -> pl.DataFrame:
    if "file" not in table.columns:  # made before sets of several files
        table = table.with_columns(file=pl.lit(None, pl.String))
    return table.select("sample_id", "source_id", "file", "line")


def _scores(evaluation: Stored | None) -> dict[str, float]:
    if evaluation is None:
        return {}
    of_adapter = evaluation.table().filter(pl.col("method") != "base")
    return dict(of_adapter.select("score", "value").iter_rows())
