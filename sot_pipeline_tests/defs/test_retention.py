"""What `collect` keeps and what it removes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from sot_pipeline.defs import retention
from sot_pipeline.defs.cached_asset import CachedAsset, Stage, cached_asset
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.materialise import materialise
from sot_pipeline.defs.store import Artifact, Store, Stored


@cached_asset(
    group="g",
    kinds={"polars"},
    content_versioned=True,
    source=lambda files, settings: {"text": Path(*files.custom).read_text()},
)
def numbers(stage: Stage) -> Artifact:
    """The numbers of a file, one a word."""
    values = [float(word) for word in Path(*stage.files.custom).read_text().split()]
    return Artifact(table=pl.DataFrame({"value": values}))


@cached_asset(group="g", kinds={"polars"}, settings=("transport.lambda_push",))
def scaled(stage: Stage, numbers: pl.DataFrame) -> Artifact:
    return Artifact(table=numbers * stage.settings.transport.lambda_push)


@cached_asset(group="g", kinds={"polars"}, follows="numbers")
def change(stage: Stage, numbers: Stored) -> Artifact:
    """Depends on what there was before the numbers changed."""
    return Artifact(document={"had": stage.previous and stage.previous.fingerprint})


@cached_asset(group="g", kinds=set())
def parted(stage: Stage, numbers: Stored) -> Artifact:
    """Keeps a part of its work as an artefact of its own."""
    part = stage.store.write(
        "parts", numbers.data_version[:8], lambda folder: (Artifact(), {"lineage": {}})
    )
    return Artifact(parts={"parts": [part.fingerprint]})


ASSETS = (numbers, scaled, change, parted)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    path = tmp_path / "numbers.txt"
    path.write_text("0")
    home.write_task("t", TaskFile(custom=path, safe=path, harmful=path))
    return home


def make(home: Home, *assets: CachedAsset, task: str = "t") -> list[bool]:
    """Materialise in order; for each, whether it was a cache hit."""
    return [materialise(asset, home, task, lambda line: None).hit for asset in assets]


def change_numbers(home: Home, *words: object) -> None:
    Path(*home.read_task("t").custom).write_text(" ".join(map(str, words)))


def make_versions(home: Home, count: int) -> None:
    for version in range(count):
        change_numbers(home, version)
        make(home, *ASSETS)


def count(home: Home) -> dict[str, int]:
    names = (*(asset.name for asset in ASSETS), "parts")
    return {name: len(list(Store(home.store).artefacts(name))) for name in names}


def collect(home: Home, *, keep_versions: int = 0, dry_run: bool = False) -> retention.Collected:
    return retention.collect(Store(home.store), keep_versions=keep_versions, dry_run=dry_run)


def age(path: Path, days: float) -> None:
    for each in [path, *path.rglob("*")]:
        os.utime(each, (time.time() - days * 24 * 3600,) * 2)


def snapshot(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextmanager
def another_process(code: str) -> Iterator[subprocess.Popen[str]]:
    """Run code that prints a line when it is where the test wants it; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE,
        stdin=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "here"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("keep_versions", "left"), [(0, 1), (1, 1), (3, 3), (9, 5)])
def test_the_last_versions_of_each_asset_stay(home: Home, keep_versions, left):
    make_versions(home, 5)
    collect(home, keep_versions=keep_versions)
    assert count(home)["scaled"] == count(home)["numbers"] == count(home)["parts"] == left


def test_what_is_current_stays_current_and_is_hit_again(home: Home):
    make_versions(home, 4)
    collected = collect(home)
    assert make(home, *ASSETS) == [True] * 4
    assert not any(stored.damage() for stored in Store(home.store).current_of("t").values())
    again = collect(home)
    assert again.removed == []
    assert again.num_kept == collected.num_kept


def test_an_asset_that_follows_keeps_what_it_followed(home: Home):
    make_versions(home, 4)
    collect(home)
    # the current version, and the one it was made after: without it the plan would differ
    assert count(home)["change"] == 2
    assert make(home, change) == [True]


def test_versions_are_counted_once_however_often_a_task_returned_to_them(home: Home):
    for word in (1, 2, 1, 2, 1, 3, 1, 3):
        change_numbers(home, word)
        make(home, numbers, scaled)
    collect(home, keep_versions=3)
    assert count(home)["scaled"] == 3


