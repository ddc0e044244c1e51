"""The row cache: what was written whole is found again, nothing else is ever served."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sot_pipeline.embedding.row_cache import RowCache, row_key
from sot_pipeline.errors import InputError


def vector(key, dimension=4):
    """The one right vector of a key."""
    rng = np.random.default_rng(list(str(key).encode()))
    return rng.normal(size=dimension).astype(np.float32)


def fill(directory, keys, *, shard_rows=3):
    cache = RowCache(directory, "model", 4, shard_rows=shard_rows)
    cache.put(keys, np.stack([vector(key) for key in keys]))
    cache.flush()


def read(directory, keys, *, fingerprint="model", dimension=4):
    return dict(RowCache(directory, fingerprint, dimension).get(keys))


def assert_right(found):
    for key, value in found.items():
        np.testing.assert_array_equal(value, vector(key))


def test_what_was_put_comes_back_in_another_process_run(tmp_path):
    keys = [f"row{i}" for i in range(10)]
    fill(tmp_path, keys)
    found = read(tmp_path, [*keys, "unknown"])
    assert set(found) == set(keys)
    assert_right(found)


def test_rows_that_wait_for_their_shard_are_served_too(tmp_path):
    cache = RowCache(tmp_path, "model", 4, shard_rows=100)
    cache.put(["a"], vector("a")[None])
    assert_right(dict(cache.get(["a"])))
    assert read(tmp_path, ["a"]) == {}  # but they are not on disk


def test_what_fills_a_shard_is_on_disk_before_the_flush_and_rows_of_one_call_stay_together(
    tmp_path,
):
    cache = RowCache(tmp_path, "model", 4, shard_rows=3)
    keys = [f"row{i}" for i in range(9)]
    for batch, on_disk in ((keys[:2], 0), (keys[2:7], 7), (keys[7:], 7)):
        cache.put(batch, np.stack([vector(key) for key in batch]))
        assert set(read(tmp_path, keys)) == set(keys[:on_disk])


def test_encoders_do_not_see_each_others_rows(tmp_path):
    fill(tmp_path, ["a"])
    assert read(tmp_path, ["a"], fingerprint="other") == {}
    assert read(tmp_path, ["a"], dimension=5) == {}


@pytest.mark.parametrize("fingerprint", ["../outside", "", "a/b", "."])
def test_a_fingerprint_cannot_leave_the_folder(tmp_path, fingerprint):
    with pytest.raises(InputError, match="row cache"):
        RowCache(tmp_path, fingerprint, 4)


def test_vectors_of_another_shape_are_a_mistake_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(1, 5\)"):
        RowCache(tmp_path, "model", 4).put(["a"], np.zeros((1, 5), np.float32))


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_file_cut_anywhere_is_not_served_and_its_rows_can_be_redone(tmp_path, suffix):
    fill(tmp_path, ["a", "b"])
    [path] = (tmp_path / "model").glob(f"*{suffix}")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read(tmp_path, ["a", "b"]) == {}
    fill(tmp_path, ["a", "b"])
    assert_right(found := read(tmp_path, ["a", "b"]))
    assert len(found) == 2


def test_no_flipped_bit_is_served(tmp_path):
    fill(tmp_path, ["a", "b"])
    [path] = (tmp_path / "model").glob("*.npy")
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert read(tmp_path, ["a", "b"]) == {}


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "null",
        "{}",
        '{"rows": 2, "dimension": 4, "sha256": "00", "keys": "ab"}',
        '{"rows": 3, "dimension": 4, "sha256": "00", "keys": ["a", "b"]}',
        '{"rows": 2, "dimension": 4, "sha256": 1, "keys": ["a", "b"]}',
        '{"rows": 2, "dimension": 4, "sha256": "00", "keys": ["a", ["b"]]}',
        "\xff",
    ],
)
def test_a_strange_index_is_ignored(tmp_path, index):
    fill(tmp_path, ["a", "b"])
    [path] = (tmp_path / "model").glob("*.json")
    path.write_bytes(index.encode("latin-1"))
    assert read(tmp_path, ["a", "b"]) == {}


def test_a_damaged_shard_costs_only_its_own_rows(tmp_path):
    keys = [f"row{i}" for i in range(9)]
    for start in (0, 3, 6):
        fill(tmp_path, keys[start : start + 3])
    sorted((tmp_path / "model").glob("*.npy"))[0].write_bytes(b"")
    found = read(tmp_path, keys)
    assert len(found) == 6
    assert_right(found)


def test_leftovers_of_a_crash_go_once_they_are_old(tmp_path):
    fill(tmp_path, ["a"])
    folder = tmp_path / "model"
    old, young = folder / "old.npy.partial", folder / "young.npy.partial"
    orphan = folder / "orphan.npy"  # renamed, but killed before its index
    for path in (old, young, orphan):
        path.write_bytes(b"half")
    for path in (old, orphan):
        os.utime(path, (0, 0))
    assert_right(read(tmp_path, ["a"]))
    assert not old.exists()
    assert not orphan.exists()
    assert young.exists()  # another process may be writing it


# Puts 3 shards of 3 rows and is killed at the n-th rename (array, index, array, ...).
KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from sot_pipeline.embedding.row_cache import RowCache
from sot_pipeline_tests.embedding.test_row_cache import vector

renames = 0
rename = Path.replace
def replace(self, target):
    global renames
    renames += 1
    if renames == {n}:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.replace = replace

cache = RowCache(sys.argv[1], "model", 4, shard_rows=3)
for i in range(9):
    cache.put([f"row{{i}}"], vector(f"row{{i}}")[None])
"""


@pytest.mark.parametrize(("rename", "whole_shards"), [(1, 0), (2, 0), (3, 1), (4, 1), (6, 2)])
def test_a_kill_at_any_step_loses_at_most_one_shard(tmp_path, rename, whole_shards):
    script = textwrap.dedent(KILLED.format(n=rename))
    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    keys = [f"row{i}" for i in range(9)]
    found = read(tmp_path, keys)
    assert set(found) == set(keys[: 3 * whole_shards])
    assert_right(found)


@given(st.lists(st.integers(0, 2**31), max_size=8), st.lists(st.integers(0, 2**31), max_size=8))
@settings(deadline=None)
def test_keys_are_equal_exactly_where_token_ids_are(left, right):
    assert (row_key(left) == row_key(right)) == (left == right)
