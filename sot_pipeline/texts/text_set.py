"""A text set as read: its rows, what was rejected, and each file it came from."""

from hashlib import sha256
from typing import NamedTuple

import polars as pl

ROWS_SCHEMA = {
    "sample_id": pl.String,
    "source_id": pl.String,
    "file": pl.String,
    "line": pl.Int64,
    "messages": pl.String,
    "prompt": pl.String,
    "response": pl.String,
    "category": pl.String,
}
REJECTED_SCHEMA = {
    "file": pl.String,
    "line": pl.Int64,
    "reason": pl.String,
    "detail": pl.String,
}


class FileRead(NamedTuple):
    """One file of a text set.

    Attributes:
        name: as the `file` columns call it.
        format: its row format, one of `FORMATS`; None if it has no row that can be used.
        file_type: the extension for such a file without its dot, such as "jsonl" or "csv.gz".
        sha256, num_bytes: of the file as it lies on disk.
        num_read, num_rejected: rows met; blank lines are not rows.
        licences: accepted rows by what their `licence` or `license` column says, "" for those
            that say nothing; empty if none says anything.
    """

    name: str
    format: str | None
    file_type: str
    sha256: str
    num_bytes: int
    num_read: int
    num_rejected: int
    licences: dict[str, int]


class TextSet(NamedTuple):
    """A text set as read; len(rows) + len(rejected) == num_read.

    Attributes:
        rows: sample_id, source_id (the input's `id`, or null), file, line, messages (JSON text of
            the conversation), prompt, response (null only where it is not required), category
            (what the input calls the row's kind, or null), file by file, in file order.
        rejected: file, line, reason, detail, file by file, in file order; never holds a row's text.
        files: what was read from each.
        notes: counts of what was read over inside accepted rows: "non_text_parts" (images and
            the like), "tool_calls" (read as text), "turns_after_last_answer",
            "unusable_categories" (no text, too long or not printable: read as null).
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    files: tuple[FileRead, ...]
    notes: dict[str, int]

    @property
    def num_read(self) -> int:
        return sum(file.num_read for file in self.files)

    @property
    def format(self) -> str:
        """The row format, or the formats of several files, joined by commas."""
        return ", ".join(dict.fromkeys(f.format for f in self.files if f.format is not None))

    @property
    def file_type(self) -> str:
        """The file type, or the types of several files, joined by commas."""
        return ", ".join(dict.fromkeys(file.file_type for file in self.files))

    @property
    def sha256(self) -> str:
        """Of the only file; of several, the hash of their hashes (hexadecimal, one a line)."""
        hashes = [file.sha256 for file in self.files]
        return hashes[0] if len(hashes) == 1 else sha256("\n".join(hashes).encode()).hexdigest()
