"""Where a project's data live, and the task files that name its text sets.

data/
  settings.yaml       defaults of this project (optional)
  tasks/NAME.yaml     one fine-tuning task: its text sets and settings
  references/NAME/    rows proposed for its harmful reference, and those accepted
  reviews/NAME.jsonl  what people decided about its rows, one decision a line, the latest last:
                      sample_id, decision (keep, drop, unsure or withdraw), reviewer, note,
                      decided (ISO time, UTC)
  store/              artefacts, row cache, catalogue, fetched files
  dagster_home/       history of runs
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
)

from sot_pipeline.defs.settings import (
    Settings,
    environment_layer,
    file_layer,
    read_yaml,
    resolve_settings,
)
from sot_pipeline.errors import InputError

TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class EvaluationFiles(BaseModel):
    """Prompt sets of the evaluation; a score without its set is not reported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    harmful: Path | None = Field(default=None, description="harmful prompts: harmfulness score")
    over_refusal: Path | None = Field(default=None, description="harmless prompts that look risky")
    task: Path | None = Field(default=None, description="task prompts with reference answers")


class ExperimentFiles(BaseModel):
    """Text sets that only experiments read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    swapped_harmful: Path | None = Field(
        default=None, description="ablation: a harmful reference from elsewhere"
    )
    general_safe: Path | None = Field(
        default=None, description="ablation: a safe reference that is not about the task"
    )
    contamination: Path | None = Field(
        default=None, description="contamination: harmful rows to mix into custom_clean"
    )


def _as_tuple(given: Any) -> Any:
    """One source or several, as texts."""
    several = given if isinstance(given, list | tuple) else [given]
    return tuple(str(source) if isinstance(source, Path) else source for source in several)


def _as_written(sources: Any) -> str | list[str]:
    """One source as it is, several as a list."""
    texts = [str(source) for source in _as_tuple(sources)]
    return texts[0] if len(texts) == 1 else texts


Sources = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(min_length=1),
    BeforeValidator(_as_tuple),
    PlainSerializer(_as_written),
]
"""What a text set is read from: files, globs, folders, URLs (see `sot_pipeline.texts.locate`)."""


class TaskFile(BaseModel):
    """One fine-tuning task: its three text sets, its evaluation prompts, its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    custom: Sources
    safe: Sources
    harmful: Sources
    licences: dict[str, str] = Field(
        default_factory=dict, description="licence of a source, where its files do not state it"
    )
    custom_clean: Path | None = Field(
        default=None,
        description="the custom set without its harmful rows, where it is known (the demo)",
    )
    labels: Path | None = Field(
        default=None,
        description="the truth about custom rows, where it is known: columns id, label (harmful, "
        "refusal or benign) and source; methods are measured against it, none reads it",
    )
    evaluation: EvaluationFiles = EvaluationFiles()
    experiments: ExperimentFiles = ExperimentFiles()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    _home: "Home | None" = PrivateAttr(default=None)
    _name: str | None = PrivateAttr(default=None)

    @property
    def home(self) -> "Home":
        """The project that the task was read from; the default one for a task made in Python."""
        return self._home or Home()

    @property
    def reviews(self) -> Path | None:
        """What people decided about the task's rows; None for a task made in Python."""
        return None if self._name is None else self.home.reviews(self._name)

    def __eq__(self, other: object) -> bool:
        # by what the file says: where it was read from is no part of the task
        return isinstance(other, TaskFile) and dict(self) == dict(other)


@dataclass(frozen=True)
class TrainingRuntime:
    """How trainings run; none of it is part of a fingerprint.

    Attributes:
        num_processes: `$SOT_TRAINING_PROCESSES`; None: one per GPU, or one on the CPU. Sums over
            several processes differ by their rounding, as they do between devices.
        apart: `$SOT_TRAINING_APART` (1 or 0): whether one training process is a process of its
            own, which gives its memory back and whose crash fails the step alone; None: yes,
            unless the model is small and trained on the CPU.
        tracking: `$SOT_TRACKING`: "mlflow", "mlflow:URI" or "wandb" also gets each step's numbers.
    """

    num_processes: int | None = None
    apart: bool | None = None
    tracking: str | None = None

    @classmethod
    def from_environment(cls) -> "TrainingRuntime":
        """
        Raises:
            InputError: a variable has a value that it cannot have.
        """
        processes = os.environ.get("SOT_TRAINING_PROCESSES", "")
        if processes and not (processes.isdecimal() and int(processes) > 0):
            raise InputError(
                f"SOT_TRAINING_PROCESSES is {processes!r}: expected a number of processes, like 2"
            )
        apart = os.environ.get("SOT_TRAINING_APART", "")
        if apart not in ("", "0", "1"):
            raise InputError(f"SOT_TRAINING_APART is {apart!r}: expected 1 (yes) or 0 (no)")
        return cls(
            num_processes=int(processes) if processes else None,
            apart=apart == "1" if apart else None,
            tracking=os.environ.get("SOT_TRACKING") or None,
        )


class Home:
    """The folder of a project, by default `data/` where you are, or `$SOT_HOME`.

    `num_workers` (`$SOT_WORKERS`, 1): trainings of a comparison that run at the same time.
    `training`: see `TrainingRuntime`.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root or os.environ.get("SOT_HOME") or "data").resolve()
        self.num_workers = int(os.environ.get("SOT_WORKERS", "1"))
        self.training = TrainingRuntime.from_environment()

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def fetched(self) -> Path:
        """Remote files, kept while their servers say that they are the same."""
        return self.store / "fetched"

    @property
    def tasks(self) -> Path:
        return self.root / "tasks"

    def references(self, name: str) -> Path:
        """Proposed and accepted rows of a task's harmful reference."""
        return self.root / "references" / name

    def reviews(self, name: str) -> Path:
        """The log of what people decided about a task's rows; it need not exist."""
        return self.root / "reviews" / f"{name}.jsonl"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster_home"

    def task_names(self) -> list[str]:
        return sorted(path.stem for path in self.tasks.glob("*.yaml"))

    def task_path(self, name: str) -> Path:
        if not TASK_NAME.fullmatch(name):
            raise InputError(
                f"{name!r} cannot name a task: use lower-case letters, digits, '_', '-' and '.', "
                "at most 64, beginning with a letter or digit"
            )
        return self.tasks / f"{name}.yaml"

    def read_task(self, name: str) -> TaskFile:
        path = self.task_path(name)
        if not path.exists():
            known = ", ".join(self.task_names()) or "none yet"
            raise InputError(
                f"no task {name!r} in {self.tasks} (tasks: {known}). "
                "Make one with `sot purify CUSTOM --safe F --harmful F`."
            )
        try:
            task = TaskFile.model_validate(read_yaml(path))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()
            )
            raise InputError(f"{path}: {problems}") from None
        task._home, task._name = self, name
        return task

    def write_task(self, name: str, task: TaskFile) -> Path:
        path = self.task_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = task.model_dump(mode="json", exclude_defaults=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        temporary.replace(path)
        return path

    def settings(self, name: str | None = None) -> tuple[Settings, dict[str, str]]:
        """Settings of a task (or of the project), with the origin of each value."""
        layers = [file_layer(self.root / "settings.yaml"), environment_layer()]
        if name is not None:
            layers.append((str(self.task_path(name)), self.read_task(name).settings))
        return resolve_settings(layers)
