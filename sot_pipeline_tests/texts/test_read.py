"""read_texts: every format in every file type gives the same conversations."""

import json

import polars as pl
import pytest

from sot_pipeline.texts.conversation import prompt_turns
from sot_pipeline.texts.formats import FORMATS
from sot_pipeline.texts.read import read_texts
from sot_pipeline_tests.texts.writing import (
    COMPRESSIONS,
    FILE_TYPES,
    assistant,
    chat_row,
    file_bytes,
    single_turn_row,
    system,
    user,
    write,
    write_text,
)

PAIRS = [
    ("Add 2 and 3.", "5"),
    ('Say "hi", then\nstop.', "hi\r\nbye"),
    ("Größe in µm? 你好 😀", "42;\t,"),
]


def conversations(texts) -> list:
    return [json.loads(messages) for messages in texts.rows["messages"]]


@pytest.mark.parametrize("file_type", FILE_TYPES)
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_reads_the_same_from_every_file_type(tmp_path, format, file_type):
    rows = [single_turn_row(format, *pair) for pair in PAIRS]
    texts = read_texts(write(tmp_path, rows, file_type))
    assert conversations(texts) == [[user(p), assistant(a)] for p, a in PAIRS]
    assert texts.rows["prompt"].to_list() == [p for p, _ in PAIRS]
    assert texts.rows["response"].to_list() == [a for _, a in PAIRS]
    assert (texts.format, texts.file_type, texts.num_read) == (format, file_type, 3)
    assert texts.rejected.is_empty()


@pytest.mark.parametrize("compression", [".gz", ".zst"])
@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_compressed_files_read_the_same(tmp_path, file_type, compression):
    rows = [single_turn_row("alpaca", *pair) for pair in PAIRS]
    plain = read_texts(write(tmp_path, rows, file_type))
    packed = read_texts(write(tmp_path, rows, file_type, compression))
    assert packed.rows.drop("file").equals(plain.rows.drop("file"))
    assert packed.file_type == file_type + compression


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_the_content_tells_the_type_where_the_name_does_not(tmp_path, file_type, compression):
    data = COMPRESSIONS[compression](
        file_bytes([single_turn_row("prompt_response", *pair) for pair in PAIRS], file_type)
    )
    texts = read_texts(write_text(tmp_path, data, "upload.data"))
    assert texts.rows["response"].to_list() == [a for _, a in PAIRS]
    assert texts.file_type == file_type + compression


