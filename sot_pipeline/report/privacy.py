"""What a report shows of people: personal data is replaced, and names are left out where asked for."""

import dataclasses
from pathlib import Path
from typing import Any

import polars as pl

from sot_pipeline.pii import redact, redact_id
from sot_pipeline.report.data import ReportData

_OF_PEOPLE = ("reviewer", "note", "decided")
_BY_REVIEWER = "a reviewer's decision"


def redacted(data: ReportData) -> ReportData:
    """The same report with personal data in ids, file names, notes and errors replaced by its kind.

    These are words of the input's and the reviewers' authors. Texts of rows are replaced where
    they are shown; all else is computed.
    """
    return dataclasses.replace(
        data,
        inputs=tuple(dataclasses.replace(one, name=redact(one.name)) for one in data.inputs),
        ledger=_redacted(data.ledger, "file"),
        references=_if_any(data.references),
        decisions=_if_any(data.decisions, "reviewer", "note"),
        changes=_if_any(data.changes, "because_of"),
        rejected=_if_any(data.rejected, "detail"),
    )


def anonymous(data: ReportData) -> ReportData:
    """The same report without who reviewed, what they noted and when, and without folders of this
    machine."""
    changes = data.changes
    if changes is not None and "because_of" in changes.columns:
        by_reviewer = pl.col("because").fill_null("").str.starts_with(_BY_REVIEWER)
        changes = changes.with_columns(because_of=pl.when(~by_reviewer).then("because_of"))
    decisions = data.decisions
    if decisions is not None:
        decisions = decisions.with_columns(pl.lit(None, pl.String).alias(n) for n in _OF_PEOPLE)
    return dataclasses.replace(
        data,
        embedder=_without_folder(data.embedder),
        settings={name: _without_folder(value) for name, value in data.settings.items()},
        decisions=decisions,
        changes=changes,
    )


def _redacted(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """A frame with its source ids and the named columns redacted, as far as it has them."""
    columns = [
        pl.Series(name, [None if v is None else redact(v) for v in frame[name]], pl.String)
        for name in names
        if name in frame.columns and frame[name].dtype == pl.String
    ]
    if "source_id" in frame.columns:
        pairs = zip(frame["source_id"], frame["sample_id"], strict=True)
        ids = [None if one is None else redact_id(str(one), sample) for one, sample in pairs]
        columns.append(pl.Series("source_id", ids, pl.String))
    return frame.with_columns(columns)


def _if_any(frame: pl.DataFrame | None, *names: str) -> pl.DataFrame | None:
    return None if frame is None else _redacted(frame, *names)


def _without_folder(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
