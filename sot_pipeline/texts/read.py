"""Read a text set: every row becomes a conversation, or is rejected with a reason."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from sot_pipeline.errors import InputError
from sot_pipeline.texts.conversation import (
    canonical_text,
    content_hash,
    joined_text,
    prompt_turns,
)
from sot_pipeline.texts.csv_layout import csv_layout
from sot_pipeline.texts.formats import FORMATS, PROMPT_ONLY, detect_format, to_conversation
from sot_pipeline.texts.json_row import decode_utf8, parse_json_row
from sot_pipeline.texts.layout import Layout, Record, json_layout, jsonl_layout
from sot_pipeline.texts.parquet import parquet_rows
from sot_pipeline.texts.rejection import RowRejected
from sot_pipeline.texts.source import MAX_EXPANDED_BYTES, Source, read_source

MAX_ROW_BYTES = 4 * 2**20
_PROMPT_FORMATS = ("prompt_response", "prompt_completion")
_ROWS_SCHEMA = {
    "sample_id": pl.String,
    "source_id": pl.String,
    "line": pl.Int64,
    "messages": pl.String,
    "prompt": pl.String,
    "response": pl.String,
}
_REJECTED_SCHEMA = {"line": pl.Int64, "reason": pl.String, "detail": pl.String}


class TextSet(NamedTuple):
    """A text set as read; len(rows) + len(rejected) == num_read.

    Attributes:
        rows: sample_id, source_id (the input's `id`, or null), line, messages (JSON text of the
            conversation), prompt, response (null only where it is not required), in file order.
        rejected: line, reason, detail, in file order; never holds a row's text.
        format: the file's row format, one of `FORMATS`.
        file_type: the extension for such a file without its dot, such as "jsonl" or "csv.gz".
        sha256: of the file as it lies on disk.
        num_read: rows met; blank lines are not rows.
        notes: counts of what was read over inside accepted rows: "non_text_parts" (images and
            the like), "tool_calls" (read as text), "turns_after_last_answer".
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    format: str
    file_type: str
    sha256: str
    num_read: int
    notes: dict[str, int]


class _Accepted(NamedTuple):
    line: int
    format: str
    source_id: str | None
    canonical: str
    digest: str
    prompt: str
    response: str | None
    notes: Counter[str]


def read_texts(
    path: Path | str,
    *,
    format: str = "auto",
    require_response: bool = True,
    max_row_bytes: int = MAX_ROW_BYTES,
    max_expanded_bytes: int = MAX_EXPANDED_BYTES,
) -> TextSet:
    """Read JSONL, JSON, CSV, TSV or Parquet (also .gz, .zst) in any of `FORMATS`.

    Args:
        path: the file.
        format: the row format; "auto" takes the one that most rows have and rejects the others.
        require_response: False for evaluation prompts. Then a conversation that does not end
            with an answer has a null response, and its prompt is all of it.
        max_row_bytes: larger rows are rejected, unread.
        max_expanded_bytes: a larger file, compressed or not, is an error.

    `sample_id` is the hash of the conversation plus an occurrence number: it depends neither on
    the format nor on the other rows, but for equal rows before it.

    Raises:
        InputError: the file as a whole cannot be used, or none of its rows can.
    """
    if format not in (*FORMATS, "auto"):
        raise InputError(
            f"format {format!r} is not known; expected auto or one of {', '.join(FORMATS)}."
        )
    source = read_source(path, max_expanded_bytes=max_expanded_bytes)
    accepted: list[_Accepted] = []
    rejected: list[tuple[int, str, str]] = []
    for line, row in _rows(source, max_row_bytes, max_expanded_bytes):
        try:
            if isinstance(row, RowRejected):
                raise row
            accepted.append(_accept(line, row, format, require_response, max_row_bytes))
        except RowRejected as problem:
            rejected.append((line, problem.reason, problem.detail))
    main_format = _main_format(accepted) if format == "auto" else format
    kept = [row for row in accepted if _fits(row.format, main_format)]
    rejected += [
        (
            row.line,
            "other_format",
            f"found {row.format}; expected {main_format}, as most rows have.",
        )
        for row in accepted
        if not _fits(row.format, main_format)
    ]
    rejected.sort(key=lambda row: row[0])
    if not kept:
        raise _no_rows(source, rejected)
    return TextSet(
        rows=_rows_frame(kept),
        rejected=pl.DataFrame(rejected, schema=_REJECTED_SCHEMA, orient="row"),
        format=main_format,
        file_type=source.suffix.removeprefix("."),
        sha256=source.sha256,
        num_read=len(kept) + len(rejected),
        notes=dict(sum((row.notes for row in kept if row.notes), Counter())),
    )


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
    if source.file_type == "parquet":
        yield from parquet_rows(source.data, source.path, max_expanded_bytes=max_expanded_bytes)
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
        line, found, source_id, canonical, digest, joined_text(prompt), response, notes
    )


def _source_id(value: Any) -> str | None:
    """The input's own id as text; an id that is no simple value is taken as absent."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    text.encode("utf-8")  # a lone surrogate raises here, and not when the frame is built
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


def _no_rows(source: Source, rejected: list[tuple[int, str, str]]) -> InputError:
    if not rejected:
        return InputError(f"{source.path} holds no rows; expected one or more.")
    lines: dict[str, list[int]] = {}
    details: dict[str, str] = {}
    for line, reason, detail in rejected:
        lines.setdefault(reason, []).append(line)
        details.setdefault(reason, detail)
    frequent = sorted(lines, key=lambda reason: -len(lines[reason]))[:3]
    reasons = "; ".join(
        f"{reason} in {len(lines[reason]):,} (line {', '.join(map(str, lines[reason][:3]))}): "
        f"{details[reason]}"
        for reason in frequent
    )
    return InputError(
        f"{source.path}:{rejected[0][0]}: none of the {len(rejected):,} rows can be used. "
        f"Most frequent reasons: {reasons}"
    )


def _rows_frame(kept: list[_Accepted]) -> pl.DataFrame:
    seen: Counter[str] = Counter()
    table: list[tuple[str, str | None, int, str, str, str | None]] = []
    for row in kept:
        sample_id = f"{row.digest}-{seen[row.digest]}"
        seen[row.digest] += 1
        table.append((sample_id, row.source_id, row.line, row.canonical, row.prompt, row.response))
    return pl.DataFrame(table, schema=_ROWS_SCHEMA, orient="row")