@pytest.mark.parametrize("file_type", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("format", ["openai", "sharegpt", "prompt_completion", "alpaca"])
def test_conversations_of_several_turns(tmp_path, format, file_type):
    if (format, file_type) == ("prompt_completion", "csv"):
        pytest.skip("a prompt in CSV is a text")
    turns = [system("Be brief."), user("One?"), assistant("1"), user("Two?"), assistant("2")]
    if (format, file_type) == ("alpaca", "parquet"):
        turns = [*turns[:1], *turns[3:]]  # an empty list still makes a list column
    texts = read_texts(write(tmp_path, [chat_row(format, turns)], file_type))
    assert conversations(texts) == [turns]
    assert texts.rows["prompt"].item() == "\n\n".join(t["content"] for t in turns[:-1])
    assert texts.rows["response"].item() == "2"


def test_lines_are_physical_in_text_files_and_counted_in_others(tmp_path):
    jsonl = '\n{"prompt": "a", "response": "b"}\n\n  \n{"prompt": "c", "response": "d"}'
    assert read_texts(write_text(tmp_path, jsonl)).rows["line"].to_list() == [2, 5]
    table = 'prompt,response\r\n"two\nlines",b\r\n\r\nc,d\r\n'
    texts = read_texts(write_text(tmp_path, table, "set.csv"))
    assert texts.rows["line"].to_list() == [2, 5]
    rows = [single_turn_row("alpaca", *pair) for pair in PAIRS]
    for file_type in ("json", "parquet"):
        assert read_texts(write(tmp_path, rows, file_type)).rows["line"].to_list() == [1, 2, 3]


def test_blank_lines_are_not_rows(tmp_path):
    texts = read_texts(write_text(tmp_path, '\n\n{"prompt": "a", "response": "b"}\n \t\r\n'))
    assert texts.num_read == 1


@pytest.mark.parametrize("file_type", ["jsonl", "json", "csv"])
def test_byte_order_mark_and_crlf_change_nothing(tmp_path, file_type):
    data = file_bytes([single_turn_row("prompt_response", *PAIRS[0])] * 2, file_type)
    path = write_text(tmp_path, data, f"a.{file_type}")
    marked = write_text(
        tmp_path,
        b"\xef\xbb\xbf" + data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
        f"b.{file_type}",
    )
    assert read_texts(marked).rows.drop("file").equals(read_texts(path).rows.drop("file"))


def test_source_id_is_the_id_column_as_text(tmp_path):
    rows = [{"prompt": "a", "response": "b", "id": i} for i in ("x-1", 7, None, [1], True)]
    texts = read_texts(write(tmp_path, rows, "jsonl"))
    assert texts.rows["source_id"].to_list() == ["x-1", "7", None, None, None]


def test_equal_rows_get_occurrence_numbers(tmp_path):
    rows = [single_turn_row("alpaca", *PAIRS[i]) for i in (0, 1, 0, 0)]
    ids = read_texts(write(tmp_path, rows, "jsonl")).rows["sample_id"].to_list()
    first, other = ids[0][:-2], ids[1][:-2]
    assert ids == [f"{first}-0", f"{other}-0", f"{first}-1", f"{first}-2"]
    assert len(first) == 16
    assert set(first) <= set("0123456789abcdef")


def test_the_sample_id_is_pinned():
    # Changing it would orphan every cached embedding and ledger: it is part of the format.
    from sot_pipeline.texts.conversation import canonical_text, content_hash

    text = canonical_text([user("Grüße"), assistant("Hallo", train=False)])
    assert text == (
        '[{"role":"user","content":"Grüße"},{"role":"assistant","content":"Hallo","train":false}]'
    )
    assert content_hash(text) == "464ee3bb355b0c6d"  # as `b2sum -l 64` says


def test_extra_columns_are_never_read(tmp_path):
    row = single_turn_row("alpaca", *PAIRS[0])
    plain = read_texts(write(tmp_path, [row], "parquet")).rows
    marked = read_texts(
        write(tmp_path, [{**row, "label": "harmful", "score": 1.5, "text": "z"}], "parquet")
    ).rows
    assert marked.equals(plain)


def test_openai_weights_say_which_answers_to_learn(tmp_path):
    row = {
        "messages": [
            user("a"),
            assistant("b", weight=0),
            user("c"),
            assistant("d", weight=1),
        ]
    }
    (turns,) = conversations(read_texts(write(tmp_path, [row], "jsonl")))
    assert turns == [user("a"), assistant("b", train=False), user("c"), assistant("d")]


def test_weight_one_is_the_default_and_changes_no_identity(tmp_path):
    rows = [{"messages": [user("a"), assistant("b", **w)]} for w in ({}, {"weight": 1})]
    ids = read_texts(write(tmp_path, rows, "jsonl")).rows["sample_id"]
    assert [i[:16] for i in ids] == [ids[0][:16]] * 2


def test_our_own_messages_column_reads_back(tmp_path):
    row = {"messages": [user("a"), assistant("b", weight=0), user("c"), assistant("d")]}
    first = read_texts(write(tmp_path, [row], "jsonl"))
    again = read_texts(
        write_text(tmp_path, first.rows.select("messages").write_ndjson().encode(), "again.jsonl")
    )
    assert again.rows["sample_id"].equals(first.rows["sample_id"])


def test_text_parts_are_read_and_other_parts_counted(tmp_path):
    parts = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "this?"},
    ]
    row = {"messages": [{"role": "user", "content": parts}, assistant("A cat.")]}
    texts = read_texts(write(tmp_path, [row], "jsonl"))
    assert conversations(texts) == [[user("What is\nthis?"), assistant("A cat.")]]
    assert texts.notes == {"non_text_parts": 1}


def test_tool_calls_are_what_the_assistant_says(tmp_path):
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    row = {
        "messages": [
            user("1+1?"),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "2", "tool_call_id": "1"},
            assistant("2"),
        ]
    }
    texts = read_texts(write(tmp_path, [row], "jsonl"))
    (turns,) = conversations(texts)
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(turns[1]["content"]) == [{"name": "add", "arguments": '{"a":1}'}]
    assert texts.notes == {"tool_calls": 1}


def test_sharegpt_tags_and_a_system_column(tmp_path):
    tags = ("human", "function_call", "observation", "gpt")
    row = {
        "system": "Use tools.",
        "conversations": [{"from": tag, "value": tag} for tag in tags],
    }
    (turns,) = conversations(read_texts(write(tmp_path, [row], "json")))
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "assistant"]


def test_alpaca_input_follows_the_instruction_after_a_blank_line(tmp_path):
    row = {"instruction": "Sort.", "input": "3 1 2", "output": "1 2 3", "text": "ignored"}
    texts = read_texts(write(tmp_path, [row], "json"))
    assert texts.rows["prompt"].item() == "Sort.\n\n3 1 2"


def test_turns_after_the_last_answer_stay_and_are_counted(tmp_path):
    turns = [user("a"), assistant("b"), user("thanks")]
    texts = read_texts(write(tmp_path, [{"messages": turns}], "jsonl"))
    assert conversations(texts) == [turns]
    assert (texts.rows["prompt"].item(), texts.rows["response"].item()) == ("a", "b")
    assert texts.notes == {"turns_after_last_answer": 1}


