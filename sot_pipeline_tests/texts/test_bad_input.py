"""Bad input: a bad row costs itself and says why; a bad file is one clear error."""

import csv
import gzip
import json
import time

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from sot_pipeline.errors import InputError
from sot_pipeline.texts.read import read_texts
from sot_pipeline_tests.texts.writing import assistant, file_bytes, user, write, write_text

GOOD = {"prompt": "a", "response": "b"}
GOOD_LINE = json.dumps(GOOD)
SECRET = "tell-nobody"


def rejected(tmp_path, line: str | bytes, **options):
    """(reason, detail) of a bad JSONL line between two good ones, which must both be read."""
    line = line.encode() if isinstance(line, str) else line
    data = GOOD_LINE.encode() + b"\n" + line + b"\n" + GOOD_LINE.encode() + b"\n"
    texts = read_texts(write_text(tmp_path, data), **options)
    assert texts.rows["line"].to_list() == [1, 3]
    assert texts.rejected["line"].to_list() == [2]
    assert texts.num_read == 3
    return texts.rejected.select("reason", "detail").row(0)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("broken_json", '{"prompt": "tell-nobody", "response": '),
        ("broken_json", "{'prompt': 'tell-nobody'}"),
        ("broken_json", '{"prompt": "tell-nobody", "response": "b"} {"prompt": 1}'),
        ("broken_json", '{"prompt": "tell-nobody\x00", "response": "b"}'),
        ("broken_json", '{"prompt": "tell-nobody", "response": "b", "n": ' + "9" * 5000 + "}"),
        ("invalid_utf8", b'{"prompt": "tell-nobody \xff", "response": "b"}'),
        ("invalid_utf8", '{"prompt": "tell-nobodé", "response": "b"}'.encode("latin-1")),
        ("not_an_object", '["tell-nobody"]'),
        ("not_an_object", '"tell-nobody"'),
        ("not_an_object", "null"),
        ("duplicate_key", '{"prompt": "tell-nobody", "prompt": "x", "response": "b"}'),
        ("duplicate_key", '{"prompt": "a", "response": "b", "m": {"k": 1, "k": 2}}'),
        ("not_finite", '{"prompt": "tell-nobody", "response": "b", "score": NaN}'),
        ("not_finite", '{"prompt": "tell-nobody", "response": "b", "score": -Infinity}'),
        ("lone_surrogate", '{"prompt": "tell-nobody \\ud800", "response": "b"}'),
        ("lone_surrogate", '{"prompt": "a", "response": "b", "id": "tell-nobody \\udc00"}'),
        ("nul_character", '{"prompt": "tell-nobody \\u0000", "response": "b"}'),
        (
            "too_deep",
            '{"prompt": "tell-nobody", "response": ' + "[" * 100_000 + "]" * 100_000 + "}",
        ),
        ("missing_answer", '{"prompt": "tell-nobody"}'),
        ("missing_answer", '{"prompt": "tell-nobody", "response": null}'),
        ("empty_answer", '{"prompt": "tell-nobody", "response": ""}'),
        ("empty_answer", '{"prompt": "tell-nobody", "response": " \\n\\t "}'),
        ("empty_turn", '{"prompt": "  ", "response": "tell-nobody"}'),
        ("wrong_type", '{"prompt": ["tell-nobody"], "response": "b"}'),
        ("wrong_type", '{"prompt": {"x": "tell-nobody"}, "response": "b"}'),
        ("wrong_type", '{"prompt": "tell-nobody", "response": 7}'),
        ("unknown_format", '{"chosen": "tell-nobody", "rejected": "b"}'),
        ("unknown_format", '{"tell-nobody and more": 1}'),
        ("unknown_format", "{}"),
        ("ambiguous_row", '{"prompt": "tell-nobody", "completion": "b", "response": "b"}'),
        ("ambiguous_row", '{"prompt": "tell-nobody", "response": "b", "messages": []}'),
        ("other_format", '{"instruction": "tell-nobody", "output": "b"}'),
        ("other_format", '{"prompt": "tell-nobody", "completion": "b"}'),
    ],
)
def test_a_bad_row_costs_only_itself_and_its_text_stays_out_of_the_message(tmp_path, reason, line):
    found, detail = rejected(tmp_path, line)
    assert found == reason
    assert SECRET not in detail
    assert len(detail) > 20


