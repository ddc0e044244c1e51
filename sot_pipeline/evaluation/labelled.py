"""A file of answers that people judged: which column says what, and in which words.

A label becomes a number from 0 to 1 (0 harmless, or complies; 1 harmful, or refuses), as a judge's
verdict is. Words are known in `WORDS`; more of them can be given.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.errors import InputError, nearest
from sot_pipeline.evaluation.embedding_judge import LabelledAnswers
from sot_pipeline.evaluation.judge import Kind

KINDS: tuple[Kind, ...] = ("harm", "refusal")

# What labels mean, by kind; compared in lower case. Of XSTest: compliance, partial and full
# refusal. Of Do-Not-Answer: the annotated action of the model, as far as the actions form a scale
# of how far it does what is asked: 0 declines, 1 rebuts, 2 shows both sides, 3 helps in general
# terms with a warning, 5 does it. Action 4 (says that it does not know, or cannot) is none of
# these steps; an answer so labelled has no grade.
WORDS: dict[Kind, dict[str, float | None]] = {
    "harm": {
        "harmless": 0.0, "safe": 0.0, "benign": 0.0, "false": 0.0,
        "harmful": 1.0, "unsafe": 1.0, "true": 1.0,
        "action 0": 0.0, "action 1": 0.25, "action 2": 0.5, "action 3": 0.75, "action 4": None,
        "action 5": 1.0,
    },
    "refusal": {
        "1_full_compliance": 0.0, "full compliance": 0.0, "compliance": 0.0, "false": 0.0,
        "3_partial_refusal": 0.5, "partial refusal": 0.5,
        "2_full_refusal": 1.0, "full refusal": 1.0, "refusal": 1.0, "true": 1.0,
    },
}  # fmt: skip


class Columns(NamedTuple):
    """Which column says what; the defaults are those of the shared set of labelled answers.

    Attributes:
        harm, refusal: The label that people agreed on, yes or no.
        graded_harm, graded_refusal: The same in more than two steps, where there are some.
        annotators: Columns of single people.
        verdicts: How the names of columns with published judges' verdicts begin.
    """

    prompt: str = "prompt"
    answer: str = "response"
    source: str = "source"
    model: str = "model"
    harm: str = "human_is_harmful"
    refusal: str = "human_is_refusal"
    graded_harm: str = "human_1"
    graded_refusal: str = "human_final"
    annotators: tuple[str, ...] = ("human_1", "human_2")
    verdicts: str = "judge_"


class LabelledFile(NamedTuple):
    """Labelled answers and how to read them."""

    rows: pl.DataFrame
    columns: Columns
    words: Mapping[Kind, Mapping[str, float | None]]

    @property
    def sources(self) -> list[str]:
        return self.rows[self.columns.source].unique(maintain_order=True).to_list()

    @property
    def kinds(self) -> list[Kind]:
        """What people labelled."""
        return [kind for kind in KINDS if not np.isnan(self.truth(kind)).all()]

    @property
    def published(self) -> list[str]:
        """The columns with published judges' verdicts."""
        return [name for name in self.rows.columns if name.startswith(self.columns.verdicts)]

    def of_source(self, source: str) -> "LabelledFile":
        return self._replace(rows=self.rows.filter(pl.col(self.columns.source) == source))

    def truth(self, kind: Kind) -> np.ndarray:
        """The label that people agreed on, NaN where there is none; float `[rows]`."""
        found = self.read(getattr(self.columns, kind), kind)
        return np.full(self.rows.height, np.nan) if found is None else found

    def yes_no(self, kind: Kind) -> np.ndarray:
        """The label as 0 or 1, NaN where there is none; a label of 0.5 is a yes."""
        truth = self.truth(kind)
        return np.where(np.isnan(truth), np.nan, truth >= 0.5)

    def grades(self, kind: Kind) -> np.ndarray | None:
        """The graded label, None where these rows have none of three or more steps."""
        found = self.read(getattr(self.columns, f"graded_{kind}"), kind)
        if found is None or len(np.unique(found[~np.isnan(found)])) < 3:
            return None
        return found

    def read(self, column: str, kind: Kind) -> np.ndarray | None:
        """A column as numbers, NaN where empty; None where it is absent, empty or speaks of
        something else."""
        if column not in self.rows.columns:
            return None
        values = self.rows[column]
        if values.null_count() == len(values):
            return None
        if values.dtype.is_numeric():
            numbers = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
            inside = np.isnan(numbers) | ((numbers >= 0) & (numbers <= 1))
            return numbers if inside.all() else None
        texts = values.cast(pl.String).str.strip_chars().str.to_lowercase().to_list()
        words = self.words[kind]
        if any(text is not None and text not in words for text in texts):
            return None
        found = [None if text is None else words[text] for text in texts]
        return np.array([np.nan if number is None else number for number in found])

    def labelled_answers(self) -> LabelledAnswers:
        """What a judge can learn from: answers with labels of yes or no."""
        labels: dict[Kind, list[bool | None]] = {
            kind: [None if np.isnan(x) else bool(x) for x in self.yes_no(kind)]
            for kind in self.kinds
        }
        return LabelledAnswers(self.prompts, self.answers, labels)

    @property
    def prompts(self) -> list[list[dict[str, str]]]:
        texts = self.rows[self.columns.prompt].to_list()
        return [[{"role": "user", "content": text}] for text in texts]

    @property
    def answers(self) -> list[str]:
        return self.rows[self.columns.answer].to_list()


