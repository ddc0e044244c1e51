"""What the command line prints: results on stdout, progress on stderr."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from sot_pipeline.errors import InputError
from sot_pipeline.progress import Listener, describe, duration, listening

DONE, FAILED, FINDINGS = 0, 1, 3  # 2 is wrong usage, which typer reports


def print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=1, default=str) + "\n")


def say(line: str) -> None:
    """A line for people, on stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def table(title: str, columns: list[str], rows: list[list[str]], *, note: str = "") -> None:
    """A table on stdout; numbers to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout, highlight=False, soft_wrap=not terminal, width=None if terminal else 200
    )
    grid = Table(title=title or None, title_justify="left", caption=note or None,
                 caption_justify="left", box=None, header_style="bold", pad_edge=False)  # fmt: skip
    for index, column in enumerate(columns):
        values = [row[index] for row in rows]
        numeric = any(v[:1].isdigit() for v in values) and all(_numeric(v) for v in values)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)


def _numeric(text: str) -> bool:
    return not text or text[0].isdigit() or text[0] in "-–."


def write_table(rows: Any, out: Path) -> None:
    """Write a polars table to the file that `--out` names."""
    if out.suffix == ".parquet":
        rows.write_parquet(out)
    elif out.suffix == ".csv":
        rows.write_csv(out)
    else:
        raise InputError(f"--out {out}: expected a name ending in .parquet or .csv")


@contextmanager
def shown_progress() -> Iterator[None]:
    """Show progress while the block runs: a bar on a terminal, plain lines elsewhere."""
    # Dagster redirects descriptor 2 into its log while a step runs; what is shown goes to the
    # terminal itself, in order
    with os.fdopen(os.dup(2), "w", buffering=1) as terminal:
        if not terminal.isatty():
            with listening(_Lines(terminal)):
                yield
            return
        bars = _Bars(terminal)
        try:
            with listening(bars):
                yield
        finally:
            bars.close()


class _Lines(Listener):
    """One line per asset, and one now and then inside a long one."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def said(self, asset: str, line: str) -> None:
        self._terminal.write(f"  {line}\n")

    def finished(self, asset: str, hit: bool, seconds: float, rows: int | None) -> None:
        self._terminal.write(_finished_line(asset, hit, seconds, rows) + "\n")


class _Bars(Listener):
    def __init__(self, terminal: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._spinner = Spinner("dots", text="starting")
        self._live = Live(
            self._spinner,
            console=Console(file=terminal, highlight=False),
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self._begun: dict[str, float] = {}
        self._asset = ""

    def close(self) -> None:
        self._live.stop()

    def started(self, asset: str) -> None:
        self._asset = asset
        self._spinner.update(text=asset)

    def advanced(self, label: str, unit: str, done: int, total: int) -> None:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        if done == 0 or label not in self._begun:
            self._begun[label] = time.monotonic()
        seconds = time.monotonic() - self._begun[label]
        name = self._asset if label == self._asset else f"{self._asset}: {label}"
        grid = Table.grid(padding=(0, 1))
        grid.add_row(self._spinner, ProgressBar(total=max(total, 1), completed=done, width=30))
        self._spinner.update(text=f"{name}  {describe(done, total, seconds, unit)}")
        self._live.update(grid)

    def finished(self, asset: str, hit: bool, seconds: float, rows: int | None) -> None:
        self._live.update(self._spinner)
        self._live.console.print(_finished_line(asset, hit, seconds, rows), markup=False)


def _finished_line(asset: str, hit: bool, seconds: float, rows: int | None) -> str:
    what = "cached" if hit else duration(seconds) if seconds >= 1 else f"{seconds:.1f} s"
    counted = f"{rows:,} rows" if rows is not None else ""
    return f"{asset:<22}{what:>12}  {counted}".rstrip()
