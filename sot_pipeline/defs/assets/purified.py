"""The cut: which rows stay, which go, why, and the files to take away."""

from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.transport import deciding_weights, unless_top_k
from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.settings import SelectionSettings
from sot_pipeline.defs.store import Artifact, Stored
from sot_pipeline.errors import InputError

CUT_SPARES_WANTED_ROWS = CheckSpec(
    "cut_spares_wanted_rows",
    "A cut is too aggressive when it drops rows that learned at least a uniform share.",
)
EXPLAINED = (  # of `explanations`: one value per row, that a table of rows can carry
    "harmful_category", "harmful_category_share", "keep_fraction_needed", "false_keep_rate_needed",
    "lambda_change", "far_from_references", "decision", "explanation",
)  # fmt: skip


@cached_asset(
    group="purified",
    kinds={"polars", "duckdb"},
    settings=("selection",),
    checks=(CUT_SPARES_WANTED_ROWS,),
    uses=unless_top_k,
    only_shows=("sot_pipeline.report",),
)
def selected_samples(
    stage: Stage,
    custom_texts: pl.DataFrame,
    sample_weights: pl.DataFrame,
    calibration: Stored,
    review_decisions: pl.DataFrame,
) -> Artifact:
    """The rows that stay, Top-K by log-weight or those below a stated false-keep rate, but for
    what reviewers decided, with the weight each has in fine-tuning (mean 1)."""
    from sot_pipeline.report.figures import weight_histogram_png
    from sot_pipeline.reviews.honour import honour_decisions
    from sot_pipeline.selection import training_weights

    selection = stage.settings.selection
    deciding = deciding_weights(sample_weights, calibration)
    log_weights = deciding["log_weight"].to_numpy()
    kept_by_cut, cut = _cut(selection, log_weights, calibration)
    decisions = dict(review_decisions.select("sample_id", "decision").iter_rows())
    kept, decided, review = honour_decisions(kept_by_cut, custom_texts["sample_id"], decisions)
    weights = training_weights(
        _finite_where(kept, log_weights),
        kept,
        temperature=selection.temperature,
        clip=(selection.clip_low, selection.clip_high),
    )
    table = (
        custom_texts.select("sample_id", "source_id", "line", "messages")
        .with_columns(deciding["rank"], deciding["log_weight"])
        .filter(pl.Series(kept))
        .with_columns(pl.Series("sample_weight", weights, dtype=pl.Float64))
    )
    num_wanted = int(np.sum(~kept & ~decided & (log_weights >= -np.log(len(log_weights)))))
    num_removed = int(np.sum(~kept))
    remedy = "keep_fraction" if selection.method == "top_k" else "max_false_keep_rate"
    return Artifact(
        table=table,
        document=cut | {"review": review},
        metadata={"num_kept": table.height, "num_removed": num_removed}
        | cut
        | {f"review_{name}": count for name, count in review.items()},
        plots={"weight_histogram": weight_histogram_png(log_weights, kept_by_cut, width_px=400)},
        checks=(
            check(
                CUT_SPARES_WANTED_ROWS,
                num_wanted == 0,
                f"{num_wanted:,} of {num_removed:,} removed rows had learned a weight of at "
                "least 1/n" + ("" if num_wanted == 0 else f": raise selection.{remedy}"),
                num_wanted_rows_removed=num_wanted,
            ),
        ),
    )


