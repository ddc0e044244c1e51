"""The bytes of a text set: size cap, decompression, file type, sha256."""

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import zstandard

from sot_pipeline.errors import InputError
from sot_pipeline.texts.csv_layout import guess_delimiter
from sot_pipeline.texts.formats import known_columns
from sot_pipeline.texts.json_row import parse_json_row
from sot_pipeline.texts.layout import UTF8_BOM
from sot_pipeline.texts.rejection import RowRejected

MAX_EXPANDED_BYTES = 2 * 2**30
_CONTENT = re.compile(rb"[^ \t\r\n\x00]")
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_ARROW = (b"ARROW1\0\0", b"\xff\xff\xff\xff")  # a file, a stream
_CHUNK = 1 << 20
_ZSTD_CHUNK = 1 << 12  # one step can expand 32,768-fold: at most 128 MiB at a time
_MAX_FIRST_LINE = 1 << 26
_FILE_TYPES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
}
ACCEPTED = "JSONL, JSON, CSV, TSV, Parquet or Arrow, also as .gz or .zst"


class Source(NamedTuple):
    """A file as read once: what is hashed is what is parsed.

    `data` is decompressed, and has no byte if the file holds no row; `sha256` and `num_bytes` are
    of the file as it lies on disk. `file_type` is "jsonl", "json", "csv", "tsv", "parquet" or
    "arrow"; `compression` "", ".gz" or ".zst".
    """

    path: Path
    data: bytearray
    sha256: str
    num_bytes: int
    file_type: str
    compression: str

    @property
    def suffix(self) -> str:
        """The extension that a file of this kind should carry, such as ".jsonl.gz"."""
        return f".{self.file_type}{self.compression}"


def read_source(
    path: Path | str,
    *,
    max_expanded_bytes: int = MAX_EXPANDED_BYTES,
    may_be_empty: bool = False,
) -> Source:
    """Read a file whole, decompressed, up to `max_expanded_bytes`.

    The type comes from the extension (.gz, .zst and .zstd looked through), or from the content
    where the extension says nothing. A `.json` file that holds one object per line is JSONL.

    Raises:
        InputError: no such file, a folder, empty, larger than the cap (before or while
            expanding), broken compression, UTF-16, or a content that is none of the types.
    """
    path = Path(path)
    data, raw, compression = _read_capped(path, max_expanded_bytes)
    sha256 = raw.sha256.hexdigest()
    if not _CONTENT.search(data, len(UTF8_BOM) if data.startswith(UTF8_BOM) else 0):
        if may_be_empty:
            empty = _named_type(path) or "jsonl"
            return Source(path, bytearray(), sha256, raw.num_bytes, empty, compression)
        raise InputError(f"{path} is empty; expected one row or more of {ACCEPTED}.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path} is UTF-16; expected UTF-8. Save it again as UTF-8.")
    file_type = _file_type(path, data)
    return Source(path, data, sha256, raw.num_bytes, file_type, compression)


def _read_capped(path: Path, cap: int) -> tuple[bytearray, "_HashingReader", str]:
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a file: {ACCEPTED}. Name one file of it.")
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a file: {ACCEPTED}. Check the path.")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; expected {ACCEPTED}.")
    try:
        with path.open("rb") as file:
            return _expand(file, path, cap)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _expand(
    file: io.BufferedReader, path: Path, cap: int
) -> tuple[bytearray, "_HashingReader", str]:
    raw = _HashingReader(file)
    magic = file.peek(4)[:4]
    if magic.startswith(_GZIP):
        compression, chunks = ".gz", _gzip_chunks(raw)
    elif magic.startswith(_ZSTD):
        compression, chunks = ".zst", _zstd_chunks(raw)
    elif path.suffix in (".gz", ".zst", ".zstd"):
        raise InputError(
            f"{path} is named {path.suffix} but its content is not compressed that way. "
            f"Compress it again, or drop {path.suffix} from its name."
        )
    else:
        compression, chunks = "", iter(lambda: raw.read(_CHUNK), b"")
    data = bytearray()
    try:
        for chunk in chunks:
            data += chunk
            if len(data) > cap:
                raise InputError(
                    f"{path} expands to more than {cap:,} bytes, the cap on a text set. "
                    "Split the file, or raise max_expanded_bytes if it is trusted."
                )
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise InputError(
            f"{path}: the compressed data is broken or cut short ({error}), after {len(data):,} "
            "readable bytes. Fetch or compress the file again."
        ) from error
    return data, raw, compression


