"""Read a text set: every row becomes a conversation, or is rejected with a reason."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from sot_pipeline.errors import InputError
from sot_pipeline.texts.arrow import arrow_rows
from sot_pipeline.texts.conversation import (
    canonical_text,
    content_hash,
    joined_text,
    prompt_turns,
)
from sot_pipeline.texts.csv_layout import csv_layout
from sot_pipeline.texts.formats import (
    CATEGORY_COLUMNS,
    FORMATS,
    LICENCE_COLUMNS,
    PROMPT_ONLY,
    detect_format,
    to_conversation,
)
from sot_pipeline.texts.json_row import decode_utf8, parse_json_row
from sot_pipeline.texts.layout import Layout, Record, json_layout, jsonl_layout
from sot_pipeline.texts.parquet import parquet_rows
from sot_pipeline.texts.rejection import RowRejected
from sot_pipeline.texts.source import MAX_EXPANDED_BYTES, Source, read_source
from sot_pipeline.texts.text_set import REJECTED_SCHEMA, ROWS_SCHEMA, FileRead, TextSet

MAX_ROW_BYTES = 4 * 2**20
_PROMPT_FORMATS = ("prompt_response", "prompt_completion")
_MAX_LICENCE, _MAX_LICENCES = 100, 20
_MAX_CATEGORY = 80  # characters: the name of a kind, not a text


class _Accepted(NamedTuple):
    line: int
    format: str
    source_id: str | None
    canonical: str
    digest: str
    prompt: str
    response: str | None
    licence: str
    category: str | None
    notes: Counter[str]


class _Rejected(NamedTuple):
    line: int
    reason: str
    detail: str


def read_texts(
    path: Path | str,
    *,
    format: str = "auto",
    require_response: bool = True,
    max_row_bytes: int = MAX_ROW_BYTES,
    max_expanded_bytes: int = MAX_EXPANDED_BYTES,
) -> TextSet:
    """Read one file; as `read_text_files`."""
    return read_text_files(
        {Path(path).name: Path(path)},
        format=format,
        require_response=require_response,
        max_row_bytes=max_row_bytes,
        max_expanded_bytes=max_expanded_bytes,
    )


def read_text_files(
    files: Mapping[str, Path],
    *,
    format: str = "auto",
    require_response: bool = True,
    max_row_bytes: int = MAX_ROW_BYTES,
    max_expanded_bytes: int = MAX_EXPANDED_BYTES,
) -> TextSet:
    """Read JSONL, JSON, CSV, TSV, Parquet or Arrow (also .gz, .zst) in any of `FORMATS`.

    Args:
        files: one or more, by name; types and row formats may differ from file to file, and
            among several a file may be empty.
        format: the row format; "auto" takes for each file the one that most of its rows have and
            rejects the others.
        require_response: False for evaluation prompts. Then a conversation that does not end
            with an answer has a null response, and its prompt is all of it.
        max_row_bytes: larger rows are rejected, unread.
        max_expanded_bytes: a larger file, compressed or not, is an error.

    `sample_id` is the hash of the conversation plus an occurrence number in the set: it depends
    neither on the format nor on the other rows, but for equal rows before it.

    Raises:
        InputError: a file as a whole cannot be used, or no row of the set can.
    """
    if format not in (*FORMATS, "auto"):
        raise InputError(
            f"format {format!r} is not known; expected auto or one of {', '.join(FORMATS)}."
        )
    kept: list[tuple[str, _Accepted]] = []
    rejected: list[tuple[str, _Rejected]] = []
    read: list[FileRead] = []
    for name, path in files.items():
        source = read_source(
            path, max_expanded_bytes=max_expanded_bytes, may_be_empty=len(files) > 1
        )
        rows = _rows(source, max_row_bytes, max_expanded_bytes)
        good, bad = _sorted_out(rows, format, require_response, max_row_bytes)
        kept += [(name, row) for row in good]
        rejected += [(name, row) for row in bad]
        read.append(_file_read(name, source, format, good, bad))
    if not kept:
        raise _no_rows(files, rejected)
    return TextSet(
        rows=_rows_frame(kept),
        rejected=pl.DataFrame(
            [(name, *row) for name, row in rejected], schema=REJECTED_SCHEMA, orient="row"
        ),
        files=tuple(read),
        notes=dict(sum((row.notes for _, row in kept if row.notes), Counter())),
    )


def _sorted_out(
    rows: Iterator[tuple[int, dict[str, Any] | RowRejected]],
    format: str,
    require_response: bool,
    max_row_bytes: int,
) -> tuple[list[_Accepted], list[_Rejected]]:
    """The rows of one file that can be used, and the others, by line."""
    accepted: list[_Accepted] = []
    rejected: list[_Rejected] = []
    for line, row in rows:
        try:
            if isinstance(row, RowRejected):
                raise row
            accepted.append(_accept(line, row, format, require_response, max_row_bytes))
        except RowRejected as problem:
            rejected.append(_Rejected(line, problem.reason, problem.detail))
    main_format = _main_format(accepted) if format == "auto" else format
    rejected += [
        _Rejected(
            row.line,
            "other_format",
            f"found {row.format}; expected {main_format}, as most rows have.",
        )
        for row in accepted
        if not _fits(row.format, main_format)
    ]
    kept = [row for row in accepted if _fits(row.format, main_format)]
    return kept, sorted(rejected, key=lambda row: row.line)


def _file_read(
    name: str, source: Source, format: str, kept: list[_Accepted], rejected: list[_Rejected]
) -> FileRead:
    licences = Counter(row.licence for row in kept)
    return FileRead(
        name=name,
        format=(_main_format(kept) if format == "auto" else format) if kept else None,
        file_type=source.suffix.removeprefix("."),
        sha256=source.sha256,
        num_bytes=source.num_bytes,
        num_read=len(kept) + len(rejected),
        num_rejected=len(rejected),
        licences=_most_common(licences) if any(licences) else {},
    )


def _most_common(licences: Counter[str]) -> dict[str, int]:
    """Counts by licence; a column of many values counts the rare ones together."""
    counts = dict(licences.most_common(_MAX_LICENCES))
    others = licences.total() - sum(counts.values())
    return counts | ({"others": others} if others else {})


def layout_of(source: Source) -> Layout:
    """Where the rows of a JSONL, JSON, CSV or TSV source are."""
    if source.file_type == "jsonl":
        return jsonl_layout(source.data)
    if source.file_type == "json":
        return json_layout(source.data, source.path)
    return csv_layout(source.data, source.path, file_type=source.file_type)


def _rows(
    source: Source, max_row_bytes: int, max_expanded_bytes: int
) -> Iterator[tuple[int, dict[str, Any] | RowRejected]]:
    if not source.data:
        return
    if source.file_type in ("parquet", "arrow"):
        read = parquet_rows if source.file_type == "parquet" else arrow_rows
        yield from read(source.data, source.path, max_expanded_bytes=max_expanded_bytes)
        return
    layout = layout_of(source)
    for record in layout.records:
        try:
            yield record.line, _parse(source.data, record, layout.header, max_row_bytes)
        except RowRejected as problem:
            yield record.line, problem


def _parse(
    data: bytearray, record: Record, header: tuple[str, ...], max_row_bytes: int
) -> dict[str, Any]:
    if record.problem:
        raise record.problem
    _check_size(record.stop - record.start, max_row_bytes)
    if record.cells is None:
        return parse_json_row(data[record.start : record.stop])
    if len(record.cells) != len(header):
        raise RowRejected(
            "ragged_row",
            f"found {len(record.cells)} fields; expected {len(header)}, as the header has. "
            "Quote texts that hold delimiters or line breaks.",
        )
    # a CSV file cannot tell an empty text from no value
    return {
        name: decode_utf8(cell) if cell else None
        for name, cell in zip(header, record.cells, strict=True)
    }


def _check_size(num_bytes: int, max_row_bytes: int) -> None:
    if num_bytes > max_row_bytes:
        raise RowRejected(
            "row_too_large",
            f"the row takes {num_bytes:,} bytes; the cap is {max_row_bytes:,}. "
            "Shorten it, or raise max_row_bytes.",
        )


def _accept(
    line: int, row: dict[str, Any], format: str, require_response: bool, max_row_bytes: int
) -> _Accepted:
    notes: Counter[str] = Counter()
    found = detect_format(row) if format == "auto" else format
    try:
        conversation = to_conversation(row, found, require_response=require_response, counts=notes)
        canonical = canonical_text(conversation)
        source_id = _source_id(row.get("id"))
        licence = _licence(row)
        category = _category(row, notes)
        digest = content_hash(canonical)
    except UnicodeEncodeError:
        raise RowRejected(
            "lone_surrogate",
            "half of a UTF-16 surrogate pair (such as \\ud800) stands alone; expected whole "
            "characters. Write the text again from its source.",
        ) from None
    except RecursionError:
        raise RowRejected("too_deep", "values are nested hundreds deep; expected texts.") from None
    _check_size(len(canonical), max_row_bytes)
    has_response = require_response or conversation[-1]["role"] == "assistant"
    prompt = prompt_turns(conversation, has_response=has_response)
    response = conversation[len(prompt)]["content"] if has_response else None
    return _Accepted(
        line=line,
        format=found,
        source_id=source_id,
        canonical=canonical,
        digest=digest,
        prompt=joined_text(prompt),
        response=response,
        licence=licence,
        category=category,
        notes=notes,
    )


def _source_id(value: Any) -> str | None:
    """The input's own id as text; an id that is no simple value is taken as absent."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    text.encode("utf-8")  # a lone surrogate raises here, and not when the frame is built
    return text


