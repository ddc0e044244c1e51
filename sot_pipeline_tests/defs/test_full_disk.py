"""A disk that is full, over quota or read-only: a sentence, nothing torn, and on it goes."""

import errno
import hashlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.materialise import materialise
from sot_pipeline.defs.store import Artifact, Store
from sot_pipeline.errors import InputError, StorageError, storage_error
from sot_pipeline_tests.crash import results, violations_after_kill
from sot_pipeline_tests.small_project import write_small_project

SOT = str(Path(sys.executable).with_name("sot"))


@cached_asset(group="g", kinds=set())
def small(stage: Stage) -> Artifact:
    return Artifact(table=pl.DataFrame({"a": [1]}))


@cached_asset(group="g", kinds=set())
def large_array(stage: Stage, small: pl.DataFrame) -> Artifact:
    return Artifact(array=np.zeros(1_000_000))


@cached_asset(group="g", kinds=set())
def large_table(stage: Stage, small: pl.DataFrame) -> Artifact:
    return Artifact(table=pl.DataFrame({"a": np.random.default_rng(0).random(1_000_000)}))


@cached_asset(group="g", kinds=set())
def large_parquet(stage: Stage, small: pl.DataFrame) -> Artifact:
    rows = pl.DataFrame({"a": np.random.default_rng(0).random(1_000_000)})
    rows.write_parquet(stage.directory / "rows.parquet")
    return Artifact()


@cached_asset(group="g", kinds=set())
def large_weights(stage: Stage, small: pl.DataFrame) -> Artifact:
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2_000_000)}, stage.directory / "weights.safetensors")
    return Artifact()


LARGE = (large_array, large_table, large_parquet, large_weights)


def home_in(folder: Path) -> Home:
    home = Home(folder)
    home.write_task("t", TaskFile(custom=folder / "x", safe=folder / "x", harmful=folder / "x"))
    return home


def make(home: Home, *assets) -> list[bool]:
    return [materialise(asset, home, "t", lambda line: None).hit for asset in assets]


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of its own; skips the test where mounting is not possible."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", "-o", ",".join(["remount", *options]), str(folder)], check=True)


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# What the libraries say becomes one kind of sentence


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "no space is left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x"), "quota is used up"),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), "read-only"),
        (OSError("4096 requested and 512 written"), "no space is left"),
        (duckdb.IOException('Could not write file "x": No space left on device'), "no space"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space is left"),
        (pl.exceptions.ComputeError("Disk quota exceeded (os error 122)"), "quota is used up"),
        (sqlite3.OperationalError("database or disk is full"), "no space is left"),
        (sqlite3.OperationalError("disk I/O error"), "input/output error"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "read-only"),
    ],
)
def test_a_refusal_is_recognised_from_whatever_library_it_comes(error, found, tmp_path):
    known = storage_error(error, tmp_path)
    assert known is not None
    assert found in str(known)
    assert str(Path("/data") if getattr(error, "filename", None) else tmp_path) in str(known)


def test_a_refusal_behind_another_error_is_recognised(tmp_path):
    error = RuntimeError("the run failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert storage_error(error, tmp_path) is not None


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a row"),
        OSError(errno.ENOENT, "No such file or directory"),
        InputError("line 3: the text says: No space left on device"),
        RuntimeError("Quota exceeded for requests per minute"),
    ],
)
def test_other_errors_stay_what_they_are(error, tmp_path):
    assert storage_error(error, tmp_path) is None


# A limit on file sizes works everywhere, and hits every way of writing


@pytest.mark.parametrize("asset", LARGE, ids=lambda asset: asset.name)
def test_a_write_that_is_cut_short_leaves_nothing_and_is_done_again(tmp_path, asset):
    home = home_in(tmp_path)
    make(home, small)
    before = snapshot(home.store)
    with largest_file(1_000_000), pytest.raises(StorageError, match="run the same command again"):
        make(home, asset)
    assert snapshot(home.store) == before
    assert make(home, small, asset) == [True, False]
    stored = Store(home.store).current("t", asset.name)
    assert stored is not None
    assert stored.damage() == []


