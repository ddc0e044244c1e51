"""All that a report needs, as plain numbers, strings and frames."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from sot_pipeline.errors import InputError
from sot_pipeline.report.embedding_map import EmbeddingMap

LEDGER_COLUMNS = ("sample_id", "line", "kept", "rank", "log_weight")
DECISION_COLUMNS = ("sample_id", "decision", "reviewer", "note", "decided")
CHANGE_COLUMNS = ("change", "text_set", "sample_id", "rank_before", "rank_after", "because")
SCORE_COLUMNS = ("method", "seed", "score", "value", "low", "high")


@dataclass(frozen=True)
class InputSet:
    """A text set that went in. `role`: custom, safe, harmful, or an evaluation set."""

    role: str
    name: str
    num_rows: int
    num_rejected: int = 0
    format: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class FitSummary:
    """How the weights were found. `objective_trace`: `[steps]`, the value of Eq. 5."""

    objective_trace: np.ndarray
    converged: bool
    num_steps: int
    epsilon: float
    lambda_push: float
    tau: float | None = None
    residual: float | None = None
    tolerance: float | None = None
    marginal_errors: tuple[float, ...] = ()


@dataclass(frozen=True)
class CutSummary:
    """A cut with a stated risk, made with reference rows that were held out; rates are shares.

    `contamination`: of the custom rows, with its 95 % interval. `max_false_keep_rate`: of rows
    like the harmful reference's, as asked for. `false_keep_rate`: what is to be expected
    of them at most, (k + 1) / (m + 1) where k of m held-out ones stay. `held_out_safe_kept`: of the held-out safe rows, above the cut.
    """

    contamination: float
    contamination_low: float
    contamination_high: float
    max_false_keep_rate: float
    false_keep_rate: float
    num_held_out_harmful: int
    num_held_out_safe: int
    held_out_safe_kept: float


def held_out_harmful_kept(rate: float, num_held_out: int) -> str:
    """How many of the held-out harmful rows lie above a cut, in words.

    Args:
        rate: A cut's (k + 1) / (m + 1); 0 where nothing can stay.
        num_held_out: m. Rows that tie with the cut are counted in k, but go.
    """
    count = max(0, round(rate * (num_held_out + 1)) - 1)
    return f"{'no more than ' if count else ''}{count:,} of {num_held_out:,}"


@dataclass(frozen=True)
class ReportCheck:
    """A check and its sentence, which says what was found."""

    name: str
    status: Literal["passed", "warned", "failed"]
    sentence: str


@dataclass(frozen=True)
class Coverage:
    """Do the references reach the custom rows? As `transport.diagnostics.reference_coverage` says.

    `uncovered`: `[rows]` bool, beyond both reaches. `safe_cost`, `harmful_cost`: `[rows]`, to the
    nearest row of each, unit of the cost, as are the `*_radius`, how far a reference reaches.
    `most_expected`: share of uncovered rows from which on the check warns.
    """

    uncovered: np.ndarray
    safe_cost: np.ndarray
    harmful_cost: np.ndarray
    safe_radius: float
    harmful_radius: float
    most_expected: float


@dataclass(frozen=True)
class ReportData:
    """What `render_report` shows.

    Attributes:
        task: Name of the custom set.
        created: When, as text.
        inputs: The text sets.
        embedder: Which encoder made the vectors.
        ledger: One line per custom row: `sample_id, line, kept, rank, log_weight` (natural
            logs, any constant); if there, also `source_id, file, category, reason, explanation,
            pull, push, nearest_safe, safe_similarity, nearest_harmful, harmful_similarity,
            harmful_category, harmful_p_value, disagreeing_methods`, and `prompt, response`, which
            only `show_text` lets into the report.
        references: The reference rows, safe before harmful, each in its set's order: `text_set,
            sample_id`, and, if there, `line, source_id, category`.
        fit: How the weights were found.
        cut: How the cut was found; None where the number of rows was set beforehand.
        settings: `block.field` -> value.
        fingerprints: Asset or file -> hash.
        environment: Hardware, versions, minutes: label -> text.
        points: Coordinates of the map towards harm, from `embedding_map`.
        neighbours: Coordinates of the map of neighbourhoods, from `neighbourhoods`.
        coverage: Which custom rows lie far from both references.
        num_kept_by_cut: Rows that the cut alone keeps, the best by rank; None: all that are kept.
        decisions: What reviewers decided: `sample_id, decision, reviewer, note, decided`.
        changes: Since the purification before, as `changes.compare` tells them, one row each;
            None on a first one.
        change_summary: Of the same, in numbers.
        num_kept_against_cut, num_dropped_against_cut: Rows that reviewers moved.
        evaluation: Long frame `method, seed, score, value, low, high` and, if there,
            `num_judged, num_missing` and what trainings took (`tables.CostRow`). Scores: see
            `tables.SCORES`, methods: `methods`.
        quality: Of the compared selections, as `selection_quality` returns it; None where the
            truth about the rows is not known.
        selection_costs: Selection -> `seconds` and `peak_memory_bytes` of scoring the rows.
        own_method: Of the methods, the one that the task's adapter was trained with.
        judge: Who judged the answers, with the version of its prompt.
        checks: In the order they are shown.
        rejected: `line, reason, detail` and, if there, `text_set`.
        show_text: Include excerpts of removed and borderline rows. They may be harmful text.
        max_rows: Rows per table; a report says what it leaves out.
        num_borderline: How many rows on either side of the cut are shown first.
        max_bytes: Size of the page; what does not fit is left out of the ledger's explanations
            first, and the page says what was.

    Raises:
        InputError: a frame lacks a column.
    """

    task: str
    created: str
    inputs: tuple[InputSet, ...]
    embedder: str
    ledger: pl.DataFrame
    fit: FitSummary
    cut: CutSummary | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    references: pl.DataFrame | None = None
    points: EmbeddingMap | None = None
    neighbours: EmbeddingMap | None = None
    coverage: Coverage | None = None
    decisions: pl.DataFrame | None = None
    num_kept_by_cut: int | None = None
    changes: pl.DataFrame | None = None
    change_summary: Mapping[str, Any] = field(default_factory=dict)
    num_kept_against_cut: int = 0
    num_dropped_against_cut: int = 0
    evaluation: pl.DataFrame | None = None
    quality: pl.DataFrame | None = None
    selection_costs: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    own_method: str = "sot"
    judge: str = ""
    checks: tuple[ReportCheck, ...] = ()
    rejected: pl.DataFrame | None = None
    show_text: bool = False
    max_rows: int = 500
    num_borderline: int = 25
    max_bytes: int = 10_000_000

    def __post_init__(self) -> None:
        _need(self.ledger, LEDGER_COLUMNS, "ledger")
        if self.ledger.is_empty():
            raise InputError("the ledger has no rows; a report needs one row or more")
        if self.evaluation is not None:
            _need(self.evaluation, SCORE_COLUMNS, "evaluation")
        if self.rejected is not None:
            _need(self.rejected, ("line", "reason", "detail"), "rejected")
        if self.references is not None:
            _need(self.references, ("text_set", "sample_id"), "references")
        if self.decisions is not None:
            _need(self.decisions, DECISION_COLUMNS, "decisions")
        if self.changes is not None:
            _need(self.changes, CHANGE_COLUMNS, "changes")


def _need(frame: pl.DataFrame, columns: tuple[str, ...], name: str) -> None:
    if missing := [column for column in columns if column not in frame.columns]:
        raise InputError(
            f"the report's {name} frame lacks {', '.join(missing)} (it has "
            f"{', '.join(frame.columns)}); expected {', '.join(columns)}"
        )
