"""What a finding about a text set is, and the rows that it names."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.errors import InputError

Severity = Literal["error", "warning", "note"]

ROW_SCHEMA = {
    "finding": pl.String, "severity": pl.String, "text_set": pl.String, "sample_id": pl.String,
    "file": pl.String, "line": pl.Int64, "like_set": pl.String, "like_sample_id": pl.String,
    "like_file": pl.String, "like_line": pl.Int64, "score": pl.Float64,
}  # fmt: skip


class TextSet(NamedTuple):
    """A text set: `table` holds `sample_id, file, line, prompt, response`, one vector a row."""

    name: str
    table: pl.DataFrame
    vectors: np.ndarray  # [n, d]; [n, 0] where only texts are compared

    @property
    def num_rows(self) -> int:
        return self.table.height

    @property
    def texts(self) -> list[str]:
        columns = self.table.select(pl.col("prompt", "response").fill_null("")).iter_rows()
        return [f"{prompt}\n{response}" for prompt, response in columns]

    @property
    def prompts(self) -> list[str]:
        return self.table["prompt"].fill_null("").to_list()


class Finding(NamedTuple):
    """One fault of the references. `rows` has `ROW_SCHEMA`; it never holds a text."""

    name: str
    severity: Severity  # a note is no fault by itself
    text_set: str
    num_rows: int
    share: float  # of the rows of `text_set`
    message: str
    advice: str
    rows: pl.DataFrame


def finding(
    name: str,
    severity: Severity,
    of: TextSet,
    rows: np.ndarray | Sequence[int],
    message: str,
    advice: str,
    *,
    scores: np.ndarray | None = None,
    like: tuple[TextSet, np.ndarray] | None = None,
) -> Finding:
    """A finding about these rows of a set, each like a row of another one if `like` says so."""
    place = of.table[np.asarray(rows, dtype=np.int64).tolist()].select("sample_id", "file", "line")
    table = place.with_columns(finding=pl.lit(name), severity=pl.lit(severity),
                               text_set=pl.lit(of.name))  # fmt: skip
    if like is not None:
        other = like[0].table[like[1].tolist()]
        table = table.with_columns(
            like_set=pl.lit(like[0].name), like_sample_id=other["sample_id"],
            like_file=other["file"], like_line=other["line"],
        )  # fmt: skip
    if scores is not None:
        table = table.with_columns(score=pl.Series(np.asarray(scores, dtype=np.float64)))
    columns = [
        (pl.col(column) if column in table.columns else pl.lit(None)).cast(kind).alias(column)
        for column, kind in ROW_SCHEMA.items()
    ]
    return Finding(name, severity, of.name, table.height, table.height / max(1, of.num_rows), message,
                   advice, table.select(columns))  # fmt: skip


def check_sets(sets: Sequence[TextSet]) -> None:
    """Raise an InputError unless each set has rows, and one vector of finite numbers a row, all of
    one dimension."""
    for each in sets:
        if each.num_rows == 0:
            raise InputError(f"the {each.name} set has no rows; expected one or more")
        vectors = each.vectors
        if vectors.ndim != 2 or len(vectors) != each.num_rows or not np.isfinite(vectors).all():
            raise InputError(
                f"the {each.name} set has {each.num_rows} rows and vectors of shape {vectors.shape}, or "
                "some are not finite; expected one vector of finite numbers a row"
            )
    widths = {each.name: each.vectors.shape[1] for each in sets}
    if len(set(widths.values())) > 1:
        raise InputError(
            f"vectors have different dimensions ({widths}): they come from different models. "
            "Embed all with the same model."
        )
