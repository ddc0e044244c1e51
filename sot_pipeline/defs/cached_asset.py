"""One pure function, declared as an asset that is skipped when nothing changed.

A function's parameters name its inputs, their annotations say how they are read:
`pl.DataFrame` the table, `np.ndarray` the memory-mapped array, `Stored` the whole artefact,
`Stored | None` the artefact if there is one. The first parameter is the `Stage`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sot_pipeline.defs.code_version import code_version
from sot_pipeline.defs.home import TaskFile, TrainingRuntime
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.store import Artifact, Check, Store, Stored
from sot_pipeline.progress import Progress, reporter


@dataclass(frozen=True)
class Stage:
    """What an asset's function knows beside its inputs.

    Attributes:
        task: Name of the fine-tuning task, the partition.
        files: The task's text sets.
        settings: The task's settings; only the blocks the asset declared may be read.
        directory: Private folder; files left here become part of the artefact.
        final_directory: Where these files will lie once the artefact is whole.
        scratch: Folder for checkpoints, kept when an attempt dies, removed after success.
        row_cache: Folder of the embeddings' row cache.
        previous: The task's latest earlier version of this asset; for an asset that `follows`
            an input, the latest one that was made from another version of that input. It is
            part of what the result is made from only for an asset that follows.
        log: Writes a line for people.
        store: For assets that keep parts of their work as artefacts of their own.
        code_version: Of the asset's function.
        num_workers: Processes that independent parts of the work may use; does not change
            any number.
        training: How trainings run; does not change any number either.
    """

    task: str
    files: TaskFile
    settings: Settings
    directory: Path
    final_directory: Path
    scratch: Path
    row_cache: Path
    previous: Stored | None
    log: Callable[[str], None]
    store: Store
    code_version: str
    num_workers: int
    training: TrainingRuntime

    @property
    def earlier(self) -> Stored | None:
        """`previous`, if the same code made it: what may be taken over into the result."""
        made = self.previous and self.previous.manifest["code_version"]
        return self.previous if made == self.code_version else None

    def progress(self, unit: str, label: str | None = None) -> Progress:
        return reporter(label or self.directory.name.rsplit("-", 1)[0], unit, self.log)


@dataclass(frozen=True)
class CheckSpec:
    """An asset check that the function's `Artifact.checks` answer."""

    name: str
    description: str
    blocking: bool = False


@dataclass(frozen=True)
class CachedAsset:
    """An asset's function with what decides its fingerprint."""

    name: str
    group: str
    function: Callable[..., Artifact]
    kinds: frozenset[str]
    blocks: tuple[str, ...]
    parts_of_settings: Callable[[Settings], Mapping[str, Any]]
    checks: tuple[CheckSpec, ...]
    content_versioned: bool
    uses: Callable[[Settings, str], bool]
    source: Callable[[TaskFile, Settings], Mapping[str, Any]] | None
    only_shows: tuple[str, ...]
    follows: str | None

    @cached_property
    def code_version(self) -> str:
        return code_version(self.function, only_shows=self.only_shows)

    @cached_property
    def inputs(self) -> dict[str, type]:
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        return {parameter.name: parameter.annotation for parameter in parameters}

    @property
    def optional(self) -> list[str]:
        """Inputs that a task need not have."""
        return [name for name, kind in self.inputs.items() if kind == Stored | None]

    @property
    def description(self) -> str:
        return inspect.cleandoc(self.function.__doc__ or "")


def cached_asset(
    *,
    group: str,
    kinds: set[str],
    settings: tuple[str, ...] = (),
    parts_of_settings: Callable[[Settings], Mapping[str, Any]] = lambda settings: {},
    checks: tuple[CheckSpec, ...] = (),
    content_versioned: bool = False,
    uses: Callable[[Settings, str], bool] = lambda settings, name: True,
    source: Callable[[TaskFile, Settings], Mapping[str, Any]] | None = None,
    only_shows: tuple[str, ...] = (),
    follows: str | None = None,
) -> Callable[[Callable[..., Artifact]], CachedAsset]:
    """Declare an asset.

    Args:
        settings: The settings that may change its result: blocks, or `block.field`.
        parts_of_settings: Of blocks of which only a part is read, which part that is: settings
            that say which others count.
        uses: Whether an input is read under these settings; an unread one need not exist.
        source: Identity of what the asset reads from outside the graph (file hashes).
        only_shows: Modules that only draw what is shown beside the result; a change in them
            does not make the result out of date.
        follows: An input whose earlier versions matter: the result depends on `stage.previous`,
            what was there before that input changed.
    """

    def declare(function: Callable[..., Artifact]) -> CachedAsset:
        return CachedAsset(
            name=function.__name__,
            group=group,
            function=function,
            kinds=frozenset(kinds),
            blocks=settings,
            parts_of_settings=parts_of_settings,
            checks=checks,
            content_versioned=content_versioned,
            uses=uses,
            source=source,
            only_shows=only_shows,
            follows=follows,
        )

    return declare


def check(spec: CheckSpec, passed: bool, description: str, **values: float) -> Check:
    """Answer a declared check."""
    numbers = {name: float(value) for name, value in values.items()}
    return Check(spec.name, bool(passed), description, spec.blocking, numbers)
