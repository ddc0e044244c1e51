"""Text values of a file are found and replaced; nothing else in it changes."""

import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.texts.row_texts import num_rows, rewrite_texts, row_texts


def shout(text: str) -> str:
    return text.replace("secret", "SECRET")


def unchanged(text: str) -> str:
    return text


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_of_jsonl_the_strings_that_are_no_keys_are_found(tmp_path):
    content = b'{"prompt": "a", "n": 1, "messages": [{"role": "user", "content": "b\\u0040c"}]}\n\n{"prompt": ""}\n'
    path = written(tmp_path / "rows.jsonl", content)
    assert list(row_texts(path)) == [["a", "user", "b@c"], [""]]
    assert num_rows(path) == 2


def test_a_conversation_inside_a_text_counts_by_its_texts(tmp_path):
    inner = json.dumps([{"role": "user", "content": "my secret"}])
    path = written(tmp_path / "rows.jsonl", json.dumps({"messages": inner}).encode() + b"\n")
    assert list(row_texts(path)) == [["user", "my secret"]]
    assert rewrite_texts(path, shout) == 1
    row = json.loads(path.read_text())
    assert json.loads(row["messages"]) == [{"role": "user", "content": "my SECRET"}]


def test_rows_of_jsonl_that_nothing_changes_keep_their_bytes(tmp_path):
    kept = b'\xef\xbb\xbf{"prompt" :"caf\\u00e9",  "n":1.50e1, "secret":null}\r\n'
    path = written(tmp_path / "rows.jsonl", kept + b'{"prompt":"a secret \\ud83d", "n": 1.50}')
    assert rewrite_texts(path, shout) == 1
    assert path.read_bytes() == kept + b'{"prompt":"a SECRET \\ud83d", "n": 1.50}'


def test_a_json_array_and_what_stands_around_it_stay(tmp_path):
    content = b'{"version": "secret", "rows": [\n {"prompt": "secret"} ,{"prompt": "b"}\n]}'
    path = written(tmp_path / "rows.json", content)
    assert rewrite_texts(path, shout) == 1
    assert path.read_bytes() == content.replace(b'{"prompt": "secret"}', b'{"prompt": "SECRET"}')


def test_cells_of_csv_are_quoted_where_they_have_to_be(tmp_path):
    content = b'prompt;response\r\n"a; ""secret""\nline";b\r\nplain;"as ""it"" is"\r\n'
    path = written(tmp_path / "rows.csv", content)
    assert list(row_texts(path)) == [['a; "secret"\nline', "b"], ["plain", 'as "it" is']]
    assert rewrite_texts(path, shout) == 1
    assert path.read_bytes() == content.replace(b"secret", b"SECRET")


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_what_was_compressed_is_compressed_again(tmp_path, ending):
    compress = gzip.compress if ending == ".gz" else zstandard.ZstdCompressor().compress
    path = written(tmp_path / f"rows.jsonl{ending}", compress(b'{"prompt": "secret"}\n'))
    assert rewrite_texts(path, shout) == 1
    assert list(row_texts(path)) == [["SECRET"]]
    assert path.read_bytes()[:2] == compress(b"")[:2]


def test_strings_of_parquet_change_at_any_depth_and_types_stay(tmp_path):
    turn = pa.struct([("role", pa.string()), ("content", pa.large_string()), ("n", pa.int8())])
    table = pa.table(
        {
            "prompt": pa.array(["a secret", None, "b"]).dictionary_encode(),
            "messages": pa.array(
                [[{"role": "user", "content": "secret", "n": 1}], [], None], pa.list_(turn)
            ),
            "facts": pa.array(
                [[("secret", "secret")], None, []], pa.map_(pa.string(), pa.string())
            ),
            "when": pa.array([1, 2, None], pa.timestamp("ns")),
            "picture": pa.array([b"secret", b"", None]),
        },
        metadata={"about": "this"},
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, compression="gzip")
    assert rewrite_texts(path, shout) == 1
    after = pq.read_table(path)
    assert after.schema.equals(pq.read_schema(path), check_metadata=True)
    assert after.schema.field("messages").type == table.schema.field("messages").type
    assert after["prompt"].to_pylist() == ["a SECRET", None, "b"]
    assert after["messages"][0].as_py() == [{"role": "user", "content": "SECRET", "n": 1}]
    assert after["facts"][0].as_py() == [("secret", "SECRET")]  # a key stays
    assert after.select(["when", "picture"]).equals(table.select(["when", "picture"]))
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "GZIP"
    assert num_rows(path) == 3


def test_a_column_that_cannot_be_written_as_it_was_is_refused_and_the_file_stays(tmp_path):
    kind = pa.struct([("text", pa.string()), ("x", pa.float64())])
    table = pa.table(
        {"prompt": ["x"], "note": pa.array([{"text": "secret", "x": float("nan")}], kind)}
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"'note' of type struct.* cannot be written again"):
        rewrite_texts(path, shout)  # whether a NaN came back cannot be told
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_file_without_rows_stays(tmp_path):
    path = written(tmp_path / "rows.jsonl", b"")
    assert rewrite_texts(path, shout) == 0
    assert path.read_bytes() == b""
    assert list(row_texts(path)) == []
    assert num_rows(path) == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(rows=st.lists(st.dictionaries(st.text(max_size=4), json_values, min_size=1), min_size=1))
def test_no_change_gives_the_same_bytes(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(content)
    assert rewrite_texts(path, unchanged) == 0
    assert path.read_bytes() == content


@given(cells=st.lists(st.tuples(st.text(), st.text()), min_size=1))
def test_changed_csv_holds_the_changed_cells(tmp_path_factory, cells):
    table = pl.DataFrame(
        [(_in_one_line(a) + "secret", _in_one_line(b)) for a, b in cells],
        schema=["prompt", "response"],
        orient="row",
    )
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    table.write_csv(path)
    assert rewrite_texts(path, shout) == table.height
    after = pl.read_csv(path, infer_schema=False).fill_null("")
    assert (
        after.to_dicts()
        == table.with_columns(pl.all().str.replace_all("secret", "SECRET")).to_dicts()
    )


def _in_one_line(text: str) -> str:
    return "".join(c for c in text if c.isprintable() and c not in "{[")
