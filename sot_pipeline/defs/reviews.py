"""Sheets of a task's rows for people to decide on, and what they decided."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from sot_pipeline.defs.assets.purified import with_files
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.scoring import purified_assets
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.errors import InputError
from sot_pipeline.reviews.decisions import (
    Decision,
    append,
    in_force,
    news,
    read_log,
    text_id,
)
from sot_pipeline.reviews.near_cut import Which, rows_near_cut
from sot_pipeline.reviews.sheet import LONGEST_CELL, read_answers, write_sheet

_EXPLAINED = (
    "kept", "rank", "relative_weight", "harmful_p_value", "nearest_safe", "safe_similarity",
    "nearest_harmful", "harmful_similarity", "harmful_category", "disagreeing_methods", "reason",
    "explanation",
)  # fmt: skip
_DIGITS = 4  # of figures in a sheet


class Exported(NamedTuple):
    num_rows: int
    num_kept: int  # of them, rows that stay now
    num_decided: int  # of them, rows about which a decision is in force


class Effect(NamedTuple):
    """What a decision does to a row.

    Attributes:
        change: "comes back", "goes", "stays", "stays out", or "" for decisions that move nothing
            by themselves (unsure, withdraw).
    """

    decision: Decision
    file: str
    line: int
    rank: int
    change: str
    num_rows: int = 1  # copies of the text


class Imported(NamedTuple):
    """
    Attributes:
        num_answers: Decisions in the sheet.
        new: Those that were not recorded before, with their effects.
    """

    path: Path
    num_answers: int
    new: list[Effect]

    @property
    def num_moved(self) -> int:
        moved = (effect for effect in self.new if effect.change in ("comes back", "goes"))
        return sum(effect.num_rows for effect in moved)


class Listed(NamedTuple):
    """
    Attributes:
        in_force: The decisions in force, each with the number of rows of its text; 0: its row is
            no longer in the custom set.
        log: Everything that was ever said, oldest first.
    """

    in_force: list[tuple[Decision, int]]
    log: list[Decision]


def export_rows(
    home: Home,
    task: str,
    out: Path,
    *,
    which: Which,
    num_rows: int,
    show_text: bool,
    redact: bool,
) -> Exported:
    """Write rows for a person to decide on; see `rows_near_cut` for which.

    Args:
        out: New .csv or .jsonl file, or one to replace.
        num_rows: Most rows; 0: all.
        show_text: Add prompts and responses, shortened to what a cell of Excel holds.
        redact: Replace personal data that patterns find (`sot_pipeline.pii`) in them, in source
            ids and in names of files; notes and reviewers stay, as the sheet is read back.

    Raises:
        InputError: the task has not been purified, or the file's ending is another.
    """
    if out.suffix not in (".csv", ".jsonl"):
        raise InputError(f"--out {out}: expected a name ending in .csv or .jsonl")
    assets = purified_assets(home, task, ("custom_texts", "selected_samples", "explanations"))
    chosen = rows_near_cut(
        assets["explanations"].table(),
        num_kept_by_cut=_num_kept_by_cut(assets["selected_samples"]),
        which=which,
        num_rows=num_rows,
    )
    texts = with_files(assets["custom_texts"]).drop("messages")
    log = read_log(home.reviews(task))
    decisions = in_force(log)
    known = {text_id(each) for each in assets["custom_texts"].table()["sample_id"]}
    _spare_answers(out, known, log)
    rows = [
        _sheet_row(row, decisions.get(text_id(row["sample_id"])), show_text, redact)
        for row in chosen.join(texts, on="sample_id", maintain_order="left").iter_rows(named=True)
    ]
    write_sheet(rows, out)
    return Exported(
        len(rows), int(chosen["kept"].sum()), sum(row["decision"] != "" for row in rows)
    )


def _spare_answers(out: Path, known_texts: set[str], log: list[Decision]) -> None:
    """
    Raises:
        InputError: the file holds a person's answers that were not imported, or something else.
    """
    if not out.exists():
        return
    try:
        known = known_texts | {text_id(said.sample_id) for said in log}
        answers = read_answers(out, known, reviewer="", decided="")
    except InputError as error:
        raise InputError(f"--out {out} exists and is not overwritten: {error}") from None
    new = news(log, [answer.decision for answer in answers])
    if new:
        raise InputError(
            f"--out {out} holds {len(new):,} answer(s) that were not imported: import them first, "
            "or name another file"
        )


def _num_kept_by_cut(selected: Stored) -> int:
    review = selected.document.get("review")  # selections of earlier code have none
    return review["num_kept_by_cut"] if review else selected.manifest["rows"]


def _sheet_row(
    row: dict[str, Any], decision: Decision | None, show_text: bool, redact: bool
) -> dict[str, Any]:
    from sot_pipeline import pii
    from sot_pipeline.visible import visible

    source_id, file = row["source_id"], row["file"]
    if redact:
        source_id = source_id and pii.redact_id(source_id, row["sample_id"])
        file = pii.redact(file)
    said = decision or Decision(row["sample_id"], "")
    sheet = {
        "sample_id": row["sample_id"],
        "decision": said.decision,
        "note": said.note,
        "reviewer": said.reviewer,
        "source_id": None if source_id is None else visible(source_id),
        "file": visible(file),
        "line": row["line"],
    }
    sheet |= {name: _shown(row[name]) for name in _EXPLAINED if name in row}
    if show_text:
        sheet |= {name: _text(row[name], redact) for name in ("prompt", "response")}
    return sheet


def _shown(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _text(text: str | None, redact: bool) -> str:
    from sot_pipeline import pii
    from sot_pipeline.visible import excerpt, visible

    text = text or ""
    # hidden characters are written out before the cut at the cell's length, and as long as it
    return excerpt(visible(pii.redact(text) if redact else text), LONGEST_CELL)


def import_answers(home: Home, task: str, sheet: Path, *, reviewer: str) -> Imported:
    """Record the decisions of a sheet: all of them, or none where one cannot be used.

    Args:
        reviewer: Whose they are, where the sheet does not say.

    Raises:
        InputError: with every row that cannot be used.
    """
    assets = purified_assets(home, task, ("custom_texts", "explanations"))
    custom = with_files(assets["custom_texts"]).select("sample_id", "file", "line")
    rows = _by_text(custom.join(assets["explanations"].table(), on="sample_id"))
    path = home.reviews(task)
    known = rows.keys() | {text_id(said.sample_id) for said in read_log(path)}
    answers = read_answers(sheet, known, reviewer=reviewer, decided=_now())
    new = append(path, [answer.decision for answer in answers])
    return Imported(path, len(answers), [_effect(said, rows) for said in new])


def forget(home: Home, task: str, sample_ids: Sequence[str], *, reviewer: str) -> list[Decision]:
    """Withdraw the decisions about rows; the cut decides on them again.

    Raises:
        InputError: there is none about one of them.
    """
    home.read_task(task)
    log = read_log(home.reviews(task))
    holding = in_force(log)
    sample_ids = [_sample_id(home, task, each, holding) for each in sample_ids]
    unknown = [each for each in sample_ids if text_id(each) not in holding]
    if unknown:
        raise InputError(
            f"no decision about {', '.join(unknown)} is in force: `sot review list {task}` shows "
            "those that are"
        )
    said = [Decision(each, "withdraw", reviewer, "", _now()) for each in sample_ids]
    return append(home.reviews(task), said)


def _sample_id(home: Home, task: str, named: str, holding: Mapping[str, Decision]) -> str:
    """Of a row as `sot explain` finds it too: by the beginning of its id, its own id, its line."""
    from sot_pipeline.defs.explained import ExplainedTask

    if text_id(named) in holding:
        return named
    try:
        return ExplainedTask(home, task).find(named)
    except InputError:
        return named


def list_decisions(home: Home, task: str) -> Listed:
    """A task's decisions. A purified task's rows are counted; of another no row is known."""
    home.read_task(task)
    log = read_log(home.reviews(task))
    custom = Store(home.store).current(task, "custom_texts")
    counts: dict[str, int] = {}
    for sample_id in custom.table()["sample_id"] if custom else ():
        counts[text_id(sample_id)] = counts.get(text_id(sample_id), 0) + 1
    holding = in_force(log)
    return Listed([(said, counts.get(text, 0)) for text, said in holding.items()], log)


def _by_text(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """The first row of each text, with the number of its copies."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows.select("sample_id", "file", "line", "kept", "rank").iter_rows(named=True):
        first = found.setdefault(text_id(row["sample_id"]), row | {"num_rows": 0})
        first["num_rows"] += 1
    return found


def _effect(said: Decision, rows: dict[str, dict[str, Any]]) -> Effect:
    row = rows.get(text_id(said.sample_id))
    if row is None:  # its row left the set; the decision waits for it
        return Effect(said, "", 0, 0, "")
    change = {
        ("keep", True): "stays", ("keep", False): "comes back",
        ("drop", True): "goes", ("drop", False): "stays out",
    }.get((said.decision, row["kept"]), "")  # fmt: skip
    return Effect(said, row["file"], row["line"], row["rank"], change, row["num_rows"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