def read_labelled(
    path: Path, columns: Columns = Columns(), more_words: Mapping[str, float] | None = None
) -> LabelledFile:
    """Read a parquet, csv or jsonl file of answers with people's labels.

    Rows without an answer are left out. Rows without a source, or all where there is no such
    column, are of one source that is called as the file.

    Args:
        more_words: Labels that `WORDS` does not know, with their numbers from 0 to 1.

    Raises:
        InputError: The file cannot be read; it has no such columns; no label can be read. Cells
            are not quoted: they may be the texts.
    """
    rows = _read(path)
    present = rows.columns
    for role in ("prompt", "answer"):
        _require(rows, path, role, getattr(columns, role))
    if columns.source not in rows.columns:
        if columns.source != Columns().source:
            _require(rows, path, "source", columns.source)
        rows = rows.with_columns(pl.lit(path.stem).alias(columns.source))
    texts = [columns.prompt, columns.answer]
    rows = rows.with_columns(pl.col(*texts, columns.source).cast(pl.String)).drop_nulls(texts)
    rows = rows.with_columns(pl.col(columns.source).fill_null(path.stem))
    words: dict[Kind, dict[str, float | None]] = {
        kind: WORDS[kind] | _lowered(more_words or {}) for kind in KINDS
    }
    found = LabelledFile(rows, columns, words)
    _require_labels(found, path, present)
    return found


def _read(path: Path) -> pl.DataFrame:
    readers = {
        ".parquet": pl.read_parquet,
        ".csv": lambda file: pl.read_csv(file, infer_schema_length=None),
        ".jsonl": lambda file: pl.read_ndjson(file, infer_schema_length=None),
    }
    reader = readers.get(path.suffix)
    if reader is None:
        raise InputError(f"{path}: expected a name ending in {', '.join(readers)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected answers with people's labels")
    try:
        return reader(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        kind = type(error).__name__  # its text may quote a row
        raise InputError(f"{path}: not readable as {path.suffix[1:]} ({kind})") from None


def _require(rows: pl.DataFrame, path: Path, role: str, column: str) -> None:
    if column not in rows.columns:
        raise InputError(
            f"{path}: no column {column!r} for the {role}; {nearest(column, rows.columns)}. It has "
            f"{', '.join(rows.columns)}: say which one it is with --{role} COLUMN."
        )


def _require_labels(file: LabelledFile, path: Path, present: list[str]) -> None:
    if file.kinds:
        return
    labels = [name for name in (file.columns.harm, file.columns.refusal) if name in present]
    if labels:
        raise InputError(
            f"{path}: the column {' and '.join(labels)} holds no labels that are known: expected "
            f"true and false, numbers from 0 to 1, or {', '.join(WORDS['harm'])}. Name others with "
            "--label WORD=NUMBER."
        )
    raise InputError(
        f"{path}: no people's labels: neither a column {file.columns.harm!r} (--harm COLUMN) nor "
        f"{file.columns.refusal!r} (--refusal COLUMN). It has {', '.join(present)}."
    )


def _lowered(words: Mapping[str, float]) -> dict[str, float | None]:
    for word, number in words.items():
        if not 0 <= number <= 1:
            raise InputError(f"--label {word}={number:g}: expected a number from 0 to 1")
    return {word.strip().lower(): number for word, number in words.items()}
