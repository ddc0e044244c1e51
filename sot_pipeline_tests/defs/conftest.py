"""A task of three files of one row each, and an instance that knows it."""

from pathlib import Path

import dagster as dg
import pytest

from sot_pipeline.defs.home import Home, TaskFile


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    folder = tmp_path / "texts"
    folder.mkdir()
    return {
        role: write(folder / f"{role}.jsonl", f'{{"prompt": "{role}", "response": "yes"}}\n')
        for role in ("custom", "safe", "harmful")
    }


@pytest.fixture
def home(tmp_path, files) -> Home:
    home = Home(tmp_path / "data")
    home.write_task("small", TaskFile(**files))
    return home


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("task", ["small"])
        yield instance


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
