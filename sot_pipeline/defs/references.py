"""Propose rows for a task's harmful reference, and add those that a person accepts."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.defs.assets.costs import saved_center
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.scoring import purified_assets, score_source
from sot_pipeline.defs.store import Stored
from sot_pipeline.references.ledger import Chosen, Ledger, Row, row_id

OWN_ROWS = "removed rows"  # the source of candidates where no file is given
_NEEDED = (
    "custom_texts", "custom_embeddings", "safe_embeddings", "harmful_embeddings", "pull_cost",
    "explanations",
)  # fmt: skip
_COLUMNS = (
    "sample_id", "messages", "kept", "log_weight", "safe_similarity", "harmful_similarity",
)  # fmt: skip


class Proposed(NamedTuple):
    """Rows for a person to read; `path` is None if there are none."""

    path: Path | None
    rows: list[Row]
    num_rows: int  # looked at
    num_far: int  # of them, rows far from both references
    num_candidates: int  # of them, rows that nobody was asked about yet, each text once
    num_covered: int  # candidates that a proposed row stands for
    num_without_answer: int  # rows left out, unless texts.prompt_only_harmful takes them
    num_unreadable: int  # rows left out for other reasons


class _Candidates(NamedTuple):
    table: pl.DataFrame  # `source` and `_COLUMNS`
    vectors: np.ndarray
    rejected: pl.DataFrame | None = None


class Accepted(NamedTuple):
    """What `accept_rows` did."""

    path: Path  # the file of all accepted rows
    rows: list[Row]  # those that were not in it before


def ledger_of(home: Home, task: str) -> Ledger:
    home.read_task(task)  # a wrong name is an error, not an empty ledger
    return Ledger(home.references(task))


def propose_rows(home: Home, task: str, sources: Sequence[str], *, count: int) -> Proposed:
    """Find rows that lie far from both references, and write a few that stand for them.

    Args:
        sources: Files of new rows or attacks; without any, the rows that the task's cut removed.
        count: Most rows to propose.

    Raises:
        InputError: the task has not been purified, or a file cannot be read.
    """
    from sot_pipeline.references.representatives import REACH_QUANTILE, representatives, suspicion
    from sot_pipeline.transport.cost import directions_from
    from sot_pipeline.transport.diagnostics import reference_coverage

    ledger = ledger_of(home, task)
    assets = purified_assets(home, task, _NEEDED)
    parts = [_rows_of(home, task, source) for source in sources] or [_removed_rows(assets)]
    table = pl.concat([part.table for part in parts])
    vectors = np.concatenate([part.vectors for part in parts])
    safe, harmful = (np.asarray(assets[f"{n}_embeddings"].array()) for n in ("safe", "harmful"))
    center = saved_center(assets["pull_cost"])
    coverage = reference_coverage(vectors, safe, harmful, center=center, quantile=REACH_QUANTILE)
    rows = np.flatnonzero(coverage.uncovered & _unseen(table, ledger.known_ids()))
    counts = {
        "num_rows": table.height,
        "num_far": int(coverage.uncovered.sum()),
        "num_candidates": len(rows),
        **_left_out(parts),
    }
    if len(rows) == 0:
        return Proposed(None, [], num_covered=0, **counts)
    own = assets["explanations"].table().select("kept", "log_weight")
    origin = np.zeros(vectors.shape[1], dtype=np.float32)
    chosen = representatives(
        directions_from(vectors[rows], origin if center is None else center),
        count,
        reach=coverage.harmful_radius,
        weights=np.sqrt(
            suspicion(table["log_weight"].to_numpy()[rows], own["log_weight"].to_numpy())
        ),
    )
    proposed = [
        _proposal(row, own, cluster_size=int(size), num_within_reach=int(near))
        for row, size, near in zip(
            table[rows[chosen.rows]].iter_rows(named=True),
            chosen.cluster_sizes,
            chosen.num_within_reach,
            strict=True,
        )
    ]
    path = ledger.propose(proposed) if proposed else None
    return Proposed(path, proposed, num_covered=chosen.num_covered, **counts)


def accept_rows(home: Home, task: str, pending: str | None, chosen: Chosen) -> Accepted:
    """Add pending rows to the task's harmful reference; every step can be repeated."""
    ledger = ledger_of(home, task)
    rows = ledger.accept(pending, chosen)
    if ledger.accepted():
        add_harmful_source(home, task, ledger.accepted_path)
    ledger.settle()  # last: until here a crash leaves rows to accept again
    return Accepted(ledger.accepted_path, rows)


def refuse_rows(home: Home, task: str, pending: str | None, chosen: Chosen) -> list[Row]:
    """Drop pending rows, never to propose them again."""
    ledger = ledger_of(home, task)
    rows = ledger.refuse(pending, chosen)
    ledger.settle()
    return rows


def add_harmful_source(home: Home, task: str, path: Path) -> None:
    """Make a file part of a task's harmful reference; once is enough."""
    files = home.read_task(task)
    if str(path) not in files.harmful:
        home.write_task(task, files.model_copy(update={"harmful": (*files.harmful, str(path))}))


def _rows_of(home: Home, task: str, source: str) -> _Candidates:
    settings, _ = home.settings(task)
    scored = score_source(
        home, task, source, require_response=not settings.texts.prompt_only_harmful
    )
    table = scored.scores.with_columns(scored.messages, pl.lit(source).alias("source"))
    return _Candidates(table.select("source", *_COLUMNS), scored.vectors, scored.rejected)


def _removed_rows(assets: dict[str, Stored]) -> _Candidates:
    texts, explanations = assets["custom_texts"].table(), assets["explanations"].table()
    table = texts.select("sample_id", "messages").join(
        explanations, on="sample_id", how="left", maintain_order="left"
    )
    removed = np.flatnonzero(~table["kept"].to_numpy())
    return _Candidates(
        table[removed].select(pl.lit(OWN_ROWS).alias("source"), *_COLUMNS),
        assets["custom_embeddings"].array()[removed],
    )


def _unseen(table: pl.DataFrame, known: Collection[str]) -> np.ndarray:
    """Rows that nobody was asked about, each text once."""
    ids = table["sample_id"].map_elements(row_id, return_dtype=pl.String)
    return (ids.is_first_distinct() & ~ids.is_in(list(known))).to_numpy()


def _left_out(parts: Sequence[_Candidates]) -> dict[str, int]:
    reasons = [
        reason
        for part in parts
        if part.rejected is not None
        for reason in part.rejected["reason"].to_list()
    ]
    without_answer = reasons.count("missing_answer")
    return {
        "num_without_answer": without_answer,
        "num_unreadable": len(reasons) - without_answer,
    }


def _proposal(row: Row, own: pl.DataFrame, *, cluster_size: int, num_within_reach: int) -> Row:
    """A line of the pending file: the row, and why it was proposed."""
    evidence = {name: row[name] for name in ("source", "sample_id", "kept", "log_weight")}
    return {
        "id": row_id(row["sample_id"]),
        "messages": json.loads(row["messages"]),
        "proposal": evidence
        | {
            # the place it has, or would have, among the task's own rows; those up to cut_rank stay
            "rank": 1 + int((own["log_weight"] > row["log_weight"]).sum()),
            "cut_rank": int(own["kept"].sum()),
            "safe_similarity": row["safe_similarity"],
            "harmful_similarity": row["harmful_similarity"],
            "cluster_size": cluster_size,
            "num_within_reach": num_within_reach,
        },
    }
