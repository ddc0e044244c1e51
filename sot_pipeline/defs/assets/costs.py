"""Cosine costs to both references; what an earlier version knows is not computed again."""

import numpy as np
import polars as pl

from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.store import Artifact, Stored


@cached_asset(
    group="transport",
    kinds={"polars", "duckdb"},
    settings=("transport.centre", "repurification.centre_tolerance"),
    content_versioned=True,
    follows="safe_embeddings",
)
def cost_center(stage: Stage, safe_embeddings: np.ndarray) -> Artifact:
    """The point that angles are taken from: the mean of the safe reference, or an earlier mean
    that is near enough. A small edit of the safe reference then changes only its own costs."""
    from sot_pipeline.transport.cost import center_drift, pooled_mean

    # not of the custom rows, whose mix is what is in question; without the harmful reference it
    # finds more (sot_pipeline_tests/benchmarks/README.md)
    if not stage.settings.transport.centre:
        return Artifact(table=_center_table(np.empty(0, np.float32)), metadata={"centre": "none"})
    center = pooled_mean(safe_embeddings)
    earlier = None if stage.earlier is None else center_of(stage.earlier.table())
    drift = None
    if earlier is not None and earlier.shape == center.shape:
        drift = center_drift(safe_embeddings, earlier)
        if drift <= stage.settings.repurification.centre_tolerance:
            return Artifact(
                table=_center_table(earlier), metadata={"centre": "kept", "drift": drift}
            )
    return Artifact(
        table=_center_table(center),
        metadata={"centre": "mean of the safe reference"}
        | ({} if drift is None else {"drift": drift}),
    )


def _center_table(center: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"coordinate": center})


def center_of(cost_center: pl.DataFrame) -> np.ndarray | None:
    """The centre `[d]` that the asset `cost_center` holds; None for the origin."""
    return cost_center["coordinate"].to_numpy() if cost_center.height else None


def _cost(
    stage: Stage, x: np.ndarray, y: np.ndarray, cost_center: pl.DataFrame, reference: str
) -> Artifact:
    from sot_pipeline.transport.cost import updated_cost

    center = center_of(cost_center)
    if center is not None:
        np.save(stage.directory / "center.npy", center, allow_pickle=False)
    cost, num_computed = updated_cost(x, y, center=center, known=_known_costs(stage, reference))
    numbers = {"mean": float(cost.mean()), "std": float(cost.std()), "max": float(cost.max())}
    counts = {"num_computed": num_computed, "num_kept": cost.size - num_computed}
    return Artifact(
        array=cost, document={"centred": center is not None} | counts, metadata=numbers | counts
    )


def _known_costs(stage: Stage, reference: str):
    """The task's earlier costs to a reference, if all that they were made from is still there."""
    from sot_pipeline.transport.cost import KnownCosts

    earlier = stage.earlier
    if earlier is None:
        return None
    x, y = (
        stage.store.find_version(name, earlier.manifest["inputs"][name])
        for name in ("custom_embeddings", reference)
    )
    if x is None or y is None:
        return None
    return KnownCosts(x.array(), y.array(), earlier.array(), saved_center(earlier))


def saved_center(cost: Stored) -> np.ndarray | None:
    """The point that a cost matrix was centred on."""
    path = cost.directory / "center.npy"
    return np.load(path, allow_pickle=False) if path.exists() else None


@cached_asset(group="transport", kinds={"jax"})
def pull_cost(
    stage: Stage,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    cost_center: pl.DataFrame,
) -> Artifact:
    """Cosine cost of every custom row to every safe row, float32 [custom, safe], in [0, 2]; what
    an earlier version knows is not computed again."""
    return _cost(stage, custom_embeddings, safe_embeddings, cost_center, "safe_embeddings")


@cached_asset(group="transport", kinds={"jax"})
def push_cost(
    stage: Stage,
    custom_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
    cost_center: pl.DataFrame,
) -> Artifact:
    """Cosine cost of every custom row to every harmful row, float32 [custom, harmful]; what an
    earlier version knows is not computed again."""
    return _cost(stage, custom_embeddings, harmful_embeddings, cost_center, "harmful_embeddings")
