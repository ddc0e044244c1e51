"""A content-addressed store: immutable artefacts, each whole or absent.

    store/
      <asset>/<fingerprint>/    one artefact: its files and manifest.json
      current/<task>/<asset>    name of the fingerprint that was materialised last
      history/<task>.jsonl      every fingerprint that was ever current, oldest first
      building/                 artefacts being written; swept at start
      in_use/                   what living processes read and write (`retention.py`)
      scratch/                  checkpoints of unfinished work, kept across attempts
      rows/                     row cache of the embeddings
      pipeline.duckdb           views over the current tables; disposable

An artefact is written below `building/`, every file is flushed to disk, and one rename
publishes it: a reader sees all of it or nothing, and a crash leaves only a directory that
the next start removes. Nothing is pickled.
"""

import contextlib
import fcntl
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
    """

    table: pl.DataFrame | None = None
    array: np.ndarray | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    plots: Mapping[str, bytes] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    parts: Mapping[str, list[str]] = field(default_factory=dict)


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
        return self.manifest["fingerprint"]

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
        directory = self.root / asset / fingerprint
        return Stored(asset, directory) if (directory / "manifest.json").exists() else None

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

        Args:
            build: Fills the directory it is given; returns the artefact and further manifest
                entries (inputs, settings, seconds ...).
            content_versioned: The data version is the hash of the table's content, so that an
                edit which changes no row stops here; otherwise it is the fingerprint.
        """
        building = self.root / "building" / f"{asset}-{uuid.uuid4().hex}"
        building.parent.mkdir(parents=True, exist_ok=True)
        with _held(building.with_suffix(".lock")):
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
            write_durably(building / "manifest.json", _json_bytes(manifest))
            _flush(building)
            final = self.root / asset / fingerprint
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                building.rename(final)
            except OSError:  # another process published the same artefact first
                if not (final / "manifest.json").exists():
                    raise
                shutil.rmtree(building)
            _flush(final.parent)
        return Stored(asset, final)

    def set_current(self, task: str, stored: Stored) -> bool:
        """Point a task's asset at this artefact; True if it pointed elsewhere before."""
        pointer = self.root / "current" / task / stored.asset
        if pointer.exists() and pointer.read_text() == stored.fingerprint:
            return False
        self._remember(task, stored)
        write_durably(pointer, stored.fingerprint.encode())
        return True

    def _remember(self, task: str, stored: Stored) -> None:
        path = self._history_path(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = {
            "asset": stored.asset,
            "fingerprint": stored.fingerprint,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        # one short write in append mode: lines of several processes do not mix
        with path.open("ab", buffering=0) as file:
            file.write(b"\n" + json.dumps(entry).encode())
            os.fsync(file.fileno())

    def history(self, task: str, asset: str) -> list[Stored]:
        """The versions of a task's asset that are still in the store, oldest first."""
        path = self._history_path(task)
        versions: list[Stored] = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # an empty line, or one that a crash cut short
                continue
            stored = self.find(asset, entry["fingerprint"]) if entry["asset"] == asset else None
            if stored is not None and (not versions or versions[-1] != stored):
                versions.append(stored)
        return versions

    def _history_path(self, task: str) -> Path:
        return self.root / "history" / f"{task}.jsonl"

    def current(self, task: str, asset: str) -> Stored | None:
        pointer = self.root / "current" / task / asset
        return self.find(asset, pointer.read_text()) if pointer.exists() else None

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
        """Remove what crashed attempts left; directories of live processes stay."""
        removed = 0
        for directory in (self.root / "building").glob("*-*"):
            lock = directory.with_suffix(".lock")
            if directory.suffix != ".lock" and not is_held(lock):
                shutil.rmtree(directory, ignore_errors=True)
                lock.unlink(missing_ok=True)
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
    buffer = io.BytesIO()
    artifact.table.rechunk().write_ipc(buffer, compression="uncompressed")
    content = {
        "table": hashlib.blake2b(buffer.getbuffer(), digest_size=16).hexdigest(),
        "columns": {name: str(dtype) for name, dtype in artifact.table.schema.items()},
    }
    return fingerprint_of(content)


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, default=str).encode()


def write_durably(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _flush(directory: Path) -> None:
    """Ask the disk to hold a directory's files and names."""
    for path in [*(p for p in directory.rglob("*") if p.is_file()), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file that stays; the system releases it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Hold a lock that is nobody else's, and goes with its holder."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def is_held(lock: Path) -> bool:
    try:
        with lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
