"""The store: whole artefacts or none, round trips, versions, the catalogue."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sot_pipeline.defs.catalogue import rebuild_catalogue, refresh_catalogue
from sot_pipeline.defs.store import Artifact, Check, Store, fingerprint_of

TABLE = pl.DataFrame(
    {
        "sample_id": ["b", "a", "c"],
        "text": ["ümlaut ☃ 'quoted'", None, "line\nbreak\x00nul"],
        "line": [3, 1, 2],
        "log_weight": [-1.5, float("-inf"), 0.0],
        "kept": [True, False, None],
    }
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def write(store: Store, artifact: Artifact, *, asset="texts", fingerprint="f1", **options):
    return store.write(asset, fingerprint, lambda folder: (artifact, {"lineage": {}}), **options)


def test_a_table_comes_back_as_it_went_in(store: Store):
    stored = write(store, Artifact(table=TABLE))
    assert stored.table().equals(TABLE)
    assert stored.manifest["rows"] == 3


@given(
    rows=st.lists(
        st.tuples(st.text(), st.none() | st.integers(-(2**63), 2**63 - 1), st.floats()),
        max_size=30,
    )
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_table_round_trips_in_order(tmp_path, rows):
    schema = {"text": pl.String, "number": pl.Int64, "value": pl.Float64}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    artifact = Artifact(table=table)
    stored = write(Store(tmp_path), artifact, fingerprint=fingerprint_of({"rows": repr(rows)}))
    assert stored.table().equals(table, null_equal=True)


def test_an_array_comes_back_memory_mapped(store: Store):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    stored = write(store, Artifact(array=array))
    np.testing.assert_array_equal(stored.array(), array)
    assert isinstance(stored.array(), np.memmap)
    assert stored.manifest["shape"] == [3, 4]


def test_arrays_of_objects_are_refused(store: Store):
    with pytest.raises(ValueError, match="allow_pickle"):
        write(store, Artifact(array=np.array([object()])))
    assert store.find("texts", "f1") is None


def test_document_checks_and_plots_come_back(store: Store):
    check = Check("ok", False, "why", blocking=True, values={"ess": 3.0})
    artifact = Artifact(document={"a": [1, "x"]}, plots={"trace": b"png"}, checks=(check,))
    stored = write(store, artifact)
    assert stored.document == {"a": [1, "x"]}
    assert stored.plots() == {"trace": b"png"}
    assert stored.checks() == [check]


def test_content_versions_depend_on_the_rows_alone(store: Store):
    first = write(store, Artifact(table=TABLE), fingerprint="f1", content_versioned=True)
    same = write(store, Artifact(table=TABLE.clone()), fingerprint="f2", content_versioned=True)
    reordered = write(
        store, Artifact(table=TABLE.reverse()), fingerprint="f3", content_versioned=True
    )
    assert first.data_version == same.data_version != reordered.data_version


def test_a_failing_build_leaves_nothing_to_be_found(store: Store):
    def build(folder: Path):
        (folder / "half.bin").write_bytes(b"half")
        raise RuntimeError("out of disk")

    with pytest.raises(RuntimeError):
        store.write("texts", "f1", build)
    assert store.find("texts", "f1") is None
    assert list((store.root / "building").iterdir()) == []


def test_a_crash_between_write_and_rename_leaves_only_a_directory_to_sweep(tmp_path):
    script = textwrap.dedent(
        f"""
        import os, pathlib, signal
        from sot_pipeline.defs.store import Artifact, Store
        import polars as pl
        # everything is written; the process dies at the moment of publishing
        pathlib.Path.rename = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
        Store(pathlib.Path({str(tmp_path)!r})).write(
            "texts", "f1", lambda folder: (Artifact(table=pl.DataFrame({{"a": [1]}})), {{}})
        )
        """
    )
    process = subprocess.run([sys.executable, "-c", script], check=False)
    assert process.returncode == -signal.SIGKILL
    store = Store(tmp_path)
    assert store.find("texts", "f1") is None
    assert sorted(p.name for p in (tmp_path / "building").iterdir()) == [
        "texts-f1",
        "texts-f1.lock",
    ]
    assert store.sweep() == 1
    assert list((tmp_path / "building").iterdir()) == []
    assert write(store, Artifact(table=TABLE)).table().equals(TABLE)


def test_sweeping_spares_what_a_live_process_is_building(store: Store):
    def build(folder: Path):
        sweep = f"from pathlib import Path; from sot_pipeline.defs.store import Store; print(Store(Path({str(store.root)!r})).sweep())"
        other = subprocess.run([sys.executable, "-c", sweep], capture_output=True, check=True)
        assert other.stdout.strip() == b"0"
        return Artifact(table=TABLE), {}

    assert store.write("texts", "f1", build).table().equals(TABLE)


def test_of_two_writers_of_one_artefact_the_second_takes_what_the_first_made(store: Store):
    counter = store.root / "builds"
    code = textwrap.dedent(
        f"""
        import pathlib, time
        import polars as pl
        from sot_pipeline.defs.store import Artifact, Store

        def build(folder):
            with open({str(counter)!r}, "a") as file:
                file.write("x")
            time.sleep(0.3)
            return Artifact(table=pl.DataFrame({{"a": [1]}})), {{}}

        stored = Store(pathlib.Path({str(store.root)!r})).write("texts", "f1", build)
        assert stored.table().height == 1
        """
    )
    store.root.mkdir()
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert counter.read_text() == "x"
    assert list((store.root / "building").iterdir()) == []


def test_a_killed_attempt_does_not_stand_in_the_way_of_the_next(store: Store):
    left = store.root / "building" / "texts-f1"
    left.mkdir(parents=True)
    (left / "half.bin").write_bytes(b"half")
    assert write(store, Artifact(table=TABLE)).manifest["files"].keys() == {"table.duckdb"}


@pytest.mark.parametrize("manifest", [None, b"", b"{", b"[]", b'{"fingerprint": "other"}'])
def test_a_directory_without_a_readable_manifest_is_made_again(store: Store, manifest):
    stored = write(store, Artifact(table=TABLE))
    path = stored.directory / "manifest.json"
    path.unlink() if manifest is None else path.write_bytes(manifest)
    assert store.find("texts", "f1") is None
    assert write(store, Artifact(table=TABLE)).table().equals(TABLE)
    assert store.sweep() == 1, "what was there before went to the trash"


def test_damage_is_found(store: Store):
    stored = write(store, Artifact(table=TABLE, array=np.zeros(3)))
    assert stored.damage() == []
    with (stored.directory / "array.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    stored.table_path.unlink()
    assert len(stored.damage()) == 2


def test_the_current_version_of_a_task_can_move_and_move_back(store: Store):
    old = write(store, Artifact(table=TABLE), fingerprint="f1")
    new = write(store, Artifact(table=TABLE.head(1)), fingerprint="f2")
    assert store.set_current("t", old)
    assert not store.set_current("t", old)
    assert store.set_current("t", new)
    assert store.current("t", "texts") == new
    store.set_current("t", old)
    assert store.current("t", "texts") == old
    assert store.current("other", "texts") is None
    assert store.current_of("t") == {"texts": old}


@pytest.mark.parametrize(
    "line", ["{", '{"asset": "texts", "finger', "[]", "3", "\x00\x00", '{"asset": "texts"}']
)
def test_a_damaged_line_of_the_history_hides_no_other(store: Store, line):
    stored = write(store, Artifact(table=TABLE))
    store.set_current("t", stored)
    with (store.root / "history" / "t.jsonl").open("a") as file:
        file.write(f"\n{line}")
    later = write(store, Artifact(table=TABLE), fingerprint="f2")
    store.set_current("t", later)
    assert store.history("t", "texts") == [stored, later]


@pytest.mark.parametrize("pointer", [b"", b"\xff\x00", b"../texts", b"gone"])
def test_a_damaged_pointer_is_as_none(store: Store, pointer):
    stored = write(store, Artifact(table=TABLE))
    store.set_current("t", stored)
    (store.root / "current" / "t" / "texts").write_bytes(pointer)
    assert store.current("t", "texts") is None
    assert store.set_current("t", stored)
    assert store.current("t", "texts") == stored


def test_the_catalogue_stacks_the_tasks_of_an_asset(store: Store):
    store.set_current("one", write(store, Artifact(table=TABLE), fingerprint="f1"))
    store.set_current("it's", write(store, Artifact(table=TABLE.head(1)), fingerprint="f2"))
    path = rebuild_catalogue(store)
    with duckdb.connect(str(path), read_only=True) as connection:
        counts = connection.sql("select task, count(*) from texts group by task order by task")
        assert counts.fetchall() == [("it's", 1), ("one", 3)]


def test_a_reader_of_the_catalogue_does_not_block_its_replacement(store: Store):
    store.set_current("one", write(store, Artifact(table=TABLE), fingerprint="f1"))
    path = rebuild_catalogue(store)
    with duckdb.connect(str(path), read_only=True) as reader:
        store.set_current("one", write(store, Artifact(table=TABLE.head(2)), fingerprint="f2"))
        rebuild_catalogue(store)
        assert reader.sql("select count(*) from texts").fetchall() == [(3,)]
    with duckdb.connect(str(path), read_only=True) as fresh:
        assert fresh.sql("select count(*) from texts").fetchall() == [(2,)]


def shown(store: Store, view: str = "texts") -> int:
    with duckdb.connect(str(store.root / "pipeline.duckdb"), read_only=True) as connection:
        return connection.sql(f"select count(*) from {view}").fetchall()[0][0]


def test_a_process_that_dies_before_it_rebuilds_the_catalogue_leaves_that_to_the_next(store: Store):
    store.set_current("one", write(store, Artifact(table=TABLE), fingerprint="f1"))
    refresh_catalogue(store)
    store.set_current("one", write(store, Artifact(table=TABLE.head(1)), fingerprint="f2"))
    # and dies here; whoever comes next moves nothing and yet shows what is current
    refresh_catalogue(store)
    assert shown(store) == 1


def test_a_catalogue_that_shows_what_is_current_is_not_written_again(store: Store):
    store.set_current("one", write(store, Artifact(table=TABLE)))
    refresh_catalogue(store)
    before = (store.root / "pipeline.duckdb").stat()
    refresh_catalogue(store)
    assert (store.root / "pipeline.duckdb").stat() == before
    (store.root / "pipeline.duckdb").unlink()
    refresh_catalogue(store)
    assert shown(store) == 3


def test_an_asset_that_has_no_table_any_more_leaves_the_catalogue(store: Store):
    store.set_current("one", write(store, Artifact(table=TABLE), fingerprint="f1"))
    refresh_catalogue(store)
    store.set_current("one", write(store, Artifact(), fingerprint="f2"))
    refresh_catalogue(store)
    with pytest.raises(duckdb.CatalogException):
        shown(store)


def test_a_damaged_table_hides_no_other_tasks_rows(store: Store):
    store.set_current("one", write(store, Artifact(table=TABLE), fingerprint="f1"))
    store.set_current("two", write(store, Artifact(table=TABLE.head(1)), fingerprint="f2"))
    alone = write(store, Artifact(table=TABLE), asset="alone", fingerprint="f3")
    store.set_current("one", alone)
    for stored in (store.current("one", "texts"), alone):
        assert stored is not None
        stored.table_path.write_bytes(b"no table")
    refresh_catalogue(store)
    assert shown(store) == 1


def test_what_a_killed_rebuild_left_goes_with_the_next(store: Store):
    store.set_current("one", write(store, Artifact(table=TABLE)))
    for name in ("pipeline.0f.tmp", "pipeline.0f.tmp.wal"):
        (store.root / name).write_bytes(b"half")
    refresh_catalogue(store)
    assert sorted(p.name for p in store.root.glob("pipeline.*")) == [
        "pipeline.duckdb", "pipeline.lock",
    ]  # fmt: skip


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else():
    assert fingerprint_of({"a": 1, "b": [1, 2]}) == fingerprint_of({"b": [1, 2], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})
    assert fingerprint_of({"a": [1, 2]}) != fingerprint_of({"a": [2, 1]})
