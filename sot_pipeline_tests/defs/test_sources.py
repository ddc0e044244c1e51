"""What a task reads: lists in task files, identity, signature, and what the tables say of it."""

from pathlib import Path

import fsspec
import polars as pl
import pytest
import yaml

from sot_pipeline.defs.assets.texts import custom_texts, harmful_texts, rejected_rows, safe_texts
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.materialise import materialise
from sot_pipeline.defs.sources import source_files, source_identity, source_signature
from sot_pipeline.defs.store import Stored
from sot_pipeline.errors import InputError

HUB = "hf://datasets/owner/name@" + "a" * 40


def row(prompt: str, **more: str) -> str:
    extra = "".join(f', "{key}": "{value}"' for key, value in more.items())
    return f'{{"prompt": "{prompt}", "response": "r"{extra}}}\n'


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "refs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "refs" / f"{name}.jsonl").write_text(row(name))
    home = Home(tmp_path / "home")
    write(home, harmful=f"{tmp_path}/refs/*.jsonl")
    return home


def write(home: Home, **sources: object) -> TaskFile:
    a = str(home.root.parent / "refs" / "a.jsonl")
    home.write_task("t", TaskFile.model_validate({"custom": a, "safe": a, "harmful": a} | sources))
    return home.read_task("t")


def read(home: Home, asset=harmful_texts) -> Stored:
    return materialise(asset, home, "t", lambda line: None).stored


def test_one_source_is_written_as_a_text_and_several_as_a_list(home):
    task = write(home, custom=Path("/x/a.jsonl"), safe=["/s.jsonl", Path("/t.jsonl")])
    assert (task.custom, task.safe) == (("/x/a.jsonl",), ("/s.jsonl", "/t.jsonl"))
    written = yaml.safe_load(home.task_path("t").read_text())
    assert written["custom"] == "/x/a.jsonl"
    assert written["safe"] == ["/s.jsonl", "/t.jsonl"]
    again = home.read_task("t")
    assert again == task
    more = again.model_copy(update={"harmful": (*again.harmful, "/more.jsonl")})
    home.write_task("t", more)
    assert home.read_task("t").harmful == (*task.harmful, "/more.jsonl")


@pytest.mark.parametrize("sources", ["[]", "''", "['']", "{a: b}", "3", "[[a]]"])
def test_a_set_without_a_source_is_refused(home, sources):
    home.task_path("t").write_text(f"custom: {sources}\nsafe: b\nharmful: c\n")
    with pytest.raises(InputError, match="custom"):
        home.read_task("t")


def test_relative_sources_are_taken_from_where_the_process_runs(home, monkeypatch):
    monkeypatch.chdir(home.root.parent)
    task = write(home, harmful="refs/*.jsonl")
    assert [file.path for file in source_files(task, "harmful")] == [
        home.root.parent / "refs" / "a.jsonl",
        home.root.parent / "refs" / "b.jsonl",
    ]


def test_equal_contents_have_equal_identities_wherever_they_lie(home, tmp_path):
    before = source_identity(home.read_task("t"), "harmful")
    (tmp_path / "refs").rename(tmp_path / "moved")
    after = source_identity(write(home, harmful=f"{tmp_path}/moved/*.jsonl"), "harmful")
    assert after == before
    assert len(before["sha256"]) == 2
    reversed_order = [f"{tmp_path}/moved/b.jsonl", f"{tmp_path}/moved/a.jsonl"]
    assert source_identity(write(home, harmful=reversed_order), "harmful") != before


def test_the_signature_tells_new_changed_and_absent_files(home, tmp_path):
    task = home.read_task("t")
    marks = [source_signature(task, "harmful"), source_signature(task, "harmful")]
    assert marks[0] == marks[1]
    (tmp_path / "refs" / "c.jsonl").write_text(row("c"))
    marks.append(source_signature(task, "harmful"))
    (tmp_path / "refs" / "c.jsonl").write_text(row("other"))
    marks.append(source_signature(task, "harmful"))
    for path in (tmp_path / "refs").iterdir():
        path.unlink()
    marks.append(source_signature(task, "harmful"))
    assert len(set(marks)) == 4