@pytest.mark.parametrize("asset", LARGE, ids=lambda asset: asset.name)
def test_a_full_disk_is_named_and_loses_nothing(tmp_path, asset):
    with mounted(tmp_path / "disk", "size=6m") as disk:
        home = home_in(disk)
        make(home, small)
        before = snapshot(home.store)
        message = rf"cannot write to {disk}.*no space is left.*MB free.*`sot gc`"
        with pytest.raises(StorageError, match=message):
            make(home, asset)
        assert snapshot(home.store) == before
        remount(disk, "size=40m")
        assert make(home, small, asset) == [True, False]


@pytest.mark.parametrize("left", [0, 1, 2, 3, 5, 8, 13, 21, 40])
def test_wherever_the_disk_is_full_the_next_attempt_goes_on(tmp_path, left):
    with mounted(tmp_path / "disk", "size=4m") as disk:
        home = home_in(disk)
        make(home, small)
        free = shutil.disk_usage(disk).free // 4096
        with (disk / "filler").open("wb", buffering=0) as file:
            file.write(bytes((free - left * 8) * 4096))
        try:
            make(home, small, large_table)
        except StorageError:
            (disk / "filler").unlink()
            remount(disk, "size=80m")
        assert make(home, small)[0]
        make(home, large_table)
        store = Store(home.store)
        assert not any(stored.damage() for stored in store.current_of("t").values())
        assert [s.asset for s in store.history("t", "large_table")] == ["large_table"]
        with duckdb.connect(str(store.root / "pipeline.duckdb"), read_only=True) as connection:
            counts = "select (select count(*) from small), (select count(*) from large_table)"
            assert connection.sql(counts).fetchall() == [(1, 1_000_000)]
        assert list((store.root / "building").iterdir()) == []


def test_nothing_changes_in_a_read_only_store(tmp_path):
    with mounted(tmp_path / "disk", "size=40m") as disk:
        home = home_in(disk)
        make(home, small)
        before = snapshot(disk)
        remount(disk, "ro")
        with pytest.raises(StorageError, match=rf"cannot write to {disk}.*is read-only"):
            make(home, large_array)
        remount(disk, "rw")
        assert snapshot(disk) == before
        assert make(home, small, large_array) == [True, False]


# The command line on such a disk


def sot(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SOT, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    message = " ".join(result.stderr.split())
    for word in ("error:", "cannot write to", "run the same command again", *words):
        assert word in message


def purify(files: dict[str, Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    return sot("purify", files["custom"], "--safe", files["safe"], "--harmful", files["harmful"],
               "--embedder", files["model"], "--task", "small", cwd=cwd)  # fmt: skip


def test_the_commands_say_it_in_a_sentence_and_end_when_there_is_room(tmp_path):
    files = write_small_project(tmp_path / "texts")
    with mounted(tmp_path / "disk", "size=200k") as disk:
        assert_refused(purify(files, disk), "no space is left", "sot gc")
        remount(disk, "ro")
        assert_refused(purify(files, disk), "is read-only")
        remount(disk, "rw,size=60m")
        result = purify(files, disk)
        assert result.returncode in (0, 3), result.stderr
        remount(disk, "ro")
        assert_refused(sot("gc", cwd=disk), "is read-only")


@pytest.mark.slow
def test_wherever_a_purification_fills_the_disk_it_ends_as_an_undisturbed_one(tmp_path):
    files = write_small_project(tmp_path / "texts")
    result = purify(files, tmp_path)
    assert result.returncode in (0, 3), result.stderr
    expected = results(Store(tmp_path / "data" / "store"))
    for size in ("700k", "1500k", "2500k", "3m", "4m", "5m"):
        with mounted(tmp_path / f"disk{size}", f"size={size}") as disk:
            assert_refused(purify(files, disk), "no space is left")
            remount(disk, "size=60m")
            result = purify(files, disk)
            assert result.returncode in (0, 3), result.stderr
            store = Store(disk / "data" / "store")
            assert results(store) == expected
            assert list(violations_after_kill(store, set())) == []
            assert list((store.root / "building").iterdir()) == []
