"""A content-addressed store: immutable artefacts, each whole or absent.

    store/
      <asset>/<fingerprint>/    one artefact: its files and manifest.json
      current/<task>/<asset>    name of the fingerprint that was materialised last
      history/<task>.jsonl      every fingerprint that was ever current, oldest first
      building/                 artefacts being written, each with its writer's lock
      in_use/                   what living processes read and write (`retention.py`)
      scratch/                  checkpoints of unfinished work, kept across attempts
      rows/                     row cache of the embeddings
      pipeline.duckdb           views over the current tables; disposable

An artefact is written below `building/`, every file is flushed to disk, and one rename
publishes it: a reader sees all of it or nothing, and a crash leaves only a directory that
the next start removes. Of several processes that want the same artefact one makes it, the
others wait for it. Nothing is pickled.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline.durable import (
    held,
    held_if_free,
    is_held,
    locked,
    to_disk,
    tree_to_disk,
    write_durably,
)

FORMAT = 1  # of the manifest


@dataclass(frozen=True)
class Check:
    """An asset check's outcome, kept with the artefact so that a cache hit reports it too."""

    name: str
    passed: bool
    description: str
    blocking: bool = False
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """What an asset's function returns; further files may lie in its `stage.directory`.

    Attributes:
        table: The asset's table, if it has one.
        array: The asset's array, if it has one; float arrays keep their dtype.
        document: Small JSON values that later assets or the command line read.
        metadata: Numbers and short strings for people.
        plots: PNG figures, at most 400 pixels wide (the width that Dagster shows).
        checks: Outcomes of the asset's checks.
        parts: Fingerprints of artefacts that the function keeps by itself, by asset name.
        versioned_by: Of a content-versioned asset, the columns of its table that make its data
            version, where the others are only shown; none: all.
    """

    table: pl.DataFrame | None = None
    array: np.ndarray | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    plots: Mapping[str, bytes] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    parts: Mapping[str, list[str]] = field(default_factory=dict)
    versioned_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """One artefact in the store."""

    asset: str
    directory: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.directory / "manifest.json").read_bytes())

    @property
    def fingerprint(self) -> str:
        return self.directory.name

    def is_whole(self) -> bool:
        """Whether it was published and its manifest can still be read."""
        try:
            return self.manifest["fingerprint"] == self.directory.name
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @property
    def data_version(self) -> str:
        return self.manifest["data_version"]

    @property
    def document(self) -> dict[str, Any]:
        return self.manifest["document"]

    @property
    def table_path(self) -> Path:
        return self.directory / "table.duckdb"

    def table(self) -> pl.DataFrame:
        import duckdb

        with duckdb.connect(str(self.table_path), read_only=True) as connection:
            return connection.sql("select * from t order by row_order").pl().drop("row_order")

    def array(self) -> np.ndarray:
        return np.load(self.directory / "array.npy", mmap_mode="r", allow_pickle=False)

    def plots(self) -> dict[str, bytes]:
        return {
            path.stem.removeprefix("plot_"): path.read_bytes()
            for path in sorted(self.directory.glob("plot_*.png"))
        }

    def checks(self) -> list[Check]:
        return [Check(**check) for check in self.manifest["checks"]]

    def damage(self) -> list[str]:
        """Files that are missing or differ from the manifest; empty when all is well."""
        problems = []
        for name, digest in self.manifest["files"].items():
            path = self.directory / name
            if not path.exists():
                problems.append(f"{path}: missing")
            elif file_sha256(path) != digest:
                problems.append(f"{path}: content differs from its manifest")
        return problems


