"""From what a task names (a file, a glob, a folder, a URL) to the files that are meant."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from fsspec.core import has_magic

from sot_pipeline.errors import InputError
from sot_pipeline.texts.dataset_folder import choose_files, licence_of, read_card
from sot_pipeline.texts.file_systems import (
    HttpFiles,
    Place,
    is_url,
    mark_of,
    place_of,
    reaching,
    shown,
)

_MAX_CARD_BYTES = 2**20
_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})/")  # how the hub's cache names a commit
_UNSAFE = re.compile(r"[^\w .()@+=,-]")
_MAX_NAME = 100


class Located(NamedTuple):
    """A file that was found, not read yet.

    Attributes:
        location: absolute path, or URL.
        mark: what tells whether the content is still the same.
        size: bytes, None where the file system does not tell.
        revision: commit of a hub dataset.
        licence: what the card of its dataset states.
    """

    location: str
    mark: str
    size: int | None
    revision: str | None
    licence: str | None
    is_local: bool


def locate(source: str) -> list[Located]:
    """The files that a source means, in order.

    Args:
        source: a local file, glob or folder, or a URL that fsspec knows, also as glob or folder
            where the file system can be listed; hub datasets as
            `hf://datasets/OWNER/NAME@COMMIT/GLOB`.

    Raises:
        InputError: nothing there, a folder without data, a source that cannot be reached.
    """
    place = place_of(source)
    with reaching(source):
        if place.is_local:
            return _locate_local(source, place)
        if not isinstance(place.fs, HttpFiles):
            place.fs.invalidate_cache()  # a listing of an hour ago says nothing about now
        if has_magic(place.path) and not isinstance(place.fs, HttpFiles):
            return _matches(source, place)
        if isinstance(place.fs, HttpFiles) and "*" in place.path:
            raise NotImplementedError
        info = place.fs.info(place.path)
        if info["type"] == "directory":
            return _in_folder(source, place)
        return [_located(place, info, _hub_licence(place))]


def _locate_local(source: str, place: Place) -> list[Located]:
    if os.path.isdir(place.path):
        return _in_folder(source, place)
    if os.path.exists(place.path):
        return [_located(place, {"name": place.path}, None)]
    if has_magic(place.path):
        return _matches(source, place)
    raise InputError(f"{source}: no such file (looked in {os.path.dirname(place.path)})")


def _matches(source: str, place: Place) -> list[Located]:
    fixed = place.path[: re.search(r"[*?\[]", place.path).start()]  # pyright: ignore[reportOptionalMemberAccess]
    folder = fixed.rpartition("/")[0]
    try:
        found: Any = place.fs.glob(place.path, detail=True)
    except ValueError as error:
        raise InputError(f"{shown(source)}: {error}") from error
    files = [
        info
        for name, info in sorted(found.items())
        if _is_file(place, info) and not name.rpartition("/")[2].startswith(".")
    ]
    if not files:
        raise InputError(
            f"{shown(source)}: no such file, nothing matches (looked in {folder or '/'}). "
            "Check the pattern."
        )
    licence = _hub_licence(place)
    return [_located(place, _details(place, info), licence) for info in files]


def _in_folder(source: str, place: Place) -> list[Located]:
    root = place.path.rstrip("/")
    found: Any = place.fs.find(root, detail=True)
    below = {
        name[len(root) :].lstrip("/"): info
        for name, info in found.items()
        if _is_file(place, info) and name.startswith(f"{root}/")
    }
    chosen = choose_files(
        list(below), lambda name: _read(place, f"{root}/{name}"), shown(source).rstrip("/")
    )
    licence = chosen.licence or _hub_licence(place)
    return [_located(place, _details(place, below[name]), licence) for name in chosen.files]


def _is_file(place: Place, info: dict[str, Any]) -> bool:
    # the hub's cache holds links to files, which fsspec calls "other"
    return os.path.isfile(info["name"]) if place.is_local else info["type"] == "file"


def _details(place: Place, listed: dict[str, Any]) -> dict[str, Any]:
    """What a file system tells of a file; some listings tell its time in another form."""
    return listed if place.is_local or place.pinned else place.fs.info(listed["name"])


def _located(place: Place, info: dict[str, Any], licence: str | None) -> Located:
    if place.is_local:
        path = os.path.abspath(info["name"])
        status = os.stat(path)
        snapshot = _SNAPSHOT.search(path)
        revision = snapshot[1] if snapshot else None
        mark = f"size={status.st_size} mtime={status.st_mtime_ns}"
        return Located(path, mark, status.st_size, revision, licence, True)
    location = str(place.fs.unstrip_protocol(info["name"]))
    mark = "pinned" if place.pinned else mark_of(info)
    return Located(location, mark, info.get("size"), place.pinned, licence, False)


def _hub_licence(place: Place) -> str | None:
    """The licence that the card at the root of a hub dataset states."""
    if place.pinned is None:
        return None
    root = place.path.partition(place.pinned)[0] + place.pinned
    try:
        card = _read(place, f"{root}/README.md")
    except FileNotFoundError:
        return None
    return licence_of(read_card(card, f"hf://{root}"))


def _read(place: Place, path: str) -> bytes:
    with place._replace(path=path).open() as file:
        return file.read(_MAX_CARD_BYTES)


def unique_names(locations: Iterable[str]) -> list[str]:
    """A short file name for each location: its last part, with folders before it, or a number,
    where that alone is not unique. Names a file in its folder whatever the locations hold."""
    parts = [_safe_parts(location) for location in locations]
    ends = Counter(_end(own, depth) for own in parts for depth in range(1, len(own) + 1))
    names: list[str] = []
    taken: set[str] = set()
    for own in parts:
        depth = next((d for d in range(1, len(own)) if ends[_end(own, d)] == 1), len(own))
        depth = depth if ends[_end(own, depth)] == 1 else 1
        base = safe_name("-".join(own[-depth:]))
        name, number = base, 1
        while name.casefold() in taken:
            number += 1
            name = f"{number}-{base}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _end(parts: list[str], depth: int) -> tuple[str, ...]:
    return tuple(part.casefold() for part in parts[-depth:])


def _safe_parts(location: str) -> list[str]:
    path = re.sub(r"[?#].*", "", location).partition("://")[2] if is_url(location) else location
    return [name for part in path.split("/") if (name := safe_name(part))] or ["rows"]


def safe_name(name: str) -> str:
    """A file name that names a file in its folder and nothing else; "" if nothing is left."""
    return _UNSAFE.sub("_", name).lstrip(". ").rstrip(" ")[-_MAX_NAME:].lstrip(". ")


def file_name(location: str) -> str:
    """The last part of a location as a safe file name."""
    return _safe_parts(location)[-1]