def _licence(row: dict[str, Any]) -> str:
    """What the row says about its licence, "" if nothing."""
    given = next((row[c] for c in LICENCE_COLUMNS if row.get(c) is not None), "")
    names = given if isinstance(given, list) else [given]
    text = ", ".join(name.strip() for name in names if isinstance(name, str))[:_MAX_LICENCE]
    text.encode("utf-8")  # a lone surrogate raises here, and not when it is written down
    return text


def _category(row: dict[str, Any], notes: Counter[str]) -> str | None:
    """What kind of row it says it is. Reports and explanations print it, so it must be the short,
    printable name of a kind; anything else is counted and taken as absent."""
    given = next((row[c] for c in CATEGORY_COLUMNS if row.get(c) is not None), None)
    names = given if isinstance(given, list) else [given]
    if given is None or given == "":
        return None
    texts = [name for name in names if isinstance(name, str)]
    joined = ", ".join(texts) if len(texts) == len(names) else ""
    text = " ".join(joined.split()) if len(joined) <= 2 * _MAX_CATEGORY else ""
    if not 0 < len(text) <= _MAX_CATEGORY or not text.isprintable():
        notes["unusable_categories"] += 1
        return None
    return text


def _fits(format: str, main_format: str) -> bool:
    return format == main_format or (format == PROMPT_ONLY and main_format in _PROMPT_FORMATS)


