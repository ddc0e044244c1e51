"""Known labels of custom rows: for measuring how well methods find harm, and nothing else."""

from pathlib import Path

import polars as pl

from sot_pipeline.errors import InputError

COLUMNS = ("id", "label", "source")
# Labels that answer "is it harmful?", as booleans and numbers are written
WORDS = {"true": "harmful", "1": "harmful", "1.0": "harmful",
         "false": "benign", "0": "benign", "0.0": "benign"}  # fmt: skip
READERS = {
    ".parquet": pl.read_parquet,
    ".csv": lambda path: pl.read_csv(path, infer_schema=False),
    ".jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
}


def read_labels(path: Path) -> pl.DataFrame:
    """Read `id`, `label` and, where there is one, `source` of rows; other columns are left alone.

    Args:
        path: .jsonl, .csv or .parquet. `id` is what the custom set calls the row (its `id`
            column). `label`, whatever its case, is "harmful" (also true or 1), "refusal", or
            anything else for benign rows (also false or 0): a word that is not known is a benign
            row, so a misspelt "harmful" is one too. Rows without an id or a label are not
            labelled and left out: the file may be the custom file itself, if it has these columns.

    Returns:
        `source_id`, `label` in lower case, `source` (null where not told), as text.

    Raises:
        InputError: the file cannot be read, lacks a column, has lists or objects in one of them,
            names an id twice, or labels no row.
    """
    table = _read(path)
    missing = [name for name in COLUMNS[:2] if name not in table.columns]
    if missing:
        raise InputError(
            f"{path}: has no column {' or '.join(missing)}, only {', '.join(table.columns)}; "
            "labels need `id` and `label`"
        )
    _require_plain_values(path, table)
    source = pl.col("source") if "source" in table.columns else pl.lit(None).alias("source")
    texts = table.select(pl.col("id").alias("source_id"), "label", source).cast(pl.String)
    word = pl.col("label").str.strip_chars().str.to_lowercase()
    labels = texts.with_columns(
        word.replace(WORDS).alias("label"), pl.col("source").str.strip_chars()
    )
    # empty cells are as good as none
    labels = labels.with_columns(pl.when(pl.all() != "").then(pl.all()))
    labels = labels.drop_nulls(["source_id", "label"])
    if labels.is_empty():
        raise InputError(f"{path}: none of its {table.height:,} rows has both an id and a label")
    _require_distinct(path, labels)
    return labels


def _read(path: Path) -> pl.DataFrame:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: labels are read from {', '.join(READERS)} files")
    try:
        return reader(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: the labels cannot be read: {error}") from None


def _require_plain_values(path: Path, table: pl.DataFrame) -> None:
    for name in COLUMNS:
        found = table.schema.get(name)
        if found is None or not (found.is_nested() or found in (pl.Binary, pl.Object)):
            continue
        sort = {pl.List: "lists", pl.Array: "lists", pl.Struct: "objects"}
        raise InputError(
            f"{path}: the column {name} holds {sort.get(found.base_type(), 'bytes')}; expected one "
            "word or number per row"
        )


def _require_distinct(path: Path, labels: pl.DataFrame) -> None:
    repeated = labels.filter(labels["source_id"].is_duplicated())
    if repeated.height:
        raise InputError(
            f"{path}: {repeated['source_id'].n_unique():,} ids occur more than once, "
            f"{repeated['source_id'][0]!r} among them; expected one label per id"
        )
