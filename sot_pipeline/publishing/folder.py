"""A folder of results: written whole or not at all, replaced only if nothing in it is lost."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sot_pipeline.errors import InputError, storage_errors

MANIFEST = "export.json"
MADE_BY = "sot export"


@contextlib.contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its place when the block ends well.

    Raises:
        InputError: `out` is a file, or holds something that an earlier export did not write.
    """
    out = out.resolve()
    _require_replaceable(out, by_hash=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    before = out.with_name(f".{out.name}.{os.getpid()}.old")
    shutil.rmtree(building, ignore_errors=True)
    try:
        with storage_errors(out.parent):
            building.mkdir()
            yield building
            _require_replaceable(out, by_hash=False)  # what came meanwhile stays too
            if out.exists():
                out.rename(before)
            building.rename(out)
    except BaseException:
        if before.exists() and not out.exists():
            before.rename(out)
        raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
        if out.exists():
            shutil.rmtree(before, ignore_errors=True)


def write_manifest(folder: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """List every file with size and sha256, so that the next export knows its own."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {"made_by": MADE_BY, **entries, "files": files}
    text = json.dumps(manifest, indent=1, ensure_ascii=False, default=str)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return manifest


def _require_replaceable(out: Path, *, by_hash: bool) -> None:
    """Raise unless `out` does not exist, is an empty folder or an export as it was written.

    `by_hash` False looks at names and sizes alone: a merged model takes a while to hash.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise InputError(f"--out {out}: is a file, expected a folder that does not exist yet")
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()}
    if not found and not any(out.iterdir()):
        return
    written = _earlier_files(out)
    if written is None:
        raise InputError(
            f"--out {out}: the folder is not empty and no earlier export; give a new one"
        )
    foreign = sorted(found - written.keys() - {MANIFEST})
    changed = sorted(
        name
        for name in found & written.keys()
        if _differs(out / name, written[name], by_hash=by_hash)
    )
    if foreign or changed:
        what = "holds files that no export wrote" if foreign else "was edited since its export"
        named = ", ".join((foreign or changed)[:3])
        raise InputError(
            f"--out {out}: {what} ({named}); move them, or give another folder: replacing this "
            "one would lose them"
        )


def _earlier_files(out: Path) -> dict[str, dict[str, Any]] | None:
    try:
        manifest = json.loads((out / MANIFEST).read_bytes())
        files = manifest["files"] if manifest["made_by"] == MADE_BY else None
        return files if isinstance(files, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _differs(path: Path, entry: dict[str, Any], *, by_hash: bool) -> bool:
    if path.stat().st_size != entry["bytes"]:
        return True
    return by_hash and _sha256(path) != entry["sha256"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
