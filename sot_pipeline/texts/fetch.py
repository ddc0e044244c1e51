"""Remote files, fetched once; local ones as they lie."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sot_pipeline.durable import locked, to_disk
from sot_pipeline.errors import InputError
from sot_pipeline.progress import Progress
from sot_pipeline.texts.file_systems import is_url, mark_of, place_of, reaching, shown
from sot_pipeline.texts.locate import Located, file_name, locate, unique_names
from sot_pipeline.texts.source import MAX_EXPANDED_BYTES

_CHUNK = 1 << 20


class InputFile(NamedTuple):
    """A file of a text set, ready to be read.

    Attributes:
        name: unique within the set, safe as a relative path.
        path: where it lies on this machine.
        location: where it is from: absolute path, or URL without what may be secret.
        revision: commit of a hub dataset.
        licence: as stated for the file as a whole, by hand or by the dataset's card.
        licence_from: "task file", "dataset card", or "" where none is stated.
    """

    name: str
    path: Path
    location: str
    revision: str | None
    licence: str | None
    licence_from: str


def input_files(
    sources: Sequence[str],
    folder: Path,
    *,
    licences: Mapping[str, str],
    progress: Callable[[str], Progress],
) -> list[InputFile]:
    """The files of a text set, fetched where they lie elsewhere.

    Args:
        sources: as `locate` takes them; a file that two of them mean is read once.
        folder: where fetched files lie.
        licences: licence of a source, stated by hand.
        progress: makes the report on fetching a file of this name, in bytes.

    Raises:
        InputError: a source that is not there, or cannot be fetched.
    """
    found: dict[str, tuple[Located, str | None]] = {}
    for source in sources:
        for file in located(source, folder):
            found.setdefault(file.location, (file, licences.get(source)))
    names = unique_names(found)
    files: list[InputFile] = []
    for name, (file, stated) in zip(names, found.values(), strict=True):
        path = Path(file.location) if file.is_local else fetch(file, folder, progress(name))
        licence = stated or file.licence
        origin = "task file" if stated else "dataset card" if licence else ""
        files.append(InputFile(name, path, shown(file.location), file.revision, licence, origin))
    return files


def located(source: str, folder: Path) -> list[Located]:
    """As `locate`; what a commit holds is asked once and kept, since it cannot change."""
    if not is_url(source) or place_of(source).pinned is None:
        return locate(source)
    kept = folder / "listings" / f"{_digest(source)}.json"
    if kept.exists():
        return [Located(*entry) for entry in json.loads(kept.read_bytes())]
    files = locate(source)
    with _appearing_whole(kept) as temporary:
        temporary.write_text(json.dumps(files))
    return files


def fetch(
    file: Located,
    folder: Path,
    progress: Progress,
    *,
    max_bytes: int = MAX_EXPANDED_BYTES,
) -> Path:
    """Copy a remote file to `folder/<hash of URL and mark>/<name>`, unless it is there.

    The name appears when the file is whole and on disk; a killed attempt leaves only a temporary
    file, which the next one replaces.

    Raises:
        InputError: not reachable, larger than `max_bytes`, or changed meanwhile.
    """
    path = folder / _digest(f"{file.location} {file.mark}") / file_name(file.location)
    if path.exists():
        return path
    name = shown(file.location)
    if file.size is not None and file.size > max_bytes:
        raise _too_large(name, file.size, max_bytes)
    with _appearing_whole(path) as temporary, reaching(file.location):
        if path.exists():  # another process was faster
            return path
        num_bytes = _copy(file, temporary, max_bytes, progress)
        place = place_of(file.location)
        if not place.pinned:
            place.fs.invalidate_cache()
        if not place.pinned and mark_of(place.fs.info(place.path)) != file.mark:
            raise InputError(f"{name} changed while it was fetched. Run again.")
        if file.size is not None and num_bytes != file.size:
            raise InputError(
                f"{name} came incomplete ({num_bytes:,} of {file.size:,} bytes). Run again."
            )
    return path


def _copy(file: Located, destination: Path, max_bytes: int, progress: Progress) -> int:
    done = 0
    with place_of(file.location).open() as remote, destination.open("wb") as out:
        progress(0, file.size or 0)
        while chunk := remote.read(_CHUNK):
            done += len(chunk)
            if done > max_bytes:
                raise _too_large(shown(file.location), done, max_bytes)
            out.write(chunk)
            progress(done, file.size or done)
    return done


def _too_large(name: str, num_bytes: int, cap: int) -> InputError:
    return InputError(
        f"{name} has {num_bytes:,} bytes or more; the cap on a file is {cap:,}. Split it."
    )


@contextlib.contextmanager
def _appearing_whole(path: Path) -> Iterator[Path]:
    """A temporary file that takes its name if all went well; one writer at a time."""
    temporary = path.with_name(f".{path.name}.tmp")
    with locked(path.with_name(f".{path.name}.lock")):
        try:
            yield temporary
            if temporary.exists():
                to_disk(temporary)
                temporary.replace(path)
                to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
