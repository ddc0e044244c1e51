"""The command line on text sets of several files, globs, folders and addresses."""

import json
import random

import polars as pl
import pytest

from sot_pipeline.cli.inspect import run_doctor
from sot_pipeline.cli.task_files import prepare_task, task_name
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.errors import InputError
from sot_pipeline.publishing.provenance import read_provenance
from sot_pipeline_tests.cli.test_commands import sot, sot_json
from sot_pipeline_tests.small_project import (
    HARMFUL,
    HARMLESS,
    row,
    write_jsonl,
    write_small_project,
)

HUB = "hf://datasets/owner/Bread-Rows@" + "a" * 40


@pytest.fixture(scope="module")
def purified(tmp_path_factory):
    """A purification of two custom files of the same name and of two harmful references."""
    folder = tmp_path_factory.mktemp("several")
    files = write_small_project(folder / "texts")
    lines = files["custom"].read_text().splitlines(keepends=True)
    for number, part in enumerate((lines[:40], lines[40:])):
        (folder / "parts" / str(number)).mkdir(parents=True)
        (folder / "parts" / str(number) / "rows.jsonl").write_text("".join(part))
    rng = random.Random(1)
    more = write_jsonl(folder / "more.jsonl", [row(rng, HARMFUL) for _ in range(5)])
    result = sot(
        "purify", "parts/**/*.jsonl", "--safe", "texts/safe.jsonl", "--harmful",
        files["harmful"], "--harmful", more, "--embedder", files["model"], "--task", "several",
        "--out", "out", "--json", cwd=folder,
    )  # fmt: skip
    assert result.returncode in (0, 3), result.stderr  # a set this small fails some check
    return folder, files, json.loads(result.stdout)


def test_each_file_is_written_in_its_own_bytes(purified):
    folder, _, document = purified
    assert (document["num_read"], document["num_kept"]) == (60, 48)
    ledger = pl.read_parquet(folder / "out" / "ledger.parquet")
    for number in (0, 1):
        lines = (folder / "parts" / str(number) / "rows.jsonl").read_bytes().splitlines(True)
        name = f"{number}-rows.jsonl"
        kept = ledger.filter("kept", file=name)["line"].to_list()
        written = (folder / "out" / "purified" / name).read_bytes()
        assert written == b"".join(lines[line - 1] for line in kept)
    assert ledger.height == 60
    assert not (folder / "out" / "purified.jsonl").exists()


def test_the_manifest_lists_every_file_read_and_written(purified):
    folder, files, _ = purified
    manifest = read_provenance((folder / "out" / "provenance.json").read_bytes())
    names = set(manifest.predicate.sot_data.row_files)
    assert names == {"purified/0-rows.jsonl", "purified/1-rows.jsonl"}
    assert names < set(manifest.sizes_and_hashes)
    inputs = manifest.predicate.build_definition.resolved_dependencies
    harmful = [source for source in inputs if source.annotations.role == "harmful"]
    assert [source.uri for source in harmful] == [
        files["harmful"].as_uri(),
        (folder / "more.jsonl").as_uri(),
    ]
    assert sum(source.annotations.rows_read for source in harmful) == 20
    assert harmful[0].annotations.licences == {"not stated": harmful[0].annotations.rows_read}


def test_the_task_file_holds_whole_paths(purified):
    folder, files, _ = purified
    task = Home(folder / "data").read_task("several")
    assert task.custom == (f"{folder}/parts/**/*.jsonl",)
    assert task.harmful == (str(files["harmful"]), str(folder / "more.jsonl"))


def test_new_rows_are_scored_from_a_glob(purified):
    folder, _, _ = purified
    scored = sot_json("score", "parts/*/*.jsonl", "--task", "several", cwd=folder)
    assert scored["num_scored"] == 60
    assert {row["file"] for row in scored["rows"]} == {"0-rows.jsonl", "1-rows.jsonl"}


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ("nothing/*.jsonl", "nothing matches (looked in"),
        ("empty", "holds no data file"),
        ("http://127.0.0.1:9/rows.jsonl", "cannot be read"),
        ("hf://datasets/owner/name@main/x.jsonl", "expected a commit"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_written(tmp_path, custom, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "s.jsonl").write_text("{}")
    result = sot("purify", custom, "--safe", "s.jsonl", "--harmful", "s.jsonl", cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "data" / "tasks").exists()


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (["My Rows.v2.jsonl.gz"], "my-rows"),
        (["/x/refs/*.jsonl"], "refs"),
        (["/x/refs/train-*.jsonl"], "train"),
        (["/x/refs/**/*.jsonl"], "refs"),
        (["/x/alpaca/"], "alpaca"),
        (["/x/alpaca/a.jsonl", "/x/alpaca/b.jsonl"], "alpaca"),
        ([f"{HUB}/data/*.jsonl"], "bread-rows"),
        ([HUB], "bread-rows"),
        (["https://host/path/rows.jsonl?token=secret"], "rows"),
        (["s3://bucket/set/*.parquet"], "set"),
        (["*"], "task"),
        (["x" * 100 + ".jsonl"], "x" * 64),
    ],
)
def test_a_task_is_named_after_what_it_reads(sources, name):
    assert task_name(sources) == name
    assert Home("/x").task_path(name)


def test_hand_written_licences_outlive_a_new_purification(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row(random.Random(0), HARMLESS)) + "\n")
    home, one = Home(tmp_path / "data"), [str(path)]
    name = prepare_task(home, None, one, one, one, {}, [])
    task = home.read_task(name)
    home.write_task(name, task.model_copy(update={"licences": {str(path): "mit"}}))
    prepare_task(home, None, one, one, one, {}, [])
    assert home.read_task(name).licences == {str(path): "mit"}
    prepare_task(home, name, [], [], [*one, f"{tmp_path}/*.jsonl"], {}, [])
    assert home.read_task(name).harmful == (str(path), f"{tmp_path}/*.jsonl")
    with pytest.raises(InputError, match="no such file"):
        prepare_task(home, name, [], [str(tmp_path / "gone")], [], {}, [])


def test_the_doctor_names_what_is_gone_and_asks_no_server(tmp_path, capsys):
    home = Home(tmp_path / "data")
    home.write_task(
        "t",
        TaskFile.model_validate(
            {"custom": f"{tmp_path}/*.jsonl", "safe": "http://127.0.0.1:9/a.jsonl", "harmful": HUB}
        ),
    )
    run_doctor(tmp_path / "data", True)
    findings = json.loads(capsys.readouterr().out)["findings"]
    (tasks,) = [finding for finding in findings if finding["what"] == "tasks"]
    assert tasks["level"] == "warning"
    assert tasks["found"].count("t: ") == 1
    assert "nothing matches" in tasks["found"]
