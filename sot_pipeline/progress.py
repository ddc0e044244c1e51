"""Progress of long work: rate and time left, as a bar on a terminal or as lines in a log.

Stages call `progress(done, total)` in their own unit and know nothing else. Who listens is
decided outside: the command line with a bar, Dagster with log lines.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Progress = Callable[[int, int], None]


class Listener:
    """Hears what happens; the default hears nothing."""

    def started(self, asset: str) -> None: ...

    def advanced(self, label: str, unit: str, done: int, total: int) -> None: ...

    def said(self, asset: str, line: str) -> None: ...

    def finished(self, asset: str, hit: bool, seconds: float, rows: int | None) -> None: ...


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let `listener` hear everything that happens inside."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Listener:
    return _listener.get() or Listener()


def reporter(
    label: str, unit: str, log: Callable[[str], None], *, every_seconds: float = 10.0
) -> Progress:
    """A `progress(done, total)` that also writes a line now and then."""
    start = last_line = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last_line
        listener().advanced(label, unit, done, total)
        now = time.monotonic()
        if now - last_line >= every_seconds:
            last_line = now
            log(f"{label}: {describe(done, total, now - start, unit)}")

    return progress


def describe(done: int, total: int, seconds: float, unit: str) -> str:
    """'1,200 of 4,000 tokens (30%), 410 tokens/s, 7 s left'."""
    share = done / total if total else 1.0
    rate = done / seconds if seconds > 0 else 0.0
    left = f", {duration((total - done) / rate)} left" if rate > 0 else ""
    return f"{done:,} of {total:,} {unit} ({share:.0%}), {rate:,.0f} {unit}/s{left}"


def duration(seconds: float) -> str:
    """'7 s', '3 min 20 s', '2 h 5 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
