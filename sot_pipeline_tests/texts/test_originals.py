"""Published layouts: what each row becomes, and which rows are not used."""

import polars as pl
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.texts.originals import (
    AG_NEWS_INSTRUCTION,
    conversation_of,
    opening_question,
    read_original,
)
from sot_pipeline.texts.rejection import RowRejected
from sot_pipeline_tests.published import (
    beavertails_row,
    hh_row,
    metamathqa_row,
    slimorca_row,
    write_jsonl,
)


def turns(row: dict, layout: str) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in conversation_of(row, layout)]


def test_slimorca_turns_are_kept_with_their_system_turn():
    assert turns(slimorca_row(3), "sharegpt") == [
        ("system", "You are an assistant."),
        ("user", "How many apples are 3 apples?"),
        ("assistant", "They are 3 apples."),
    ]


def test_ag_news_asks_for_the_name_of_the_label():
    assert turns({"text": "An article.", "label": 3}, "ag_news") == [
        ("user", f"{AG_NEWS_INSTRUCTION}\n\nAn article."),
        ("assistant", "Sci/Tech"),
    ]


def test_metamathqa_is_question_and_solution():
    assert turns(metamathqa_row(1), "metamathqa") == [
        ("user", "What is 1 + 1?"),
        ("assistant", "1 + 1 = 2. The answer is: 2"),
    ]


def test_of_a_preference_the_rejected_answer_alone_is_learned():
    conversation = conversation_of(hh_row("Why?"), "hh_rejected")
    assert [turn["content"] for turn in conversation] == [
        "Why?", "Tell me more.", "Please answer.", "A rude answer.",
    ]  # fmt: skip
    assert [turn.get("train", True) for turn in conversation if turn["role"] == "assistant"] == [
        False,
        True,
    ]


def test_a_test_prompt_ends_before_the_last_answer():
    assert turns(hh_row("Why?"), "hh_prompt")[-1] == ("user", "Please answer.")


def test_beavertails_gives_the_answers_labelled_unsafe():
    assert turns(beavertails_row(0), "beavertails")[1] == ("assistant", "petty answer 0")
    with pytest.raises(RowRejected, match="other_side"):
        conversation_of(beavertails_row(3), "beavertails")


@pytest.mark.parametrize(
    ("row", "layout", "reason"),
    [
        ({"text": "a", "label": None}, "ag_news", "unlabelled"),
        ({"text": "a", "label": -1}, "ag_news", "unlabelled"),
        ({"text": "a", "label": 7}, "ag_news", "unknown_label"),
        ({"text": None, "label": 1}, "ag_news", "wrong_type"),
        ({"prompt": "a", "response": "b", "is_safe": None}, "beavertails", "unlabelled"),
        ({"prompt": "a", "response": "b", "is_safe": "false"}, "beavertails", "unlabelled"),
        ({"query": "a", "response": ""}, "metamathqa", "empty_answer"),
        ({"chosen": "x", "rejected": "x"}, "hh_rejected", "unlabelled"),
        ({"chosen": "y", "rejected": "no speaker"}, "hh_rejected", "broken_transcript"),
        ({"chosen": "", "rejected": "\n\nHuman: a"}, "hh_rejected", "broken_transcript"),
        (
            {"chosen": "", "rejected": "\n\nAssistant: a\n\nHuman: b"},
            "hh_rejected",
            "broken_transcript",
        ),
        (
            {"chosen": "", "rejected": "\n\nHuman: a\n\nHuman: b"},
            "hh_prompt",
            "broken_transcript",
        ),
        ({"conversations": []}, "sharegpt", "empty_conversation"),
    ],
)
def test_a_row_that_is_not_to_be_used_says_why(row, layout, reason):
    with pytest.raises(RowRejected) as refused:
        conversation_of(row, layout)
    assert refused.value.reason == reason


def test_questions_are_the_same_whatever_their_case_and_punctuation():
    first, second = (
        [{"role": "user", "content": text}] for text in ("How  are you?", "how are YOU")
    )
    assert opening_question(first) == opening_question(second)


def test_a_missing_column_is_named_with_what_was_found(tmp_path):
    path = tmp_path / "train.jsonl"
    write_jsonl(path, [{"prompt": "a", "response": "b"}])
    with pytest.raises(InputError, match=r"no column is_safe \(found: prompt, response\)"):
        read_original(path, "beavertails")


@pytest.mark.parametrize("file_type", ["csv", "parquet", "jsonl", "json"])
def test_every_file_type_reads_the_same(tmp_path, file_type):
    table = pl.DataFrame({"text": ["a", "b"], "label": [0, 1], "more": [None, "x"]})
    path = tmp_path / f"rows.{file_type}"
    write = {"csv": table.write_csv, "parquet": table.write_parquet,
             "jsonl": table.write_ndjson, "json": table.write_json}  # fmt: skip
    write[file_type](path)
    rows = read_original(path, "ag_news").rows
    assert rows.rows() == [("a", 0), ("b", 1)]


def test_a_broken_file_is_an_error_of_one_sentence(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": 0}\n{"text": "b", "lab\n')
    with pytest.raises(InputError, match="broken or cut short"):
        read_original(path, "ag_news")


def test_an_unknown_layout_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match="did you mean 'sharegpt'"):
        read_original(tmp_path / "x.jsonl", "sharegtp")