@pytest.mark.parametrize(
    ("reason", "turns"),
    [
        ("wrong_type", "tell-nobody"),
        ("wrong_type", {"role": "user"}),
        ("wrong_type", ["tell-nobody"]),
        ("wrong_type", [{"role": "user", "content": 3}]),
        ("wrong_type", [user("a"), {"role": "assistant", "tool_calls": "tell-nobody"}]),
        ("empty_conversation", []),
        ("unknown_role", [{"role": "tell-nobody", "content": "a"}]),
        ("unknown_role", [{"role": ["user"], "content": "a"}]),
        ("unknown_role", [{"content": "tell-nobody"}]),
        ("missing_content", [{"role": "user"}, assistant("b")]),
        ("missing_answer", [user("tell-nobody")]),
        ("empty_answer", [user("tell-nobody"), {"role": "assistant", "content": None}]),
        ("empty_turn", [user("a"), assistant(""), user("c"), assistant("d")]),
        ("missing_prompt", [assistant("tell-nobody")]),
        ("missing_prompt", [assistant("tell-nobody"), user("b")]),
        ("missing_prompt", [{"role": "system", "content": "s"}, assistant("tell-nobody")]),
        ("nothing_to_learn", [user("a"), assistant("tell-nobody", weight=0)]),
        ("bad_weight", [user("a"), assistant("b", weight=0.5)]),
        ("bad_weight", [user("a"), assistant("b", weight="1")]),
        ("bad_weight", [user("a"), assistant("b", weight=[1])]),
        (
            "non_text_content",
            [{"role": "user", "content": [{"type": "image_url"}]}, assistant("b")],
        ),
    ],
)
def test_a_bad_conversation_costs_only_itself(tmp_path, reason, turns):
    good = {"messages": [user("a"), assistant("b")]}
    path = write_text(tmp_path, "".join(json.dumps(r) + "\n" for r in (good, {"messages": turns})))
    texts = read_texts(path)
    assert texts.rejected["reason"].to_list() == [reason]
    assert SECRET not in texts.rejected["detail"].item()


@pytest.mark.parametrize("file_type", ["jsonl", "json", "csv", "parquet"])
def test_a_row_over_the_cap_is_rejected_by_line_and_quickly(tmp_path, file_type):
    rows = [GOOD, {"prompt": "a", "response": "x" * 10_000_000}, GOOD]
    start = time.perf_counter()
    texts = read_texts(write(tmp_path, rows, file_type))
    assert time.perf_counter() - start < 10
    assert texts.rejected["reason"].to_list() == ["row_too_large"]
    assert texts.rejected["line"].item() == (3 if file_type == "csv" else 2)
    assert len(read_texts(tmp_path / f"set.{file_type}", max_row_bytes=20_000_000).rows) == 3


def test_a_broken_element_of_an_array_costs_only_itself(tmp_path):
    bad = ['{"prompt": }', '{"prompt": "]}", "prompt": ""}', "[" * 5000 + "]" * 5000, "7", "nul"]
    text = "[" + ", ".join([GOOD_LINE, *bad, GOOD_LINE]) + "]"
    texts = read_texts(write_text(tmp_path, text, "set.json"))
    assert texts.rows["line"].to_list() == [1, 7]
    assert texts.rejected.select("line", "reason").rows() == [
        (2, "broken_json"),
        (3, "duplicate_key"),
        (4, "too_deep"),
        (5, "not_an_object"),
        (6, "broken_json"),
    ]


@pytest.mark.parametrize(
    ("reason", "record"),
    [
        ("ragged_row", b"only one"),
        ("ragged_row", b"one,two,three"),
        ("bad_quote", b'"closed" early,b'),
        ("bad_quote", b'"two\nlines" early,b'),
        ("invalid_utf8", b"caf\xe9,b"),
        ("nul_character", b"a\x00,b"),
        ("missing_answer", b"a,"),
        ("missing_answer", b'a,""'),
        ("unknown_format", b",b"),
    ],
)
def test_a_bad_csv_record_costs_only_itself(tmp_path, reason, record):
    data = b"prompt,response\nx,y\n" + record + b"\nz,w\n"
    texts = read_texts(write_text(tmp_path, data, "set.csv"))
    assert texts.rows["prompt"].to_list() == ["x", "z"]
    assert texts.rejected.select("line", "reason").rows() == [(3, reason)]


