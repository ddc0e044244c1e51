"""What a task reads from outside the graph: whether it changed, and its identity."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.store import file_sha256, fingerprint_of
from sot_pipeline.errors import InputError


def source_identity(files: TaskFile, role: str) -> Mapping[str, Any]:
    """Hashes of the contents of a task's `custom`, `safe` or `harmful` set; equal contents have
    equal identities.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    return {"sha256": file_identity(getattr(files, role))}


def source_signature(files: TaskFile, role: str) -> str:
    """Cheap mark of a set's files (names, sizes, times), read without opening them; a changed
    content changes it, an equal content may too. An absent file is part of the mark."""
    path: Path = getattr(files, role)
    try:
        status = path.stat()
    except OSError as error:
        return fingerprint_of({"path": str(path), "error": type(error).__name__})
    return fingerprint_of(
        {"path": str(path), "size": status.st_size, "modified": status.st_mtime_ns}
    )


def file_identity(path: Path) -> str:
    """sha256 of a file, remembered while its size and time stay the same."""
    if not path.exists():
        raise InputError(f"{path}: no such file (looked in {path.resolve().parent})")
    if path.is_dir():
        raise InputError(f"{path}: is a directory, expected one file of rows")
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, modified: int) -> str:
    return file_sha256(path)
