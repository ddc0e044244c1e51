"""Options that several groups of commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer


def known_tasks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of tasks for the shell's completion."""
    home = ctx.params.get("home") or os.environ.get("SOT_HOME") or "data"
    names = (path.stem for path in Path(home).glob("tasks/*.yaml"))
    return sorted(name for name in names if name.startswith(incomplete))


TaskOption = Annotated[
    str | None, typer.Option("--task", help="Name of the task", autocompletion=known_tasks)
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="Folder of tasks, store and history (default: ./data or $SOT_HOME)"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout")]
RedactOption = Annotated[
    bool, typer.Option("--redact-pii", help="Replace personal data in what is written to --out")
]
WhoOption = Annotated[
    str | None,
    typer.Option(
        "--who", help="Who provenance.json names; '' nobody (default: $SOT_WHO or login name)"
    ),
]
AnonymousOption = Annotated[
    bool, typer.Option("--anonymous", help="Name nobody and no folder of this machine")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only estimate time, memory and disk; write nothing")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="For --dry-run: cpu (this machine), h200, h100, a100-80gb, a100-40gb, l40s or l4",
    ),
]


def dry_device(dry_run: bool, device: str | None) -> str | None:
    """The device to estimate for; None: not a dry run."""
    if device is not None and not dry_run:
        raise typer.BadParameter("--device chooses what --dry-run estimates for; give both")
    return (device or "cpu") if dry_run else None
