"""Where each record of a CSV or TSV file begins and ends (RFC 4180), byte-exact.

The standard library's csv module is not used: it neither tells which bytes a record
came from nor has a field limit that is not global to the process.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sot_pipeline.errors import InputError
from sot_pipeline.texts.formats import known_columns
from sot_pipeline.texts.layout import UTF8_BOM, Layout, Record
from sot_pipeline.texts.rejection import RowRejected, column_names

_QUOTED = re.compile(rb'"([^"]*+(?:""[^"]*+)*+)"')
_LINE_END = re.compile(rb"\r\n|\n|\r")


def guess_delimiter(header: str) -> str | None:
    """The delimiter that makes most known columns of a header line; None if none makes any."""
    count = {d: len(known_columns(_plain_cells(header, d))) for d in (",", ";", "\t")}
    best = max(count, key=lambda d: count[d])
    return best if count[best] else None


def _plain_cells(header: str, delimiter: str) -> dict[str, bool]:
    return {cell.strip().strip('"'): True for cell in header.split(delimiter)}


def csv_layout(data: bytearray, path: Path, *, file_type: str) -> Layout:
    """Records after the header; `line` is the first physical line of the record, 1-based.

    A CSV file may use `;` or tabs instead of commas, if its header says so.

    Raises:
        InputError: a header that is not UTF-8, names a column twice or holds no known one; at
            the time the records are gone through, a quoted field that never closes.
    """
    start = len(UTF8_BOM) if data.startswith(UTF8_BOM) else 0
    end_of_line = _LINE_END.search(data, start)
    first_line = bytes(data[start : end_of_line.start() if end_of_line else len(data)])
    delimiter = guess_delimiter(first_line.decode("utf-8", "replace")) or ","
    if file_type == "tsv":
        delimiter = "\t"
    records = _records(data, start, delimiter.encode(), path)
    header_record = next(records, None)
    cells = header_record.cells if header_record else None
    if header_record is None or cells is None:
        raise InputError(f"{path}:1: the header line cannot be read; expected column names.")
    try:
        header = tuple(cell.decode("utf-8") for cell in cells)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:1: the header is not UTF-8. Save it as UTF-8.") from error
    _check_header(header, path)
    return Layout(header_record.stop, records, b"", len(data), header)


def _check_header(header: tuple[str, ...], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(
            f"{path}:1: the header names a column twice ({column_names(twice)}); expected each "
            "name once. Rename or remove one of them."
        )
    if not known_columns(dict.fromkeys(header, True)):
        raise InputError(
            f"{path}:1: the header names no known column (found: {column_names(header)}); expected "
            "for instance prompt and response, instruction and output, or messages. Add a header "
            "line, or rename the columns."
        )


def _records(data: bytearray, start: int, delimiter: bytes, path: Path) -> Iterator[Record]:
    """Split as RFC 4180 says; a quote inside an unquoted field is an ordinary character."""
    unquoted = re.compile(rb"[^\r\n" + re.escape(delimiter) + rb"]*+")
    line = 1
    while start < len(data):
        cells: list[bytes] = []
        position = start
        while True:
            quoted = data[position : position + 1] == b'"'
            field = (_QUOTED if quoted else unquoted).match(data, position)
            if field is None:
                raise _never_closes(path, line + _num_line_ends(data, start, position))
            cells.append(bytes(field[1]).replace(b'""', b'"') if quoted else bytes(field[0]))
            position = field.end()
            if data[position : position + 1] != delimiter:
                break
            position += 1
        problem = None
        if data[position : position + 1] not in (b"", b"\r", b"\n"):
            problem = _bad_quote(line, line + _num_line_ends(data, start, position))
            next_end = _LINE_END.search(data, position)
            position = next_end.start() if next_end else len(data)
        end = _LINE_END.match(data, position)
        stop = end.end() if end else position
        if position > start:  # a blank line is no record
            yield Record(line, start, stop, None if problem else tuple(cells), problem)
        line += _num_line_ends(data, start, stop)
        start = stop


def _never_closes(path: Path, line: int) -> InputError:
    return InputError(
        f"{path}:{line}: a quoted field opens here and never closes, so no later row can be told "
        "apart. Close the quote, or double a quote that is text."
    )


def _bad_quote(first: int, last: int) -> RowRejected:
    return RowRejected(
        "bad_quote",
        f"text follows a closing quote (record of lines {first} to {last}); expected a delimiter. "
        "Double every quote that is part of the text.",
    )


def _num_line_ends(data: bytearray, start: int, stop: int) -> int:
    line_feeds = data.count(b"\n", start, stop)
    return line_feeds + data.count(b"\r", start, stop) - data.count(b"\r\n", start, stop)
