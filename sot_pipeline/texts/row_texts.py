"""The text values in a file of rows: looked through, or replaced with nothing else touched.

A text value is a JSON string that is no key, a CSV cell below the header, a string of a Parquet
column at any depth. A value that is itself JSON (a conversation in a CSV cell) counts by the
texts in it. Numbers, keys, column names and binary values are no text values.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sot_pipeline.errors import InputError
from sot_pipeline.texts.csv_layout import guess_delimiter
from sot_pipeline.texts.kept_rows import appearing_whole, compressing, parquet_codec
from sot_pipeline.texts.layout import Record
from sot_pipeline.texts.parquet import open_parquet
from sot_pipeline.texts.read import layout_of
from sot_pipeline.texts.source import MAX_EXPANDED_BYTES, Source, read_source

_STRING = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")([ \t\r\n]*:)?', re.DOTALL)
_BATCH = 128

Change = Callable[[str], str]


def row_texts(path: Path) -> Iterator[list[str]]:
    """The text values of each row, row by row; of a file that `write_kept_rows` wrote.

    Raises:
        InputError: not readable.
    """
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    for _ in _each_row(read_source(path, may_be_empty=True), note):
        yield found.copy()
        found.clear()


def rewrite_texts(path: Path, change: Change) -> int:
    """Replace a file by one in which every text value is what `change` makes of it.

    Rows without a changed value keep their bytes (Parquet: their values); so does all that is no
    text value. The file is replaced whole or not at all.

    Returns:
        The number of rows with a changed value.

    Raises:
        InputError: not readable, or a Parquet column that cannot be written again as it was.
    """
    source = read_source(path, may_be_empty=True)
    with appearing_whole(path) as file, compressing(file, source.compression) as out:
        if source.file_type == "parquet" and source.data:
            return _rewrite_parquet(source, out, change)
        return _rewrite_text(source, out, change)


def num_rows(path: Path) -> int:
    """How many rows a file holds that `write_kept_rows` wrote."""
    source = read_source(path, may_be_empty=True)
    if not source.data:
        return 0
    if source.file_type == "parquet":
        file = open_parquet(source.data, path, max_expanded_bytes=MAX_EXPANDED_BYTES)
        return file.metadata.num_rows
    return sum(1 for _ in layout_of(source).records)


def _each_row(source: Source, change: Change) -> Iterator[None]:
    if not source.data:
        return
    if source.file_type == "parquet":
        for batch in _batches(source):
            columns = [column.to_pylist() for column in batch.columns if _holds_text(column.type)]
            for row in range(len(batch)):
                for column in columns:
                    _changed_value(column[row], change)
                yield
        return
    for record in layout_of(source).records:
        _changed_record(source, record, change)
        yield


def _rewrite_text(source: Source, out: IO[bytes], change: Change) -> int:
    view = memoryview(source.data)
    position = num_changed = 0
    for record in layout_of(source).records if source.data else ():
        out.write(view[position : record.start])
        before = bytes(view[record.start : record.stop])
        after = _changed_record(source, record, change)
        out.write(after)
        num_changed += after != before
        position = record.stop
    out.write(view[position:])
    return num_changed


def _changed_record(source: Source, record: Record, change: Change) -> bytes:
    raw = bytes(source.data[record.start : record.stop])
    if record.cells is None:
        return _to_bytes(_changed_json(raw.decode("utf-8"), change))
    before = [cell.decode("utf-8") for cell in record.cells]
    after = [_changed_text(cell, change) for cell in before]
    if after == before:
        return raw
    delimiter = _delimiter(source)
    ending = raw[len(raw.rstrip(b"\r\n")) :]
    return _to_bytes(delimiter.join(_csv_cell(cell, delimiter) for cell in after)) + ending


def _changed_json(text: str, change: Change) -> str:
    """JSON text with its strings changed, but for the keys; every other byte stays."""

    def replaced(match: re.Match[str]) -> str:
        if match[2] is not None:
            return match[0]
        before = json.loads(match[1])
        after = _changed_text(before, change)
        return match[1] if after == before else _json_string(after)

    return _STRING.sub(replaced, text)


def _changed_text(text: str, change: Change) -> str:
    if text.lstrip()[:1] in ("{", "[") and _is_json(text):
        return _changed_json(text, change)
    return change(text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json_string(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a character, which only an escape can write
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False)


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8")


def _csv_cell(cell: str, delimiter: str) -> str:
    if any(mark in cell for mark in (delimiter, '"', "\r", "\n")):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def csv_delimiter(path: Path) -> str:
    """What parts the cells of a CSV or TSV file."""
    return _delimiter(read_source(path, may_be_empty=True))


def _delimiter(source: Source) -> str:
    if source.file_type == "tsv":
        return "\t"
    first_line = re.split(rb"[\r\n]", source.data[: 1 << 20], maxsplit=1)[0]
    return guess_delimiter(first_line.decode("utf-8-sig", "replace")) or ","


def _batches(source: Source) -> Iterator[pa.RecordBatch]:
    file = open_parquet(source.data, source.path, max_expanded_bytes=MAX_EXPANDED_BYTES)
    yield from file.iter_batches(batch_size=_BATCH)


def _rewrite_parquet(source: Source, out: IO[bytes], change: Change) -> int:
    file = open_parquet(source.data, source.path, max_expanded_bytes=MAX_EXPANDED_BYTES)
    schema = file.schema_arrow
    num_changed = 0
    with pq.ParquetWriter(out, schema, compression=parquet_codec(file)) as writer:
        for batch in file.iter_batches(batch_size=_BATCH):
            rows_changed: set[int] = set()
            columns = [
                _changed_column(column, name, change, rows_changed)
                for name, column in zip(schema.names, batch.columns, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            num_changed += len(rows_changed)
    return num_changed


def _changed_column(
    column: pa.Array, name: str, change: Change, rows_changed: set[int]
) -> pa.Array:
    if not _holds_text(column.type):
        return column
    before = column.to_pylist()
    after = [_changed_value(value, change) for value in before]
    changed = {row for row, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    if not changed:
        return column
    if not pa.array(before, type=column.type).equals(column):
        raise InputError(
            f"the column {name!r} of type {column.type} cannot be written again with other texts "
            "and all else as it was. Save it as texts, or leave its personal data in."
        )
    rows_changed |= changed
    return pa.array(after, type=column.type)


def _changed_value(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return _changed_text(value, change)
    if isinstance(value, dict):
        return {key: _changed_value(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):  # a map's entries are tuples, its keys stay
        if isinstance(value, tuple):
            return (value[0], *(_changed_value(inner, change) for inner in value[1:]))
        return [_changed_value(inner, change) for inner in value]
    return value


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_holds_text(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _holds_text(kind.item_type)
    if _is_list(kind):
        return _holds_text(kind.value_type)
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
