"""Sheets: what a spreadsheet program sees, and what comes back from it."""

import csv
import io
import json
import re
import unicodedata
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.reviews.cells import protect, unprotect
from sot_pipeline.reviews.decisions import Decision
from sot_pipeline.reviews.sheet import read_answers, write_sheet

NOW = "2026-01-02T03:04:05+00:00"
FORMULAS = [
    "=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1", "\n=1", "  =1", '"=1', "'=1",
    "\u201c=1", "＝1", "＋1", "－1", "＠SUM(1)", "﹢1", "−1", "\u200b=1", "\ufeff=1", "\xa0@x",
    " ' \" =1",
]  # fmt: skip
hostile = st.lists(
    st.sampled_from(["=", "+", "-", "@", "'", '"', ";", ",", "\t", "\r", "\n", " ", "＝", "x"])
    | st.text(max_size=3),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_could_be_a_formula_begins_with_an_apostrophe(text):
    assert protect(text)[0] == "'"
    assert protect(text).replace("'", "") == text.replace("'", "")


@pytest.mark.parametrize("text", ["", "a=b", "x + y", "3-1", "e-mail", "(=1)", "1"])
def test_other_cells_stay(text):
    assert protect(text) == text


def test_a_formula_behind_another_programs_separator_is_one_too():
    assert protect("text;=cmd") == "text;'=cmd"
    assert protect('a\n"+1') == "a\n'\"+1"


@given(hostile)
@example("'=1")
@example("\n\n=")
def test_a_protected_cell_comes_back(text):
    assert unprotect(protect(text)) == text


@given(hostile)
def test_no_cell_begins_with_a_formula_whatever_separates_cells(text):
    for cell in re.split("[;\t\r\n]", protect(text)):
        begins = unicodedata.normalize("NFKC", cell.lstrip(' "'))[:1]
        assert begins not in ("=", "+", "-", "@")


def test_protecting_takes_time_linear_in_the_length():
    assert len(protect("\n" * 300_000)) == 300_001
    assert protect(" " * 300_000) == " " * 300_000


def sheet_row(sample_id: str, **more) -> dict:
    return {"sample_id": sample_id, "decision": "", "note": "", "reviewer": "", **more}


@given(st.lists(st.tuples(hostile, hostile), min_size=1, max_size=4))
def test_a_sheet_is_read_alike_by_python_and_polars(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("sheet") / "s.csv"
    rows = [sheet_row(f"{i}-1", prompt=a, response=b) for i, (a, b) in enumerate(texts)]
    write_sheet(rows, path)
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbfsample_id,")
    records = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert [(unprotect(r["prompt"]), unprotect(r["response"])) for r in records] == texts
    table = pl.read_csv(path, infer_schema=False).fill_null("")
    assert [unprotect(cell) for cell in table["prompt"]] == [prompt for prompt, _ in texts]
    assert table["sample_id"].to_list() == [row["sample_id"] for row in rows]


def test_numbers_stay_numbers_and_lines_end_as_excel_wants(tmp_path):
    path = tmp_path / "s.csv"
    write_sheet([sheet_row("0f-1", kept=True, rank=3, harmful_similarity=-0.25, line=None)], path)
    text = path.read_bytes().decode("utf-8-sig")
    assert text.endswith("0f-1,,,,yes,3,-0.25,\r\n")


def saved(
    rows: list[dict], *, delimiter=",", encoding="utf-8-sig", newline="\r\n", head=""
) -> bytes:
    """A sheet as a spreadsheet program saves it."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator=newline)
    writer.writeheader()
    writer.writerows(rows)
    return (head + text.getvalue()).encode(encoding)


ANSWERED = [
    sheet_row("0a-1", prompt="two\nlines, and; more\t"),
    sheet_row("0b-2") | {"decision": " Keep ", "note": "'=fine", "reviewer": "Zoë"},
    sheet_row("0c-1") | {"decision": "DROP"},
    sheet_row("0d-1") | {"decision": "ｕｎｓｕｒｅ"},
]
for _row in ANSWERED:
    _row.setdefault("prompt", "ü")
EXPECTED = [
    Decision("0b-2", "keep", "Zoë", "=fine", NOW),
    Decision("0c-1", "drop", "Ann", "", NOW),
    Decision("0d-1", "unsure", "Ann", "", NOW),
]
TEXTS = {"0a", "0b", "0c", "0d"}


def answers(path: Path) -> list[Decision]:
    found = read_answers(path, TEXTS, reviewer="Ann", decided=NOW)
    return [answer.decision for answer in found]


@pytest.mark.parametrize(
    "dialect",
    [
        {},  # Excel, "CSV UTF-8"
        {"encoding": "utf-8", "newline": "\n"},  # LibreOffice, Google Sheets
        {"delimiter": ";"},  # Excel where the comma is the decimal mark
        {"delimiter": ";", "head": "sep=;\r\n"},
        {"delimiter": "\t", "encoding": "utf-16"},  # Excel, "Unicode text"
    ],
)
def test_a_sheet_is_read_as_any_program_saves_it(tmp_path, dialect):
    path = tmp_path / "s.csv"
    path.write_bytes(saved(ANSWERED, **dialect))
    assert answers(path) == EXPECTED


def test_a_sheet_of_json_lines_is_read_too(tmp_path):
    path = tmp_path / "s.jsonl"
    rows = [row | {"note": row["note"].lstrip("'")} for row in ANSWERED]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert answers(path) == EXPECTED


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        answers(path)
    return str(error.value)


def test_every_row_that_cannot_be_used_is_named_with_its_line(tmp_path):
    path = tmp_path / "s.csv"
    rows = [
        sheet_row("0a-1", prompt="two\nlines") | {"decision": "keep"},
        sheet_row("0b-1", prompt="") | {"decision": "behalten"},
        sheet_row("ff-1", prompt="") | {"decision": "drop"},
        sheet_row("0a-2", prompt="") | {"decision": "drop"},
    ]
    message = refused(path, saved(rows))
    assert "nothing was imported, 3 rows cannot be used" in message
    assert f"{path}:4: decision 'behalten'; expected one of keep, drop, unsure" in message
    assert f"{path}:5: no row of the task has the sample_id 'ff-1'" in message
    assert f"{path}:6: 'drop', but {path}:2 says 'keep' about the same text" in message


def test_a_row_without_a_decision_may_be_about_anything(tmp_path):
    path = tmp_path / "s.csv"
    path.write_bytes(saved([sheet_row("gone-1"), sheet_row("0a-1") | {"decision": "keep"}]))
    assert [said.sample_id for said in answers(path)] == ["0a-1"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"sample_id;decision;note\r\n0a-1;keep;f\xfcr\r\n", "s.csv:2: byte 0xfc is no UTF-8"),
        (b"", "an empty file"),
        (b"PK\x03\x04...", "save it as CSV UTF-8"),
        (b"sample_id,Entscheidung\r\n0a-1,keep\r\n", "no column decision"),
        (b"0a-1,keep\r\n", "no column sample_id and no column decision"),
        (b'sample_id,decision\r\n0a-1,"keep\r\n', "s.csv:2"),
        (b"sample_id,decision\r\n0a-1,keep,x,y\r\n", "4 cells, the header has 2"),
        (b"sample_id,decision,decision\r\n0a-1,keep,drop\r\n", "appears twice"),
    ],
)
def test_a_file_that_is_no_sheet_is_refused_with_what_to_do(tmp_path, content, found):
    assert found in refused(tmp_path / "s.csv", content)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        answers(tmp_path / "none.csv")


def test_an_exported_sheet_carries_its_decisions_through(tmp_path):
    path = tmp_path / "s.csv"
    carried = [each._asdict() for each in EXPECTED]
    write_sheet(carried, path)
    assert answers(path) == EXPECTED
