"""The rows of an Arrow file (IPC file or stream, as `datasets` keeps them), with a cap."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from sot_pipeline.errors import InputError
from sot_pipeline.texts.formats import READ_COLUMNS
from sot_pipeline.texts.parquet import check_expanded, expanded_bytes, first_line, require_columns


def open_arrow(
    data: bytearray, path: Path, *, max_expanded_bytes: int
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema, and the batches of rows one by one, each checked before it is used.

    Raises:
        InputError: not readable as Arrow, or (while the batches are gone through) larger than
            the cap or broken.
    """
    try:
        if data.startswith(b"ARROW1"):
            file = pa.ipc.open_file(pa.BufferReader(data))
            batches = map(file.get_batch, range(file.num_record_batches))
            return file.schema, _checked(batches, path, max_expanded_bytes)
        stream = pa.ipc.open_stream(pa.BufferReader(data))
        return stream.schema, _checked(iter(stream), path, max_expanded_bytes)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _broken(path, error) from error


def _checked(batches: Iterator[pa.RecordBatch], path: Path, cap: int) -> Iterator[pa.RecordBatch]:
    num_bytes = 0
    try:
        for batch in batches:
            batch.validate(full=True)  # the format trusts its offsets; a stranger's may lie
            num_bytes += batch.nbytes
            check_expanded(num_bytes, path, cap)
            yield batch
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from error


def arrow_rows(
    data: bytearray, path: Path, *, max_expanded_bytes: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based record number, row) of every record; only the columns of `READ_COLUMNS`.

    Raises:
        InputError: not readable, too large, or without a known column.
    """
    schema, batches = open_arrow(data, path, max_expanded_bytes=max_expanded_bytes)
    require_columns(schema.names, path)
    wanted = [name for name in READ_COLUMNS if name in schema.names]
    first, num_bytes = 1, 0
    for batch in batches:
        try:
            frame = pl.DataFrame(pl.from_arrow(batch.select(wanted)))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
            raise _broken(path, error) from error
        num_bytes += expanded_bytes(frame)
        check_expanded(num_bytes, path, max_expanded_bytes)
        yield from enumerate(frame.iter_rows(named=True), first)
        first += len(batch)


def _broken(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"{path} cannot be read as Arrow ({first_line(error)}): it is broken or cut short. "
        "Fetch or write the file again."
    )
