"""A folder of results is whole or absent, and replaces nothing that would be lost."""

import json

import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.publishing.folder import MANIFEST, fresh_folder, write_manifest


def export(out, content="one"):
    with fresh_folder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file.txt").write_text(content)
        write_manifest(folder, {"task": "t"})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_with_the_hash_of_every_file(tmp_path):
    export(tmp_path / "a" / "out")
    manifest = json.loads((tmp_path / "a" / "out" / MANIFEST).read_text())
    assert manifest["task"] == "t"
    assert manifest["files"] == {
        "sub/file.txt": {
            "bytes": 3,
            "sha256": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
        }
    }
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
