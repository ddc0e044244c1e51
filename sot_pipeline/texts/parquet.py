"""The rows of a Parquet file, with a cap on what they expand to."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sot_pipeline.errors import InputError
from sot_pipeline.texts.formats import READ_COLUMNS, known_columns
from sot_pipeline.texts.rejection import column_names


def open_parquet(data: bytearray, path: Path, *, max_expanded_bytes: int) -> pq.ParquetFile:
    """Open, and check the expanded size that the file itself states.

    Raises:
        InputError: not readable as Parquet, or larger than the cap.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as Parquet ({first_line(error)}): it is broken or cut short. "
            "Fetch or write the file again."
        ) from error
    metadata = file.metadata
    stated = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    check_expanded(stated, path, max_expanded_bytes)
    return file


def check_expanded(num_bytes: int, path: Path, cap: int) -> None:
    """Raise `InputError` if the rows take more than `cap` bytes."""
    if num_bytes > cap:
        raise InputError(
            f"{path}: its rows expand to {num_bytes:,} bytes; the cap on a text set is {cap:,}. "
            "Split the file, or raise max_expanded_bytes if it is trusted."
        )


def parquet_rows(
    data: bytearray, path: Path, *, max_expanded_bytes: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based record number, row) of every record; only the columns of `READ_COLUMNS`.

    Raises:
        InputError: not readable, too large, or without a known column.
    """
    file = open_parquet(data, path, max_expanded_bytes=max_expanded_bytes)
    names = file.schema_arrow.names
    wanted = [name for name in READ_COLUMNS if name in names]
    require_columns(names, path)
    try:
        frame = pl.read_parquet(io.BytesIO(data), columns=wanted)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise InputError(
            f"{path} cannot be read as Parquet ({first_line(error)}). Write the file again, "
            "with texts as UTF-8 strings."
        ) from error
    # polars holds repeated texts once, so a small file can be an enormous list of Python texts
    check_expanded(expanded_bytes(frame), path, max_expanded_bytes)
    yield from enumerate(frame.iter_rows(named=True), 1)


def require_columns(names: list[str], path: Path) -> None:
    """Raise `InputError` if no column can hold a question or an answer."""
    if not known_columns(names):
        raise InputError(
            f"{path} has no known column (found: {column_names(list(names))}); expected for "
            "instance prompt and response, instruction and output, or messages. Rename the columns."
        )


def expanded_bytes(frame: pl.DataFrame) -> int:
    """What the texts of a frame take one by one, repeated ones counted each time."""
    total = 0
    for column in frame.iter_columns():
        if isinstance(column.dtype, pl.Categorical | pl.Enum):
            total += int(column.cast(pl.Categorical).cat.len_bytes().sum() or 0)
        else:
            total += int(column.estimated_size())
    return total


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