class Store:
    """Artefacts below one folder; safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, asset: str, fingerprint: str) -> Stored | None:
        stored = Stored(asset, self.root / asset / fingerprint)
        return stored if stored.is_whole() else None

    def find_version(self, asset: str, data_version: str) -> Stored | None:
        """An artefact with this data version: of a table any that has the same content."""
        found = self.find(asset, data_version)
        return found or next(
            (s for s in self.artefacts(asset) if s.data_version == data_version), None
        )

    def artefacts(self, asset: str) -> Iterator[Stored]:
        """Every whole artefact of an asset."""
        for directory in sorted((self.root / asset).glob("*")):
            stored = self.find(asset, directory.name)
            if stored is not None:
                yield stored

    def write(
        self,
        asset: str,
        fingerprint: str,
        build: Callable[[Path], tuple[Artifact, Mapping[str, Any]]],
        *,
        content_versioned: bool = False,
    ) -> Stored:
        """Build an artefact in a private directory and publish it.

        While another process makes the same artefact this one waits, and takes that one's.

        Args:
            build: Fills the directory it is given; returns the artefact and further manifest
                entries (inputs, settings, seconds ...).
            content_versioned: The data version is the hash of the table's content, so that an
                edit which changes no row stops here; otherwise it is the fingerprint.
        """
        building = self.root / "building" / f"{asset}-{fingerprint}"
        with held(_lock_of(building)):
            made = self.find(asset, fingerprint)
            if made is not None:
                return made
            shutil.rmtree(building, ignore_errors=True)  # what a killed attempt left
            try:
                building.mkdir()
                artifact, entries = build(building)
                manifest = _write_files(building, artifact)
                version = _table_version(artifact) if content_versioned else fingerprint
                manifest |= {
                    "format": FORMAT,
                    "asset": asset,
                    "fingerprint": fingerprint,
                    "data_version": version,
                    "content_versioned": content_versioned,
                    **entries,
                }
                manifest["files"] = {
                    str(path.relative_to(building)): file_sha256(path)
                    for path in sorted(building.rglob("*"))
                    if path.is_file()
                }
                (building / "manifest.json").write_bytes(_json_bytes(manifest))
                tree_to_disk(building)
                return self._publish(asset, fingerprint, building)
            except BaseException:
                shutil.rmtree(building, ignore_errors=True)  # a full disk needs every byte back
                raise

    def _publish(self, asset: str, fingerprint: str, building: Path) -> Stored:
        final = self.root / asset / fingerprint
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():  # its manifest is gone or unreadable: no artefact any more
            final.rename(self.trash(asset))
        building.rename(final)
        to_disk(final.parent)
        to_disk(self.root)
        return Stored(asset, final)

    def is_being_made(self, asset: str, fingerprint: str) -> bool:
        return is_held(_lock_of(self.root / "building" / f"{asset}-{fingerprint}"))

    def trash(self, asset: str) -> Path:
        """A name to move a directory to that the next `sweep` removes."""
        (self.root / "building").mkdir(parents=True, exist_ok=True)
        return self.root / "building" / f"{asset}-{uuid.uuid4().hex}"

    def set_current(self, task: str, stored: Stored) -> bool:
        """Point a task's asset at this artefact; True if it pointed elsewhere before."""
        pointer = self.root / "current" / task / stored.asset
        before = _pointed_at(pointer)
        if before == stored.fingerprint:
            return False
        old = self.find(stored.asset, before) if before is not None else None
        # the mark comes first and the catalogue cannot be rebuilt in between: wherever this
        # process dies, a version that the catalogue does not show is one that is marked
        with locked(self.root / "pipeline.lock", shared=True):
            if any(s is not None and s.table_path.exists() for s in (stored, old)):
                self.catalogue_mark.touch()
            self._remember(task, stored)
            write_durably(pointer, stored.fingerprint.encode())
        return True

    @property
    def catalogue_mark(self) -> Path:
        """Exists while the catalogue does not show what is current."""
        return self.root / "pipeline.stale"

    def _remember(self, task: str, stored: Stored) -> None:
        path = self._history_path(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = {
            "asset": stored.asset,
            "fingerprint": stored.fingerprint,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        line = b"\n" + json.dumps(entry).encode()
        # one short write in append mode: lines of several processes do not mix
        with path.open("ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())

    def history(self, task: str, asset: str) -> list[Stored]:
        """The versions of a task's asset that are still in the store, oldest first."""
        versions: list[Stored] = []
        for name, fingerprint in self.remembered(task):
            stored = self.find(asset, fingerprint) if name == asset else None
            if stored is not None and (not versions or versions[-1] != stored):
                versions.append(stored)
        return versions

    def remembered(self, task: str) -> list[tuple[str, str]]:
        """Asset and fingerprint of all that ever was current for a task, oldest first."""
        path = self._history_path(task)
        names = []
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            try:
                entry = json.loads(line)
                names.append((str(entry["asset"]), str(entry["fingerprint"])))
            except (ValueError, KeyError, TypeError):  # empty, or cut short by a crash
                continue
        return names

    def _history_path(self, task: str) -> Path:
        return self.root / "history" / f"{task}.jsonl"

    def current(self, task: str, asset: str) -> Stored | None:
        fingerprint = _pointed_at(self.root / "current" / task / asset)
        return self.find(asset, fingerprint) if fingerprint else None

    def current_of(self, task: str) -> dict[str, Stored]:
        """Every asset of a task that is in the store."""
        names = sorted(path.name for path in (self.root / "current" / task).glob("*"))
        found = {name: self.current(task, name) for name in names if "." not in name}
        return {name: stored for name, stored in found.items() if stored is not None}

    def tasks(self) -> list[str]:
        return sorted(path.name for path in (self.root / "current").glob("*") if path.is_dir())

    def scratch(self, asset: str, fingerprint: str) -> Path:
        """A folder for checkpoints that outlives a killed attempt at the same artefact."""
        return self.root / "scratch" / f"{asset}-{fingerprint}"

    def sweep(self) -> int:
        """Remove what crashed attempts left; directories of living processes stay."""
        building = self.root / "building"
        names = {path.name.removesuffix(".lock") for path in building.glob("*-*")}
        removed = 0
        for directory in (building / name for name in sorted(names)):
            with held_if_free(_lock_of(directory)) as free:
                if free and directory.exists():
                    shutil.rmtree(directory, ignore_errors=True)
                    removed += 1
        return removed


def fingerprint_of(parts: Mapping[str, Any]) -> str:
    """Name of whatever is made from these parts: 32 hex digits, independent of key order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_files(directory: Path, artifact: Artifact) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "document": dict(artifact.document),
        "metadata": dict(artifact.metadata),
        "checks": [vars(check) | {"values": dict(check.values)} for check in artifact.checks],
        "parts": dict(artifact.parts),
    }
    if artifact.table is not None:
        _write_table(directory / "table.duckdb", artifact.table)
        manifest["rows"] = artifact.table.height
        manifest["columns"] = {name: str(dtype) for name, dtype in artifact.table.schema.items()}
    if artifact.array is not None:
        np.save(directory / "array.npy", artifact.array, allow_pickle=False)
        manifest["shape"] = list(artifact.array.shape)
        manifest["dtype"] = str(artifact.array.dtype)
    for name, png in artifact.plots.items():
        (directory / f"plot_{name}.png").write_bytes(png)
    return manifest


def _write_table(path: Path, table: pl.DataFrame) -> None:
    import duckdb

    # DuckDB promises no order of rows, and arrays are aligned with the table's order
    ordered = table.with_row_index("row_order")
    with duckdb.connect(str(path)) as connection:
        connection.register("incoming", ordered.to_arrow())
        connection.execute("create table t as select * from incoming")
        connection.unregister("incoming")
        connection.execute("checkpoint")


def _table_version(artifact: Artifact) -> str:
    if artifact.table is None:
        raise TypeError("a content version needs a table")
    table = artifact.table.select(artifact.versioned_by or pl.all())
    buffer = io.BytesIO()
    table.rechunk().write_ipc(buffer, compression="uncompressed")
    content = {
        "table": hashlib.blake2b(buffer.getbuffer(), digest_size=16).hexdigest(),
        "columns": {name: str(dtype) for name, dtype in artifact.table.schema.items()},
    }
    return fingerprint_of(content)


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, default=str).encode()


def _pointed_at(pointer: Path) -> str | None:
    try:
        return pointer.read_text(errors="replace")
    except (FileNotFoundError, IsADirectoryError):
        return None


def _lock_of(building: Path) -> Path:
    return building.with_name(f"{building.name}.lock")
