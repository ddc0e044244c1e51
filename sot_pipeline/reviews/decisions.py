"""The log of what people decided about a task's rows, and which decisions are in force.

One JSON line per statement, oldest first: `sample_id`, `decision`, `reviewer`, `note`, `decided`
(ISO time, UTC). Nothing is ever taken out: the latest `keep` or `drop` of a text is in force until
a `withdraw`; `unsure` is recorded and changes nothing.

A decision is about a **text**. A `sample_id` is the hash of a row's text and the number of its
occurrence in the set; that number moves when a copy further up goes, so it is left out here: copies
of one text share one decision, and it holds wherever in the set the text turns up again.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from sot_pipeline.durable import locked, write_durably
from sot_pipeline.errors import InputError, nearest

DECISIONS = ("keep", "drop", "unsure", "withdraw")
SCHEMA = {
    "sample_id": pl.String,
    "decision": pl.String,
    "reviewer": pl.String,
    "note": pl.String,
    "decided": pl.String,
}


class Decision(NamedTuple):
    """What one person said about one text.

    Attributes:
        sample_id: Of the row the person saw.
        decision: One of `DECISIONS`.
        decided: ISO time, UTC.
    """

    sample_id: str
    decision: str
    reviewer: str = ""
    note: str = ""
    decided: str = ""


def text_id(sample_id: str) -> str:
    """Identity of a row's text: its `sample_id` without the number of the occurrence."""
    return sample_id.partition("-")[0]


def in_force(log: Iterable[Decision]) -> dict[str, Decision]:
    """The decision that holds for each text, by `text_id`: the latest `keep` or `drop` that was
    not withdrawn; `unsure` only where there is none."""
    holding: dict[str, Decision] = {}
    for said in log:
        _hear(holding, said)
    return holding


def _hear(holding: dict[str, Decision], said: Decision) -> None:
    text = text_id(said.sample_id)
    if said.decision == "withdraw":
        holding.pop(text, None)
    elif said.decision != "unsure" or holding.get(text, said).decision == "unsure":
        holding[text] = said


def news(log: Sequence[Decision], said: Iterable[Decision]) -> list[Decision]:
    """The statements that tell something: neither the last one about their text again nor the one
    in force, which a sheet carries; their times do not count."""
    latest = {text_id(each.sample_id): each for each in log}
    holding = in_force(log)
    new = []
    for each in said:
        text = text_id(each.sample_id)
        known = (latest.get(text), holding.get(text))
        if any(one and one[1:4] == each[1:4] for one in known):
            continue
        if each.decision == "withdraw" and text not in holding:
            continue
        new.append(each)
        latest[text] = each
        _hear(holding, each)
    return new


def decision_table(log: Iterable[Decision]) -> pl.DataFrame:
    """Decisions in force as a table of `SCHEMA`, sorted by text."""
    holding = in_force(log)
    return pl.DataFrame([holding[text] for text in sorted(holding)], schema=SCHEMA, orient="row")


def decisions_of_rows(sample_ids: pl.Series, decisions: pl.DataFrame) -> pl.DataFrame:
    """The decision about each row that there is one about, copies of a text included.

    Args:
        sample_ids: Of the rows.
        decisions: A table of `SCHEMA`, as from `decision_table`.

    Returns:
        A table of `SCHEMA` with these rows' ids, in their order.
    """
    text = pl.col("sample_id").str.split("-").list.first().alias("text")
    rows = pl.DataFrame({"sample_id": sample_ids}).with_columns(text)
    said = decisions.with_columns(text).drop("sample_id")
    return rows.join(said, on="text", maintain_order="left").select(*SCHEMA)


def read_log(path: Path) -> list[Decision]:
    """
    Raises:
        InputError: a line is no decision; without a file there are none.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is no UTF-8: restore the file") from None
    return [
        _read_line(line, f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _read_line(line: str, where: str) -> Decision:
    expected = f"expected a JSON object with {', '.join(SCHEMA)}, all texts"
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: no JSON ({error}); {expected}") from None
    if not isinstance(entry, dict):
        raise InputError(f"{where}: {type(entry).__name__}; {expected}")
    said = {name: entry.get(name, "") for name in SCHEMA}
    wrong = [name for name, value in said.items() if not isinstance(value, str)]
    if wrong or not said["sample_id"]:
        raise InputError(f"{where}: {', '.join(wrong) or 'no sample_id'}; {expected}")
    if said["decision"] not in DECISIONS:
        raise InputError(
            f"{where}: decision {said['decision']!r}; expected one of {', '.join(DECISIONS)} "
            f"({nearest(said['decision'], DECISIONS)})"
        )
    return Decision(**said)


def append(path: Path, said: Sequence[Decision]) -> list[Decision]:
    """Add what is new to a log; after a crash the file holds all of it or nothing.

    Returns:
        The statements that were added.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        for left in path.parent.glob(f"{path.name}.*.tmp"):  # by a process that was killed
            left.unlink(missing_ok=True)
        log = read_log(path)
        new = news(log, said)
        if new:
            lines = (json.dumps(each._asdict(), ensure_ascii=False) for each in [*log, *new])
            write_durably(path, "".join(f"{line}\n" for line in lines).encode("utf-8"))
    return new
