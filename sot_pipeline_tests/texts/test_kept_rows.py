"""write_kept_rows: what stays, stays as it was, byte for byte where the format has bytes."""

import gzip
import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.texts.kept_rows import write_kept_rows
from sot_pipeline.texts.read import read_texts
from sot_pipeline_tests.texts.writing import COMPRESSIONS, FILE_TYPES, write, write_text

ROWS = [{"prompt": f"p{i}", "response": f'r{i},\n"{i}"', "label": "x"} for i in range(6)]
JSONL = (
    b'{"prompt": "a",   "response": "1.0", "n": 1.50, "big": 1e400}\r\n'
    b"\n"
    b'  {"response":"\\u00e9", "prompt":"b"}  \n'
    b"broken\n"
    b'{"prompt": "c", "response": "d"}'
)


def keep(path, lines, destination=None):
    """The bytes of the kept rows."""
    destination = destination or path.with_name("kept-" + path.name)
    sha256 = read_texts(path).sha256
    assert write_kept_rows(path, lines, destination, expected_sha256=sha256) == len(set(lines))
    assert sorted(p.name for p in path.parent.glob(".*")) == []  # no temporary file stays
    return destination.read_bytes()


def test_jsonl_rows_keep_their_bytes(tmp_path):
    path = write_text(tmp_path, JSONL)
    lines = JSONL.splitlines(keepends=True)
    assert keep(path, [1, 3]) == lines[0] + lines[2]
    assert keep(path, {5}) == lines[4] + b"\n"  # only a missing line ending is added
    assert keep(path, [5, 3, 3]) == lines[2] + lines[4] + b"\n"  # in file order, once


def test_csv_keeps_header_mark_and_record_bytes(tmp_path):
    header = b'\xef\xbb\xbfprompt,"response",label\r\n'
    records = [b'"two\nlines", x ,1\r\n', b'b,"say ""no""",\r\n', b"c,d,2"]
    path = write_text(tmp_path, header + records[0] + b"\r\n" + records[1] + records[2], "set.csv")
    assert read_texts(path).rows["line"].to_list() == [2, 5, 6]
    assert keep(path, [2, 6]) == header + records[0] + records[2] + b"\n"
    assert keep(path, [5]) == header + records[1]
    assert keep(path, []) == header


def test_json_keeps_the_elements_as_written(tmp_path):
    elements = [
        '{"prompt": "a", "response": "b", "n": 1.50}',
        '{"response":"\\u00e9","prompt":"b"}',
    ]
    text = f'{{\n  "version": 1,\n  "rows": [\n    {elements[0]},\n    {elements[1]}\n  ]\n}}\n'
    path = write_text(tmp_path, text, "set.json")
    assert keep(path, [1, 2]).decode() == text
    assert keep(path, [2]).decode() == text.replace(f"    {elements[0]},\n", "")
    assert keep(path, [1]).decode() == text.replace(f",\n    {elements[1]}", "")
    assert json.loads(keep(path, [])) == {"version": 1, "rows": []}