def test_ancestors_of_a_kept_version_stay(home: Home):
    make(home, numbers, scaled)
    change_numbers(home, 1)
    make(home, numbers)  # `scaled` is behind: its own numbers are not current any more
    collect(home)
    stored = Store(home.store).current("t", "scaled")
    assert stored is not None
    assert Store(home.store).find_version("numbers", stored.manifest["inputs"]["numbers"])


def test_what_another_task_has_stays(home: Home):
    make_versions(home, 2)
    home.write_task("other", home.read_task("t"))
    make(home, *ASSETS, task="other")
    change_numbers(home, 5)
    make(home, *ASSETS)
    collect(home)
    store = Store(home.store)
    assert store.current_of("other").keys() == store.current_of("t").keys()
    assert count(home)["scaled"] == 2


def test_the_history_still_answers_with_what_is_left(home: Home):
    make_versions(home, 5)
    store = Store(home.store)
    before = store.history("t", "scaled")
    collect(home, keep_versions=2)
    assert store.history("t", "scaled") == before[-2:]
    assert not retention.running(store)


def test_a_dry_run_says_the_same_and_removes_nothing(home: Home):
    make_versions(home, 3)
    before = snapshot(home.store)
    planned = collect(home, dry_run=True)
    assert snapshot(home.store) - {".lock"} == before - {".lock"}
    assert planned.removed
    assert planned.num_bytes == sum(removed.num_bytes for removed in planned.removed) > 0
    assert collect(home) == planned


def test_no_store_is_nothing_to_collect(tmp_path: Path):
    assert collect(Home(tmp_path / "nowhere")) == retention.Collected([], 0, 0, [])
    assert not (tmp_path / "nowhere").exists()


def test_what_crashed_attempts_left_goes(home: Home):
    make_versions(home, 1)
    (home.store / "building" / "scaled-0123").mkdir()
    (home.store / "building" / "scaled-0123" / "half").write_bytes(b"12345")
    (home.store / "building" / "scaled-4567.lock").touch()
    (home.store / "in_use" / "dead.json").write_text('{"needs": []}')
    removed = collect(home).removed
    assert retention.Removed("unfinished", "building/scaled-0123", 5) in removed
    assert list((home.store / "building").iterdir()) == []
    assert list((home.store / "in_use").iterdir()) == []


def test_checkpoints_go_when_nobody_took_them_up_for_a_week(home: Home):
    make_versions(home, 1)
    for name, days in (("adapter-old", 8), ("adapter-new", 6)):
        (home.store / "scratch" / name).mkdir(parents=True)
        (home.store / "scratch" / name / "step").write_bytes(b"123")
        age(home.store / "scratch" / name, days)
    collected = collect(home)
    assert [removed.path for removed in collected.removed] == ["scratch/adapter-old"]
    assert [path.name for path in (home.store / "scratch").iterdir()] == ["adapter-new"]


def test_what_a_killed_attempt_had_finished_stays_for_a_week(home: Home):
    make_versions(home, 1)
    store = Store(home.store)
    part = store.write("parts", "finished", lambda folder: (Artifact(), {"lineage": {}}))
    assert collect(home).removed == []
    age(part.directory, 8)
    assert [removed.path for removed in collect(home).removed] == ["parts/finished"]


def test_parts_go_with_the_version_they_belong_to(home: Home):
    make_versions(home, 2)
    collect(home)
    assert count(home)["parts"] == count(home)["parted"] == 1


