"""A training job as a file: all that a process elsewhere needs in order to train.

    {"base": "model", "rows": "rows.parquet", "output_dir": "adapter", "result": "result.json",
     "recipe": {"num_epochs": 1.0, "batch_size": 16}}

Rows are a parquet file with a column `messages` (a conversation as JSON) and optionally `weight`
and `kept_tokens` (lists of booleans, see `finetune_lora`), or a JSON Lines file of
`{"messages": [...], "weight": 1.0}`. Relative paths are taken from the job's folder.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sot_pipeline.durable import write_durably
from sot_pipeline.errors import InputError
from sot_pipeline.rendering import Conversation

if TYPE_CHECKING:  # torch takes seconds; whoever only writes a job does not wait for it
    from sot_pipeline.finetuning.defences.defence import Defence
    from sot_pipeline.finetuning.loop import StepReport
    from sot_pipeline.finetuning.safety import SafetyTexts
    from sot_pipeline.finetuning.train import FinetuneResult


class DefenceChoice(BaseModel):
    """A defence of the registry, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, Any] = {}


class TrainingJob(BaseModel):
    """The arguments of `finetune_lora` as values and files.

    Attributes:
        name: Of the run, where it is tracked.
        result: Where what came out is written: the fields of `FinetuneResult`, or the error.
        recipe: Fields of `Recipe`.
        safety: JSON of the fields of `SafetyTexts`; read where there is a defence.
        tracking: Where the numbers of each step go beside the log, see `tracking.open_tracker`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "training"
    base: str
    base_revision: str | None = None
    rows: Path
    output_dir: Path
    result: Path
    recipe: dict[str, Any] = {}
    defence: DefenceChoice | None = None
    safety: Path | None = None
    checkpoint_dir: Path | None = None
    checkpoint_every: int | None = Field(default=None, ge=1, description="steps")
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    tracking: str | None = None
    card: dict[str, Any] = {}

    def seen_from(self, folder: Path) -> "TrainingJob":
        """The same job with its relative paths taken from a folder."""
        folder = folder.resolve()
        paths: dict[str, Any] = {
            name: folder / value for name, value in dict(self).items() if isinstance(value, Path)
        }
        base = folder / self.base  # else the name of a model on the hub
        return self.model_copy(update=paths | ({"base": str(base)} if base.is_dir() else {}))


def read_job(path: Path) -> TrainingJob:
    """A job from its file, its paths made absolute.

    Raises:
        InputError: no such file, not JSON, or fields that a job does not have.
    """
    try:
        job = TrainingJob.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read the training job {path}: {error.strerror}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise InputError(f"{path} is no training job: {problems}") from None
    return job.seen_from(path.parent)


class JobRows(NamedTuple):
    """Conversations, their weights, and which of their answer tokens to learn (None: all)."""

    conversations: list[Conversation]
    weights: np.ndarray
    kept_tokens: list[np.ndarray] | None


def write_rows(
    path: Path,
    conversations: Sequence[Conversation],
    weights: np.ndarray,
    kept_tokens: Sequence[np.ndarray] | None = None,
) -> None:
    """Conversations with their weights, as a job reads them."""
    messages = [json.dumps(conversation) for conversation in conversations]
    table = pl.DataFrame({"messages": messages, "weight": weights})
    if kept_tokens is not None:
        lists = [np.asarray(row, dtype=bool).tolist() for row in kept_tokens]
        table = table.with_columns(pl.Series("kept_tokens", lists, dtype=pl.List(pl.Boolean)))
    table.write_parquet(path)


def read_rows(path: Path) -> JobRows:
    """What `write_rows` wrote; rows without a weight count one.

    Raises:
        InputError: no such file, or a file of another kind.
    """
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
            rows: list[Any] = [json.loads(messages) for messages in table["messages"]]
            weights = table["weight"] if "weight" in table.columns else np.ones(len(rows))
            kept: Any = table["kept_tokens"].to_list() if "kept_tokens" in table.columns else None
        else:
            lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
            rows = [line["messages"] for line in lines]
            weights = [line.get("weight", 1.0) for line in lines]
            given = any("kept_tokens" in line for line in lines)
            kept = [line["kept_tokens"] for line in lines] if given else None
        kept = None if kept is None else [_booleans(row) for row in kept]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        pl.exceptions.PolarsError,
    ) as error:
        raise InputError(
            f"cannot read the rows of a training job from {path} ({error}): expected parquet with "
            "a column `messages`, or JSON Lines with a key `messages`"
        ) from error
    return JobRows(rows, np.asarray(weights, dtype=np.float64), kept)


def _booleans(row: list[Any]) -> np.ndarray:
    if not all(isinstance(kept, bool) for kept in row):
        raise TypeError("kept_tokens holds something else than true and false")
    return np.array(row, dtype=bool)


def train(job: TrainingJob, on_step: "Callable[[StepReport], None] | None" = None):
    """Run a job in this process.

    Raises:
        InputError: as `finetune_lora`, or a recipe or defence that does not exist.
    """
    rows = read_rows(job.rows)  # first: it needs no torch

    from sot_pipeline.finetuning.train import finetune_lora

    return finetune_lora(
        job.base,
        rows.conversations,
        rows.weights,
        job.output_dir,
        _recipe(job.recipe),
        base_revision=job.base_revision,
        kept_tokens=rows.kept_tokens,
        defence=_defence(job.defence),
        safety=_safety(job.safety) if job.safety else None,
        checkpoint_dir=job.checkpoint_dir,
        checkpoint_every=job.checkpoint_every,
        checkpoint_seconds=job.checkpoint_seconds,
        on_step=on_step,
        card=job.card,
    )


def write_result(path: Path, result: "FinetuneResult") -> None:
    write_durably(path, json.dumps({"result": result._asdict()}).encode())


def write_error(path: Path, error: InputError) -> None:
    write_durably(path, json.dumps({"error": str(error)}).encode())


def read_result(path: Path) -> "FinetuneResult":
    """What a job came to.

    Raises:
        InputError: what the training itself raised.
        FileNotFoundError: it has not ended.
    """
    from sot_pipeline.finetuning.train import FinetuneResult

    content = json.loads(path.read_bytes())
    if "error" in content:
        raise InputError(content["error"])
    return FinetuneResult(**content["result"])


def _recipe(fields: Mapping[str, Any]):
    from sot_pipeline.finetuning.recipe import Recipe

    known = {field.name for field in dataclasses.fields(Recipe)}
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise InputError(f"a recipe has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    if "target_modules" in fields:
        fields = {**fields, "target_modules": tuple(fields["target_modules"])}
    return Recipe(**fields)


def _defence(choice: DefenceChoice | None) -> "Defence | None":
    if choice is None:
        return None
    from sot_pipeline.finetuning.defences.registry import make_defence

    return make_defence(choice.name, choice.options)


def _safety(path: Path) -> "SafetyTexts":
    from sot_pipeline.finetuning.safety import SafetyTexts

    try:
        return SafetyTexts(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"cannot read the safety texts {path} ({error}): expected JSON with "
            f"{' and '.join(SafetyTexts._fields)}"
        ) from error
