"""The kind that a row says it is: a short printable name, or nothing."""

import pytest

from sot_pipeline.texts.formats import FORMATS
from sot_pipeline.texts.read import read_texts
from sot_pipeline_tests.texts.writing import FILE_TYPES, single_turn_row, write


def rows(*extra: dict, format: str = "prompt_response") -> list[dict]:
    return [
        single_turn_row(format, f"question {k}", f"answer {k}") | more
        for k, more in enumerate(extra)
    ]


def categories(path) -> list[str | None]:
    return read_texts(path).rows["category"].to_list()


@pytest.mark.parametrize("file_type", FILE_TYPES)
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_and_file_type_carries_the_category(tmp_path, format, file_type):
    given = rows({"category": "fraud"}, {"category": None}, {"category": "privacy"}, format=format)
    texts = read_texts(write(tmp_path, given, file_type))
    assert texts.rows["category"].to_list() == ["fraud", None, "privacy"]
    assert texts.notes == {}


@pytest.mark.parametrize("column", ["category", "harm_category", "semantic_category", "Category"])
def test_the_columns_that_data_sets_use_are_known(tmp_path, column):
    assert categories(write(tmp_path, rows({column: "fraud"}), "jsonl")) == ["fraud"]


def test_the_first_column_with_a_value_counts(tmp_path):
    given = rows({"category": None, "harm_category": "fraud", "semantic_category": "other"})
    assert categories(write(tmp_path, given, "jsonl")) == ["fraud"]


def test_several_names_are_joined_and_white_space_is_one_space(tmp_path):
    given = rows({"category": ["fraud", "privacy"]}, {"category": "  hate \n speech "})
    assert categories(write(tmp_path, given, "jsonl")) == ["fraud, privacy", "hate speech"]


@pytest.mark.parametrize(
    "hostile",
    [
        7,
        True,
        {"fraud": True},
        ["fraud", 3],
        "x" * 81,
        "word " * 100_000,
        "x" + " " * 100_000 + "y",
        "fraud\u202e\u2066",
        "zero\u200bwidth",
        "bell\x07",
        "\ud800",
        "   ",
    ],
    ids=repr,
)
def test_what_is_no_short_printable_name_is_null_and_counted_and_rejects_no_row(tmp_path, hostile):
    texts = read_texts(write(tmp_path, rows({"category": hostile}), "jsonl"))
    assert texts.rows["category"].to_list() == [None]
    assert texts.notes == {"unusable_categories": 1}
    assert texts.rejected.is_empty()


def test_a_row_without_a_category_is_not_counted(tmp_path):
    texts = read_texts(write(tmp_path, rows({}, {"category": ""}), "jsonl"))
    assert texts.rows["category"].to_list() == [None, None]
    assert texts.notes == {}


def test_a_category_changes_no_id(tmp_path):
    with_category, without = rows({"category": "fraud"}), rows({})
    (tmp_path / "a").mkdir()
    ids = [
        read_texts(write(folder, given, "jsonl")).rows["sample_id"].to_list()
        for folder, given in ((tmp_path / "a", with_category), (tmp_path, without))
    ]
    assert ids[0] == ids[1]
