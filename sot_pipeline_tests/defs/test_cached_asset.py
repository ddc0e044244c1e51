"""Cached assets on a small graph: what is computed again, and what is refused."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sot_pipeline.defs.cached_asset import (
    CachedAsset,
    CheckSpec,
    Stage,
    cached_asset,
    check,
)
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.materialise import materialise
from sot_pipeline.defs.store import Artifact, Store, Stored
from sot_pipeline.errors import InputError

POSITIVE = CheckSpec("positive", "Every number is positive.")
calls: list[str] = []


@cached_asset(
    group="g",
    kinds={"polars"},
    content_versioned=True,
    source=lambda files, settings: {"text": Path(*files.custom).read_text()},
)
def numbers(stage: Stage) -> Artifact:
    """The numbers of a file, one a word; white space does not count."""
    calls.append("numbers")
    values = [float(word) for word in Path(*stage.files.custom).read_text().split()]
    return Artifact(table=pl.DataFrame({"value": values}))


@cached_asset(group="g", kinds={"numpy"}, settings=("transport.lambda_push",), checks=(POSITIVE,))
def scaled(stage: Stage, numbers: pl.DataFrame) -> Artifact:
    calls.append("scaled")
    array = numbers["value"].to_numpy() * stage.settings.transport.lambda_push
    return Artifact(array=array, checks=(check(POSITIVE, (array > 0).all(), "so it is"),))


@cached_asset(group="g", kinds={"numpy"}, uses=lambda s, name: s.transport.lambda_push < 1)
def note(stage: Stage, numbers: Stored | None) -> Artifact:
    calls.append("note")
    return Artifact(document={"present": numbers is not None})


@cached_asset(group="g", kinds={"numpy"})
def total(stage: Stage, numbers: pl.DataFrame, scaled: np.ndarray, note: Stored | None) -> Artifact:
    calls.append("total")
    noted = note is not None
    return Artifact(document={"total": float(scaled.sum()) + numbers.height, "noted": noted})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    path = tmp_path / "numbers.txt"
    path.write_text("1 2 3")
    home.write_task("t", TaskFile(custom=path, safe=path, harmful=path))
    calls.clear()
    return home


def make(home: Home, *assets: CachedAsset, task: str = "t") -> list[bool]:
    """Materialise in order; for each, whether it was a cache hit."""
    return [materialise(asset, home, task, lambda line: None).hit for asset in assets]


def change_settings(home: Home, **fields) -> None:
    task = home.read_task("t")
    home.write_task("t", task.model_copy(update={"settings": {"transport": fields}}))


def test_the_second_time_nothing_is_computed(home: Home):
    assert make(home, numbers, scaled, total) == [False, False, False]
    assert make(home, numbers, scaled, total) == [True, True, True]
    assert calls == ["numbers", "scaled", "total"]


def test_a_setting_recomputes_only_what_reads_it(home: Home):
    make(home, numbers, scaled)
    change_settings(home, max_steps=7)
    assert make(home, numbers, scaled) == [True, True]
    change_settings(home, lambda_push=0.25)
    assert make(home, numbers, scaled) == [True, False]
    change_settings(home)
    assert make(home, numbers, scaled) == [True, True], "old versions stay"


def test_an_edit_that_changes_no_row_stops_at_the_table(home: Home):
    make(home, numbers, scaled)
    Path(*home.read_task("t").custom).write_text("  1 2\n3\n")
    assert make(home, numbers, scaled) == [False, True]
    Path(*home.read_task("t").custom).write_text("1 2 4")
    assert make(home, numbers, scaled) == [False, False]


def test_tasks_with_the_same_content_share_one_artefact(home: Home):
    home.write_task("other", home.read_task("t"))
    make(home, numbers, scaled)
    assert make(home, numbers, scaled, task="other") == [True, True]


def test_a_missing_input_says_what_to_do(home: Home):
    with pytest.raises(InputError, match="materialise numbers first"):
        make(home, scaled)


def test_inputs_from_different_versions_of_an_ancestor_are_refused(home: Home):
    make(home, numbers, scaled)
    Path(*home.read_task("t").custom).write_text("4 5 6")
    make(home, numbers)
    with pytest.raises(InputError, match=r"different versions of numbers"):
        make(home, total)
    assert make(home, scaled, total) == [False, False]


def test_an_optional_input_that_is_out_of_date_is_left_out(home: Home):
    make(home, numbers, scaled, note, total)
    store = Store(home.store)
    assert store.current("t", "total").document["noted"]
    Path(*home.read_task("t").custom).write_text("4 5 6")
    make(home, numbers, scaled, total)
    assert not store.current("t", "total").document["noted"]
    make(home, note, total)
    assert store.current("t", "total").document["noted"]


def test_an_input_that_the_settings_do_not_use_is_not_read(home: Home):
    change_settings(home, lambda_push=1.0)
    make(home, note)
    assert not Store(home.store).current("t", "note").document["present"]


def test_checks_are_kept_for_cache_hits(home: Home):
    make(home, numbers, scaled)
    stored = materialise(scaled, home, "t", lambda line: None).stored
    assert [(c.name, c.passed) for c in stored.checks()] == [("positive", True)]


def test_declared_checks_must_be_answered(home: Home):
    @cached_asset(group="g", kinds=set(), checks=(POSITIVE,))
    def silent(stage: Stage) -> Artifact:
        return Artifact()

    with pytest.raises(TypeError, match="declares checks"):
        make(home, silent)


def test_scratch_outlives_a_failed_attempt_and_not_a_good_one(home: Home):
    attempts = []

    @cached_asset(group="g", kinds=set())
    def long_work(stage: Stage) -> Artifact:
        stage.scratch.mkdir(parents=True, exist_ok=True)
        checkpoint = stage.scratch / "checkpoint"
        attempts.append(checkpoint.exists())
        checkpoint.write_text("half")
        if len(attempts) == 1:
            raise RuntimeError("killed")
        return Artifact()

    with pytest.raises(RuntimeError):
        make(home, long_work)
    make(home, long_work)
    assert attempts == [False, True]
    assert list((home.store / "scratch").iterdir()) == []


def test_the_manifest_tells_the_whole_story(home: Home):
    make(home, numbers, scaled)
    manifest = Store(home.store).current("t", "scaled").manifest
    assert manifest["settings"] == {"transport.lambda_push": 0.5}
    assert list(manifest["inputs"]) == ["numbers"]
    assert manifest["lineage"] == manifest["inputs"]
    assert manifest["files"].keys() == {"array.npy"}
    assert manifest["libraries"]["polars"] == pl.__version__


@cached_asset(
    group="g",
    kinds={"polars"},
    content_versioned=True,
    source=lambda files, settings: {"text": Path(*files.custom).read_text()},
)
def overtaken(stage: Stage) -> Artifact:
    """While it reads, somebody writes."""
    path = Path(*stage.files.custom)
    path.write_text(path.read_text() + " 4")
    return Artifact(table=pl.DataFrame({"value": [float(w) for w in path.read_text().split()]}))


def test_a_file_that_changes_while_it_is_read_makes_nothing(home: Home):
    with pytest.raises(InputError, match="overtaken: a file changed while it was being read"):
        make(home, overtaken)
    store = Store(home.store)
    assert store.current("t", "overtaken") is None
    assert not list((home.store / "overtaken").glob("*"))
