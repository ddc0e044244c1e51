"""One offline HTML file that tells what was asked, found and measured."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.reviews import reviews_as_shown
from sot_pipeline.defs.assets.transport import unless_top_k
from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.report_links import ANONYMOUS_REPORT
from sot_pipeline.defs.store import Artifact, Stored


@dataclass(frozen=True)
class Purification:
    """The artefacts that every report is made of."""

    custom_texts: Stored
    safe_texts: Stored
    harmful_texts: Stored
    rejected_rows: Stored
    sample_weights: Stored
    calibration: Stored | None
    selected_samples: Stored
    explanations: pl.DataFrame
    embedding_map: pl.DataFrame
    reference_coverage: Stored
    purification_changes: Stored
    review_decisions: pl.DataFrame


@dataclass(frozen=True)
class Results:
    """What was measured beside the purification."""

    comparison: Stored
    compared_selections: Stored
    selection_quality: Stored


@cached_asset(
    group="report",
    kinds={"html"},
    settings=("texts", "embedding", "transport", "selection", "report"),
    source=reviews_as_shown,
    uses=unless_top_k,
)
def purification_report(
    stage: Stage,
    custom_texts: Stored,
    safe_texts: Stored,
    harmful_texts: Stored,
    rejected_rows: Stored,
    sample_weights: Stored,
    calibration: Stored,
    selected_samples: Stored,
    explanations: pl.DataFrame,
    embedding_map: pl.DataFrame,
    reference_coverage: Stored,
    purification_changes: Stored,
    review_decisions: pl.DataFrame,
) -> Artifact:
    """What was selected and why, before any model learns from it: `report.html`, complete
    without a network."""
    made = Purification(
        custom_texts,
        safe_texts,
        harmful_texts,
        rejected_rows,
        sample_weights,
        calibration,
        selected_samples,
        explanations,
        embedding_map,
        reference_coverage,
        purification_changes,
        review_decisions,
    )
    return _report(stage, made, ("texts", "embedding", "transport", "selection", "report"))


@cached_asset(
    group="report",
    kinds={"html"},
    settings=(
        "texts",
        "base_model",
        "embedding",
        "transport",
        "selection",
        "repurification",
        "finetuning",
        "defence",
        "evaluation",
        "comparison",
        "report",
    ),
    source=reviews_as_shown,
    uses=unless_top_k,
)
def safety_report(
    stage: Stage,
    custom_texts: Stored,
    safe_texts: Stored,
    harmful_texts: Stored,
    rejected_rows: Stored,
    sample_weights: Stored,
    calibration: Stored,
    selected_samples: Stored,
    explanations: pl.DataFrame,
    embedding_map: pl.DataFrame,
    reference_coverage: Stored,
    purification_changes: Stored,
    review_decisions: pl.DataFrame,
    training_samples: Stored,
    safety_demonstrations: Stored,
    adapter: Stored,
    evaluation: Stored,
    compared_selections: Stored,
    selection_quality: Stored,
    comparison: Stored,
) -> Artifact:
    """Verdict and measured results beside all that the purification report shows:
    `report.html`, complete without a network."""
    made = Purification(
        custom_texts,
        safe_texts,
        harmful_texts,
        rejected_rows,
        sample_weights,
        calibration,
        selected_samples,
        explanations,
        embedding_map,
        reference_coverage,
        purification_changes,
        review_decisions,
    )
    blocks = tuple(type(stage.settings).model_fields)
    checked = (training_samples, *_if_any(safety_demonstrations), adapter, evaluation)
    results = Results(comparison, compared_selections, selection_quality)
    return _report(stage, made, blocks, results, checked)


def _if_any(demonstrations: Stored) -> tuple[Stored, ...]:
    """A report is silent on what no defence asked for."""
    return (demonstrations,) if demonstrations.manifest["rows"] else ()


def _report(
    stage: Stage,
    made: Purification,
    blocks: tuple[str, ...],
    results: Results | None = None,
    also_checked: tuple[Stored, ...] = (),
) -> Artifact:
    from sot_pipeline.report.data import InputSet, ReportData
    from sot_pipeline.report.figures import embedding_map_png
    from sot_pipeline.report.render import render_both

    explanations = made.explanations
    sets = {"custom": made.custom_texts, "safe": made.safe_texts, "harmful": made.harmful_texts}
    weights = (made.sample_weights, *([] if made.calibration is None else [made.calibration]))
    checked = (made.rejected_rows, *weights, made.selected_samples, *also_checked)
    review = made.selected_samples.document.get("review", {})
    data = ReportData(
        task=stage.task,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        inputs=tuple(_input_set(InputSet, role, stored) for role, stored in sets.items()),
        embedder=stage.settings.embedding.encoder,
        ledger=_ledger(explanations, made.custom_texts.table()),
        references=pl.concat(
            _reference_rows(name, sets[name].table()) for name in ("safe", "harmful")
        ),
        fit=_fit_summary(weights[-1]),  # of the weights that decide
        cut=_cut_summary(made.selected_samples),
        settings=_flat_settings(stage, blocks),
        fingerprints={stored.asset: stored.fingerprint for stored in (*sets.values(), *checked)},
        environment=_environment(),
        points=_points(made.embedding_map, "towards_harm", "across"),
        neighbours=_points(made.embedding_map, "x", "y"),
        coverage=_coverage(made.reference_coverage),
        num_kept_by_cut=made.selected_samples.document["review"]["num_kept_by_cut"],
        decisions=_decisions(explanations, made.review_decisions),
        num_kept_against_cut=review.get("num_kept_against_cut", 0),
        num_dropped_against_cut=review.get("num_dropped_against_cut", 0),
        **_changes(made.purification_changes),
        **(_measured(results) if results is not None else {}),
        checks=tuple(_report_check(check) for stored in checked for check in stored.checks()),
        rejected=made.rejected_rows.table(),
        show_text=stage.settings.report.show_text,
        max_rows=stage.settings.report.max_rows,
    )
    html, anonymous = render_both(data)
    (stage.directory / "report.html").write_text(html, encoding="utf-8")
    (stage.directory / ANONYMOUS_REPORT).write_text(anonymous, encoding="utf-8")
    log_weights = explanations["log_weight"].to_numpy()
    kept = explanations["kept"].to_numpy()
    return Artifact(
        metadata={
            "report": str(stage.final_directory / "report.html"),
            "bytes": len(html.encode()),
        },
        plots={
            "embedding_map": embedding_map_png(
                _points(made.embedding_map, "x", "y"),
                log_weights,
                kept,
                towards_harm=False,
                width_px=400,
            )
        },
    )


def _ledger(explanations: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    names = ("sample_id", "source_id", "file", "line", "category", "prompt", "response")
    own = texts.select(name for name in names if name in texts.columns)
    return explanations.join(own, on="sample_id", how="left", maintain_order="left")


def _reference_rows(name: str, texts: pl.DataFrame) -> pl.DataFrame:
    return texts.select(
        pl.lit(name).alias("text_set"),
        "sample_id",
        "source_id",
        pl.col("line").cast(pl.Int64),
        pl.col("category")
        if "category" in texts.columns
        else pl.lit(None, pl.String).alias("category"),
    )


def _points(table: pl.DataFrame, *axes: str) -> Any:
    from sot_pipeline.report.embedding_map import EmbeddingMap

    return EmbeddingMap(
        *(
            table.filter(pl.col("text_set") == name).select(axes).to_numpy()
            for name in EmbeddingMap._fields
        )
    )


def _decisions(explanations: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame | None:
    from sot_pipeline.reviews.decisions import decisions_of_rows

    found = decisions_of_rows(explanations["sample_id"], decisions)
    return None if found.is_empty() else found


def _coverage(stored: Stored) -> Any:
    from sot_pipeline.report.data import Coverage

    columns = ("uncovered", "safe_cost", "harmful_cost")
    arrays = {
        name: column.to_numpy() for name, column in stored.table().select(columns).to_dict().items()
    }
    return Coverage(**arrays, **stored.document)


def _changes(stored: Stored) -> dict[str, Any]:
    """Nothing on a first purification, whose `purification_changes` holds no numbers."""
    if not stored.document:
        return {}
    return {"changes": stored.table(), "change_summary": stored.document}


def _measured(results: Results) -> dict[str, Any]:
    quality = results.selection_quality.table()
    return {
        "evaluation": results.comparison.table(),
        "own_method": results.comparison.document["own_method"],
        "judge": results.comparison.document["judge"],
        "quality": None if quality.is_empty() else quality,
        "selection_costs": results.compared_selections.document["costs"],
    }


def _input_set(kind: Any, role: str, stored: Stored) -> Any:
    document = stored.document
    return kind(
        role=role,
        name=document["name"],
        num_rows=stored.manifest["rows"],
        num_rejected=document["num_rejected"],
        format=f"{document['format']} in {document['file_type']}",
        sha256=document["sha256"],
    )


def _cut_summary(selected_samples: Stored) -> Any:
    from sot_pipeline.report.data import CutSummary

    document = selected_samples.document
    if document["method"] == "top_k":
        return None
    return CutSummary(**{name: document[name] for name in CutSummary.__dataclass_fields__})


def _fit_summary(weights: Stored) -> Any:
    from sot_pipeline.report.data import FitSummary

    document = weights.document
    return FitSummary(
        objective_trace=np.array(document["objective_trace"]),
        converged=document["converged"],
        num_steps=document["num_steps"],
        epsilon=document["epsilon"],
        lambda_push=document["lambda_push"],
        tau=document["tau"],
        residual=document["residual"],
        tolerance=document["tolerance"],
        marginal_errors=tuple(document["marginal_errors"]),
    )


def _report_check(check: Any) -> Any:
    from sot_pipeline.report.data import ReportCheck

    status = "passed" if check.passed else "failed" if check.blocking else "warned"
    return ReportCheck(name=check.name, status=status, sentence=check.description)


def _flat_settings(stage: Stage, blocks: tuple[str, ...]) -> dict[str, object]:
    values = stage.settings.model_dump(mode="json", include=set(blocks))
    return {f"{b}.{f}": v for b, fields in values.items() for f, v in fields.items()}


def _environment() -> dict[str, str]:
    from sot_pipeline import __version__

    return {
        "sot_pipeline": __version__,
        "Python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    }