def test_the_signature_of_what_cannot_be_reached_is_steady(home):
    task = write(home, safe="http://127.0.0.1:9/x.jsonl", harmful="memory://nowhere/*.jsonl")
    for role in ("safe", "harmful"):
        assert source_signature(task, role) == source_signature(task, role)


def test_nobody_is_asked_whether_a_commit_changed(home, monkeypatch):
    monkeypatch.setattr("fsspec.AbstractFileSystem.info", lambda *a, **k: 1 / 0)
    task = write(home, harmful=f"{HUB}/data/*.jsonl")
    assert source_signature(task, "harmful") == source_signature(task, "harmful")


def test_remote_files_lie_in_the_store_of_the_tasks_own_home(home):
    fs = fsspec.filesystem("memory")
    fs.pipe("/set/rows.jsonl", row("m").encode())
    try:
        task = write(home, harmful="memory://set/rows.jsonl")
        (file,) = source_files(task, "harmful")
        assert file.path.is_relative_to(home.store / "fetched")
        before = source_signature(task, "harmful"), source_identity(task, "harmful")
        fs.pipe("/set/rows.jsonl", row("other").encode())
        after = source_signature(task, "harmful"), source_identity(task, "harmful")
        assert before[0] != after[0]
        assert before[1] != after[1]
        (told,) = read(home).document["files"]
        assert told["location"] == "memory:///set/rows.jsonl"
        assert not Path(told["path"]).is_absolute()
        assert (home.store / told["path"]).read_text() == row("other")
    finally:
        fs.store.clear()


def test_the_document_tells_every_file_with_its_licence(home, tmp_path):
    (tmp_path / "refs" / "b.jsonl").write_text(row("x", license="mit") + row("y", license="cc0"))
    task = write(
        home, harmful=f"{tmp_path}/refs/*.jsonl", licences={f"{tmp_path}/refs/a.jsonl": "by hand"}
    )
    home.write_task(
        "t", task.model_copy(update={"harmful": (f"{tmp_path}/refs/a.jsonl", *task.harmful)})
    )
    document = read(home).document
    first, second = document["files"]
    assert (first["name"], first["licence"], first["licence_from"]) == (
        "a.jsonl", "by hand", "task file",
    )  # fmt: skip
    assert (second["licence"], second["licence_from"]) == ({"mit": 1, "cc0": 1}, "column")
    assert first["sha256"] == source_identity(home.read_task("t"), "harmful")["sha256"][0]
    assert first["bytes"] == (tmp_path / "refs" / "a.jsonl").stat().st_size
    assert document["licence"] == "by hand, mit, cc0"
    assert document["name"] == "a.jsonl, b.jsonl"
    assert read(home, custom_texts).document["licence"] == "by hand"
    assert read(home, safe_texts).document["num_read"] == 1


def test_the_table_names_the_file_where_there_are_several(home):
    several, single = read(home), read(home, custom_texts)
    assert several.table()["file"].to_list() == ["a.jsonl", "b.jsonl"]
    assert single.table()["file"].to_list() == [None]


def test_a_renamed_file_changes_the_document_and_not_the_table(home, tmp_path):
    before = read(home, custom_texts)
    (tmp_path / "new.jsonl").write_text(row("a"))
    write(home, custom=str(tmp_path / "new.jsonl"))
    after = read(home, custom_texts)
    assert after.document["files"][0]["name"] == "new.jsonl"
    assert after.data_version == before.data_version


def test_rejected_rows_tell_file_and_line(home, tmp_path):
    (tmp_path / "refs" / "b.jsonl").write_text(row("b") + "broken\n")
    for asset in (custom_texts, safe_texts, harmful_texts):
        read(home, asset)
    table = read(home, rejected_rows).table()
    assert table.select("text_set", "file", "line").rows() == [
        ("harmful", str(tmp_path / "refs" / "b.jsonl"), 2)
    ]
    assert table.schema["file"] == pl.String