def test_caches_and_strange_things_in_the_store_stay_as_they_are(home: Home):
    make_versions(home, 2)
    store = home.store
    good = next(Store(store).artefacts("scaled")).directory
    strange = {
        "lost+found/x/y": b"",
        "rows/encoder/0.npy": b"vectors",
        "fetched/set/part": b"rows",
        "scaled/no-manifest/array.npy": b"",
        "scaled/broken/manifest.json": b"{",
        "scaled/list/manifest.json": b"[1]",
        "scaled/copy/manifest.json": (good / "manifest.json").read_bytes(),
        "scaled/bare/manifest.json": b'{"fingerprint": "bare"}',
        "scaled/odd/manifest.json": json.dumps(
            {"fingerprint": "odd", "data_version": "v", "inputs": [], "parts": {}}
        ).encode(),
        "scaled/a-file": b"",
        "a-file": b"",
        "current/t/.numbers.swp": b"",
        "in_use/broken.json": b"{",
    }
    for name, content in strange.items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(content)
    (store / "scaled" / "link").symlink_to(good)
    collected = collect(home)
    assert collected.removed
    assert sorted(collected.not_understood) == [
        "lost+found/x", "scaled/bare", "scaled/broken", "scaled/copy", "scaled/link",
        "scaled/list", "scaled/no-manifest", "scaled/odd",
    ]  # fmt: skip
    assert all((store / name).exists() for name in strange if not name.startswith("in_use"))
    assert make(home, *ASSETS) == [True] * 4


def test_what_a_living_process_reads_and_writes_stays_until_it_ends(home: Home):
    make_versions(home, 3)
    oldest = Store(home.store).history("t", "scaled")[0]
    reader = f"""
        import pathlib
        from sot_pipeline.defs import retention
        from sot_pipeline.defs.store import Store
        store = Store(pathlib.Path({str(home.store)!r}))
        stored = store.find("scaled", {oldest.fingerprint!r})
        with retention.in_use(store, "t", "total", "f9", {{"scaled": stored}}):
            print("here", flush=True)
            input()
    """
    with another_process(reader) as process:
        assert [(r["asset"], r["pid"]) for r in retention.running(Store(home.store))] == [
            ("total", process.pid)
        ]
        (home.store / "scratch" / "total-f9").mkdir(parents=True)
        age(home.store / "scratch", 30)
        collect(home)
        assert oldest.is_whole()
        assert (home.store / "scratch" / "total-f9").exists(), "its checkpoints, however old"
        version = oldest.manifest["inputs"]["numbers"]
        assert Store(home.store).find_version("numbers", version), "and what it was made from"
        process.send_signal(signal.SIGKILL)
        process.wait()
    collect(home)
    assert not oldest.directory.exists()


def test_parts_of_running_work_stay(home: Home):
    make_versions(home, 2)
    old = Store(home.store).history("t", "parted")[0].manifest["parts"]["parts"]
    with retention.parts_in_use(Store(home.store), "t", "parted", "parts", old):
        collect(home)
        assert count(home)["parts"] == 2
    # whom it belonged to is gone: now it is finished work that nobody took up
    age(home.store / "parts", 8)
    collect(home)
    assert count(home)["parts"] == 1


def test_removal_waits_for_whoever_is_looking_an_artefact_up(home: Home):
    make_versions(home, 2)
    collector = f"""
        import pathlib
        from sot_pipeline.defs.retention import collect
        from sot_pipeline.defs.store import Store
        print("here", flush=True)
        input()
        collect(Store(pathlib.Path({str(home.store)!r})), keep_versions=0)
    """
    store = Store(home.store)
    old = store.history("t", "scaled")[0]
    with another_process(collector) as process:
        assert process.stdin is not None
        with retention.nothing_removed(store):
            process.stdin.write("go\n")
            process.stdin.flush()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            store.set_current("t", old)  # a hit, in the moment before the removal
        assert process.wait(timeout=30) == 0
    assert count(home)["scaled"] == 1
    assert store.current("t", "scaled") == old


def test_collecting_all_the_time_takes_nothing_from_those_who_materialise(home: Home):
    writer = f"""
        import sys
        from sot_pipeline.defs.home import Home
        from sot_pipeline_tests.defs.test_retention import ASSETS, change_numbers, make
        home = Home({str(home.root)!r})
        print("here", flush=True)
        for version in range(8):
            change_numbers(home, version % 5)
            make(home, *ASSETS)
    """
    make_versions(home, 1)
    with another_process(writer) as process:
        rounds = 0
        while process.poll() is None:
            collect(home)
            rounds += 1
        assert process.returncode == 0
    assert rounds > 1
    store = Store(home.store)
    assert not any(stored.damage() for stored in store.current_of("t").values())
    assert make(home, *ASSETS) == [True] * 4
