"""The columns of a file are those that its readers will meet."""

import json

import polars as pl
import pytest

from sot_pipeline.texts.columns import Column, file_columns, reading_options


def test_types_of_jsonl_come_from_all_rows(tmp_path):
    rows = [
        {"prompt": "a", "n": 1, "share": 1, "ok": True, "tags": ["x"], "odd": 1, "none": None},
        {"prompt": "b", "n": 2, "share": 0.5, "ok": False, "tags": [], "odd": "1", "late": "z"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert file_columns(path) == [
        Column("prompt", "text"),
        Column("n", "integer"),
        Column("share", "number"),
        Column("ok", "boolean"),
        Column("tags", "text", is_list=True),
        Column("odd", "other"),
        Column("none", "text", in_every_row=False),
        Column("late", "text", in_every_row=False),
    ]


def test_turns_of_a_conversation_are_objects_with_members(tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"messages": turns}]))
    members = (
        Column("role", "text"),
        Column("content", "text"),
        Column("weight", "integer", in_every_row=False),
    )
    assert file_columns(path) == [Column("messages", "object", is_list=True, members=members)]


def test_parquet_says_its_types(tmp_path):
    path = tmp_path / "rows.parquet"
    turns = [{"role": "user", "content": "a"}]
    pl.DataFrame(
        {"prompt": ["a"], "n": [1], "x": [0.5], "ok": [True], "messages": [turns]},
        schema_overrides={"prompt": pl.Categorical},
    ).write_parquet(path)
    assert file_columns(path) == [
        Column("prompt", "text"),
        Column("n", "integer"),
        Column("x", "number"),
        Column("ok", "boolean"),
        Column("messages", "object", True, (Column("role", "text"), Column("content", "text"))),
    ]


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", "prompt,response\na,b\n", {}),
        ("a.csv", "prompt;response\na;b\n", {"sep": ";"}),
        ("a.tsv", "prompt\tresponse\na\tb\n", {"sep": "\t"}),
        ("a.jsonl", '{"prompt": "a"}\n', {}),
        ("a.json", '[{"prompt": "a"}]', {}),
        ("a.json", '{"version": 1, "rows": [{"prompt": "a"}]}', {"field": "rows"}),
    ],
)
def test_a_reader_is_told_what_the_name_does_not_say(tmp_path, name, content, options):
    path = tmp_path / name
    path.write_text(content)
    assert reading_options(path) == options
