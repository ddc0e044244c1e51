"""Columns of data inside a page: compressed, and nothing in them can be markup.

Every column becomes base64 of gzip, whose alphabet has no `<`, no `&` and no quote, so that whatever
a row holds stays inside its data block. The page's script unpacks it (`page/unpack.js`).
"""

import base64
import gzip
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Packed = dict[str, Any]  # JSON: fixed keys, numbers, base64
_BATCH = 500  # texts between two looks at the size
_SLACK = 256  # bytes that the end of a stream and its names may take
_GZIP_WINDOW = 31  # zlib's name for a gzip header with the largest window


def numbers(values: np.ndarray, *, scale: float = 1.0) -> Packed:
    """Numbers of any width; the page multiplies integers by `scale`."""
    little = values.dtype.newbyteorder("<")
    return {
        "type": f"{values.dtype.name}",
        "scale": scale,
        "data": _packed(values.astype(little).tobytes()),
    }


def whole_numbers(values: np.ndarray) -> Packed:
    """Counts from 0 on, in as few bytes as they need."""
    return numbers(values.astype(np.min_scalar_type(int(values.max(initial=0)))))


def hundredths_of_a_percent(values: np.ndarray) -> Packed:
    """Values in [-3, 3] to four decimals; one that is missing is the lowest int16."""
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    rounded = np.round(np.clip(np.where(known, values, 0.0), -3, 3) * 10_000)
    return numbers(np.where(known, rounded, -32_768).astype(np.int16), scale=1e-4)


def texts(values: Sequence[str | None]) -> Packed:
    return {"type": "text", "data": _packed(_json(values))}


def names(values: Sequence[str | None]) -> Packed:
    """Texts of which many are alike: each once, and its number per row; 0 is none."""
    known = sorted({value for value in values if value is not None})
    places = {name: place for place, name in enumerate(known, 1)}
    codes = np.array([0 if value is None else places[value] for value in values], dtype=np.int64)
    return {"type": "names", "codes": whole_numbers(codes), "names": texts(known)}


def as_many_texts(values: Sequence[str | None], rows: np.ndarray, max_size: int) -> Packed | None:
    """The first texts that fit into `max_size` characters of the page; None if none does.

    Args:
        values: In the order of their importance.
        rows: The row that each belongs to.
    """
    room = max_size
    while room > 0:
        squeezed, count = _squeezed(values, room * 3 // 4)
        if not count:
            return None
        data = base64.b64encode(squeezed).decode()
        packed = {
            "rows": whole_numbers(rows[:count]),
            "texts": {"type": "text", "data": data},
            "count": count,
        }
        excess = size_of(packed) - max_size
        if excess <= 0:
            return packed
        room -= excess + _SLACK
    return None


def _squeezed(values: Sequence[str | None], max_bytes: int) -> tuple[bytes, int]:
    """gzip of a JSON list of the first values that fit, and how many these are."""
    squeeze = zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW)
    pieces = [squeeze.compress(b"[")]
    size, best, num_best = len(pieces[0]), b"", 0
    for start in range(0, len(values), _BATCH):
        batch = _json(values[start : start + _BATCH])[1:-1]
        piece = squeeze.compress(batch if start == 0 else b"," + batch)
        piece += squeeze.flush(zlib.Z_SYNC_FLUSH)
        ended = squeeze.copy()
        end = ended.compress(b"]") + ended.flush()
        if size + len(piece) + len(end) > max_bytes:
            break
        pieces.append(piece)
        size += len(piece)
        best, num_best = end, min(start + _BATCH, len(values))
    return b"".join([*pieces, best]), num_best


def size_of(packed: Any) -> int:
    """Characters it takes in the page."""
    return len(json.dumps(packed, separators=(",", ":")))


def _json(values: Sequence[str | None]) -> bytes:
    return json.dumps(list(values), ensure_ascii=False, separators=(",", ":")).encode()


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, compresslevel=9, mtime=0)).decode()
