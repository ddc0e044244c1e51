"""Where the rows lie: coordinates to draw them at, and whether the references reach them."""

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.costs import center_of
from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.store import Artifact


@cached_asset(group="purified", kinds={"polars", "duckdb"})
def embedding_map(
    stage: Stage,
    custom_texts: pl.DataFrame,
    safe_texts: pl.DataFrame,
    harmful_texts: pl.DataFrame,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
    cost_center: pl.DataFrame,
) -> Artifact:
    """Two pairs of coordinates for every row of the three sets: neighbourhoods (t-SNE, `x` and
    `y`), and an axis with a meaning (`towards_harm`, from the safe to the harmful centroid, and
    `across`)."""
    from sot_pipeline.report.embedding_map import embedding_map as towards_harm
    from sot_pipeline.report.neighbourhoods import neighbourhoods

    embeddings = (custom_embeddings, safe_embeddings, harmful_embeddings)
    near = neighbourhoods(*embeddings, center=center_of(cost_center))
    axis = towards_harm(*embeddings)
    sets = {"custom": custom_texts, "safe": safe_texts, "harmful": harmful_texts}
    table = pl.concat(
        pl.DataFrame(
            {
                "text_set": pl.repeat(name, texts.height, eager=True),
                "sample_id": texts["sample_id"],
                "x": getattr(near.points, name)[:, 0],
                "y": getattr(near.points, name)[:, 1],
                "towards_harm": getattr(axis, name)[:, 0],
                "across": getattr(axis, name)[:, 1],
            }
        )
        for name, texts in sets.items()
    )
    return Artifact(
        table=table,
        metadata={"num_fitted": near.num_fitted, "num_placed": table.height - near.num_fitted},
    )


@cached_asset(group="purified", kinds={"polars", "duckdb"})
def reference_coverage(
    stage: Stage,
    custom_texts: pl.DataFrame,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
    cost_center: pl.DataFrame,
    pull_cost: np.ndarray,
    push_cost: np.ndarray,
) -> Artifact:
    """Which custom rows lie farther from both references than these reach, so that neither can
    judge them."""
    from sot_pipeline.transport.diagnostics import reference_coverage as coverage_of

    found = coverage_of(
        custom_embeddings, safe_embeddings, harmful_embeddings, center=center_of(cost_center)
    )
    table = custom_texts.select(
        "sample_id",
        uncovered=pl.Series(found.uncovered),
        safe_cost=pl.Series(np.asarray(pull_cost.min(axis=1), dtype=np.float64)),
        harmful_cost=pl.Series(np.asarray(push_cost.min(axis=1), dtype=np.float64)),
    )
    document = {
        "safe_radius": found.safe_radius,
        "harmful_radius": found.harmful_radius,
        "most_expected": found.threshold,
    }
    metadata = {"num_uncovered": int(found.uncovered.sum()), "share": found.uncovered_share}
    return Artifact(table=table, document=document, metadata=metadata | document)