def test_parquet_keeps_schema_metadata_and_all_columns(tmp_path):
    schema = pa.schema(
        [
            pa.field("prompt", pa.string(), nullable=False),
            pa.field("response", pa.dictionary(pa.int8(), pa.string())),
            pa.field("score", pa.decimal128(9, 3)),
            pa.field("when", pa.timestamp("ms", tz="Europe/Berlin")),
            pa.field("tags", pa.list_(pa.struct([("k", pa.int16()), ("v", pa.binary())]))),
        ],
        metadata={b"origin": b"test"},
    )
    rows = [
        {
            "prompt": str(i),
            "response": "r",
            "score": None,
            "when": i,
            "tags": [{"k": i, "v": b"\xff"}],
        }
        for i in range(300)
    ]
    table = pa.Table.from_pylist(rows, schema=schema)
    path = tmp_path / "set.parquet"
    pq.write_table(table, path, compression="gzip", row_group_size=100)
    lines = [1, 2, 128, 129, 250, 300]
    keep(path, lines)
    kept = pq.read_table(tmp_path / "kept-set.parquet")
    expected = pq.read_table(path).take([line - 1 for line in lines])
    assert kept.to_pylist() == expected.to_pylist()
    assert kept.schema.equals(expected.schema, check_metadata=True)
    metadata = pq.read_metadata(tmp_path / "kept-set.parquet")
    assert metadata.row_group(0).column(0).compression == "GZIP"


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_the_kept_rows_read_back_as_the_rows_that_were_kept(tmp_path, file_type, compression):
    path = write(tmp_path, ROWS, file_type, compression)
    read = read_texts(path)
    wanted = read.rows[[0, 2, 5]]
    keep(path, wanted["line"].to_list())
    again = read_texts(path.with_name("kept-" + path.name))
    assert again.rows.drop("file", "line").equals(wanted.drop("file", "line"))
    assert again.file_type == read.file_type
    assert again.format == read.format


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_rows_keep_their_bytes_and_equal_rows_make_equal_files(tmp_path, suffix):
    path = write_text(tmp_path, COMPRESSIONS[suffix](JSONL), f"set.jsonl{suffix}")
    first = keep(path, [1, 3], tmp_path / "one")
    assert first == keep(path, [3, 1], tmp_path / "two")
    lines = JSONL.splitlines(keepends=True)
    expand = (
        gzip.decompress
        if suffix == ".gz"
        else zstandard.ZstdDecompressor().decompressobj().decompress
    )
    assert expand(first) == lines[0] + lines[2]


@pytest.mark.parametrize("file_type", ["jsonl", "json", "csv", "parquet"])
def test_keeping_everything_of_a_text_file_changes_no_byte(tmp_path, file_type):
    path = write(tmp_path, ROWS, file_type)
    kept = keep(path, read_texts(path).rows["line"].to_list())
    if file_type != "parquet":
        assert kept == path.read_bytes()
    else:
        assert pl.read_parquet(tmp_path / "kept-set.parquet").equals(pl.read_parquet(path))


def test_a_source_that_changed_is_refused(tmp_path):
    path = write(tmp_path, ROWS, "jsonl")
    sha256 = read_texts(path).sha256
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(InputError, match="changed since it was read"):
        write_kept_rows(path, [1], tmp_path / "out.jsonl", expected_sha256=sha256)
    assert not (tmp_path / "out.jsonl").exists()


def test_the_source_is_never_overwritten(tmp_path):
    path = write(tmp_path, ROWS, "jsonl")
    before = path.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(path)
    for destination in (path, tmp_path / "link.jsonl"):
        with pytest.raises(InputError, match="is the source itself"):
            keep(path, [1], destination)
    assert path.read_bytes() == before


@pytest.mark.parametrize("file_type", ["jsonl", "json", "csv", "parquet"])
def test_a_line_that_is_no_row_leaves_no_file(tmp_path, file_type):
    path = write(tmp_path, ROWS, file_type)
    (tmp_path / "out").write_bytes(b"before")
    with pytest.raises(InputError, match="no row at line 999"):
        keep(path, [read_texts(path).rows["line"][0], 999], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.glob(".*")) == []


def test_the_destination_folder_is_made(tmp_path):
    path = write(tmp_path, ROWS, "jsonl")
    assert keep(path, [1], tmp_path / "a" / "b" / "out.jsonl")


@given(
    pieces=st.lists(
        st.tuples(
            st.sampled_from([b'{"prompt": "%d", "response": "x"}', b"broken %d", b""]),
            st.sampled_from([b"\n", b"\r\n"]),
        ),
        min_size=1,
        max_size=12,
    ),
    data=st.data(),
)
def test_law_of_jsonl_bytes(tmp_path_factory, pieces, data):
    lines = [(t % i if b"%" in t else t) + end for i, (t, end) in enumerate(pieces, 1)]
    good = [i for i, line in enumerate(lines, 1) if line.startswith(b"{")]
    folder = tmp_path_factory.mktemp("law")
    path = write_text(folder, b"".join(lines) + b'{"prompt": "z", "response": "z"}')
    chosen = data.draw(st.lists(st.sampled_from([*good, len(lines) + 1]), unique=True))
    expected = b"".join(lines[i - 1] for i in sorted(chosen) if i <= len(lines))
    if len(lines) + 1 in chosen:
        expected += b'{"prompt": "z", "response": "z"}\n'
    assert keep(path, chosen) == expected
