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
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sot_pipeline.defs.store import Store, Stored, is_held, locked

SCRATCH_DAYS = 7  # checkpoints of an attempt that nobody took up again
_BESIDE_ARTEFACTS = {"current", "history", "building", "in_use", "scratch", "rows", "fetched"}
Name = tuple[str, str]  # asset, fingerprint


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be."""

    artefacts: list[Name]
    num_bytes: int


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
    path = store.root / "in_use" / f"{uuid.uuid4().hex}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = [(asset, fingerprint), *((s.asset, s.fingerprint) for s in inputs.values())]
    record = {
        "task": task,
        "asset": asset,
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "needs": needed,
    }
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the system when the process dies
        file.write(json.dumps(record))
        file.flush()
        try:
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
    """Remove the artefacts that nothing needs any more.

    Kept are, with everything they were made from: each task's current artefacts, the last
    `keep_versions` versions of each of its assets, and what a living process reads or writes.
    Also removed: what crashed attempts left, and checkpoints older than `SCRATCH_DAYS`.
    """
    with locked(store.root / ".lock"):
        unneeded = _unneeded(store, keep_versions)
        collected = Collected(
            sorted((stored.asset, stored.directory.name) for stored in unneeded),
            sum(_size(stored.directory) for stored in unneeded),
        )
        if dry_run:
            return collected
        trash = store.root / "building"
        trash.mkdir(parents=True, exist_ok=True)
        for stored in unneeded:
            stored.directory.rename(trash / f"{stored.asset}-{uuid.uuid4().hex}")
        for path in (store.root / "in_use").glob("*.json"):
            if not is_held(path):
                path.unlink(missing_ok=True)
    store.sweep()
    oldest = time.time() - SCRATCH_DAYS * 24 * 3600
    for directory in (store.root / "scratch").glob("*"):
        if max(p.stat().st_mtime for p in [directory, *directory.rglob("*")]) < oldest:
            shutil.rmtree(directory, ignore_errors=True)
    return collected


def _unneeded(store: Store, keep_versions: int) -> list[Stored]:
    folders = (path for path in store.root.glob("*") if path.is_dir())
    assets = [path.name for path in folders if path.name not in _BESIDE_ARTEFACTS]
    stored = {
        (asset, found.fingerprint): found for asset in assets for found in store.artefacts(asset)
    }
    by_version: dict[Name, list[Name]] = {}
    for name, found in stored.items():
        by_version.setdefault((found.asset, found.data_version), []).append(name)
    needed: set[Name] = set()
    waiting = _roots(store, assets, keep_versions)
    while waiting:
        name = waiting.pop()
        if name in needed or name not in stored:
            continue
        needed.add(name)
        manifest = stored[name].manifest
        for ancestor in manifest.get("inputs", {}).items():
            waiting += by_version.get(ancestor, [])
        for asset, fingerprints in manifest.get("parts", {}).items():
            waiting += [(asset, fingerprint) for fingerprint in fingerprints]
        if manifest.get("previous") is not None:
            needed |= {(name[0], manifest["previous"])} & stored.keys()  # itself, not its past
    return [found for name, found in stored.items() if name not in needed]


def _roots(store: Store, assets: list[str], keep_versions: int) -> list[Name]:
    roots: list[Name] = [(a, f) for record in running(store) for a, f in record["needs"]]
    for task in store.tasks():
        roots += [(name, s.fingerprint) for name, s in store.current_of(task).items()]
        for asset in assets:
            kept = store.history(task, asset)[-keep_versions:] if keep_versions else []
            roots += [(asset, stored.fingerprint) for stored in kept]
    return roots


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
