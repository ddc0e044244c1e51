"""Files and locks that a kill at any moment leaves in order."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file: after a crash it has its old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        to_disk(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk needs every byte back
        raise
    to_disk(path.parent)


def to_disk(path: Path) -> None:
    """Ask the disk to hold a file's content, or a directory's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tree_to_disk(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        to_disk(path)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file that stays; the system releases it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a lock file that goes with its holder; wait for whoever has it now."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(lock, file):  # went with its last holder while this one waited
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


@contextlib.contextmanager
def held_if_free(lock: Path) -> Iterator[bool]:
    """As `held`, but False at once when a living process has it."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if not _is_at(lock, file):
            yield False
            return
        try:
            yield True
        finally:
            lock.unlink(missing_ok=True)


def is_held(lock: Path) -> bool:
    """Whether a living process holds a lock file now."""
    try:
        with lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _is_at(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
