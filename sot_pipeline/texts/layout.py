"""Where each row of a JSONL or JSON file begins and ends, found without reading the rows.

Rows are found by bytes alone, so that a row which cannot be read costs no other row, and
so that kept rows can be written again byte for byte.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sot_pipeline.errors import InputError
from sot_pipeline.texts.rejection import RowRejected, column_names

UTF8_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN = re.compile(_STRING + rb'|[\[\]{}]|"', re.DOTALL)
_SCALAR = re.compile(_STRING + rb'|[^\s,\[\]{}":]++', re.DOTALL)


class Record(NamedTuple):
    """One row: its bytes are `data[start:stop]`, with what belongs to it alone (line ending,
    leading blanks in an array). `line` is what messages and frames call it. `cells` are a
    CSV record's fields; `problem` says why the record could not even be split."""

    line: int
    start: int
    stop: int
    cells: tuple[bytes, ...] | None = None
    problem: RowRejected | None = None


class Layout(NamedTuple):
    """A file = data[:head] + the records joined by `separator` + data[tail:], blank lines aside.

    `header` holds the column names of a CSV file, and is empty otherwise.
    """

    head: int
    records: Iterable[Record]
    separator: bytes
    tail: int
    header: tuple[str, ...] = ()


def jsonl_layout(data: bytearray) -> Layout:
    """One record per physical line (LF or CRLF), 1-based; blank lines are no records."""
    head = len(UTF8_BOM) if data.startswith(UTF8_BOM) else 0
    return Layout(head, _lines(data, head), b"", len(data))


def _lines(data: bytearray, start: int) -> Iterator[Record]:
    line = 0
    while start < len(data):
        line += 1
        stop = data.find(b"\n", start) + 1 or len(data)
        if data[start:stop].strip(_BLANK):
            yield Record(line, start, stop)
        start = stop


def json_layout(data: bytearray, path: Path) -> Layout:
    """The elements of a JSON array, or of the only list in a JSON object; `line` counts elements.

    Raises:
        InputError: brackets or commas that do not fit together, no list, several lists.
    """
    start = _skip_space(data, len(UTF8_BOM) if data.startswith(UTF8_BOM) else 0)
    opening = start if data[start : start + 1] == b"[" else _only_list(data, start, path)
    records, tail = _elements(data, opening, path)
    after = _skip_space(data, _skip_space(data, tail) + 1)
    if opening == start and after != len(data):
        raise _broken(path, data, after, "text after the end of the array")
    return Layout(opening + 1, records, b",", tail)


def _elements(data: bytearray, opening: int, path: Path) -> tuple[list[Record], int]:
    """The elements of the array that opens at `opening`, and where the last of them ends."""
    records: list[Record] = []
    position = opening + 1
    first = _skip_space(data, position)
    if data[first : first + 1] == b"]":
        return records, position
    while True:
        stop = _value_end(data, _skip_space(data, position), path)
        records.append(Record(len(records) + 1, position, stop))
        position = _skip_space(data, stop)
        mark = data[position : position + 1]
        if mark == b"]":
            return records, stop
        if mark != b",":
            raise _broken(path, data, position, "no comma or ] after an element")
        position += 1


def _only_list(data: bytearray, start: int, path: Path) -> int:
    """Where the only list among the members of the object at `start` opens."""
    if data[start : start + 1] != b"{":
        raise _broken(path, data, start, "neither [ nor { at the beginning")
    lists: dict[str, int] = {}
    names: list[str] = []
    position, mark = start, b"{"
    while mark in (b"{", b","):
        key_start = _skip_space(data, position + 1)
        if mark == b"{" and data[key_start : key_start + 1] == b"}":
            position = key_start
            break
        key_stop = _value_end(data, key_start, path)
        names.append(data[key_start + 1 : key_stop - 1].decode("utf-8", "replace"))
        colon = _skip_space(data, key_stop)
        if data[colon : colon + 1] != b":" or data[key_start : key_start + 1] != b'"':
            raise _broken(path, data, colon, "no colon after a key")
        value = _skip_space(data, colon + 1)
        if data[value : value + 1] == b"[":
            lists[names[-1]] = value
        position = _skip_space(data, _value_end(data, value, path))
        mark = bytes(data[position : position + 1])
    if data[position : position + 1] != b"}" or _skip_space(data, position + 1) != len(data):
        raise _broken(path, data, position, "no } at the end of the object")
    if len(lists) != 1:
        found = f"lists under {column_names(lists)}" if lists else "no list"
        raise InputError(
            f"{path}: a JSON object with {found} (its keys: {column_names(names)}); expected an "
            "array of rows, or an object with one list of rows. Keep only that list."
        )
    return next(iter(lists.values()))


def _value_end(data: bytearray, start: int, path: Path) -> int:
    """Where the JSON value at `start` ends, by its brackets and quotes alone."""
    if data[start : start + 1] not in (b"{", b"["):
        if scalar := _SCALAR.match(data, start):
            return scalar.end()
        raise _broken(path, data, start, "no value")
    depth = 0
    for token in _TOKEN.finditer(data, start):
        mark = token[0]
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return token.end()
        elif mark == b'"':
            raise _broken(path, data, token.start(), "a text that never ends")
    raise _broken(path, data, start, "an element that never ends")


def _skip_space(data: bytearray, position: int) -> int:
    match = _SPACE.match(data, position)
    return match.end() if match else position


def _broken(path: Path, data: bytearray, position: int, found: str) -> InputError:
    line = data.count(b"\n", 0, position) + 1
    return InputError(
        f"{path}:{line}: found {found}; expected a whole JSON array of rows. "
        "Mend the file at that line, or write one object per line as .jsonl: then a broken "
        "row costs only itself."
    )