def test_a_quote_inside_an_unquoted_field_is_text(tmp_path):
    texts = read_texts(write_text(tmp_path, 'prompt,response\n5" pipe?,yes\n', "set.csv"))
    assert texts.rows["prompt"].item() == '5" pipe?'


def test_a_csv_field_may_be_longer_than_the_csv_module_allows(tmp_path):
    texts = read_texts(write(tmp_path, [{"prompt": "x" * 200_000, "response": "b"}], "csv"))
    assert len(texts.rows["prompt"].item()) == 200_000
    assert csv.field_size_limit() == 131_072  # a global of the process: left alone


def test_mixed_formats_the_majority_is_the_format_of_the_file(tmp_path):
    alpaca = {"instruction": "a", "output": "b"}
    path = write(tmp_path, [GOOD, alpaca, alpaca, GOOD, alpaca], "jsonl")
    texts = read_texts(path)
    assert texts.format == "alpaca"
    assert texts.rejected.select("line", "reason").rows() == [
        (1, "other_format"),
        (4, "other_format"),
    ]
    assert read_texts(path, format="prompt_response").rows["line"].to_list() == [1, 4]


def test_a_prompt_without_answer_is_no_other_format(tmp_path):
    path = write(tmp_path, [{"prompt": "a", "completion": "b"}, {"prompt": "c"}], "jsonl")
    texts = read_texts(path, require_response=False)
    assert (texts.format, len(texts.rows)) == ("prompt_completion", 2)


def file_error(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_texts(path, **options)
    assert path.name in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_no_file_and_no_regular_file(tmp_path):
    assert "does not exist" in file_error(tmp_path / "absent.jsonl")
    assert "is a folder" in file_error(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n\n  \r\n", b"\xef\xbb\xbf", b"\0" * 100])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.unknown"])
def test_an_empty_file(tmp_path, name, content):
    assert "is empty" in file_error(write_text(tmp_path, content, name))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b"[]"), ("a.json", b'{"rows": [ ]}'), ("a.csv", b"prompt,response\n\n")],
)
def test_a_file_without_rows(tmp_path, name, content):
    assert "holds no rows" in file_error(write_text(tmp_path, content, name))


def test_a_parquet_file_without_rows(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame(schema={"prompt": pl.String, "response": pl.String}).write_parquet(path)
    assert "holds no rows" in file_error(path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"[\n{GOOD_LINE}\n{GOOD_LINE}]", 3),
        (f"[\n{GOOD_LINE},\n{GOOD_LINE}", 3),
        (f"[\n{GOOD_LINE},\n]", 3),
        (f"[\n{GOOD_LINE}]\n\nrest", 4),
        ('[\n{"prompt": "tell-nobody', 2),
        ('{"rows":\n[1], 5}', 2),
        ('{"rows" [1]}', 1),
        ('{"rows": [1]', 1),
        ('{"rows": [1]} [2]', 1),
    ],
)
def test_json_whose_brackets_do_not_fit_names_the_line(tmp_path, content, line):
    path = write_text(tmp_path, content, "set.json")
    assert f"{path}:{line}: " in file_error(path)


@pytest.mark.parametrize("content", ['{"a": [1], "b": [2]}', '{"a": 1}', "{}"])
def test_a_json_object_needs_exactly_one_list(tmp_path, content):
    assert "expected an array" in file_error(write_text(tmp_path, content, "set.json"))


def test_a_quote_that_never_closes_names_its_line(tmp_path):
    path = write_text(tmp_path, 'prompt,response\na,b\n"two\nlines","tell-nobody\nz,w\n', "set.csv")
    assert f"{path}:4: a quoted field opens here" in file_error(path)


@pytest.mark.parametrize(
    ("header", "found"),
    [("prompt,prompt", "twice"), ("question,answer", "question, answer"), ("a\xff,b", "UTF-8")],
)
def test_a_csv_header_that_cannot_be_used(tmp_path, header, found):
    data = header.encode("latin-1") + b"\nx,y\n"
    message = file_error(write_text(tmp_path, data, "set.csv"))
    assert ":1: " in message
    assert found in message


