"""Text sets as tables: the custom rows, the two references, and what could not be read."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from sot_pipeline.defs.cached_asset import CheckSpec, Stage, cached_asset, check
from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.sources import source_description, source_files
from sot_pipeline.defs.store import Artifact, Store, Stored
from sot_pipeline.errors import InputError

if TYPE_CHECKING:
    from sot_pipeline.texts.fetch import InputFile
    from sot_pipeline.texts.text_set import FileRead

ALL_READABLE = CheckSpec(
    "all_rows_readable", "Every row of the three text sets could be read; the others are listed."
)


def _source(name: str):
    def identify(files: TaskFile, settings: Settings) -> Mapping[str, Any]:
        return source_description(files, name)

    return identify


def _sources(files: TaskFile, settings: Settings) -> Mapping[str, Any]:
    return {name: source_description(files, name) for name in ("custom", "safe", "harmful")}


def _read(stage: Stage, role: str) -> Artifact:
    from sot_pipeline.texts.read import read_text_files

    found = source_files(stage.files, role)
    texts = stage.settings.texts
    text_set = read_text_files(
        {file.name: file.path for file in found},
        format=texts.format,
        require_response=role != "harmful" or not texts.prompt_only_harmful,
        max_row_bytes=int(texts.max_row_megabytes * 1_000_000),
    )
    text_set.rejected.write_parquet(stage.directory / "rejected.parquet")
    files = [
        _file_document(file, read, stage.store)
        for file, read in zip(found, text_set.files, strict=True)
    ]
    document = {
        "name": _short_list([file["name"] for file in files]),
        "path": _short_list([file["location"] for file in files]),
        "sha256": text_set.sha256,
        "format": text_set.format,
        "file_type": text_set.file_type,
        "num_read": text_set.num_read,
        "num_rejected": text_set.rejected.height,
        "licence": _short_list(list(dict.fromkeys(_licence_text(f["licence"]) for f in files))),
    }
    rows = text_set.rows
    if len(files) == 1:
        # the name of the only file tells rows nothing, and a new one should make no work
        rows = rows.with_columns(file=pl.lit(None, pl.String))
    shown = {name: value for name, value in document.items() if name != "sha256"}
    return Artifact(table=rows, document=document | {"files": files}, metadata=shown)


def _file_document(file: "InputFile", read: "FileRead", store: Store) -> dict[str, Any]:
    """Where a file is from, what it is and under which licence; `path` is where it lies, fetched
    files by their path below the store."""
    licence, origin = file.licence or "not stated", file.licence_from
    if read.licences and origin != "task file":
        counts = {name or "not stated": count for name, count in read.licences.items()}
        licence, origin = (next(iter(counts)) if len(counts) == 1 else counts), "column"
    fetched = file.path.is_relative_to(store.root)
    return {
        "name": file.name,
        "location": file.location,
        "path": str(file.path.relative_to(store.root) if fetched else file.path),
        "sha256": read.sha256,
        "bytes": read.num_bytes,
        "revision": file.revision,
        "licence": licence,
        "licence_from": origin,
        "format": read.format,
        "file_type": read.file_type,
        "num_read": read.num_read,
        "num_rejected": read.num_rejected,
    }


def _licence_text(licence: str | Mapping[str, int]) -> str:
    return licence if isinstance(licence, str) else ", ".join(licence)


def _short_list(words: list[str]) -> str:
    more = f" and {len(words) - 2} more" if len(words) > 3 else ""
    return ", ".join(words[:2] if more else words) + more


@cached_asset(
    group="inputs",
    kinds={"polars", "duckdb"},
    settings=("texts",),
    content_versioned=True,
    source=_source("custom"),
)
def custom_texts(stage: Stage) -> Artifact:
    """The fine-tuning rows to purify, one conversation each, in the files' order."""
    return _read(stage, "custom")


@cached_asset(
    group="inputs",
    kinds={"polars", "duckdb"},
    settings=("texts",),
    content_versioned=True,
    source=_source("safe"),
)
def safe_texts(stage: Stage) -> Artifact:
    """The trusted safe reference: rows of the same task, and good answers to risky prompts."""
    return _read(stage, "safe")


@cached_asset(
    group="inputs",
    kinds={"polars", "duckdb"},
    settings=("texts",),
    content_versioned=True,
    source=_source("harmful"),
)
def harmful_texts(stage: Stage) -> Artifact:
    """The harmful reference: prompts answered as they should not be. Tasks may share it."""
    return _read(stage, "harmful")


@cached_asset(
    group="inputs",
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
            pl.col("file").replace_strict(
                {file["name"]: file["location"] for file in stored.document["files"]},
                return_dtype=pl.String,
            ),
            pl.exclude("file"),
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


def read_beside(stage: Stage, path: Path, *, require_response: bool = True) -> pl.DataFrame:
    """Rows of a text set that is no asset, read as the task's own are.

    Raises:
        InputError: a row cannot be read; what is left out without a word would be missed.
    """
    from sot_pipeline.texts.read import read_texts

    found = read_texts(
        path,
        format=stage.settings.texts.format,
        require_response=require_response,
        max_row_bytes=int(stage.settings.texts.max_row_megabytes * 1_000_000),
    )
    if found.rejected.height:
        _, line, reason, detail = found.rejected.row(0)
        raise InputError(f"{path}:{line}: {reason}: {detail}")
    return found.rows
