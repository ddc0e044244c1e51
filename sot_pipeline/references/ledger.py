"""What a person was asked about a task's harmful reference, and what they answered.

    pending-<hash>.jsonl   proposed rows with the reason for each; a person reads this file
    accepted.jsonl         rows that belong to the harmful reference from now on
    refused.jsonl          ids of rows that must not be proposed again, without their text

A row is one JSON line: `id`, `messages` (so that every file of rows is a text set of its own),
`proposal` (why it was proposed). A change of a file is whole and on disk, or did not happen; every
step can be repeated after a crash.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sot_pipeline.durable import locked, to_disk, write_durably
from sot_pipeline.errors import InputError

Row = dict[str, Any]

ACCEPTED, REFUSED = "accepted.jsonl", "refused.jsonl"


def row_id(sample_id: str) -> str:
    """Identity of a row's text: its `sample_id` without the number of the occurrence."""
    return sample_id.partition("-")[0]


class Ledger:
    """The files of one task below one folder; safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def accepted_path(self) -> Path:
        return self.folder / ACCEPTED

    def pending(self) -> dict[str, list[Row]]:
        """Rows that wait for an answer, by the name of their file."""
        return {path.name: _read(path) for path in sorted(self.folder.glob("pending-*.jsonl"))}

    def accepted(self) -> list[Row]:
        return _read(self.accepted_path)

    def refused_ids(self) -> set[str]:
        return {row["id"] for row in _read(self.folder / REFUSED)}

    def known_ids(self) -> set[str]:
        """Rows that are not to be proposed: they wait for an answer, or got one."""
        waiting = {row["id"] for rows in self.pending().values() for row in rows}
        return waiting | {row["id"] for row in self.accepted()} | self.refused_ids()

    def propose(self, rows: Sequence[Row]) -> Path:
        """Write rows for a person to read; the same rows make the same file."""
        name = hashlib.blake2b("\n".join(row["id"] for row in rows).encode(), digest_size=6)
        path = self.folder / f"pending-{name.hexdigest()}.jsonl"
        with self._locked():
            _write(path, rows)
        return path

    def accept(self, name: str | None, chosen: "Chosen") -> list[Row]:
        """Add pending rows to the accepted ones; `settle` then takes them from the pending ones.

        Args:
            name: Of the pending file, whole or in part; None if only one waits.
            chosen: Picks the ids among those of the file.

        Returns:
            The rows that were not accepted before.

        Raises:
            InputError: no such file or row, or several files and no name.
        """
        with self._locked():
            rows = self._chosen_rows(name, chosen)
            earlier = self.accepted()
            known = {row["id"] for row in earlier}
            new = [row for row in rows if row["id"] not in known]
            if new:
                _write(self.accepted_path, [*earlier, *new])
        return new

    def refuse(self, name: str | None, chosen: "Chosen") -> list[Row]:
        """Remember pending rows as refused; `settle` then drops them. Returns them."""
        with self._locked():
            rows = self._chosen_rows(name, chosen)
            ids = self.refused_ids() | {row["id"] for row in rows}
            _write(self.folder / REFUSED, [{"id": each} for each in sorted(ids)])
        return rows

    def settle(self) -> None:
        """Take answered rows from the pending files; a file without rows goes."""
        with self._locked():
            answered = {row["id"] for row in self.accepted()} | self.refused_ids()
            for name, rows in self.pending().items():
                left = [row for row in rows if row["id"] not in answered]
                if len(left) < len(rows):
                    _keep(self.folder / name, left)

    def _chosen_rows(self, name: str | None, chosen: "Chosen") -> list[Row]:
        rows = self._pending_rows(name)
        ids = chosen.among([row["id"] for row in rows])
        return [row for row in rows if row["id"] in ids]

    def _pending_rows(self, name: str | None) -> list[Row]:
        pending = self.pending()
        found = [each for each in pending if name is None or name in each]
        if len(found) == 1:
            return pending[found[0]]
        listed = ", ".join(pending) or "none"
        asked = "no file was named" if name is None else f"{name!r} names {len(found)} of them"
        raise InputError(
            f"{self.folder}: {asked}; expected one pending file (there are: {listed}). "
            "`sot references list` shows them, `sot references propose` makes one."
        )

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.folder / ".lock")


class Chosen:
    """Which rows of a pending file an answer is about: all, only some, or all except some."""

    def __init__(self, only: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        if only and exclude:
            raise InputError("got --only and --except; give one of them")
        self.only, self.exclude = ([row_id(each) for each in ids] for ids in (only, exclude))

    def among(self, ids: Sequence[str]) -> set[str]:
        """The chosen ids.

        Raises:
            InputError: an id that was named is not among them.
        """
        unknown = [each for each in (*self.only, *self.exclude) if each not in ids]
        if unknown:
            raise InputError(
                f"{', '.join(unknown)}: no such row in the pending file; expected ids that "
                "`sot references propose` printed"
            )
        return set(self.only or ids) - set(self.exclude)


def _read(path: Path) -> list[Row]:
    """The rows of a file; none if it does not exist."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines()
    return [_row(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def _row(line: bytes, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        raise InputError(
            f"{path}:{number}: found no JSON object with an `id`; restore the line, or remove it"
        )
    return row


def _keep(path: Path, rows: Sequence[Row]) -> None:
    """What is left of a pending file; without rows there is none."""
    if rows:
        _write(path, rows)
    else:
        path.unlink()
        to_disk(path.parent)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_durably(path, "".join(lines).encode())