def _main_format(accepted: list[_Accepted]) -> str:
    """The format of most rows; among equals, the one met first."""
    counts = Counter(row.format for row in accepted)
    if set(counts) == {PROMPT_ONLY}:
        return "prompt_response"
    counts.pop(PROMPT_ONLY, None)
    return counts.most_common(1)[0][0] if counts else "prompt_response"


def _no_rows(files: Mapping[str, Path], rejected: list[tuple[str, _Rejected]]) -> InputError:
    paths = [str(path) for path in files.values()]
    where = paths[0] + (f" and {len(paths) - 1} more files" if len(paths) > 1 else "")
    if not rejected:
        return InputError(f"{where} holds no rows; expected one or more.")
    lines: dict[str, list[str]] = {}
    details: dict[str, str] = {}
    for name, row in rejected:
        line = str(row.line) if len(files) == 1 else f"{row.line} of {name}"
        lines.setdefault(row.reason, []).append(line)
        details.setdefault(row.reason, row.detail)
    frequent = sorted(lines, key=lambda reason: -len(lines[reason]))[:3]
    reasons = "; ".join(
        f"{reason} in {len(lines[reason]):,} (line {', '.join(lines[reason][:3])}): "
        f"{details[reason]}"
        for reason in frequent
    )
    first, row = rejected[0]
    return InputError(
        f"{files[first]}:{row.line}: none of the {len(rejected):,} rows "
        f"{'' if len(files) == 1 else 'of ' + where + ' '}can be used. "
        f"Most frequent reasons: {reasons}"
    )


def _rows_frame(kept: list[tuple[str, _Accepted]]) -> pl.DataFrame:
    seen: Counter[str] = Counter()
    table: list[tuple[str, str | None, str, int, str, str, str | None, str | None]] = []
    for name, row in kept:
        sample_id = f"{row.digest}-{seen[row.digest]}"
        seen[row.digest] += 1
        table.append(
            (
                sample_id,
                row.source_id,
                name,
                row.line,
                row.canonical,
                row.prompt,
                row.response,
                row.category,
            )
        )
    return pl.DataFrame(table, schema=ROWS_SCHEMA, orient="row")
