"""Several files as one text set: names, ids, formats, licences, and the way back."""

import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.texts.kept_rows import kept_file_type, write_kept_rows
from sot_pipeline.texts.read import read_text_files, read_texts
from sot_pipeline_tests.texts.writing import file_bytes, single_turn_row, write_text


def rows(format: str, *prompts: str) -> list[dict]:
    return [single_turn_row(format, prompt, f"answer {prompt}") for prompt in prompts]


def files(folder, **contents: list[dict] | bytes) -> dict:
    """name__type=rows -> {"name.type": path}."""
    made = {}
    for key, content in contents.items():
        name = key.replace("__", ".")
        data = content if isinstance(content, bytes) else file_bytes(content, name.split(".")[-1])
        made[name] = write_text(folder, data, name)
    return made


def test_formats_and_types_may_differ_and_rows_come_file_by_file(tmp_path):
    texts = read_text_files(
        files(
            tmp_path,
            b__jsonl=rows("openai", "1", "2"),
            a__csv=rows("alpaca", "3"),
            c__parquet=rows("prompt_response", "4"),
        )
    )
    assert texts.rows["file"].to_list() == ["b.jsonl", "b.jsonl", "a.csv", "c.parquet"]
    assert texts.rows["line"].to_list() == [1, 2, 2, 1]
    assert texts.rows["prompt"].to_list() == ["1", "2", "3", "4"]
    assert texts.format == "openai, alpaca, prompt_response"
    assert [file.num_read for file in texts.files] == [2, 1, 1]
    assert texts.num_read == 4


def test_ids_are_the_same_however_rows_are_spread_over_files(tmp_path):
    prompts = ["x", "y", "x", "x"]
    one = read_texts(
        write_text(tmp_path, file_bytes(rows("alpaca", *prompts), "jsonl"), "one.jsonl")
    )
    several = read_text_files(
        files(tmp_path, a__jsonl=rows("alpaca", "x", "y"), b__json=rows("openai", "x", "x"))
    )
    assert several.rows["sample_id"].equals(one.rows["sample_id"])
    assert several.rows["sample_id"].n_unique() == 4


def test_one_file_among_several_reads_as_alone(tmp_path):
    given = files(tmp_path, a__jsonl=rows("alpaca", "x"), b__jsonl=rows("openai", "y"))
    both = read_text_files(given)
    for name, path in given.items():
        assert both.rows.filter(file=name).equals(read_texts(path).rows)


def test_rejected_rows_name_file_and_line(tmp_path):
    texts = read_text_files(
        files(tmp_path, a__jsonl=b'{"prompt":"p","response":"r"}\nbroken\n', b__jsonl=b"7\n")
    )
    assert texts.rejected.select("file", "line", "reason").rows() == [
        ("a.jsonl", 2, "broken_json"),
        ("b.jsonl", 1, "not_an_object"),
    ]
    assert [(f.num_read, f.num_rejected, f.format) for f in texts.files] == [
        (2, 1, "prompt_response"),
        (1, 1, None),
    ]


@pytest.mark.parametrize("empty", ["e__jsonl", "e__csv", "e__parquet", "e__arrow", "e__json"])
def test_an_empty_file_among_several_has_no_rows(tmp_path, empty):
    given = files(tmp_path, **{"a__jsonl": rows("alpaca", "x"), empty: b" \n"})
    texts = read_text_files(given)
    assert [file.num_read for file in texts.files] == [1, 0]
    kept = tmp_path / "kept"
    source = given[empty.replace("__", ".")]
    assert write_kept_rows(source, [], kept, expected_sha256=texts.files[1].sha256) == 0
    assert kept.read_bytes().strip() == b""


def test_several_files_without_any_row_are_an_error_that_names_lines(tmp_path):
    with pytest.raises(InputError, match="and 1 more files holds no rows"):
        read_text_files(files(tmp_path, a__jsonl=b"", b__json=b"[]"))
    with pytest.raises(
        InputError, match=r"none of the 2 rows of .*line 1 of a.jsonl, 1 of b.jsonl"
    ):
        read_text_files(files(tmp_path, a__jsonl=b"7\n", b__jsonl=b"8\n"))


