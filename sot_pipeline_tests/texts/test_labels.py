"""Known labels of custom rows, read for measuring."""

import polars as pl
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.texts.labels import read_labels


def table(**columns) -> pl.DataFrame:
    return pl.DataFrame({"id": ["a", "b"], "label": ["harmful", "benign"], **columns})


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_every_type_gives_the_same_labels(tmp_path, ending):
    path = tmp_path / f"labels.{ending}"
    rows = table(source=["x", None], text=["left alone", "too"])
    {"jsonl": rows.write_ndjson, "csv": rows.write_csv, "parquet": rows.write_parquet}[ending](path)
    assert read_labels(path).rows() == [("a", "harmful", "x"), ("b", "benign", None)]


def test_ids_that_are_numbers_are_read_as_text(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"id": 7, "label": "harmful"}\n')
    assert read_labels(path).row(0) == ("7", "harmful", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "a", "harm": 1}\n', "has no column label, only id, harm"),
        ('{"id": "a", "label": "x"}\n{"id": "a", "label": "y"}\n', "1 ids occur more than once"),
        ('{"id": null, "label": "x"}\n{"id": "b", "label": " "}\n', "none of its 2 rows has both"),
        ('{"id": "a", "label": ["x", "y"]}\n', "the column label holds lists; expected one word"),
        ('{"id": "a", "label": "x", "source": ["s"]}\n', "the column source holds lists"),
        ('{"id": {"n": 1}, "label": "x"}\n', "the column id holds objects; expected one word"),
        ("not json\n", "the labels cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, text, message):
    path = tmp_path / "labels.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(path)


def test_another_type_of_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"read from \.parquet, \.csv, \.jsonl"):
        read_labels(tmp_path / "labels.xlsx")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jsonl: the labels cannot be read"):
        read_labels(tmp_path / "gone.jsonl")


def test_rows_without_an_id_or_a_label_are_not_labelled(tmp_path):
    path = tmp_path / "custom.jsonl"
    path.write_text(
        '{"id": "a", "label": "harmful"}\n{"id": "b", "label": null}\n{"label": "harmful"}\n'
        '{"id": "d", "prompt": "p"}\n{"id": "", "label": "benign"}\n'
    )
    assert read_labels(path)["source_id"].to_list() == ["a"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('" Harmful "', "harmful"), ('"REFUSAL"', "refusal"), ("true", "harmful"),
        ("false", "benign"), ("1", "harmful"), ("0", "benign"), ("1.0", "harmful"),
        ('"harmfull"', "harmfull"),
    ],
)  # fmt: skip
def test_labels_are_words_booleans_or_numbers_whatever_their_case(tmp_path, written, read):
    path = tmp_path / "labels.jsonl"
    path.write_text(f'{{"id": "a", "label": {written}}}\n')
    assert read_labels(path)["label"].item() == read


def test_booleans_and_numbers_of_a_csv_file_mean_the_same(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,True\nb,0\nc,\n")
    assert read_labels(path).select("source_id", "label").rows() == [
        ("a", "harmful"), ("b", "benign"),
    ]  # fmt: skip
