"""A folder of results: written whole or not at all, replaced only if nothing in it is lost."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from sot_pipeline.durable import to_disk, tree_to_disk
from sot_pipeline.errors import InputError, storage_errors
from sot_pipeline.publishing.provenance import (
    MANIFEST,
    MANIFEST_HASH,
    MAX_BYTES,
    read_provenance,
    sha256_of,
)


@contextlib.contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its place when the block ends well.

    Wherever the process is killed, `out` is as it was or as it was to be; only between two renames
    is it missing for a moment, and then the next call puts the earlier one back.

    Raises:
        InputError: `out` is a file, or holds something that an earlier export did not write.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    _recover(out)
    require_replaceable(out, by_hash=True)
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    before = out.with_name(f".{out.name}.{os.getpid()}.old")
    shutil.rmtree(building, ignore_errors=True)
    try:
        with storage_errors(out.parent):
            building.mkdir()
            yield building
            tree_to_disk(building)
            require_replaceable(out, by_hash=False)  # what came meanwhile stays too
            if out.exists():
                out.rename(before)
            building.rename(out)
            to_disk(out.parent)
    except BaseException:
        if before.exists() and not out.exists():
            before.rename(out)
        raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
        if out.exists():
            shutil.rmtree(before, ignore_errors=True)


def _recover(out: Path) -> None:
    """Clear away what killed exports left beside `out`, and put back what one had moved aside."""
    left = re.compile(rf"\.{re.escape(out.name)}\.(\d+)\.(tmp|old)")
    for path in sorted(out.parent.iterdir()):
        match = left.fullmatch(path.name)
        if match is None or path.is_symlink() or _is_running(int(match[1])):
            continue
        if match[2] == "old" and not out.exists():
            path.rename(out)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def require_replaceable(out: Path, *, by_hash: bool = False) -> None:
    """Raise `InputError` unless `out` does not exist, is an empty folder or an export as it was
    written.

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
    foreign = sorted(found - written.keys() - {MANIFEST, MANIFEST_HASH})
    changed = sorted(
        name
        for name in found & written.keys()
        if _differs(out / name, *written[name], by_hash=by_hash)
    )
    if foreign or changed:
        what = "holds files that no export wrote" if foreign else "was edited since its export"
        named = ", ".join((foreign or changed)[:3])
        raise InputError(
            f"--out {out}: {what} ({named}); move them, or give another folder: replacing this "
            "one would lose them"
        )


def _earlier_files(out: Path) -> dict[str, tuple[int, str]] | None:
    try:
        if (out / MANIFEST).stat().st_size > MAX_BYTES:
            return None
        return read_provenance((out / MANIFEST).read_bytes()).sizes_and_hashes
    except (OSError, InputError):
        return None


def _differs(path: Path, num_bytes: int, sha256: str, *, by_hash: bool) -> bool:
    if path.stat().st_size != num_bytes:
        return True
    return by_hash and sha256_of(path) != sha256
