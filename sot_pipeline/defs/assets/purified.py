"""The cut: which rows stay, which go, why, and the files to take away."""

import numpy as np
import polars as pl

from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.store import Artifact, Stored

CUT_SPARES_WANTED_ROWS = CheckSpec(
    "cut_spares_wanted_rows",
    "Top-K is too aggressive when it drops rows that learned at least a uniform share.",
)


@cached_asset(
    group="purified",
    kinds={"polars", "duckdb"},
    settings=("selection",),
    checks=(CUT_SPARES_WANTED_ROWS,),
    only_shows=("sot_pipeline.report",),
)
def selected_samples(
    stage: Stage, custom_texts: pl.DataFrame, sample_weights: pl.DataFrame
) -> Artifact:
    """The Top-K rows by log-weight, with the weight each has in fine-tuning (mean 1)."""
    from sot_pipeline.report.figures import weight_histogram_png
    from sot_pipeline.selection import top_k, training_weights

    selection = stage.settings.selection
    log_weights = sample_weights["log_weight"].to_numpy()
    kept = top_k(
        log_weights, keep_fraction=selection.keep_fraction, keep_count=selection.keep_count
    )
    weights = training_weights(
        log_weights,
        kept,
        temperature=selection.temperature,
        clip=(selection.clip_low, selection.clip_high),
    )
    table = (
        custom_texts.select("sample_id", "source_id", "line", "messages")
        .with_columns(sample_weights["rank"], sample_weights["log_weight"])
        .filter(pl.Series(kept))
        .with_columns(pl.Series("sample_weight", weights, dtype=pl.Float64))
    )
    num_wanted = int(np.sum(~kept & (log_weights >= -np.log(len(log_weights)))))
    num_removed = int(np.sum(~kept))
    return Artifact(
        table=table,
        metadata={"num_kept": table.height, "num_removed": num_removed},
        plots={"weight_histogram": weight_histogram_png(log_weights, kept, width_px=400)},
        checks=(
            check(
                CUT_SPARES_WANTED_ROWS,
                num_wanted == 0,
                f"{num_wanted:,} of {num_removed:,} removed rows had learned a weight of at "
                "least 1/n" + ("" if num_wanted == 0 else ": raise selection.keep_fraction"),
                num_wanted_rows_removed=num_wanted,
            ),
        ),
    )


@cached_asset(group="purified", kinds={"polars", "duckdb"})
def explanations(
    stage: Stage,
    sample_weights: pl.DataFrame,
    selected_samples: pl.DataFrame,
    safe_texts: pl.DataFrame,
    harmful_texts: pl.DataFrame,
) -> Artifact:
    """Why each row stays or goes: rank, weight, pull and push, and its nearest reference rows."""
    from sot_pipeline.explanations import explain_rows

    table = explain_rows(
        sample_weights,
        kept_ids=selected_samples["sample_id"],
        safe_ids=safe_texts["sample_id"],
        harmful_ids=harmful_texts["sample_id"],
    )
    return Artifact(table=table)


@cached_asset(group="purified", kinds={"polars", "duckdb"})
def removed_samples(
    stage: Stage, custom_texts: pl.DataFrame, explanations: pl.DataFrame
) -> Artifact:
    """The rows that Top-K dropped, worst first, each with its reason."""
    table = (
        explanations.filter(~pl.col("kept"))
        .join(custom_texts.select("sample_id", "source_id", "line", "messages"), on="sample_id")
        .sort("rank", descending=True)
        .select("sample_id", "source_id", "line", "messages", "rank", "log_weight", "reason")
    )
    return Artifact(table=table)


@cached_asset(group="purified", kinds={"polars"})
def purified_export(
    stage: Stage,
    custom_texts: Stored,
    selected_samples: pl.DataFrame,
    explanations: pl.DataFrame,
    rejected_rows: pl.DataFrame,
) -> Artifact:
    """Files to take away: kept rows in the input's own format, the ledger, the rejected rows."""
    from pathlib import Path

    from sot_pipeline.texts.kept_rows import write_kept_rows

    source = Path(custom_texts.document["path"])
    purified = stage.directory / f"purified.{custom_texts.document['file_type']}"
    num_written = write_kept_rows(
        source,
        selected_samples["line"].to_list(),
        purified,
        expected_sha256=custom_texts.document["sha256"],
    )
    ledger = (
        custom_texts.table()
        .select("sample_id", "source_id", "line")
        .join(explanations, on="sample_id", how="left", maintain_order="left")
        .join(selected_samples.select("sample_id", "sample_weight"), on="sample_id", how="left",
              maintain_order="left")
        .select(
            "sample_id", "source_id", "line", "kept", "rank", "log_weight",
            pl.col("sample_weight").fill_null(0.0), "pull", "push", "reason",
            "nearest_safe", "safe_similarity", "nearest_harmful", "harmful_similarity",
        )
    )  # fmt: skip
    ledger.write_parquet(stage.directory / "ledger.parquet")
    rejected_rows.write_ndjson(stage.directory / "rejected.jsonl")
    return Artifact(
        document={"purified": purified.name, "num_kept": num_written},
        metadata={"num_kept": num_written, "file": purified.name},
    )