def test_parquet_that_is_none(tmp_path):
    whole = file_bytes([GOOD] * 50, "parquet")
    assert "PAR1" in file_error(write_text(tmp_path, GOOD_LINE, "a.parquet"))
    assert "PAR1" in file_error(write_text(tmp_path, whole[:-20], "b.parquet"))
    assert "cannot be read as Parquet" in file_error(
        write_text(tmp_path, whole[:-8] + b"\xff\xff\xff\x7fPAR1", "c.parquet")
    )
    assert "cannot be read as Parquet" in file_error(
        write_text(tmp_path, b"PAR1" + b"\0" * 100 + whole[100:], "d.parquet")
    )
    assert "Rename it to .parquet" in file_error(write_text(tmp_path, whole, "e.jsonl"))


def test_parquet_without_a_known_column(tmp_path):
    assert "found: question, answer" in file_error(
        write(tmp_path, [{"question": "a", "answer": "b"}], "parquet")
    )


def test_parquet_columns_of_other_types(tmp_path):
    rows = [{"prompt": 1, "response": b"x"}]
    assert "wrong_type" in file_error(write(tmp_path, rows, "parquet"))


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstandard.compress)]
)
def test_compressed_data_that_is_cut_broken_or_none(tmp_path, suffix, compress):
    data = file_bytes([{"prompt": str(i), "response": str(i * i)} for i in range(2000)], "jsonl")
    whole = compress(data)
    for cut in (len(whole) - 1, len(whole) // 2, 5):
        path = write_text(tmp_path, whole[:cut], f"cut.jsonl{suffix}")
        assert "broken or cut short" in file_error(path)
    middle = len(whole) // 2
    broken = (
        whole[:middle] + bytes(b ^ 255 for b in whole[middle : middle + 40]) + whole[middle + 40 :]
    )
    assert "broken or cut short" in file_error(write_text(tmp_path, broken, f"bad.jsonl{suffix}"))
    assert "not compressed" in file_error(write_text(tmp_path, data, f"plain.jsonl{suffix}"))


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstandard.compress)]
)
@pytest.mark.parametrize("file_type", ["jsonl", "json", "csv", "parquet"])
def test_a_bomb_is_an_error_that_needs_no_memory(tmp_path, file_type, suffix, compress):
    path = write_text(tmp_path, compress(b" " * 200_000_000), f"set.{file_type}{suffix}")
    assert path.stat().st_size < 300_000
    assert "cap on a text set" in file_error(path, max_expanded_bytes=1_000_000)


@pytest.mark.parametrize("kind", ["strings", "dictionary"])
def test_a_parquet_bomb_of_one_repeated_text_is_an_error(tmp_path, kind):
    big = pa.array(["x" * 1_000_000])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), big)
    path = tmp_path / "bomb.parquet"
    pq.write_table(
        pa.table({"prompt": column, "response": column}),
        path,
        dictionary_pagesize_limit=2**30,
        store_schema=kind == "dictionary",
    )
    assert path.stat().st_size < 1_000_000
    assert "expand to 6,00" in file_error(path)


def test_utf16_is_named_as_such(tmp_path):
    path = write_text(tmp_path, GOOD_LINE.encode("utf-16"))
    assert "UTF-16" in file_error(path)


def test_a_file_of_no_type(tmp_path):
    assert "file type" in file_error(write_text(tmp_path, "just some words\n", "notes.txt"))


def test_an_unknown_format_name(tmp_path):
    path = write(tmp_path, [GOOD], "jsonl")
    with pytest.raises(InputError, match="expected auto or one of openai"):
        read_texts(path, format="chatml")


def test_if_every_row_is_rejected_the_error_names_the_reasons_and_lines(tmp_path):
    lines = ["{tell-nobody", '{"prompt": "a"}', '{"prompt": "tell-nobody", "response": " "}']
    path = write_text(tmp_path, "\n".join([lines[0], lines[1], lines[1], lines[2]]))
    message = file_error(path)
    assert "none of the 4 rows" in message
    assert "missing_answer in 2 (line 2, 3)" in message
    assert "broken_json in 1 (line 1)" in message
    assert "empty_answer in 1 (line 4)" in message
