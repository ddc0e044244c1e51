"""`--help` tells everything, quickly, with examples that hold."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from sot_pipeline import __version__
from sot_pipeline.cli.app import app

SOT = str(Path(sys.executable).with_name("sot"))
WIDE = {"COLUMNS": "400", "TERMINAL_WIDTH": "400", "NO_COLOR": "1"}


def commands(group: Any, path: str = "sot") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def examples(command: Any) -> list[str]:
    lines = (command.help or "").partition("Examples:\n")[2].splitlines()
    return [line.strip() for line in lines if line.strip()]


def help_of(path: str) -> str:
    result = subprocess.run(
        [SOT, *path.split()[1:], "--help"], capture_output=True, text=True, check=True,
        env=os.environ | WIDE,
    )  # fmt: skip
    return re.sub(r"[\s│]+", " ", result.stdout)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_an_example_that_the_command_line_accepts(path):
    shown = examples(COMMANDS[path])
    assert shown, f"{path} --help has no example"
    for example in shown:
        assert example.startswith(path), example
        words = shlex.split(example)[len(path.split()) :]
        with COMMANDS[path].make_context(path, words):  # parses, and runs nothing
            pass


@pytest.mark.parametrize("path", ["sot purify", "sot compare", "sot judges agreement"])
def test_help_swallows_nothing_of_what_an_option_says(path):
    """rich takes words in brackets for styles, and leaves them out."""
    page = help_of(path)
    for parameter in COMMANDS[path].params:
        text = getattr(parameter, "help", None)
        assert text is None or re.sub(r"\s+", " ", text) in page, text


def test_every_command_but_the_ui_speaks_json():
    silent = [path for path, command in COMMANDS.items()
              if not any("--json" in parameter.opts for parameter in command.params)]  # fmt: skip
    assert silent == ["sot ui"]


def test_the_first_lines_are_short_enough_for_a_list_of_commands():
    for path, command in COMMANDS.items():
        first = " ".join((command.help or "").partition("\n\n")[0].split())
        assert len(first) <= 110, f"{path}: {first}"


def test_the_version_is_one_line():
    result = subprocess.run([SOT, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"sot_pipeline {__version__}\n"


def test_task_names_are_completed(tmp_path):
    folder = tmp_path / "data" / "tasks"
    folder.mkdir(parents=True)
    for name in ("billing", "bookings", "other"):
        (folder / f"{name}.yaml").write_text("")
    result = subprocess.run(
        [SOT], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"_SOT_COMPLETE": "complete_bash", "COMP_WORDS": "sot finetune b",
                          "COMP_CWORD": "2"},
    )  # fmt: skip
    assert result.stdout.split() == ["billing", "bookings"]