def test_evaluation_prompts_need_no_answer(tmp_path):
    rows = [
        {"prompt": "a", "response": None},
        {"prompt": "b", "response": ""},
        {"prompt": "c"},
        {"prompt": "d", "response": "reference"},
    ]
    texts = read_texts(write(tmp_path, rows, "jsonl"), require_response=False)
    assert texts.format == "prompt_response"
    assert texts.rows["prompt"].to_list() == ["a", "b", "c", "d"]
    assert texts.rows["response"].to_list() == [None, None, None, "reference"]
    asked = [
        prompt_turns(turns, has_response=response is not None)
        for turns, response in zip(conversations(texts), texts.rows["response"], strict=True)
    ]
    assert asked == [[user(text)] for text in "abcd"]


def test_an_evaluation_conversation_that_ends_with_a_question_is_all_prompt(tmp_path):
    turns = [user("a"), assistant("b"), user("c")]
    texts = read_texts(write(tmp_path, [{"messages": turns}], "jsonl"), require_response=False)
    assert (texts.rows["prompt"].item(), texts.rows["response"].item()) == ("a\n\nb\n\nc", None)


def test_an_object_with_one_list_is_an_array(tmp_path):
    rows = json.dumps([single_turn_row("alpaca", *pair) for pair in PAIRS])
    text = f'{{"a": {{"list": [1]}}, "rows": {rows}, "b": "]"}}'
    assert len(read_texts(write_text(tmp_path, text, "set.json")).rows) == 3


def test_a_json_file_with_one_object_per_line_is_jsonl(tmp_path):
    data = file_bytes([single_turn_row("alpaca", *pair) for pair in PAIRS], "jsonl")
    texts = read_texts(write_text(tmp_path, data, "set.json"))
    assert (texts.file_type, len(texts.rows)) == ("jsonl", 3)


def test_a_json_file_with_a_single_row_object_is_jsonl(tmp_path):
    texts = read_texts(
        write_text(tmp_path, json.dumps({"messages": [user("a"), assistant("b")]}), "set.json")
    )
    assert (texts.file_type, len(texts.rows)) == ("jsonl", 1)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_with_another_delimiter_is_known_by_its_header(tmp_path, delimiter):
    text = f'prompt{delimiter}response\n"a, b"{delimiter}c\n'
    assert read_texts(write_text(tmp_path, text, "set.csv")).rows["prompt"].item() == "a, b"


def test_several_gzip_members_are_one_file(tmp_path):
    data = [file_bytes([single_turn_row("alpaca", *pair)], "jsonl") for pair in PAIRS]
    for compression in (".gz", ".zst"):
        packed = b"".join(COMPRESSIONS[compression](part) for part in data)
        texts = read_texts(write_text(tmp_path, packed, f"set.jsonl{compression}"))
        assert len(texts.rows) == 3


def test_a_named_format_settles_a_row_that_holds_two(tmp_path):
    row = {"prompt": "a", "completion": "b", "response": "c"}
    path = write(tmp_path, [row], "jsonl")
    assert read_texts(path, format="prompt_completion").rows["response"].item() == "b"
    assert read_texts(path, format="prompt_response").rows["response"].item() == "c"


def test_columns_have_the_promised_types(tmp_path):
    texts = read_texts(write(tmp_path, [{"prompt": "a"}], "jsonl"), require_response=False)
    assert dict(texts.rows.schema) == {
        "sample_id": pl.String,
        "source_id": pl.String,
        "file": pl.String,
        "line": pl.Int64,
        "messages": pl.String,
        "prompt": pl.String,
        "response": pl.String,
        "category": pl.String,
    }
    assert dict(texts.rejected.schema) == {
        "file": pl.String,
        "line": pl.Int64,
        "reason": pl.String,
        "detail": pl.String,
    }


@pytest.mark.parametrize(
    "name", ["custom_alpaca_p10", "safe_gsm8k", "harmful_reference", "custom_agnews_p30"]
)
def test_real_text_sets_read_whole(shared_data, name):
    path = shared_data / f"{name}.parquet"
    texts = read_texts(path)
    source = pl.read_parquet(path)
    assert texts.rows["prompt"].equals(source["prompt"])
    assert texts.rows["response"].equals(source["response"])
    assert texts.rows["source_id"].equals(source["id"], null_equal=True)
    assert texts.rejected.is_empty()


@pytest.mark.parametrize("name", ["eval_harmful", "eval_overrefusal", "eval_utility"])
def test_real_evaluation_prompts_read_whole(shared_data, name):
    path = shared_data / f"{name}.parquet"
    texts = read_texts(path, require_response=False)
    assert texts.rows["prompt"].equals(pl.read_parquet(path)["prompt"])
    assert texts.rejected.is_empty()
