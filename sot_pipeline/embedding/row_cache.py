"""Embedded rows on disk: a row is paid for once, and a kill costs at most one shard.

Layout: `<directory>/<encoder fingerprint>/<random name>.npy` holds the vectors of one shard,
`<random name>.json` the keys of its rows and the checksum of the array. Both are written to
a temporary name, fsynced and renamed, the array first: a shard exists once its `.json` does.
Whatever else lies there (a half-written file, an array without keys, an array that no longer
has its checksum) is not served; its rows are embedded again.

Shards have random names and are never rewritten, so several processes may share a cache.
"""

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sot_pipeline.durable import to_disk
from sot_pipeline.errors import InputError

SHARD_ROWS = 512

_LEFTOVER_AGE = 24 * 3600  # seconds after which an unfinished file cannot be in the making


class RowCache:
    """The vectors that one encoder has made, by row key.

    Args:
        directory: Shared by all encoders; each has a folder named after its fingerprint.
        fingerprint: Of the encoder, letters and digits.
        dimension: Length of its vectors; shards of another length are not served.
        shard_rows: Rows that are written together, at least.
    """

    def __init__(
        self, directory: Path, fingerprint: str, dimension: int, *, shard_rows: int = SHARD_ROWS
    ):
        if not re.fullmatch(r"[0-9A-Za-z_-]+", fingerprint):
            raise InputError(f'"{fingerprint}" cannot name a folder of the row cache.')
        self.directory = Path(directory) / fingerprint
        self.dimension = dimension
        self.shard_rows = shard_rows
        self.directory.mkdir(parents=True, exist_ok=True)
        self._pending: dict[str, np.ndarray] = {}
        self._remove_leftovers()
        # Newer shards win, so that a row embedded again after damage is found.
        self._shards: dict[str, dict] = {}
        self._place: dict[str, tuple[str, int]] = {}
        for path in sorted(self.directory.glob("*.json"), key=lambda p: p.stat().st_mtime_ns):
            shard = _read_index(path, dimension)
            if shard is not None:
                self._add_shard(path.stem, shard)

    def get(self, keys: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """(key, float32 vector) of those keys that the cache holds undamaged, in any order."""
        wanted: dict[str, list[str]] = {}
        for key in dict.fromkeys(keys):
            if key in self._pending:
                yield key, self._pending[key]
            elif key in self._place:
                wanted.setdefault(self._place[key][0], []).append(key)
        for name, of_shard in wanted.items():  # one shard in memory at a time
            vectors = self._read_shard(name)
            if vectors is not None:
                yield from ((key, vectors[self._place[key][1]]) for key in of_shard)

    def put(self, keys: Sequence[str], vectors: np.ndarray) -> None:
        """Take in rows that were embedded together; what fills a shard is on disk when this
        returns, the rest at `flush`. Rows of one call are never parted: what is missing after
        a kill are whole batches, which are embedded again as they would have been."""
        if vectors.shape != (len(keys), self.dimension):
            raise ValueError(
                f"vectors have shape {vectors.shape}, expected {(len(keys), self.dimension)}"
            )
        for key, vector in zip(keys, vectors, strict=True):
            self._pending[key] = np.array(vector, dtype=np.float32)
        if len(self._pending) >= self.shard_rows:
            self._write_shard(list(self._pending))

    def flush(self) -> None:
        """Write what does not fill a shard."""
        if self._pending:
            self._write_shard(list(self._pending))

    def _write_shard(self, keys: list[str]) -> None:
        name = secrets.token_hex(8)
        array = self.directory / f"{name}.npy"
        with _durable(array) as file:
            np.save(file, np.stack([self._pending[key] for key in keys]), allow_pickle=False)
        shard = {
            "rows": len(keys),
            "dimension": self.dimension,
            "sha256": _sha256(array),
            "keys": keys,
        }
        with _durable(self.directory / f"{name}.json") as file:
            file.write(json.dumps(shard).encode())
        self._add_shard(name, shard)
        for key in keys:
            del self._pending[key]

    def _add_shard(self, name: str, shard: dict) -> None:
        self._shards[name] = shard
        self._place |= {key: (name, row) for row, key in enumerate(shard["keys"])}

    def _read_shard(self, name: str) -> np.ndarray | None:
        path, shard = self.directory / f"{name}.npy", self._shards[name]
        try:
            if _sha256(path) != shard["sha256"]:
                return None
            vectors = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        right = vectors.shape == (shard["rows"], self.dimension) and vectors.dtype == np.float32
        return vectors if right else None

    def _remove_leftovers(self) -> None:
        """Delete unfinished files, but not those that another process may be writing now."""
        for path in self.directory.iterdir():
            unfinished = path.suffix == ".partial" or (
                path.suffix == ".npy" and not path.with_suffix(".json").exists()
            )
            try:
                if unfinished and time.time() - path.stat().st_mtime > _LEFTOVER_AGE:
                    path.unlink()
            except FileNotFoundError:  # another process was faster
                continue


def row_key(token_ids: Sequence[int]) -> str:
    """Key of a row: hash (32 hex) of its token ids."""
    content = np.asarray(token_ids, dtype="<i8").tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _read_index(path: Path, dimension: int) -> dict | None:
    try:
        shard = json.loads(path.read_bytes())
        keys = shard["keys"]
        sound = (
            shard["dimension"] == dimension
            and isinstance(keys, list)
            and all(isinstance(key, str) for key in keys)
            and shard["rows"] == len(keys)
            and isinstance(shard["sha256"], str)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return shard if sound else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _durable:
    """A binary file that appears under its name whole and on disk, or not at all."""

    def __init__(self, path: Path):
        self.path, self.partial = path, path.with_name(path.name + ".partial")

    def __enter__(self):
        self.file = self.partial.open("wb")
        return self.file

    def __exit__(self, failed, *_):
        if not failed:
            self.file.flush()
            os.fsync(self.file.fileno())
        self.file.close()
        if failed:
            self.partial.unlink(missing_ok=True)
            return
        self.partial.replace(self.path)
        to_disk(self.path.parent)
