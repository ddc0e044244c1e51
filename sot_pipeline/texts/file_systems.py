"""Where files lie: this machine, a web server, object storage, the Hugging Face hub."""

import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from sot_pipeline import __version__
from sot_pipeline.errors import InputError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_HUB = re.compile(r"hf://datasets/(?P<name>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]*))?(?P<path>/.*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 30  # that a server may be silent
# What file systems call the mark of a content, surest first
_MARKS = (
    "etag", "md5hash", "content_md5", "checksum", "generation", "sha", "sha256", "blob_id",
    "lastmodified", "last-modified", "last_modified", "mtime", "modified", "modify", "updated",
    "created",
)  # fmt: skip


class Place(NamedTuple):
    """A path in a file system; `pinned` is the commit that fixes its content, if one does."""

    fs: fsspec.AbstractFileSystem
    path: str
    pinned: str | None = None

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def open(self) -> IO[bytes]:
        # one streamed answer; by default the hub's files come in blocks, each a request
        options = {"block_size": 0} if self.pinned else {}
        return self.fs.open(self.path, "rb", **options)  # pyright: ignore[reportReturnType]


def is_url(source: str) -> bool:
    return _URL.match(source) is not None


def shown(source: str) -> str:
    """A source as it may be written down: without what can hold a secret."""
    if not is_url(source) or source.startswith("hf://"):
        return source
    scheme, _, rest = source.partition("://")
    host, slash, path = rest.partition("/")
    if scheme.lower() in ("http", "https"):
        path = re.sub(r"\?[^#]*", "", path)
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def place_of(source: str) -> Place:
    """The file system of a path or URL; asks no network unless the source is wrong.

    Raises:
        InputError: an unknown kind of URL, one whose package is not installed, or a hub dataset
            without a commit.
    """
    kind = _URL.match(source)
    scheme = kind[1].lower() if kind else "file"
    if scheme == "file":
        return Place(LocalFileSystem(), str(LocalFileSystem._strip_protocol(source)))
    if "::" in source:
        raise InputError(f"{shown(source)}: chained URLs are not read; name the file itself.")
    if scheme in ("http", "https"):
        if "@" in source.split("/")[2]:
            raise InputError(
                f"{shown(source)}: a user name in the address is not sent; expected an address "
                "that opens without one. Download the file and name it."
            )
        return Place(HttpFiles(), source)
    pinned = _commit(source) if scheme == "hf" else None
    try:
        fs, path = fsspec.core.url_to_fs(source)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{shown(source)}: {scheme}:// cannot be read here ({error}). Install the package "
            "that fsspec needs for it, or download the files and name them."
        ) from error
    return Place(fs, str(path), pinned)


def _commit(source: str) -> str:
    """The commit that a hub URL names."""
    parts = _HUB.fullmatch(source)
    if parts is None:
        raise InputError(
            f"{source}: expected hf://datasets/OWNER/NAME@COMMIT/FILES, where FILES may hold * "
            "and may be left out."
        )
    revision = parts["revision"] or ""
    if _COMMIT.fullmatch(revision):
        return revision
    found = f"revision {revision!r}" if revision else "no revision"
    raise InputError(
        f"{source}: found {found}; expected a commit of 40 hexadecimal digits, because branches "
        "and tags move. " + _current_commit(parts["name"])
    )


def _current_commit(name: str) -> str:
    from huggingface_hub import HfApi

    look = f"https://huggingface.co/datasets/{name}/commits/main lists the commits"
    try:
        commit = HfApi().dataset_info(name, timeout=5).sha
    except Exception:  # whatever keeps the hub from answering: the page says it too
        return f"{look}: copy the full one."
    return f"{look}; the newest is {commit}."


@contextlib.contextmanager
def reaching(source: str) -> Iterator[None]:
    """Turn what goes wrong with a source into an `InputError` that names it."""
    try:
        yield
    except InputError:
        raise
    except NotImplementedError as error:
        raise InputError(
            f"{shown(source)}: a web server cannot be listed; expected the address of one file. "
            "Name each file."
        ) from error
    except Exception as error:  # every file system has errors of its own
        query = source.partition("?")[2]
        lines = str(error).strip().splitlines() or [""]
        cause = lines[0].replace(query, "…")[:300] if query else lines[0][:300]
        if isinstance(error, FileNotFoundError):
            cause = "no such file"
        raise InputError(
            f"{shown(source)} cannot be read ({type(error).__name__}: {cause}). Check the address, "
            "the network and your right to read it (for the hub: HF_TOKEN), then run again; what "
            "was fetched is kept."
        ) from error


def mark_of(info: dict[str, Any]) -> str:
    """What a file system tells of a file's content: its size and its surest mark."""
    lowered = {key.lower(): value for key, value in info.items()}
    key = next((key for key in _MARKS if lowered.get(key) is not None), "nothing")
    return f"size={lowered.get('size')} {key}={lowered.get(key)}"


class HttpFiles(fsspec.AbstractFileSystem):
    """Single files of web servers, which tell no listing.

    By the standard library, which honours the proxy variables: fsspec's own needs aiohttp.
    """

    protocol = ("http", "https")
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return path

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        try:
            answer = _request(path, "HEAD")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in (403, 405, 501):
                raise
            answer = _request(path, "GET")  # some servers answer nothing else
        with answer:
            headers = answer.headers
        length = headers.get("Content-Length")
        marks = {key: headers.get(key) for key in ("ETag", "Last-Modified")}
        size = int(length) if length and length.isdigit() else None
        return {"name": path, "type": "file", "size": size, **marks}

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> IO[bytes]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _request(path, "GET")


def _request(url: str, method: str) -> Any:
    headers = {"User-Agent": f"sot_pipeline/{__version__}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers, method=method)
    return urllib.request.urlopen(request, timeout=_SECONDS)
