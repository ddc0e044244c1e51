"""Write the rows that stay, in the input's own format."""

import contextlib
import gzip
import os
import secrets
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from sot_pipeline.errors import InputError
from sot_pipeline.texts.arrow import open_arrow
from sot_pipeline.texts.parquet import check_expanded, open_parquet
from sot_pipeline.texts.read import layout_of
from sot_pipeline.texts.source import MAX_EXPANDED_BYTES, Source, read_source

_PARQUET_BATCH = 128


def write_kept_rows(
    source: Path,
    lines: Collection[int],
    destination: Path,
    *,
    expected_sha256: str,
    max_expanded_bytes: int = MAX_EXPANDED_BYTES,
) -> int:
    """Write the rows with these `line` values (see `TextSet.rows`), in file order.

    JSONL and CSV: the rows' own bytes, with byte-order mark and header; only a last row that
    had no line ending gets one. JSON: the array (in its object, if it had one) with the other
    elements cut out. Parquet: the same schema and metadata, all columns; Arrow becomes Parquet
    (see `kept_file_type`). What was compressed is compressed the same way. A file without rows
    stays as it is. The file appears whole or not at all.

    Returns:
        The number of rows written, which is the number of distinct lines.

    Raises:
        InputError: the source changed since it was read (its sha256 is another), a line is no row
            of it, or source and destination are one file.
    """
    read = read_source(source, max_expanded_bytes=max_expanded_bytes, may_be_empty=True)
    if read.sha256 != expected_sha256:
        raise InputError(
            f"{source} changed since it was read (sha256 {read.sha256[:12]}…, expected "
            f"{expected_sha256[:12]}…), so line numbers may mean other rows. Read it again."
        )
    if destination.exists() and destination.samefile(source):
        raise InputError(f"{destination} is the source itself; name another file to write to.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    wanted = {int(line) for line in lines}
    compression = "" if read.file_type == "arrow" else read.compression
    with appearing_whole(destination) as file, compressing(file, compression) as out:
        written = _write(read, wanted, out, max_expanded_bytes)
        if missing := wanted - written:
            raise InputError(
                f"{source} has no row at line {min(missing)} ({len(missing)} such lines); "
                "expected lines from the `line` column of this file."
            )
    return len(written)


def kept_file_type(file_type: str) -> str:
    """The type of what `write_kept_rows` writes for an input of this type."""
    return "parquet" if file_type.startswith("arrow") else file_type


def _write(source: Source, wanted: set[int], out: IO[bytes], cap: int) -> set[int]:
    if not source.data:
        return set()
    if source.file_type == "parquet":
        file = open_parquet(source.data, source.path, max_expanded_bytes=cap)
        batches = _capped(file.iter_batches(batch_size=_PARQUET_BATCH), source.path, cap)
        return _write_parquet(file.schema_arrow, batches, wanted, out, parquet_codec(file))
    if source.file_type == "arrow":
        schema, batches = open_arrow(source.data, source.path, max_expanded_bytes=cap)
        return _write_parquet(schema, batches, wanted, out, "zstd")
    return _write_text(source, wanted, out)


@contextlib.contextmanager
def appearing_whole(destination: Path) -> Iterator[IO[bytes]]:
    """A file under a temporary name, renamed only if all went well."""
    temporary = destination.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def compressing(file: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    if compression == ".gz":
        # no name and no time inside, so that equal rows make equal files
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as out:
            yield out  # pyright: ignore[reportReturnType]
    elif compression == ".zst":
        with zstandard.ZstdCompressor(write_checksum=True).stream_writer(
            file, closefd=False
        ) as out:
            yield out
    else:
        yield file


def _write_text(source: Source, wanted: set[int], out: IO[bytes]) -> set[int]:
    layout = layout_of(source)
    view = memoryview(source.data)
    out.write(view[: layout.head])
    written: set[int] = set()
    last = b"\n"
    for record in layout.records:
        if record.line not in wanted:
            continue
        if written:
            out.write(layout.separator)
        out.write(view[record.start : record.stop])
        written.add(record.line)
        last = source.data[record.stop - 1 : record.stop]
    out.write(view[layout.tail :])
    if source.file_type != "json" and last not in (b"\n", b"\r"):
        out.write(b"\n")
    return written


def _capped(batches: Iterable[pa.RecordBatch], path: Path, cap: int) -> Iterator[pa.RecordBatch]:
    num_bytes = 0
    for batch in batches:
        num_bytes += batch.nbytes
        check_expanded(num_bytes, path, cap)
        yield batch


def _write_parquet(
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    wanted: set[int],
    out: IO[bytes],
    codec: str,
) -> set[int]:
    written: set[int] = set()
    first = 1
    with pq.ParquetWriter(out, schema, compression=codec) as writer:
        for batch in batches:
            keep = np.array([first + i in wanted for i in range(len(batch))], dtype=bool)
            if keep.any():
                writer.write_batch(batch.filter(pa.array(keep)))
            written.update((np.flatnonzero(keep) + first).tolist())
            first += len(batch)
    return written


def parquet_codec(file: pq.ParquetFile) -> str:
    """The compression of the file's first column chunk, in the writer's words."""
    metadata = file.metadata
    name = metadata.row_group(0).column(0).compression.lower() if metadata.num_row_groups else ""
    known = {"uncompressed": "none", "lz4_raw": "lz4", "lz4": "lz4"}
    name = known.get(name, name)
    return name if name in ("none", "snappy", "gzip", "brotli", "zstd", "lz4") else "zstd"
