"""The errors that a user can cause, and can mend."""

import contextlib
import difflib
import errno
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message says what was found (with file and line where there is one), what was
    expected, and what to do. The command line prints it without a traceback.
    """


class StorageError(InputError):
    """A disk does not take what is written to it: full, over quota, read-only."""


_FREE_SPACE = "free space there (`sot gc` removes old versions)"
_REFUSALS = {
    errno.ENOSPC: ("no space is left on the disk", _FREE_SPACE),
    errno.EDQUOT: ("the disk quota is used up", f"{_FREE_SPACE} or ask for a larger quota"),
    errno.EFBIG: ("the file would be larger than is allowed", "raise the limit (`ulimit -f`)"),
    errno.EROFS: ("the file system is read-only", "make it writable or choose another --home"),
    errno.EIO: ("the disk reports an input/output error", "have the disk checked"),
}
_FULL_BELOW = 1_000_000  # bytes free; SQLite calls a full disk an input/output error at times
# How the libraries that write for us put it: they raise errors of their own, with a text
_WORDINGS = {
    errno.ENOSPC: re.compile(
        r"no space left on device|(database or )?disk is full|\d+ requested and \d+ written", re.I
    ),
    errno.EDQUOT: re.compile(r"disk quota exceeded", re.I),
    errno.EFBIG: re.compile(r"file too large", re.I),
    errno.EROFS: re.compile(r"read-only file system|readonly database", re.I),
    errno.EIO: re.compile(r"disk i/o error|input/output error", re.I),
}


def storage_error(error: BaseException, folder: Path | None = None) -> StorageError | None:
    """What the user should read, if an error or one of its causes is a disk's refusal to write.

    Args:
        folder: Where the writing goes, for errors that do not say it themselves.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StorageError):
            return cause
        code = _refusal(cause)
        if code is not None:
            named = getattr(cause, "filename", None)
            return _storage_error(code, Path(os.fsdecode(named)).parent if named else folder)
        cause = cause.__cause__ or cause.__context__
    return None


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Raise a disk's refusals as `StorageError`, from whatever library they come."""
    try:
        yield
    except Exception as error:
        known = storage_error(error, folder)
        if known is None or known is error:
            raise
        raise known from error


def _refusal(error: BaseException) -> int | None:
    if isinstance(error, InputError):  # its words are the user's, a row's, a file's
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _REFUSALS else None
    text = str(error)
    return next((code for code, wording in _WORDINGS.items() if wording.search(text)), None)


def _storage_error(code: int, folder: Path | None) -> StorageError:
    free = None if folder is None else _num_bytes_free(folder)
    if code == errno.EIO and free is not None and free < _FULL_BELOW:
        code = errno.ENOSPC
    found, remedy = _REFUSALS[code]
    where = "a disk" if folder is None else str(folder)
    left = "" if free is None else f" ({free / 1e6:,.1f} MB free)"
    return StorageError(
        f"cannot write to {where}: {found}{left}. What was finished is kept: {remedy}, then run "
        "the same command again."
    )


def _num_bytes_free(folder: Path) -> int | None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def nearest(name: str, known: Collection[str]) -> str:
    """A hint for who mistyped a name."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
