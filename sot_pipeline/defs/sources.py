"""What a task reads from outside the graph: whether it changed, and its identity."""

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.settings import PACKAGED_MODELS
from sot_pipeline.defs.store import file_sha256, fingerprint_of
from sot_pipeline.errors import InputError
from sot_pipeline.progress import Progress, listener, reporter

if TYPE_CHECKING:
    from sot_pipeline.texts.fetch import InputFile


def source_identity(files: TaskFile, role: str) -> Mapping[str, Any]:
    """Hashes of the contents of a task's `custom`, `safe` or `harmful` set, file by file; equal
    contents have equal identities. Remote files are fetched for it.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    return {"sha256": [file_identity(file.path) for file in source_files(files, role)]}


def source_description(files: TaskFile, role: str) -> Mapping[str, Any]:
    """The identity of a set's contents, and what else its document tells of each file."""
    found = source_files(files, role)
    return {
        "sha256": [file_identity(file.path) for file in found],
        "files": [[str(field) for field in file._replace(path=Path())] for file in found],
    }


def source_signature(files: TaskFile, role: str) -> str:
    """Cheap mark of a set's files (names, sizes, times, what servers tell), made without reading
    them; a changed content changes it, an equal content may too. A file that is absent or cannot
    be reached is part of the mark."""
    return fingerprint_of({source: _mark(source) for source in _sources(files, role)})


def _mark(source: str) -> list[list[str]] | str:
    from sot_pipeline.texts.file_systems import is_url, place_of
    from sot_pipeline.texts.locate import locate

    try:
        if is_url(source) and place_of(source).pinned is not None:
            return "pinned"  # never another content, so nobody is asked
        return [[file.location, file.mark] for file in locate(source)]
    except InputError as error:
        cause = error.__cause__  # its text may hold the number of a request
        return f"error: {error if cause is None else type(cause).__name__}"


def review_signature(files: TaskFile) -> str:
    """As `source_signature`, of the log of people's decisions."""
    try:
        status = files.reviews.stat() if files.reviews else None
    except FileNotFoundError:
        status = None
    return fingerprint_of({"mark": status and [status.st_size, status.st_mtime_ns]})


def review_identity(files: TaskFile) -> Mapping[str, Any]:
    """Hash of the log of people's decisions; None without one."""
    log = files.reviews
    return {"sha256": file_identity(log) if log is not None and log.exists() else None}


def source_files(files: TaskFile, role: str) -> "list[InputFile]":
    """The files of a set on this machine, fetched where they lie elsewhere.

    Raises:
        InputError: a source is missing, or cannot be fetched.
    """
    from sot_pipeline.texts.fetch import input_files

    return input_files(
        _sources(files, role),
        files.home.fetched,
        licences=files.licences,
        progress=fetching_progress,
    )


def _sources(files: TaskFile, role: str) -> tuple[str, ...]:
    given = getattr(files, role)  # `model_copy` may have put one path there
    return tuple(map(str, given)) if isinstance(given, list | tuple) else (str(given),)


def fetching_progress(name: str) -> Progress:
    """Shows how far the fetching of a file is."""
    return reporter(f"fetching {name}", "bytes", partial(listener().said, "fetching"))


def file_identity(path: Path) -> str:
    """sha256 of a file, remembered while its size and time stay the same."""
    if not path.exists():
        raise InputError(f"{path}: no such file (looked in {path.resolve().parent})")
    if path.is_dir():
        raise InputError(f"{path}: is a directory, expected one file of rows")
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


def local_model_identity(name: str | None) -> dict[str, str] | None:
    """sha256 of each file of a local model folder, by its path in it, for the fingerprint of what
    the model makes.

    Args:
        name: A setting's value, such as `rivals.guard_model` or one of `experiments.encoders`.

    Returns:
        None where it names no folder: a Hugging Face id, "minilm", "base", or nothing.
    """
    if not name or name in PACKAGED_MODELS or not Path(name).is_dir():
        return None
    files = sorted(path for path in Path(name).rglob("*") if path.is_file())
    return {str(path.relative_to(name)): file_identity(path) for path in files}


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, modified: int) -> str:
    return file_sha256(path)
