"""What people decided about single rows, as the selection honours it."""

from collections.abc import Mapping
from typing import Any

from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.sources import review_identity
from sot_pipeline.defs.store import Artifact


def reviews_as_shown(files: TaskFile, settings: Settings) -> Mapping[str, Any]:
    """The `source` of assets that show reviewers' names and notes: these are no part of
    `review_decisions`' data version."""
    return {"reviews": review_identity(files)}


@cached_asset(
    group="purified",
    kinds={"polars", "duckdb"},
    content_versioned=True,
    source=lambda files, settings: review_identity(files),
)
def review_decisions(stage: Stage) -> Artifact:
    """The decisions of reviewers that are in force (`sot review`), one for each text; empty without
    any. Its data version is that of texts and decisions: a name or a note changes nothing below."""
    from sot_pipeline.reviews.decisions import decision_table, read_log

    table = decision_table(read_log(stage.files.reviews) if stage.files.reviews else [])
    counts = dict(table["decision"].value_counts().iter_rows())
    return Artifact(
        table=table,
        versioned_by=("sample_id", "decision"),
        metadata={f"num_{word}": counts.get(word, 0) for word in ("keep", "drop", "unsure")},
    )
