"""Laws of reading that hold for any rows: round trips, identity, counting."""

import contextlib
import csv
import io
import json
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from sot_pipeline.errors import InputError
from sot_pipeline.texts.formats import FORMATS
from sot_pipeline.texts.read import read_texts
from sot_pipeline_tests.texts.writing import (
    FILE_TYPES,
    assistant,
    chat_row,
    single_turn_row,
    system,
    user,
    write,
    write_text,
)

# any character of Unicode that a text may hold: no lone surrogate, no NUL
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
contents = texts.filter(lambda text: text.strip())
pairs = st.lists(st.tuples(contents, contents), min_size=1, max_size=8)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
folder_is_reused = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@pytest.mark.parametrize("file_type", FILE_TYPES)
@pytest.mark.parametrize("format", FORMATS)
@given(pairs=pairs)
@settings(folder_is_reused, max_examples=25)
def test_rows_round_trip_through_every_format_and_file_type(tmp_path, pairs, format, file_type):
    read = read_texts(write(tmp_path, [single_turn_row(format, *p) for p in pairs], file_type))
    turns = [json.loads(messages) for messages in read.rows["messages"]]
    assert turns == [[user(p), assistant(a)] for p, a in pairs]


@given(
    opening=st.none() | contents,
    turns=st.lists(st.tuples(contents, contents), min_size=1, max_size=5),
    file_type=st.sampled_from(["jsonl", "json", "parquet"]),
    format=st.sampled_from(["openai", "sharegpt", "prompt_completion"]),
)
@settings(folder_is_reused)
def test_conversations_round_trip(tmp_path, opening, turns, file_type, format):
    conversation = [system(opening)] if opening else []
    for question, answer in turns:
        conversation += [user(question), assistant(answer)]
    read = read_texts(write(tmp_path, [chat_row(format, conversation)], file_type))
    assert json.loads(read.rows["messages"].item()) == conversation
    assert read.rows["response"].item() == turns[-1][1]


@given(pairs=pairs, formats=st.tuples(*[st.sampled_from(FORMATS)] * 2))
@settings(folder_is_reused)
def test_the_sample_id_does_not_depend_on_the_format(tmp_path, pairs, formats):
    one, other = (
        read_texts(write(tmp_path, [single_turn_row(f, *p) for p in pairs], "jsonl")).rows
        for f in formats
    )
    assert one["sample_id"].equals(other["sample_id"])


@given(pairs=pairs, data=st.data())
@settings(folder_is_reused)
def test_the_sample_ids_do_not_depend_on_the_order_of_the_rows(tmp_path, pairs, data):
    rows = [single_turn_row("alpaca", *pair) for pair in pairs]
    shuffled = data.draw(st.permutations(rows))
    one, other = (read_texts(write(tmp_path, r, "jsonl")).rows for r in (rows, shuffled))
    assert sorted(one["sample_id"]) == sorted(other["sample_id"])
    assert one["sample_id"].is_unique().all()


@given(pairs=st.lists(st.tuples(contents, contents), min_size=2, max_size=6))
@settings(folder_is_reused)
def test_different_conversations_have_different_ids(tmp_path, pairs):
    read = read_texts(write(tmp_path, [single_turn_row("alpaca", *p) for p in pairs], "jsonl"))
    hashes = [sample_id[:16] for sample_id in read.rows["sample_id"]]
    assert [len(set(c)) for c in (hashes, pairs)] == [len(set(pairs))] * 2


@given(
    lines=st.lists(
        st.one_of(
            st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")),
            anything.map(lambda value: json.dumps(value).encode()),
            st.dictionaries(
                st.sampled_from(["prompt", "response", "messages", "output", "id", "completion"]),
                anything | contents,
            ).map(lambda row: json.dumps(row).encode()),
        ),
        max_size=10,
    ),
    file_type=st.sampled_from(["jsonl", "json"]),
)
@settings(folder_is_reused, max_examples=300)
def test_every_row_is_read_or_rejected_whatever_it_holds(tmp_path, lines, file_type):
    good = b'{"prompt": "a", "response": "b"}'
    if file_type == "jsonl":
        path = write_text(tmp_path, b"\n".join([good, *lines]))
        num_rows = sum(bool(line.strip(b" \t\r\n")) for line in lines) + 1
    else:
        values = [line for line in lines if _is_json(line)]
        path = write_text(tmp_path, b"[" + b", ".join([good, *values]) + b"]", "set.json")
        num_rows = len(values) + 1
    for require_response in (True, False):
        read = read_texts(path, format="prompt_response", require_response=require_response)
        assert read.num_read == num_rows == len(read.rows) + len(read.rejected)
        met = Counter(read.rows["line"]) + Counter(read.rejected["line"])
        assert set(met.values()) == {1}
        assert read.rejected["line"].is_sorted()


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line.decode())
    except ValueError:
        return False
    return True


@given(
    content=st.binary(max_size=200),
    name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.parquet", "a"]),
)
@settings(folder_is_reused, max_examples=300)
def test_any_bytes_are_rows_or_an_input_error(tmp_path, content, name):
    path = write_text(tmp_path, content, name)
    with contextlib.suppress(InputError):  # any other exception fails the test
        read = read_texts(path)
        assert len(read.rows) + len(read.rejected) == read.num_read


@given(
    content=st.text(st.sampled_from('ab,"\n\r; \t'), max_size=60),
)
@settings(folder_is_reused, max_examples=300)
def test_csv_splits_as_the_standard_library_does(tmp_path, content):
    path = write_text(tmp_path, "prompt,response\nx,y\n" + content, "set.csv")
    try:
        expected = list(csv.reader(io.StringIO(content, newline=""), strict=True))
        read = read_texts(path)
    except (csv.Error, InputError):
        return  # which error is for what is tested by example
    good = [tuple(r) for r in expected if len(r) == 2 and all(cell.strip() for cell in r)]
    assert read.rows.select("prompt", "response").rows() == [("x", "y"), *good]
    assert read.num_read == 1 + len([r for r in expected if r])