def _finite_where(kept: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    """Log-weights in which a row that a reviewer keeps, though it learnt no weight at all, counts
    as the least of the others."""
    finite = np.isfinite(log_weights)
    least = log_weights[finite].min() if finite.any() else 0.0
    return np.where(kept & ~finite, least, log_weights)


def _cut(
    selection: SelectionSettings, log_weights: np.ndarray, calibration: Stored | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Which rows stay, and the numbers that say why."""
    from sot_pipeline.selection import top_k

    if calibration is None:
        kept = top_k(
            log_weights, keep_fraction=selection.keep_fraction, keep_count=selection.keep_count
        )
        lowest = float(log_weights[kept].min())
        # half way to the next row: the row at the cut, scored again, may differ by rounding
        highest_removed = float(log_weights[~kept].max()) if not kept.all() else lowest
        middle = (lowest + highest_removed) / 2 if np.isfinite(highest_removed) else lowest
        return kept, {"method": "top_k", "threshold": middle}
    from sot_pipeline.transport.calibration import calibrated_cut

    held_out = {
        name: np.load(calibration.directory / f"held_out_{name}.npy", allow_pickle=False)
        for name in ("harmful", "safe")
    }
    found = {
        name: calibration.document[name]
        for name in ("contamination", "contamination_low", "contamination_high")
    }
    cut = calibrated_cut(
        log_weights,
        held_out["harmful"],
        max_false_keep_rate=selection.max_false_keep_rate,
        contamination=found["contamination"],
    )
    if not cut.kept.any():
        raise InputError(
            f"no row can stay: an estimated {found['contamination']:.0%} of the rows score like "
            "the harmful reference. Look at the references, raise selection.max_false_keep_rate, "
            "or take the best rows whatever they are with selection.method top_k"
        )
    return cut.kept, {
        "method": "calibrated",
        "max_false_keep_rate": selection.max_false_keep_rate,
        "false_keep_rate": cut.rate,
        "threshold": cut.threshold,
        **found,
        "num_held_out_harmful": len(held_out["harmful"]),
        "num_held_out_safe": len(held_out["safe"]),
        "held_out_safe_kept": float(np.mean(held_out["safe"] > cut.threshold)),
    }


@cached_asset(
    group="purified",
    kinds={"polars", "duckdb"},
    settings=("selection.max_false_keep_rate",),
    uses=unless_top_k,
)
def explanations(
    stage: Stage,
    pull_cost: Stored,
    push_cost: Stored,
    sample_weights: Stored,
    calibration: Stored,
    selected_samples: Stored,
    review_decisions: pl.DataFrame,
    safe_texts: pl.DataFrame,
    harmful_texts: pl.DataFrame,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
) -> Artifact:
    """Why each row stays or goes, in plain words: rank and weight, the reference rows that it was
    matched with, what would have to differ for it to change sides, and which methods disagree."""
    from sot_pipeline.defs.evidence import deciding_solve, held_out_rows, references
    from sot_pipeline.explanations import explain_rows

    solve = deciding_solve(sample_weights, calibration)
    safe, harmful = references(
        solve,
        costs=(pull_cost, push_cost),
        embeddings=(custom_embeddings, safe_embeddings, harmful_embeddings),
        texts=(safe_texts, harmful_texts),
    )
    table = explain_rows(
        deciding_weights(sample_weights.table(), calibration),
        kept_ids=selected_samples.table()["sample_id"],
        safe=safe,
        harmful=harmful,
        solve=solve.counterfactual(len(custom_embeddings)),
        decisions=review_decisions,
        num_kept_by_cut=selected_samples.document.get("review", {}).get("num_kept_by_cut"),
        held_out=held_out_rows(calibration, stage.settings.selection.max_false_keep_rate),
    )
    return Artifact(table=table)


@cached_asset(group="purified", kinds={"polars", "duckdb"})
def removed_samples(
    stage: Stage, custom_texts: pl.DataFrame, explanations: pl.DataFrame
) -> Artifact:
    """The rows that the cut dropped, worst first, each with its reason."""
    table = (
        explanations.filter(~pl.col("kept"))
        .join(custom_texts.select("sample_id", "source_id", "line", "messages"), on="sample_id")
        .sort("rank", descending=True)
        .select(
            "sample_id", "source_id", "line", "messages", "rank", "log_weight", "reason",
            *EXPLAINED,
        )
    )  # fmt: skip
    return Artifact(table=table)


@cached_asset(
    group="purified",
    kinds={"polars"},
    source=lambda files, settings: {"named": files.custom},  # the ledger names the files
)
def purified_export(
    stage: Stage,
    custom_texts: Stored,
    selected_samples: pl.DataFrame,
    explanations: pl.DataFrame,
    rejected_rows: pl.DataFrame,
) -> Artifact:
    """Files to take away: kept rows in the input's own format, the ledger, the rejected rows."""
    from sot_pipeline.texts.kept_rows import kept_file_type, write_kept_rows

    files = custom_texts.document["files"]
    rows = with_files(custom_texts)
    kept = rows.join(selected_samples.select("sample_id"), on="sample_id", how="semi")
    single = len(files) == 1
    only = f"purified.{kept_file_type(custom_texts.document['file_type'])}"
    num_written = 0
    for file, name in zip(files, _export_names(files), strict=True):
        num_written += write_kept_rows(
            stage.store.root / file["path"],
            kept.filter(pl.col("file") == file["name"])["line"].to_list(),
            stage.directory / (only if single else f"purified/{name}"),
            expected_sha256=file["sha256"],
        )
    ledger = (
        rows.select("sample_id", "source_id", "file", "line")
        .join(explanations, on="sample_id", how="left", maintain_order="left")
        .join(selected_samples.select("sample_id", "sample_weight"), on="sample_id", how="left",
              maintain_order="left")
        .select(
            "sample_id", "source_id", "file", "line", "kept", "rank", "log_weight",
            pl.col("sample_weight").fill_null(0.0), "pull", "push", "reason",
            "nearest_safe", "safe_similarity", "nearest_harmful", "harmful_similarity",
            "harmful_p_value", *EXPLAINED,
        )
    )  # fmt: skip
    ledger.write_parquet(stage.directory / "ledger.parquet")
    rejected_rows.write_ndjson(stage.directory / "rejected.jsonl")
    return Artifact(
        document={"purified": only if single else "purified", "num_kept": num_written},
        metadata={
            "num_kept": num_written,
            "files": only if single else f"purified/ ({len(files)})",
        },
    )


def with_files(texts: Stored) -> pl.DataFrame:
    """The rows of a text set with the name of the file of each; the table itself leaves the name
    of an only file out."""
    return texts.table().with_columns(pl.col("file").fill_null(texts.document["files"][0]["name"]))


def _export_names(files: list[dict[str, Any]]) -> list[str]:
    """Names for the purified files: those of the input, but for types that are written as another."""
    from sot_pipeline.texts.kept_rows import kept_file_type
    from sot_pipeline.texts.locate import unique_names

    endings = [kept_file_type(file["file_type"]) for file in files]
    return unique_names(
        file["name"]
        if ending == file["file_type"]
        else f"{file['name'].split('.arrow')[0]}.{ending}"
        for file, ending in zip(files, endings, strict=True)
    )