class _HashingReader(io.RawIOBase):
    """Passes a file's bytes on, counts and hashes them, so that hash and content are of one reading."""

    def __init__(self, file: io.BufferedReader):
        super().__init__()
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._file.read(size)
        self.sha256.update(chunk)
        self.num_bytes += len(chunk)
        return chunk

    def readinto(self, buffer) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        chunk = self.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _gzip_chunks(raw: _HashingReader) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=raw) as expanded:  # pyright: ignore[reportArgumentType]
        while chunk := expanded.read(_CHUNK):
            yield chunk


def _zstd_chunks(raw: _HashingReader) -> Iterator[bytes]:
    # stream_reader ends without an error when a frame is cut short; decompressobj tells (eof).
    frames = zstandard.ZstdDecompressor(max_window_size=2**27)
    frame = frames.decompressobj()
    while chunk := raw.read(_ZSTD_CHUNK):
        while chunk:
            if frame.eof:
                frame = frames.decompressobj()
            yield frame.decompress(chunk)
            chunk = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise EOFError("the last zstd frame does not end")


def _named_type(path: Path) -> str | None:
    suffixes = [s.lower() for s in path.suffixes if s.lower() not in (".gz", ".zst", ".zstd")]
    return _FILE_TYPES.get(suffixes[-1]) if suffixes else None


def _file_type(path: Path, data: bytearray) -> str:
    named = _named_type(path)
    if data.startswith(_PARQUET) and named not in (None, "parquet"):
        raise InputError(
            f"{path} is a Parquet file by its content, but is named as {named}. "
            "Rename it to .parquet, or convert it."
        )
    if named == "parquet" or data.startswith(_PARQUET):
        if not (data.startswith(_PARQUET) and data.endswith(_PARQUET)):
            raise InputError(
                f"{path} does not begin and end with the mark PAR1 of a Parquet file: it is cut "
                f"short, or of another type. Expected {ACCEPTED}, named accordingly."
            )
        return "parquet"
    if named == "arrow" or (named is None and data.startswith(_ARROW)):
        return "arrow"
    if named in ("jsonl", "csv", "tsv"):
        return named
    found = _sniff(data)
    if named == "json":
        return "jsonl" if found == "jsonl" else "json"  # many .json files hold one object per line
    if found is None:
        raise InputError(
            f"{path}: neither the extension nor the content tells the file type. "
            f"Expected {ACCEPTED}; rename the file accordingly."
        )
    return found


def _sniff(data: bytearray) -> str | None:
    """The text file type that the content suggests, or None."""
    begin = _CONTENT.search(data, len(UTF8_BOM) if data.startswith(UTF8_BOM) else 0)
    start = begin.start() if begin else 0
    stop = data.find(b"\n", start) + 1 or len(data)
    first = bytes(data[start : min(stop, start + _MAX_FIRST_LINE)])
    if first.startswith(b"["):
        return "json"
    if not first.startswith(b"{"):
        delimiter = guess_delimiter(first.decode("utf-8", "replace").strip())
        return {"\t": "tsv", None: None}.get(delimiter, "csv")
    try:
        row = parse_json_row(first)
    except RowRejected:
        return "json"  # an object over several lines
    return "jsonl" if _CONTENT.search(data, stop) or known_columns(row) else "json"
