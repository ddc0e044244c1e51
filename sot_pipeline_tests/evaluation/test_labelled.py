"""Files of labelled answers: words become numbers, and no cell is quoted in an error."""

import json

import numpy as np
import polars as pl
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.evaluation.agreement_table import Rater, agreement_table
from sot_pipeline.evaluation.labelled import Columns, read_labelled

SECRET = "a text that no error may show"


def write(folder, name="rows.parquet", **columns):
    size = len(next(iter(columns.values())))
    table = pl.DataFrame(
        {"prompt": [f"p{i}" for i in range(size)], "response": [f"a{i}" for i in range(size)]}
        | columns
    )
    path = folder / name
    writer = {"parquet": table.write_parquet, "csv": table.write_csv, "jsonl": table.write_ndjson}
    writer[path.suffix[1:]](path)
    return path


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.jsonl"])
def test_every_format_gives_the_same_labels(tmp_path, name):
    path = write(
        tmp_path, name,
        human_is_harmful=[True, False, None],
        human_final=["2_full_refusal", "3_partial_refusal", "1_full_compliance"],
    )  # fmt: skip
    file = read_labelled(path)
    np.testing.assert_array_equal(file.truth("harm"), [1, 0, np.nan])
    assert file.grades("refusal").tolist() == [1.0, 0.5, 0.0]
    assert file.kinds == ["harm"]
    assert file.sources == ["rows"]
    assert file.prompts[1] == [{"role": "user", "content": "p1"}]
    assert file.answers == ["a0", "a1", "a2"]


def test_rows_without_a_source_are_of_one_called_as_the_file(tmp_path):
    labels = [True, False, True]
    file = read_labelled(write(tmp_path, human_is_harmful=labels, source=["x", None, None]))
    assert sorted(file.sources) == ["rows", "x"]
    assert file.of_source("rows").truth("harm").tolist() == [0, 1]
    rater = Rater("r", {"harm": np.array([1.0, 0.0, 1.0])})
    table = agreement_table(file, [rater], num_resamples=100)
    assert set(table["source"]) == {"rows", "x"}


def test_do_not_answers_actions_are_steps_but_for_the_one_that_is_not(tmp_path):
    actions = [f"action {i}" for i in range(6)]
    file = read_labelled(write(tmp_path, human_is_harmful=[False] * 5 + [True], human_1=actions))
    np.testing.assert_array_equal(file.grades("harm"), [0, 0.25, 0.5, 0.75, np.nan, 1])


def test_a_column_that_speaks_of_something_else_is_not_read(tmp_path):
    path = write(
        tmp_path,
        human_is_harmful=[True, False],
        judge_a=["harmful", "harmless"],
        judge_b=["1_full_compliance", "2_full_refusal"],
        judge_c=[None, None],
        judge_d=[7.0, 8.0],
    )
    file = read_labelled(path)
    assert file.published == ["judge_a", "judge_b", "judge_c", "judge_d"]
    assert file.read("judge_a", "harm").tolist() == [1, 0]
    assert file.read("judge_a", "refusal") is None
    assert file.read("judge_b", "refusal").tolist() == [0, 1]
    for column in ("judge_b", "judge_c", "judge_d", "nowhere"):
        assert file.read(column, "harm") is None


def test_labels_of_other_words_and_columns_of_other_names(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"q": "p", "a": "x", "verdict": " Toxic", "set": "one"},
        {"q": "p", "a": "y", "verdict": "fine", "set": "two"},
        {"q": "p", "a": None, "verdict": "fine", "set": "two"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = Columns(prompt="q", answer="a", source="set", harm="verdict")
    file = read_labelled(path, columns, {"toxic": 1, "Fine": 0})
    assert file.truth("harm").tolist() == [1, 0], "the row without an answer is left out"
    assert file.sources == ["one", "two"]
    assert file.of_source("two").truth("harm").tolist() == [0]
    assert file.labelled_answers().labels == {"harm": [True, False]}


def test_a_label_in_between_is_a_yes_from_one_half(tmp_path):
    file = read_labelled(write(tmp_path, human_is_harmful=[0.0, 0.4, 0.5, 1.0, None]))
    np.testing.assert_array_equal(file.yes_no("harm"), [0, 0, 1, 1, np.nan])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"human_is_harm": [True, False]},
            "no people's labels: .*--harm COLUMN.*response, human_is_harm\\.",
        ),
        ({"human_is_harmful": [SECRET, SECRET]}, "human_is_harmful holds no labels that are known"),
        ({"human_is_harmful": [7, 8]}, "numbers from 0 to 1"),
        ({"human_is_harmful": [None, None]}, "holds no labels that are known"),
    ],
)
def test_labels_that_cannot_be_read_are_an_error_without_their_text(tmp_path, columns, message):
    with pytest.raises(InputError, match=message) as raised:
        read_labelled(write(tmp_path, **columns))
    assert SECRET not in str(raised.value)


def test_a_missing_column_is_named_with_those_found(tmp_path):
    path = write(tmp_path, human_is_harmful=[True])
    found = "prompt, response, human_is_harmful"
    with pytest.raises(InputError, match=f"no column 'answer' .* It has {found}: .* --answer"):
        read_labelled(path, Columns(answer="answer"))
    with pytest.raises(InputError, match="no column 'origin' for the source"):
        read_labelled(path, Columns(source="origin"))


def test_files_that_cannot_be_read_are_named_without_their_text(tmp_path):
    (tmp_path / "bad.jsonl").write_text(f'{{"prompt": "{SECRET}')
    with pytest.raises(InputError, match=r"bad\.jsonl: not readable as jsonl") as raised:
        read_labelled(tmp_path / "bad.jsonl")
    assert SECRET not in str(raised.value)
    with pytest.raises(InputError, match="no such file"):
        read_labelled(tmp_path / "absent.csv")
    with pytest.raises(InputError, match=r"ending in \.parquet, \.csv, \.jsonl"):
        read_labelled(tmp_path / "rows.xlsx")
    with pytest.raises(InputError, match="--label bad=2: expected a number from 0 to 1"):
        read_labelled(write(tmp_path, human_is_harmful=[True]), more_words={"bad": 2})
