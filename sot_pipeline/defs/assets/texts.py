"""Text sets as tables: the custom rows, the two references, and what could not be read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.sources import source_identity
from sot_pipeline.defs.store import Artifact, Stored

ALL_READABLE = CheckSpec(
    "all_rows_readable", "Every row of the three text sets could be read; the others are listed."
)


def _source(name: str):
    def identify(files: TaskFile, settings: Settings) -> Mapping[str, Any]:
        return source_identity(files, name)

    return identify


def _sources(files: TaskFile, settings: Settings) -> Mapping[str, Any]:
    return {name: source_identity(files, name) for name in ("custom", "safe", "harmful")}


def _read(stage: Stage, path: Path) -> Artifact:
    from sot_pipeline.texts.read import read_texts

    texts = stage.settings.texts
    text_set = read_texts(
        path, format=texts.format, max_row_bytes=int(texts.max_row_megabytes * 1_000_000)
    )
    text_set.rejected.write_parquet(stage.directory / "rejected.parquet")
    document = {
        "path": str(path.resolve()),
        "sha256": text_set.sha256,
        "format": text_set.format,
        "file_type": text_set.file_type,
        "num_read": text_set.num_read,
        "num_rejected": text_set.rejected.height,
    }
    shown = {name: value for name, value in document.items() if name != "sha256"}
    return Artifact(table=text_set.rows, document=document, metadata=shown)


@cached_asset(
    group="custom",
    kinds={"polars", "duckdb"},
    settings=("texts",),
    content_versioned=True,
    source=_source("custom"),
)
def custom_texts(stage: Stage) -> Artifact:
    """The fine-tuning rows to purify, one conversation each, in the file's order."""
    return _read(stage, stage.files.custom)


@cached_asset(
    group="references",
    kinds={"polars", "duckdb"},
    settings=("texts",),
    content_versioned=True,
    source=_source("safe"),
)
def safe_texts(stage: Stage) -> Artifact:
    """The trusted safe reference: rows of the same task, and good answers to risky prompts."""
    return _read(stage, stage.files.safe)


@cached_asset(
    group="references",
    kinds={"polars", "duckdb"},
    settings=("texts",),
    content_versioned=True,
    source=_source("harmful"),
)
def harmful_texts(stage: Stage) -> Artifact:
    """The harmful reference: prompts answered as they should not be. Tasks may share it."""
    return _read(stage, stage.files.harmful)


@cached_asset(
    group="custom",
    kinds={"polars", "duckdb"},
    settings=("texts",),
    content_versioned=True,
    source=_sources,
    checks=(ALL_READABLE,),
)
def rejected_rows(
    stage: Stage, custom_texts: Stored, safe_texts: Stored, harmful_texts: Stored
) -> Artifact:
    """Rows that could not be read, with file, line and reason; nothing is dropped in silence."""
    sets = {"custom": custom_texts, "safe": safe_texts, "harmful": harmful_texts}
    table = pl.concat(
        pl.read_parquet(stored.directory / "rejected.parquet").select(
            pl.lit(name).alias("text_set"),
            pl.lit(stored.document["path"]).alias("file"),
            pl.all(),
        )
        for name, stored in sets.items()
    )
    num_read = sum(stored.document["num_read"] for stored in sets.values())
    reasons = table["reason"].value_counts(sort=True).rows() if table.height else []
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons) or "none"
    return Artifact(
        table=table,
        metadata={"num_read": num_read, "reasons": listed},
        checks=(
            check(
                ALL_READABLE,
                table.is_empty(),
                f"{table.height:,} of {num_read:,} rows rejected: {listed}",
                num_rejected=table.height,
            ),
        ),
    )
