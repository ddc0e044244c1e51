"""The columns of a file of rows, with their types: what a reader of the file will meet."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from sot_pipeline.texts.json_row import parse_json
from sot_pipeline.texts.parquet import open_parquet
from sot_pipeline.texts.read import layout_of
from sot_pipeline.texts.row_texts import csv_delimiter
from sot_pipeline.texts.source import MAX_EXPANDED_BYTES, Source, read_source

Kind = Literal["text", "integer", "number", "boolean", "object", "other"]


class Column(NamedTuple):
    """A column, or a member of the objects in one.

    Attributes:
        kind: Of its values, or of the values in its lists; "other" is all that is mixed, nested
            lists, dates and binary values.
        is_list: Whether its values are lists.
        members: Of "object": what the objects hold.
        in_every_row: Whether every row (every object) has it.
    """

    name: str
    kind: Kind
    is_list: bool = False
    members: tuple["Column", ...] = ()
    in_every_row: bool = True


def file_columns(path: Path) -> list[Column]:
    """The columns of a JSONL, JSON, CSV, TSV or Parquet file, compressed or not, in their order.

    Raises:
        InputError: not readable.
    """
    source = read_source(path, may_be_empty=True)
    if not source.data:
        return []
    if source.file_type == "parquet":
        file = open_parquet(source.data, path, max_expanded_bytes=MAX_EXPANDED_BYTES)
        return [_arrow_column(part.name, part.type) for part in file.schema_arrow]
    if source.file_type in ("csv", "tsv"):
        return [Column(name, "text") for name in layout_of(source).header]
    return _json_columns(source)


def reading_options(path: Path) -> dict[str, str]:
    """What a reader must be told beside the name: the delimiter of a CSV file (`sep`), the list of
    a JSON object that holds the rows (`field`)."""
    source = read_source(path, may_be_empty=True)
    if source.file_type in ("csv", "tsv"):
        delimiter = csv_delimiter(path)
        return {} if delimiter == "," else {"sep": delimiter}
    if source.file_type == "json" and source.data:
        whole = json.loads(source.data)
        if isinstance(whole, dict):
            return {"field": next(name for name, value in whole.items() if isinstance(value, list))}
    return {}


@dataclass
class _Seen:
    """What was met under one name."""

    num: int = 0
    num_lists: int = 0
    num_nulls: int = 0
    num_objects: int = 0
    kinds: set[str] = field(default_factory=set)
    members: dict[str, "_Seen"] = field(default_factory=dict)

    def add(self, value: Any) -> None:
        self.num += 1
        if isinstance(value, list):
            self.num_lists += 1
            for item in value:
                self._note(item if not isinstance(item, list) else ...)
        elif value is None:
            self.num_nulls += 1
        else:
            self._note(value)

    def _note(self, value: Any) -> None:
        if isinstance(value, dict):
            self.kinds.add("object")
            self.num_objects += 1
            for name, inner in value.items():
                self.members.setdefault(name, _Seen()).add(inner)
        elif value is not None:
            self.kinds.add(_KINDS.get(type(value), "other"))

    def columns(self) -> list[Column]:
        return [seen.column(name, self.num_objects) for name, seen in self.members.items()]

    def column(self, name: str, num_holders: int) -> Column:
        mixed = 0 < self.num_lists < self.num - self.num_nulls
        kind = "other" if mixed else _joined(self.kinds)
        members = tuple(self.columns()) if kind == "object" else ()
        return Column(
            name, kind, bool(self.num_lists) and not mixed, members, self.num == num_holders
        )


_KINDS = {str: "text", bool: "boolean", int: "integer", float: "number"}


def _joined(kinds: set[str]) -> Kind:
    if not kinds:
        return "text"  # nothing but nulls
    if kinds == {"integer", "number"}:
        return "number"
    return next(iter(kinds)) if len(kinds) == 1 else "other"  # pyright: ignore[reportReturnType]


def _json_columns(source: Source) -> list[Column]:
    rows = _Seen()
    for record in layout_of(source).records:
        rows.add(parse_json(source.data[record.start : record.stop].decode("utf-8")))
    return rows.columns()


def _arrow_column(name: str, kind: pa.DataType, *, in_list: bool = False) -> Column:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_list and not in_list:
        return _arrow_column(name, kind.value_type, in_list=True)._replace(is_list=True)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        members = (kind.field(i) for i in range(kind.num_fields))
        return Column(name, "object", False, tuple(_arrow_column(m.name, m.type) for m in members))
    return Column(name, _arrow_kind(kind))


def _arrow_kind(kind: pa.DataType) -> Kind:
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if is_text or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    return "number" if pa.types.is_floating(kind) else "other"
