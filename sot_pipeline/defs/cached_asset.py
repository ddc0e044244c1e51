"""One pure function -> one Dagster asset that is skipped when nothing changed.

A function's parameters name its inputs, their annotations say how they are read:
`pl.DataFrame` the table, `np.ndarray` the memory-mapped array, `Stored` the whole artefact,
`Stored | None` the artefact if there is one. The first parameter is the `Stage`.
"""

import inspect
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs.code_version import code_version
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.store import Artifact, Check, Store, Stored, fingerprint_of
from sot_pipeline.errors import InputError
from sot_pipeline.progress import Progress, reporter

LIBRARIES = ("dagster", "duckdb", "jax", "ott-jax", "peft", "polars", "torch", "transformers")


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
        log: Writes a line for people.
        store: For assets that keep parts of their work as artefacts of their own.
        code_version: Of the asset's function.
        num_workers: Processes that independent parts of the work may use; does not change
            any number.
    """

    task: str
    files: TaskFile
    settings: Settings
    directory: Path
    final_directory: Path
    scratch: Path
    row_cache: Path
    log: Callable[[str], None]
    store: Store
    code_version: str
    num_workers: int

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
    checks: tuple[CheckSpec, ...]
    content_versioned: bool
    uses: Callable[[Settings, str], bool]
    source: Callable[[TaskFile, Settings], Mapping[str, Any]] | None
    only_shows: tuple[str, ...]

    @cached_property
    def code_version(self) -> str:
        return code_version(self.function, only_shows=self.only_shows)

    @cached_property
    def inputs(self) -> dict[str, type]:
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        return {parameter.name: parameter.annotation for parameter in parameters}

    @property
    def description(self) -> str:
        return inspect.cleandoc(self.function.__doc__ or "")


def cached_asset(
    *,
    group: str,
    kinds: set[str],
    settings: tuple[str, ...] = (),
    checks: tuple[CheckSpec, ...] = (),
    content_versioned: bool = False,
    uses: Callable[[Settings, str], bool] = lambda settings, name: True,
    source: Callable[[TaskFile, Settings], Mapping[str, Any]] | None = None,
    only_shows: tuple[str, ...] = (),
) -> Callable[[Callable[..., Artifact]], CachedAsset]:
    """Declare an asset.

    Args:
        settings: The settings that may change its result: blocks, or `block.field`.
        uses: Whether an input is read under these settings; an unread one need not exist.
        source: Identity of what the asset reads from outside the graph (file hashes).
        only_shows: Modules that only draw what is shown beside the result; a change in them
            does not make the result out of date.
    """

    def declare(function: Callable[..., Artifact]) -> CachedAsset:
        return CachedAsset(
            name=function.__name__,
            group=group,
            function=function,
            kinds=frozenset(kinds),
            blocks=settings,
            checks=checks,
            content_versioned=content_versioned,
            uses=uses,
            source=source,
            only_shows=only_shows,
        )

    return declare


@dataclass(frozen=True)
class Materialised:
    stored: Stored
    hit: bool
    seconds: float


def materialise(
    asset: CachedAsset, home: Home, task: str, log: Callable[[str], None]
) -> Materialised:
    """Bring one asset of one task up to date: find it in the store, or compute it.

    Raises:
        InputError: an input is missing, or inputs were made from different versions of the
            same ancestor.
    """
    start = time.perf_counter()
    store = Store(home.store)
    files = home.read_task(task)
    settings, _ = home.settings(task)
    inputs = _read_inputs(asset, store, settings, task)
    parts = {
        "asset": asset.name,
        "code": asset.code_version,
        "settings": {name: _setting(settings, name) for name in asset.blocks},
        "inputs": {name: stored.data_version for name, stored in inputs.items()},
        "source": dict(asset.source(files, settings)) if asset.source else {},
    }
    fingerprint = fingerprint_of(parts)
    stored = store.find(asset.name, fingerprint)
    hit = stored is not None
    if stored is None:
        scratch = store.scratch(asset.name, fingerprint)

        def build(directory: Path) -> tuple[Artifact, Mapping[str, Any]]:
            stage = Stage(
                task=task,
                files=files,
                settings=settings,
                directory=directory,
                final_directory=store.root / asset.name / fingerprint,
                scratch=scratch,
                row_cache=store.root / "rows",
                log=log,
                store=store,
                code_version=asset.code_version,
                num_workers=home.num_workers,
            )
            arguments = {name: _load(inputs.get(name), kind) for name, kind in asset.inputs.items()}
            artifact = asset.function(stage, **arguments)
            _require_answers(asset, artifact)
            return artifact, {
                "code_version": asset.code_version,
                "settings": parts["settings"],
                "source": parts["source"],
                "inputs": parts["inputs"],
                "lineage": _lineage(inputs),
                "libraries": {name: library_version(name) for name in LIBRARIES},
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.perf_counter() - start, 3),
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }

        stored = store.write(
            asset.name, fingerprint, build, content_versioned=asset.content_versioned
        )
        shutil.rmtree(scratch, ignore_errors=True)
    if store.set_current(task, stored) and stored.table_path.exists():
        store.rebuild_catalogue()
    return Materialised(stored, hit, time.perf_counter() - start)


def _setting(settings: Settings, name: str) -> Any:
    """A block's values, or one field's: 'transport' or 'transport.centre'."""
    block, _, field_name = name.partition(".")
    values = getattr(settings, block).model_dump(mode="json")
    return values[field_name] if field_name else values


def _read_inputs(
    asset: CachedAsset, store: Store, settings: Settings, task: str
) -> dict[str, Stored]:
    inputs: dict[str, Stored] = {}
    optional = {name for name, kind in asset.inputs.items() if kind == Stored | None}
    for name in asset.inputs:
        if not asset.uses(settings, name):
            continue
        stored = store.current(task, name)
        if stored is not None:
            inputs[name] = stored
        elif name not in optional:
            raise InputError(
                f"{asset.name} of task {task!r} needs {name}, which has not been materialised "
                f"for this task: materialise {name} first, or run the job `purify`"
            )
    return _consistent(asset, inputs, optional)


def _consistent(
    asset: CachedAsset, inputs: dict[str, Stored], optional: set[str]
) -> dict[str, Stored]:
    """Refuse inputs that stem from different versions of one ancestor.

    Rows are matched by position between tables and arrays, so mixing versions would pair a
    row with another row's vector. An optional input that is out of date is left out.
    """
    seen: dict[str, tuple[str, str]] = {}
    kept: dict[str, Stored] = {}
    for name in sorted(inputs, key=lambda name: name in optional):
        stored = inputs[name]
        versions = stored.manifest["lineage"] | {name: stored.data_version}
        conflict = next((a for a, v in versions.items() if a in seen and seen[a][0] != v), None)
        if conflict is None:
            kept[name] = stored
            seen |= {ancestor: (version, name) for ancestor, version in versions.items()}
        elif name not in optional:
            raise InputError(
                f"{asset.name} cannot be made: {name} and {seen[conflict][1]} were made from "
                f"different versions of {conflict}. Materialise what lies between again, or "
                "run the job `purify`, which brings everything up to date."
            )
    return kept


def _lineage(inputs: Mapping[str, Stored]) -> dict[str, str]:
    """Data version of every ancestor."""
    versions: dict[str, str] = {}
    for name, stored in inputs.items():
        versions |= stored.manifest["lineage"] | {name: stored.data_version}
    return versions


def _load(stored: Stored | None, kind: type) -> Any:
    if stored is None:
        return None
    if kind is pl.DataFrame:
        return stored.table()
    if kind is np.ndarray:
        return stored.array()
    return stored


def _require_answers(asset: CachedAsset, artifact: Artifact) -> None:
    declared, answered = {c.name for c in asset.checks}, {c.name for c in artifact.checks}
    if declared != answered:
        raise TypeError(f"{asset.name} declares checks {declared} but answers {answered}")


def check(spec: CheckSpec, passed: bool, description: str, **values: float) -> Check:
    """Answer a declared check."""
    numbers = {name: float(value) for name, value in values.items()}
    return Check(spec.name, bool(passed), description, spec.blocking, numbers)
