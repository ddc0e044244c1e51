"""What may leave a store: whatever no current version, kept version or living process needs.

A process that looks artefacts up holds the store's lock, shared, until it has either pointed a
task at what it found or written down what it is about to read and write (`in_use/`). Removal
holds the lock alone while it decides and moves things out of sight, so that it never takes
what somebody has just found.
"""

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.durable import is_held, locked

SCRATCH_DAYS = 7  # what an unfinished attempt left and nobody took up again
_BESIDE_ARTEFACTS = {"current", "history", "building", "in_use", "scratch", "rows", "fetched"}
Name = tuple[str, str]  # asset, fingerprint


@dataclass(frozen=True)
class Removed:
    """Something that was removed, or would be: kind `artefact`, `unfinished` or `scratch`."""

    kind: str
    path: str  # below the store
    num_bytes: int


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be; what stays; what was found and is not an artefact."""

    removed: list[Removed]
    num_kept: int
    bytes_kept: int
    not_understood: list[str]

    @property
    def num_bytes(self) -> int:
        return sum(removed.num_bytes for removed in self.removed)


@contextlib.contextmanager
def nothing_removed(store: Store) -> Iterator[None]:
    """While the block runs no artefact is removed. Keep it short: removal waits."""
    with locked(store.root / ".lock", shared=True):
        yield


@contextlib.contextmanager
def in_use(
    store: Store, task: str, asset: str, fingerprint: str, inputs: Mapping[str, Stored]
) -> Iterator[None]:
    """While the block runs, say that this artefact is made from these and keep all of them."""
    needed = [(asset, fingerprint), *((s.asset, s.fingerprint) for s in inputs.values())]
    with _written_down(store, task, asset, needed):
        yield


@contextlib.contextmanager
def parts_in_use(
    store: Store, task: str, asset: str, part: str, fingerprints: Iterable[str]
) -> Iterator[None]:
    """While the block runs, keep artefacts that an asset makes by itself as parts of its work,
    those that an earlier attempt left among them."""
    with contextlib.ExitStack() as until_done:
        with nothing_removed(store):
            needed = [(part, fingerprint) for fingerprint in fingerprints]
            until_done.enter_context(_written_down(store, task, asset, needed))
        yield


@contextlib.contextmanager
def _written_down(store: Store, task: str, asset: str, needed: list[Name]) -> Iterator[None]:
    path = store.root / "in_use" / f"{uuid.uuid4().hex}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "task": task,
        "asset": asset,
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "needs": needed,
    }
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the system when the process dies
        try:
            file.write(json.dumps(record))
            file.flush()
            yield
        finally:
            path.unlink(missing_ok=True)


def running(store: Store) -> list[dict]:
    """What living processes are making now: `task, asset, pid, since, needs`."""
    records = []
    for path in sorted((store.root / "in_use").glob("*.json")):
        if is_held(path):
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                records.append(json.loads(path.read_text()))
    return records


def collect(store: Store, *, keep_versions: int, dry_run: bool = False) -> Collected:
    """Remove what nothing needs any more.

    Kept are, with everything they were made from: each task's current artefacts, the last
    `keep_versions` versions of each of its assets, what a living process reads or writes, and
    for `SCRATCH_DAYS` what a killed attempt had finished. Also removed: what crashed attempts
    left unfinished, and checkpoints older than `SCRATCH_DAYS`. A directory that is no readable
    artefact is left alone.
    """
    if not store.root.is_dir():
        return Collected([], 0, 0, [])
    with locked(store.root / ".lock"):
        # asked before the pointers are read: what a process finishes meanwhile is current then
        records = running(store)
        stored, not_understood = _artefacts(store)
        needed = _needed(store, stored, records, keep_versions)
        unneeded = [found for name, found in sorted(stored.items()) if name not in needed]
        leftovers = [*_unfinished(store), *_old_scratch(store, records)]
        removed = [*(_removed(store, "artefact", found.directory) for found in unneeded),
                   *(_removed(store, kind, path) for kind, path in leftovers)]  # fmt: skip
        kept = sum(folder_size(found.directory) for name, found in stored.items() if name in needed)
        collected = Collected(removed, len(stored) - len(unneeded), kept, not_understood)
        if dry_run:
            return collected
        for found in unneeded:
            found.directory.rename(store.trash(found.asset))
        for kind, path in leftovers:
            if kind == "scratch":
                path.rename(store.trash("scratch"))
        for path in (store.root / "in_use").glob("*.json"):
            if not is_held(path):
                path.unlink(missing_ok=True)
    store.sweep()
    return collected


def _artefacts(store: Store) -> tuple[dict[Name, Stored], list[str]]:
    """Every artefact of a store, and the directories that are none."""
    stored: dict[Name, Stored] = {}
    not_understood = []
    for folder in sorted(path for path in store.root.glob("*") if path.is_dir()):
        if folder.name in _BESIDE_ARTEFACTS:
            continue
        for directory in sorted(path for path in folder.glob("*") if path.is_dir()):
            found = Stored(folder.name, directory)
            if directory.is_symlink() or folder.is_symlink() or not _is_understood(found):
                not_understood.append(str(directory.relative_to(store.root)))
            else:
                stored[folder.name, directory.name] = found
    return stored, not_understood


def _is_understood(stored: Stored) -> bool:
    """Whether a manifest says what the artefact was made from."""
    if not stored.is_whole():
        return False
    manifest = stored.manifest
    inputs, parts = manifest.get("inputs", {}), manifest.get("parts", {})
    return (
        isinstance(manifest.get("data_version"), str)
        and isinstance(inputs, dict)
        and isinstance(parts, dict)
        and all(isinstance(fingerprints, list) for fingerprints in parts.values())
    )


def _needed(
    store: Store, stored: Mapping[Name, Stored], records: list[dict], keep_versions: int
) -> set[Name]:
    by_version: dict[Name, list[Name]] = {}
    for name, found in stored.items():
        by_version.setdefault((found.asset, found.data_version), []).append(name)
    needed: set[Name] = set()
    waiting: list[Name] = [(a, f) for record in records for a, f in record["needs"]]
    waiting += [*_versions_to_keep(store, stored, keep_versions), *_finished_parts(store, stored)]
    while waiting:
        name = waiting.pop()
        if name in needed or name not in stored:
            continue
        needed.add(name)
        manifest = stored[name].manifest
        for ancestor in manifest.get("inputs", {}).items():
            waiting += by_version.get(ancestor, [])
        waiting += _parts(stored[name])
        if manifest.get("previous") is not None:
            needed |= {(name[0], manifest["previous"])} & stored.keys()  # itself, not its past
    return needed


def _versions_to_keep(
    store: Store, stored: Mapping[Name, Stored], keep_versions: int
) -> Iterator[Name]:
    for task in store.tasks():
        yield from ((name, found.fingerprint) for name, found in store.current_of(task).items())
        kept: dict[str, int] = {}
        for name in dict.fromkeys(reversed(store.remembered(task))):  # the latest first
            if name in stored and kept.get(name[0], 0) < keep_versions:
                kept[name[0]] = kept.get(name[0], 0) + 1
                yield name


def _finished_parts(store: Store, stored: Mapping[Name, Stored]) -> Iterator[Name]:
    """Young artefacts that nobody ever pointed to: what a killed attempt had finished."""
    claimed = {name for task in store.tasks() for name in store.remembered(task)}
    claimed |= {part for found in stored.values() for part in _parts(found)}
    return (
        name
        for name, found in stored.items()
        if name not in claimed and not _is_old([found.directory / "manifest.json"])
    )


def _parts(stored: Stored) -> list[Name]:
    parts = stored.manifest.get("parts", {})
    return [(asset, fingerprint) for asset in parts for fingerprint in parts[asset]]


def _unfinished(store: Store) -> Iterator[tuple[str, Path]]:
    for path in sorted((store.root / "building").glob("*-*")):
        if path.is_dir() and not is_held(path.with_name(f"{path.name}.lock")):
            yield "unfinished", path


def _old_scratch(store: Store, records: list[dict]) -> Iterator[tuple[str, Path]]:
    busy = {store.scratch(a, f).name for record in records for a, f in record["needs"]}
    for path in sorted((store.root / "scratch").glob("*")):
        if path.is_dir() and path.name not in busy and _is_old([path, *path.rglob("*")]):
            yield "scratch", path


def _is_old(paths: Iterable[Path]) -> bool:
    return max(path.stat().st_mtime for path in paths) < time.time() - SCRATCH_DAYS * 24 * 3600


def _removed(store: Store, kind: str, path: Path) -> Removed:
    return Removed(kind, str(path.relative_to(store.root)), folder_size(path))


def folder_size(directory: Path) -> int:
    """Bytes of all files below a folder; 0 if there is none."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # somebody else sweeps at the same time
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
