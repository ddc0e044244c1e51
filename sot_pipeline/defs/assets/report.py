"""One offline HTML file that tells what was asked, found and measured."""

import platform
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.store import Artifact, Stored


@cached_asset(
    group="adapter",
    kinds={"html"},
    settings=("embedding", "transport", "selection", "finetuning", "evaluation", "report"),
)
def safety_report(
    stage: Stage,
    custom_texts: Stored,
    safe_texts: Stored,
    harmful_texts: Stored,
    rejected_rows: Stored,
    custom_embeddings: np.ndarray,
    safe_embeddings: np.ndarray,
    harmful_embeddings: np.ndarray,
    sample_weights: Stored,
    selected_samples: Stored,
    explanations: pl.DataFrame,
    evaluation: Stored | None,
    comparison: Stored | None,
) -> Artifact:
    """Verdict, results, weights, map, removed and borderline rows with their reasons, settings:
    `report.html`, complete without a network."""
    from sot_pipeline.report.data import InputSet, ReportData
    from sot_pipeline.report.embedding_map import embedding_map
    from sot_pipeline.report.figures import embedding_map_png
    from sot_pipeline.report.render import render_report

    texts = custom_texts.table()
    ledger = explanations.join(
        texts.select("sample_id", "source_id", "line", "prompt", "response"),
        on="sample_id",
        how="left",
        maintain_order="left",
    )
    points = embedding_map(custom_embeddings, safe_embeddings, harmful_embeddings)
    results = comparison or evaluation
    scores = None if results is None else results.table()
    checked = [rejected_rows, sample_weights, selected_samples]
    checked += [] if evaluation is None else [evaluation]
    sets = {"custom": custom_texts, "safe": safe_texts, "harmful": harmful_texts}
    data = ReportData(
        task=stage.task,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        inputs=tuple(_input_set(InputSet, role, stored) for role, stored in sets.items()),
        embedder=stage.settings.embedding.encoder,
        ledger=ledger,
        fit=_fit_summary(sample_weights),
        settings=_flat_settings(stage),
        fingerprints={s.asset: s.fingerprint for s in (*sets.values(), *checked)},
        environment=_environment(),
        points=points,
        evaluation=scores,
        judge="" if results is None else results.document.get("judge", ""),
        checks=tuple(_report_check(check) for stored in checked for check in stored.checks()),
        rejected=rejected_rows.table(),
        show_text=stage.settings.report.show_text,
        max_rows=stage.settings.report.max_rows,
    )
    html = render_report(data)
    (stage.directory / "report.html").write_text(html, encoding="utf-8")
    log_weights = explanations["log_weight"].to_numpy()
    kept = explanations["kept"].to_numpy()
    return Artifact(
        metadata={"report": str(stage.final_directory / "report.html"), "bytes": len(html)},
        plots={"embedding_map": embedding_map_png(points, log_weights, kept, width_px=400)},
    )


def _input_set(kind: Any, role: str, stored: Stored) -> Any:
    document = stored.document
    return kind(
        role=role,
        name=document["path"].rsplit("/", 1)[-1],
        num_rows=stored.manifest["rows"],
        num_rejected=document["num_rejected"],
        format=f"{document['format']} in {document['file_type']}",
        sha256=document["sha256"],
    )


def _fit_summary(sample_weights: Stored) -> Any:
    from sot_pipeline.report.data import FitSummary

    document = sample_weights.document
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


def _flat_settings(stage: Stage) -> dict[str, object]:
    blocks = stage.settings.model_dump(mode="json")
    return {f"{b}.{f}": v for b, fields in blocks.items() for f, v in fields.items()}


def _environment() -> dict[str, str]:
    import os

    from sot_pipeline import __version__

    return {
        "sot_pipeline": __version__,
        "Python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    }
