"""The log of decisions: what is in force, and that a crash leaves all of an import or nothing."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.reviews.decisions import (
    DECISIONS,
    SCHEMA,
    Decision,
    append,
    decision_table,
    decisions_of_rows,
    in_force,
    news,
    read_log,
)

said = st.builds(
    Decision,
    sample_id=st.builds("{}-{}".format, st.sampled_from("abc"), st.integers(1, 3)),
    decision=st.sampled_from(DECISIONS),
    reviewer=st.sampled_from(["", "Ann", "Bo"]),
    note=st.sampled_from(["", "=1+1", 'zwölf\n"Zeilen" ']),
    decided=st.just("2026-01-02T03:04:05+00:00"),
)
logs = st.lists(said, max_size=8)


def holding(*words: str) -> str | None:
    found = in_force([Decision("0f-1", word) for word in words])
    return found["0f"].decision if found else None


def test_the_latest_keep_or_drop_is_in_force():
    assert holding("keep") == "keep"
    assert holding("keep", "drop") == "drop"
    assert holding() is None


def test_unsure_withdraws_nothing_and_is_recorded():
    assert holding("keep", "unsure") == "keep"
    assert holding("unsure") == "unsure"
    assert holding("unsure", "drop") == "drop"


def test_withdraw_takes_back_whatever_was_said():
    assert holding("keep", "withdraw") is None
    assert holding("drop", "withdraw", "keep") == "keep"


def test_copies_of_a_text_share_one_decision():
    assert in_force([Decision("0f-2", "keep")]).keys() == {"0f"}
    assert in_force([Decision("0f-1", "keep"), Decision("0f-2", "drop")])["0f"].decision == "drop"


@given(logs, logs)
def test_what_was_appended_once_is_no_news(log, more):
    grown = [*log, *news(log, more)]
    assert news(grown, in_force(grown).values()) == []


def what_holds(log) -> dict[str, tuple]:
    return {text: each[1:4] for text, each in in_force(log).items()}


@given(logs)
def test_a_log_is_read_as_it_was_written(tmp_path_factory, log):
    path = tmp_path_factory.mktemp("log") / "task.jsonl"
    added = append(path, log)
    assert read_log(path) == added
    assert what_holds(added) == what_holds(log)


@given(logs)
def test_the_table_holds_each_text_once(log):
    table = decision_table(log)
    assert table.schema == SCHEMA
    texts = [sample_id.partition("-")[0] for sample_id in table["sample_id"]]
    assert texts == sorted(set(texts))
    assert "withdraw" not in table["decision"]


def test_each_copy_of_a_text_gets_its_decision_in_the_order_of_the_rows():
    table = decision_table([Decision("0b-2", "keep", "Ann"), Decision("0c-1", "drop", "Bo")])
    rows = decisions_of_rows(pl.Series(["0a-1", "0b-1", "0b-2"]), table)
    assert rows.schema == SCHEMA
    assert rows.select("sample_id", "decision", "reviewer").rows() == [
        ("0b-1", "keep", "Ann"), ("0b-2", "keep", "Ann"),
    ]  # fmt: skip
    assert decisions_of_rows(pl.Series(["0a-1"]), decision_table([])).is_empty()


def test_appending_the_same_again_leaves_the_file_alone(tmp_path):
    path = tmp_path / "reviews" / "task.jsonl"
    one = Decision("0f-1", "keep", "Ann", "fine", "2026-01-02T03:04:05+00:00")
    assert append(path, [one]) == [one]
    before = path.stat()
    assert append(path, [one._replace(decided="2027-01-02T03:04:05+00:00")]) == []
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert append(path, [one._replace(note="fine, twice read")]) != []
    assert [entry.note for entry in read_log(path)] == ["fine", "fine, twice read"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{", "no JSON"),
        ("[]", "list"),
        ('{"decision": "keep"}', "no sample_id"),
        ('{"sample_id": 3, "decision": "keep"}', "sample_id"),
        ('{"sample_id": "0f-1", "decision": "kep"}', "did you mean 'keep'"),
        ('{"sample_id": "0f-1", "decision": ["keep"]}', "decision"),
    ],
)
def test_a_damaged_log_is_named_with_its_line(tmp_path, line, found):
    path = tmp_path / "task.jsonl"
    path.write_text('{"sample_id": "0e-1", "decision": "drop"}\n\n' + line + "\n")
    with pytest.raises(InputError, match=r"task\.jsonl:3: ") as error:
        read_log(path)
    assert found in str(error.value)


DIES = """
import os, sys
from pathlib import Path
import sot_pipeline.durable as durable
from sot_pipeline.reviews.decisions import Decision, append

def die(*args):
    os._exit(9)

point, path = sys.argv[1], Path(sys.argv[2])
if point == "flushing":
    durable.to_disk = die
elif point == "renaming":
    Path.replace = die
elif point == "writing":
    def half(self, content):
        with open(self, "wb") as file:
            file.write(content[: len(content) // 2])
        die()
    Path.write_bytes = half
elif point == "renamed":
    replace = Path.replace
    Path.replace = lambda self, target: (replace(self, target), die())
append(path, [Decision(f"0{n}-1", "drop", "Bo") for n in range(5)])
"""


@pytest.mark.parametrize("point", ["writing", "flushing", "renaming", "renamed"])
def test_an_import_that_is_killed_happened_or_did_not(tmp_path: Path, point):
    path = tmp_path / "task.jsonl"
    first = [Decision("0a-1", "keep", "Ann", "n", "2026-01-02T03:04:05+00:00")]
    append(path, first)
    killed = subprocess.run([sys.executable, "-c", DIES, point, str(path)], check=False)
    assert killed.returncode == 9
    whole = read_log(path)
    assert whole[:1] == first
    assert len(whole) == (6 if point == "renamed" else 1)
    append(path, [Decision(f"0{n}-1", "drop", "Bo") for n in range(5)])  # the same again
    assert len(read_log(path)) == 6
    assert not list(tmp_path.glob("*.tmp"))
    assert all(json.loads(line) for line in path.read_text().splitlines())
