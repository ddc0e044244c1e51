"""A spreadsheet of rows to decide on: written for any spreadsheet program, read from any."""

import csv
import io
import json
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sot_pipeline.durable import write_durably
from sot_pipeline.errors import InputError, nearest
from sot_pipeline.reviews.cells import protect, unprotect
from sot_pipeline.reviews.decisions import DECISIONS, Decision, text_id

ANSWERS = ("decision", "note", "reviewer")
LONGEST_CELL = 30_000  # characters; Excel takes 32,767 and drops the rest
_SHOWN_PROBLEMS = 10


class Answer(NamedTuple):
    """One row of a sheet with a decision in it."""

    where: str
    decision: Decision


def write_sheet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows to .csv (UTF-8 with byte order mark, CRLF, no cell a formula) or .jsonl.

    Args:
        rows: Texts, numbers, booleans or None, the same keys in each; texts are `visible`.

    Raises:
        InputError: the name ends otherwise.
    """
    if path.suffix == ".jsonl":
        lines = (json.dumps(dict(row), ensure_ascii=False) for row in rows)
        content = "".join(f"{line}\n" for line in lines)
    elif path.suffix == ".csv":
        content = "\ufeff" + _csv_text(rows)
    else:
        raise InputError(f"{path}: expected a name ending in .csv or .jsonl")
    write_durably(path, content.encode("utf-8"))


def _csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(rows[0] if rows else ["sample_id", *ANSWERS])
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return protect(value) if isinstance(value, str) else value


def read_answers(
    path: Path, known_texts: Collection[str], *, reviewer: str, decided: str
) -> list[Answer]:
    """Decisions of a sheet, as Excel, LibreOffice or Google Sheets saves it; rows without a
    decision are skipped.

    Args:
        known_texts: `text_id`s that a decision may be about.
        reviewer: Whose decisions they are, where the sheet does not say.
        decided: ISO time to record.

    Raises:
        InputError: everything that is wrong with the file, with its lines; nothing is returned
            unless all of it can be used.
    """
    records = list(_jsonl(path) if path.suffix == ".jsonl" else _csv(path))
    problems: list[str] = []
    answers: dict[str, Answer] = {}
    for where, record in records:
        word = unicodedata.normalize("NFKC", record["decision"]).strip().casefold()
        sample_id = record["sample_id"].strip()
        if not word:
            continue
        text = text_id(sample_id)
        if word not in DECISIONS:
            problems.append(
                f"{where}: decision {record['decision'][:40]!r}; expected one of "
                f"{', '.join(DECISIONS)}, or nothing ({nearest(word, DECISIONS)})"
            )
        elif text not in known_texts:
            problems.append(
                f"{where}: no row of the task has the sample_id {sample_id[:40]!r}; leave that "
                "column as it was exported, or empty the decision"
            )
        elif text in answers and answers[text].decision.decision != word:
            first = answers[text]
            problems.append(
                f"{where}: {word!r}, but {first.where} says {first.decision.decision!r} about the "
                "same text; decide on one (copies of a text share a decision)"
            )
        else:
            name = record["reviewer"].strip() or reviewer
            said = Decision(sample_id, word, name, record["note"].strip(), decided)
            answers[text] = Answer(where, said)
    _raise(path, problems)
    return list(answers.values())


def _raise(path: Path, problems: Sequence[str]) -> None:
    if problems:
        shown = "\n  ".join(problems[:_SHOWN_PROBLEMS])
        more = len(problems) - _SHOWN_PROBLEMS
        raise InputError(
            f"{path}: nothing was imported, {len(problems)} rows cannot be used:\n  {shown}"
            + (f"\n  and {more:,} more" if more > 0 else "")
        )


Record = tuple[str, dict[str, str]]


def _jsonl(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: no JSON ({error}); expected one object a line") from None
        missing = [
            n for n in ("sample_id", "decision") if not isinstance(row, dict) or n not in row
        ]
        if missing:
            raise InputError(f"{where}: without {', '.join(missing)}; expected an object with them")
        cells = {name: row.get(name) for name in ("sample_id", *ANSWERS)}
        wrong = [name for name, value in cells.items() if not isinstance(value, str | None)]
        if wrong:
            raise InputError(f"{where}: {', '.join(wrong)}: expected texts or null")
        yield where, {name: value or "" for name, value in cells.items()}


def _csv(path: Path) -> Iterator[Record]:
    text = _text_of(path)
    skipped = 0
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep="):  # a hint of Excel's
        text, skipped = rest, 1
    reader, columns = _header(text, path)
    line = reader.line_num + 1
    try:
        for row in reader:
            where = f"{path}:{line + skipped}"
            line = reader.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if any(cell.strip() for cell in row[len(columns) :]):
                raise InputError(
                    f"{where}: {len(row)} cells, the header has {len(columns)}; a cell with a "
                    "separator in it has to be in quotes"
                )
            cells = dict(zip(columns, row, strict=False))
            yield where, {n: unprotect(cells.get(n, "")) for n in ("sample_id", *ANSWERS)}
    except csv.Error as error:
        raise InputError(
            f"{path}:{line + skipped}: {error}; expected a CSV file, save it again as one"
        ) from None


def _header(text: str, path: Path) -> tuple[Any, list[str]]:
    """A reader behind the header, and the header's names; commas, semicolons or tabs separate."""
    found: list[str] = []
    for delimiter in ",;\t":
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
        except csv.Error:
            continue
        columns = [cell.strip().casefold() for cell in header]
        if {"sample_id", "decision"} <= set(columns):
            repeated = {name for name in columns if name and columns.count(name) > 1}
            if repeated & {"sample_id", *ANSWERS}:
                raise InputError(f"{path}:1: column {', '.join(sorted(repeated))} appears twice")
            return reader, columns
        found = max(found, columns, key=len)
    missing = [name for name in ("sample_id", "decision") if name not in found]
    raise InputError(
        f"{path}:1: no column {' and no column '.join(missing)} (found "
        f"{', '.join(repr(name[:30]) for name in found[:8]) or 'an empty file'}); expected the "
        "header of the exported sheet in the first line, with its English names"
    )


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}; expected a .csv or .jsonl file"
        ) from None
    if content.startswith(b"PK\x03\x04"):
        raise InputError(f"{path}: a workbook (.xlsx or .ods); save it as CSV UTF-8 first")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is no UTF-8 (Latin-1 or a Windows "
            'code page?); save the sheet as "CSV UTF-8"'
        ) from None
