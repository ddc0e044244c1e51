"""What a task would cost, from its own files: read, not run; nothing is fetched."""

from pathlib import Path

from sot_pipeline.defs.estimate import StageEstimate
from sot_pipeline.defs.hardware import Device
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.model_shape import ModelShape, model_shape
from sot_pipeline.defs.rival_cost import estimate_with_rivals
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.workload import NO_ROWS, TextLengths, Workload, counted
from sot_pipeline.errors import InputError


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
