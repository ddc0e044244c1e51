"""Bring an asset up to date: find it in the store, or compute it."""

import contextlib
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.defs import retention
from sot_pipeline.defs.cached_asset import CachedAsset, Stage
from sot_pipeline.defs.catalogue import refresh_catalogue
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.settings import Settings
from sot_pipeline.defs.store import Artifact, Store, Stored, fingerprint_of
from sot_pipeline.errors import InputError, storage_errors

LIBRARIES = ("dagster", "duckdb", "jax", "ott-jax", "peft", "polars", "torch", "transformers")


@dataclass(frozen=True)
class Materialised:
    stored: Stored
    hit: bool
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What an asset of a task would be made from now.

    Attributes:
        parts: Everything that decides the fingerprint, by kind.
        previous: As `Stage.previous`.
    """

    files: TaskFile
    settings: Settings
    inputs: Mapping[str, Stored]
    parts: Mapping[str, Any]
    previous: Stored | None

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.parts)


def plan(asset: CachedAsset, home: Home, store: Store, task: str) -> Plan:
    """Look up what an asset would be made from; nothing is computed.

    Raises:
        InputError: an input is missing, or inputs were made from different versions of the
            same ancestor.
    """
    files = home.read_task(task)
    settings, _ = home.settings(task)
    inputs = _read_inputs(asset, store, settings, task)
    parts = {
        "asset": asset.name,
        "code": asset.code_version,
        "settings": {
            **{name: _setting(settings, name) for name in asset.blocks},
            **asset.parts_of_settings(settings),
        },
        "inputs": {name: stored.data_version for name, stored in inputs.items()},
        "source": dict(asset.source(files, settings)) if asset.source else {},
    }
    previous = _previous(asset, store, task, inputs)
    if asset.follows is not None:
        parts["previous"] = previous and previous.fingerprint
    return Plan(files, settings, inputs, parts, previous)


def materialise(
    asset: CachedAsset, home: Home, task: str, log: Callable[[str], None]
) -> Materialised:
    """Bring one asset of one task up to date.

    Raises:
        InputError: as `plan`.
        StorageError: the home's disk is full, over its quota or read-only.
    """
    start = time.perf_counter()
    store = Store(home.store)
    with storage_errors(home.root), contextlib.ExitStack() as until_done:
        with retention.nothing_removed(store):
            planned = plan(asset, home, store, task)
            stored = store.find(asset.name, planned.fingerprint)
            hit = stored is not None
            if stored is not None:
                store.set_current(task, stored)
            else:
                needed = dict(planned.inputs)
                if planned.previous is not None:
                    needed["previous"] = planned.previous
                until_done.enter_context(
                    retention.in_use(store, task, asset.name, planned.fingerprint, needed)
                )
        if stored is None:
            stored = _compute(asset, home, store, task, planned, log)
            store.set_current(task, stored)
        refresh_catalogue(store)
    return Materialised(stored, hit, time.perf_counter() - start)


def _compute(
    asset: CachedAsset,
    home: Home,
    store: Store,
    task: str,
    planned: Plan,
    log: Callable[[str], None],
) -> Stored:
    start = time.perf_counter()
    fingerprint, parts = planned.fingerprint, planned.parts
    scratch = store.scratch(asset.name, fingerprint)
    if store.is_being_made(asset.name, fingerprint):
        log(f"{asset.name}: another process is making it; waiting for that one")

    def build(directory: Path) -> tuple[Artifact, Mapping[str, Any]]:
        stage = Stage(
            task=task,
            files=planned.files,
            settings=planned.settings,
            directory=directory,
            final_directory=store.root / asset.name / fingerprint,
            scratch=scratch,
            row_cache=store.root / "rows",
            previous=planned.previous,
            log=log,
            store=store,
            code_version=asset.code_version,
            num_workers=home.num_workers,
            training=home.training,
        )
        arguments = {
            name: _load(planned.inputs.get(name), kind) for name, kind in asset.inputs.items()
        }
        artifact = asset.function(stage, **arguments)
        _require_answers(asset, artifact)
        _require_same_source(asset, planned)
        return artifact, {
            "code_version": asset.code_version,
            "settings": parts["settings"],
            "source": parts["source"],
            "inputs": parts["inputs"],
            "previous": parts.get("previous"),
            "lineage": _lineage(planned.inputs),
            "libraries": _library_versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - start, 3),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }

    stored = store.write(asset.name, fingerprint, build, content_versioned=asset.content_versioned)
    shutil.rmtree(scratch, ignore_errors=True)
    return stored


@cache
def _library_versions() -> dict[str, str]:
    return {name: library_version(name) for name in LIBRARIES}


def _previous(
    asset: CachedAsset, store: Store, task: str, inputs: Mapping[str, Stored]
) -> Stored | None:
    versions = store.history(task, asset.name)
    if asset.follows is not None:
        now = inputs[asset.follows].data_version
        versions = [v for v in versions if v.manifest["inputs"].get(asset.follows) != now]
    return versions[-1] if versions else None


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
    """Data versions of the ancestors that decide what comes out.

    They end at a version of content: whatever lies before it is only how it came about, and an
    edit there that leaves the content alone leaves everything after it consistent.
    """
    versions: dict[str, str] = {}
    for name, stored in inputs.items():
        if not stored.manifest.get("content_versioned", False):
            versions |= stored.manifest["lineage"]
        versions[name] = stored.data_version
    return versions


def _load(stored: Stored | None, kind: type) -> Any:
    if stored is None:
        return None
    if kind is pl.DataFrame:
        return stored.table()
    if kind is np.ndarray:
        return stored.array()
    return stored


def _require_same_source(asset: CachedAsset, planned: Plan) -> None:
    """What was read must be what the fingerprint says, or another content goes by its name."""
    if asset.source is None:
        return
    now = dict(asset.source(planned.files, planned.settings))
    if now != planned.parts["source"]:
        raise InputError(
            f"{asset.name}: a file changed while it was being read; run again when it is whole"
        )


def _require_answers(asset: CachedAsset, artifact: Artifact) -> None:
    declared, answered = {c.name for c in asset.checks}, {c.name for c in artifact.checks}
    if declared != answered:
        raise TypeError(f"{asset.name} declares checks {declared} but answers {answered}")
