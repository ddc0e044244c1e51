"""Several processes in one home at once, with others reading the catalogue meanwhile."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from sot_pipeline.defs.assets.texts import custom_texts, harmful_texts, rejected_rows, safe_texts
from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.materialise import materialise
from sot_pipeline.defs.store import Artifact, Store
from sot_pipeline_tests.crash import artefacts
from sot_pipeline_tests.small_project import HARMFUL, row, write_jsonl, write_small_project

NUM_TASKS = 8
PROJECT = Path(__file__).parents[2]


def _note(stage: Stage) -> None:
    """Leave a trace of this computation beside the store."""
    with (stage.store.root.parent / "computed.log").open("a") as file:
        file.write(f"{stage.directory.name}\n")


@cached_asset(group="g", kinds=set())
def harmful_vectors(stage: Stage, harmful_texts: pl.DataFrame) -> Artifact:
    """What the tasks share; slow enough for all of them to want it at the same time."""
    import time

    _note(stage)
    time.sleep(1)
    return Artifact(array=np.arange(harmful_texts.height, dtype=np.float32)[:, None])


@cached_asset(group="g", kinds=set())
def scores(stage: Stage, custom_texts: pl.DataFrame, harmful_vectors: np.ndarray) -> Artifact:
    _note(stage)
    table = custom_texts.select("sample_id").with_columns(score=pl.lit(float(len(harmful_vectors))))
    return Artifact(table=table)


ASSETS = (custom_texts, safe_texts, harmful_texts, rejected_rows, harmful_vectors, scores)

MATERIALISE = """
import sys
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.materialise import materialise
from sot_pipeline_tests.defs.test_concurrency import ASSETS
home = Home(sys.argv[1])
print("ready", flush=True)
input()
for asset in ASSETS:
    materialise(asset, home, sys.argv[2], lambda line: None)
"""

READ = """
import sys, time, duckdb
from pathlib import Path
path, looks = Path(sys.argv[1]) / "store" / "pipeline.duckdb", 0
print("ready", flush=True)
while not Path(sys.argv[1], "done").exists():
    if path.exists():
        with duckdb.connect(str(path), read_only=True) as connection:
            for (view,) in connection.sql("show tables").fetchall():
                connection.sql(f"select task, count(*) from {view} group by task").fetchall()
        looks += 1
    time.sleep(0.02)
print(looks)
"""


def start(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], text=True, cwd=PROJECT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
    )  # fmt: skip


def all_at_once(processes: list[subprocess.Popen[str]]) -> None:
    """Let them go when every one of them has started; fail with what one of them says."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home whose tasks have custom rows of their own and share both references."""
    import random

    rng = random.Random(0)

    def rows(name: str, count: int) -> Path:
        return write_jsonl(tmp_path / f"{name}.jsonl", [row(rng, HARMFUL) for _ in range(count)])

    home, safe, harmful = Home(tmp_path / "data"), rows("safe", 7), rows("harmful", 9)
    for task in range(NUM_TASKS):
        custom = rows(f"custom{task}", 20 + task)
        home.write_task(f"task{task}", TaskFile(custom=custom, safe=safe, harmful=harmful))
    return home


def computed(home: Home) -> list[str]:
    names = (home.root / "computed.log").read_text().split()
    return sorted(name.rsplit("-", 1)[0] for name in names)


def assert_whole(home: Home) -> None:
    store = Store(home.store)
    assert not any(stored.damage() for stored in artefacts(store).values())
    assert list((store.root / "building").iterdir()) == []
    assert list((store.root / "in_use").iterdir()) == []
    assert not list(store.root.rglob("*.tmp"))


def rows_of_tasks(home: Home, view: str) -> dict[str, int]:
    with duckdb.connect(str(home.store / "pipeline.duckdb"), read_only=True) as connection:
        counts = connection.sql(f"select task, count(*) from {view} group by task")
        return dict(counts.fetchall())


def test_eight_processes_on_eight_tasks_lose_nothing_and_share_what_is_shared(home: Home):
    readers = [start(READ, home.root) for _ in range(2)]
    all_at_once([start(MATERIALISE, home.root, task) for task in home.task_names()])
    (home.root / "done").touch()
    for reader in readers:
        output, errors = reader.communicate(timeout=60)
        assert reader.returncode == 0, errors
        assert int(output.split()[-1]) > 0
    assert computed(home) == ["harmful_vectors", *["scores"] * NUM_TASKS]
    assert_whole(home)
    own = {f"task{task}": 20 + task for task in range(NUM_TASKS)}
    assert rows_of_tasks(home, "custom_texts") == rows_of_tasks(home, "scores") == own
    assert rows_of_tasks(home, "harmful_texts") == dict.fromkeys(own, 9)
    store = Store(home.store)
    assert all(store.current_of(task).keys() == {a.name for a in ASSETS} for task in own)


def test_processes_on_the_same_task_compute_everything_once(home: Home):
    all_at_once([start(MATERIALISE, home.root, "task0") for _ in range(3)])
    assert computed(home) == ["harmful_vectors", "scores"]
    assert_whole(home)
    hits = [materialise(asset, home, "task0", lambda line: None).hit for asset in ASSETS]
    assert hits == [True] * len(ASSETS)
    assert [len(Store(home.store).history("task0", asset.name)) for asset in ASSETS] == [1] * 6


def test_who_waits_for_another_process_says_so(home: Home):
    for asset in ASSETS[:4]:
        materialise(asset, home, "task0", lambda line: None)
        materialise(asset, home, "task1", lambda line: None)
    other = start(MATERIALISE, home.root, "task0")
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline() == "ready\n"
    other.stdin.write("go\n")
    other.stdin.flush()
    while not (home.root / "computed.log").exists():
        assert other.poll() is None
    said: list[str] = []
    assert not materialise(harmful_vectors, home, "task1", said.append).hit
    assert said == ["harmful_vectors: another process is making it; waiting for that one"]
    other.communicate(timeout=60)
    assert other.returncode == 0
    assert computed(home).count("harmful_vectors") == 1


@pytest.mark.slow
def test_three_purifications_from_the_command_line_at_once(tmp_path):
    """Each with a Dagster history to make, and one harmful reference between them."""
    files = write_small_project(tmp_path / "texts")
    sot = str(Path(sys.executable).with_name("sot"))
    for task in range(3):
        custom = tmp_path / f"custom{task}.jsonl"
        custom.write_bytes(files["custom"].read_bytes().replace(b"five", b"six" * (task + 1)))
    processes = [
        subprocess.Popen(
            [sot, "purify", tmp_path / f"custom{task}.jsonl", "--safe", files["safe"],
             "--harmful", files["harmful"], "--embedder", files["model"], "--json"],
            cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for task in range(3)
    ]  # fmt: skip
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode in (0, 3), errors
    home = Home(tmp_path / "data")
    assert_whole(home)
    assert rows_of_tasks(home, "selected_samples") == {f"custom{task}": 48 for task in range(3)}
    assert len(list(Store(home.store).artefacts("harmful_embeddings"))) == 1