@pytest.mark.parametrize("file_type", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("column", ["licence", "license"])
def test_a_licence_column_is_counted(tmp_path, file_type, column):
    given = [
        {"prompt": f"p{i}", "response": "r", column: licence}
        for i, licence in enumerate(["mit", "mit", None, "cc0"])
    ]
    path = write_text(tmp_path, file_bytes(given, file_type), f"a.{file_type}")
    (file,) = read_texts(path).files
    assert file.licences == {"mit": 2, "": 1, "cc0": 1}


@pytest.mark.parametrize("licence", [7, {"a": 1}, "", None, [1]])
def test_what_is_no_licence_states_none(tmp_path, licence):
    row = {"prompt": "p", "response": "r", "license": licence}
    (file,) = read_texts(write_text(tmp_path, file_bytes([row], "jsonl"))).files
    assert file.licences == {}


def test_a_column_of_countless_licences_stays_small(tmp_path):
    given = [{"prompt": "p", "response": "r", "license": f"{i}" * 500} for i in range(50)]
    (file,) = read_texts(write_text(tmp_path, file_bytes(given, "jsonl"))).files
    assert len(file.licences) == 21
    assert sum(file.licences.values()) == 50
    assert max(map(len, file.licences)) == 100


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_kept_rows_of_an_arrow_file_become_parquet_with_all_columns(tmp_path, kind):
    schema = pa.schema(
        [("prompt", pa.string()), ("response", pa.string()), ("n", pa.list_(pa.int8()))],
        metadata={b"huggingface": b"{}"},
    )
    table = pa.Table.from_pylist(
        [{"prompt": f"p{i}", "response": "r", "n": [i]} for i in range(7)], schema=schema
    )
    path = tmp_path / "a.arrow"
    new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as out, new(out, schema) as writer:
        writer.write_table(table, max_chunksize=3)
    read = read_texts(path)
    assert read.rows["line"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    write_kept_rows(path, [1, 4, 7], tmp_path / "kept.parquet", expected_sha256=read.sha256)
    kept = pq.read_table(tmp_path / "kept.parquet")
    assert kept.equals(table.take([0, 3, 6]))
    assert kept.schema.metadata == schema.metadata
    assert kept_file_type(read.file_type) == "parquet"


def test_an_arrow_bomb_is_an_error(tmp_path):
    table = pa.table({"prompt": ["p" * 1000] * 1000, "response": ["r"] * 1000})
    path = tmp_path / "a.arrow"
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        pa.OSFile(str(path), "wb") as out,
        pa.ipc.new_stream(out, table.schema, options=options) as writer,
    ):
        writer.write_table(table)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="the cap on a text set is 100,000"):
        read_texts(path, max_expanded_bytes=100_000)


def test_the_set_of_one_file_has_its_hash(tmp_path):
    given = files(tmp_path, a__jsonl=rows("alpaca", "x"), b__jsonl=rows("alpaca", "y"))
    one, other = (read_texts(path) for path in given.values())
    both = read_text_files(given)
    assert one.sha256 == one.files[0].sha256
    assert len({one.sha256, other.sha256, both.sha256}) == 3
    assert both.sha256 != read_text_files(dict(reversed(given.items()))).sha256


def test_jsonl_rows_of_each_file_are_written_byte_for_byte(tmp_path):
    first = b'{"prompt": "a",  "response": "b"}\r\n{"prompt": "c", "response": "d"}\n'
    given = files(tmp_path, a__jsonl=first, b__jsonl=rows("alpaca", "x"))
    texts = read_text_files(given)
    kept = texts.rows.filter(pl.col("prompt") != "c")
    for file in texts.files:
        lines = kept.filter(file=file.name)["line"].to_list()
        out = tmp_path / f"kept-{file.name}"
        write_kept_rows(given[file.name], lines, out, expected_sha256=file.sha256)
    assert (tmp_path / "kept-a.jsonl").read_bytes() == first.splitlines(keepends=True)[0]
    assert json.loads((tmp_path / "kept-b.jsonl").read_text())["instruction"] == "x"
