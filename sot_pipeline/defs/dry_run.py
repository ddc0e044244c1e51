"""What a task would cost, from its own files: read, not run; nothing is fetched."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sot_pipeline.defs.cached_asset import CachedAsset
from sot_pipeline.defs.estimate import StageEstimate
from sot_pipeline.defs.hardware import Device
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.model_shape import ModelShape, model_shape
from sot_pipeline.defs.rival_cost import estimate_with_rivals
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.state import State, asset_states
from sot_pipeline.defs.store import Store
from sot_pipeline.defs.workload import NO_ROWS, TextLengths, Workload, counted
from sot_pipeline.errors import InputError


class PlannedHome(Home):
    """A home whose tasks are changed in memory only: what a command would do can be asked, and
    nothing of it stays."""

    def __init__(self, root: Path | str | None = None) -> None:
        super().__init__(root)
        self._planned: dict[str, TaskFile] = {}

    def write_task(self, name: str, task: TaskFile) -> Path:
        self._planned[name] = task
        return self.task_path(name)

    def read_task(self, name: str) -> TaskFile:
        if name not in self._planned:
            return super().read_task(name)
        task = self._planned[name]
        task._home = self
        return task


class DryStage(NamedTuple):
    """An asset of a job: whether it would be computed, because of what, and what that takes (None
    for one that is cached, and for the small ones that are not estimated)."""

    asset: str
    state: State
    because: tuple[str, ...]
    estimate: StageEstimate | None


def stages_of(
    home: Home, name: str, assets: Iterable[CachedAsset], device: Device
) -> list[DryStage]:
    """The assets of a job in the order in which they run.

    Raises:
        InputError: as `estimate_of`.
    """
    estimates = {stage.asset: stage for stage in estimate_of(home, name, device)}
    states = asset_states(assets, home, Store(home.store), name)
    return [
        DryStage(
            found.asset,
            found.state,
            found.because + tuple(f"{before} is to be computed" for before in found.after),
            None if found.state == "current" else estimates.get(found.asset),
        )
        for found in states
    ]


def estimate_of(home: Home, name: str, device: Device) -> list[StageEstimate]:
    """Each asset of a task, as `estimate_with_rivals`.

    Raises:
        InputError: a text set cannot be read or is not on this machine, or a model's size is not
            known.
    """
    task = home.read_task(name)
    settings, _ = home.settings(name)
    encoder, base = task_shapes(settings)
    return estimate_with_rivals(settings, task_workload(task, settings), encoder, base, device)


def task_shapes(settings: Settings) -> tuple[ModelShape, ModelShape | None]:
    """Of the encoder, and of the base model if there is one."""
    chosen = settings.base_model
    base = None if chosen.name is None else model_shape(chosen.name, chosen.revision)
    encoder = settings.embedding.encoder
    if encoder != "base":
        return model_shape(encoder, settings.embedding.revision), base
    if base is None:
        raise InputError("embedding.encoder is 'base', and the task names no base model")
    return base, base


def task_workload(task: TaskFile, settings: Settings) -> Workload:
    """Rows and tokens of a task's text sets.

    Raises:
        InputError: one of them cannot be read or is not on this machine.
    """
    name = settings.base_model.name or ""
    model = Path(name) if Path(name).is_dir() else None
    sets = {
        role: counted(
            _files(task, role),
            model=model,
            require_response=not (role == "harmful" and settings.texts.prompt_only_harmful),
        )
        for role in ("custom", "safe", "harmful")
    }
    prompts = {f"eval_{key}": path for key, path in task.evaluation.model_dump().items()}
    return Workload(**sets, **{key: _prompts(path, model) for key, path in prompts.items()})


def _prompts(path: Path | None, model: Path | None) -> TextLengths:
    if path is None:
        return NO_ROWS
    return counted({path.name: path}, model=model, require_response=False)


def _files(task: TaskFile, role: str) -> dict[str, Path]:
    from sot_pipeline.texts.locate import locate, unique_names

    found = [file for source in getattr(task, role) for file in locate(source)]
    remote = next((file.location for file in found if not file.is_local), None)
    if remote is not None:
        raise InputError(f"{remote} is not on this machine; fetch it to have its rows counted")
    paths = [file.location for file in found]
    return dict(zip(unique_names(paths), map(Path, paths), strict=True))
