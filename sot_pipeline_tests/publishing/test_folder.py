"""A folder of results is whole or absent, and replaces nothing that would be lost."""

import multiprocessing
import os
import signal

import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.publishing.folder import fresh_folder
from sot_pipeline.publishing.provenance import (
    MANIFEST,
    MANIFEST_HASH,
    read_provenance,
    write_provenance,
)
from sot_pipeline_tests.publishing.predicates import PREDICATE


def export(out, content="one"):
    with fresh_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file.txt").write_text(content)
        write_provenance(folder, PREDICATE)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_with_the_hash_of_every_file(tmp_path):
    export(tmp_path / "a" / "out")
    out = tmp_path / "a" / "out"
    statement = read_provenance((out / MANIFEST).read_bytes())
    assert statement.sizes_and_hashes == {
        "sub/file.txt": (3, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed")
    }
    assert names(out) == [MANIFEST, MANIFEST_HASH, "sub"]
    assert names(tmp_path / "a") == ["out"]  # nothing is left beside it


def test_an_earlier_export_is_replaced_whole(tmp_path):
    out = tmp_path / "out"
    export(out, "one")
    export(out, "two")
    assert (out / "sub" / "file.txt").read_text() == "two"
    assert names(tmp_path) == ["out"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    export(tmp_path / "out")


def test_after_an_error_the_earlier_export_is_still_there(tmp_path):
    out = tmp_path / "out"
    export(out, "one")

    def fail():
        with fresh_folder(out) as folder:
            (folder / "half.txt").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (out / "sub" / "file.txt").read_text() == "one"
    assert names(tmp_path) == ["out"]


def occupied_by_a_file(out):
    out.write_text("a file")


def occupied_by_other_things(out):
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")


def occupied_by_a_forged_manifest(out):
    out.mkdir()
    (out / MANIFEST).write_text('{"made_by": "sot export", "files": 3}')


def occupied_by_a_training(out):
    export(out)
    (out / "trl" / "output").mkdir(parents=True)
    (out / "trl" / "output" / "adapter_model.safetensors").write_text("trained")


def occupied_by_an_edited_export(out):
    export(out)
    (out / "sub" / "file.txt").write_text("ten")


@pytest.mark.parametrize(
    ("occupy", "message"),
    [
        (occupied_by_a_file, "is a file"),
        (occupied_by_other_things, "not empty and no earlier export"),
        (occupied_by_a_forged_manifest, "not empty and no earlier export"),
        (occupied_by_a_training, "no export wrote .*output/adapter_model"),
        (occupied_by_an_edited_export, "edited since its export .*sub/file.txt"),
    ],
)
def test_what_would_be_lost_is_not_replaced(tmp_path, occupy, message):
    out = tmp_path / "out"
    occupy(out)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=message):
        export(out, "new")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_what_comes_while_an_export_is_written_is_not_replaced(tmp_path):
    out = tmp_path / "out"

    def overtaken():
        with fresh_folder(out) as folder:
            (folder / "file.txt").write_text("new")
            out.mkdir()
            (out / "other.txt").write_text("by someone else")

    with pytest.raises(InputError, match="no earlier export"):
        overtaken()
    assert names(out) == ["other.txt"]


def kill_at(step: str, out):
    """Write a folder in a process of its own that is killed at one of its steps."""
    process = multiprocessing.get_context("spawn").Process(target=_write_until, args=(step, out))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def _write_until(step, out):
    from pathlib import Path

    rename, calls = Path.rename, []

    def counted(self, target):
        calls.append(target)
        result = rename(self, target)
        if step == f"rename {len(calls)}":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Path.rename = counted
    with fresh_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file.txt").write_text("two")
        if step == "half":
            os.kill(os.getpid(), signal.SIGKILL)
        write_provenance(folder, PREDICATE)


@pytest.mark.parametrize(
    ("step", "found"), [("half", "one"), ("rename 1", "one"), ("rename 2", "two")]
)
def test_after_a_kill_the_next_export_finds_a_whole_folder_and_leaves_nothing_beside(
    tmp_path, step, found
):
    out = tmp_path / "out"
    export(out, "one")
    kill_at(step, out)
    seen = []
    with fresh_folder(out) as folder:  # puts back what was moved aside
        seen.append((out / "sub" / "file.txt").read_text())
        (folder / "file.txt").write_text("three")
        write_provenance(folder, PREDICATE)
    assert seen == [found]
    assert names(tmp_path) == ["out"]
    assert (out / "file.txt").read_text() == "three"


def test_what_a_running_export_writes_beside_it_stays(tmp_path):
    out = tmp_path / "out"
    running = tmp_path / f".out.{os.getpid()}.tmp"
    other = tmp_path / f".out.{os.getppid()}.tmp"
    other.mkdir()
    export(out)
    assert other.exists()
    assert not running.exists()
