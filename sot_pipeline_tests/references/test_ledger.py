"""What was proposed, accepted and refused is on disk, once, whatever happens."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.references.ledger import Chosen, Ledger, Row, row_id
from sot_pipeline.texts.read import read_texts

EVERY = Chosen()


def row(number: int, text: str = "an answer") -> Row:
    messages = [
        {"role": "user", "content": f"question {number}"},
        {"role": "assistant", "content": text},
    ]
    return {"id": f"{number:016x}", "messages": messages, "proposal": {"cluster_size": number}}


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(tmp_path / "references" / "task")


def ids(rows: list[Row]) -> list[str]:
    return [each["id"] for each in rows]


def test_proposed_rows_wait_in_a_file_named_after_them(ledger):
    path = ledger.propose([row(1), row(2)])
    assert ledger.propose([row(1), row(2)]) == path
    assert ledger.propose([row(1)]) != path
    assert ledger.pending()[path.name] == [row(1), row(2)]


def test_every_file_of_rows_is_a_text_set(ledger):
    hostile = 'line\nbreak \r\n \u2028 "quoted" \\ {"id": 7}'
    path = ledger.propose([row(1, hostile), row(2)])
    ledger.accept(None, EVERY)
    for file in (path, ledger.accepted_path):
        texts = read_texts(file)
        assert texts.format == "openai"
        assert texts.rejected.height == 0
        assert texts.rows["response"].to_list() == [hostile, "an answer"]
        assert texts.rows["source_id"].to_list() == [row(1)["id"], row(2)["id"]]


def test_accepting_moves_rows_once(ledger):
    ledger.propose([row(1), row(2)])
    assert ids(ledger.accept(None, EVERY)) == ids([row(1), row(2)])
    ledger.settle()
    assert ledger.pending() == {}
    ledger.propose([row(2), row(3)])
    assert ids(ledger.accept(None, EVERY)) == [row(3)["id"]], "row 2 is there already"
    assert ids(ledger.accepted()) == ids([row(1), row(2), row(3)])


def test_a_crash_between_accepting_and_settling_is_mended_by_accepting_again(ledger):
    path = ledger.propose([row(1), row(2)])
    ledger.accept(None, EVERY)  # and here the process dies
    assert ids(ledger.pending()[path.name]) == ids([row(1), row(2)])
    before = ledger.accepted_path.read_bytes()
    assert ledger.accept(None, EVERY) == []
    assert ledger.accepted_path.read_bytes() == before
    ledger.settle()
    assert not path.exists()


def test_a_crash_while_writing_leaves_the_earlier_file(ledger, monkeypatch):
    ledger.propose([row(1)])
    ledger.accept(None, EVERY)
    ledger.settle()
    ledger.propose([row(2)])
    files = {path: path.read_bytes() for path in ledger.folder.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            ledger.accept(None, EVERY)
    assert {path: path.read_bytes() for path in ledger.folder.iterdir()} == files
    assert ids(ledger.accept(None, EVERY)) == [row(2)["id"]]


def test_only_some_rows_and_all_but_some(ledger):
    path = ledger.propose([row(1), row(2), row(3)])
    ledger.accept(None, Chosen(only=[row(1)["id"]]))
    ledger.settle()
    ledger.refuse(None, Chosen(exclude=[row(3)["id"]]))
    ledger.settle()
    assert ids(ledger.accepted()) == [row(1)["id"]]
    assert ledger.refused_ids() == {row(2)["id"]}
    assert ids(ledger.pending()[path.name]) == [row(3)["id"]]


def test_a_row_may_be_named_by_its_sample_id(ledger):
    ledger.propose([row(1), row(2)])
    sample_id = f"{row(2)['id']}-4"  # the fifth row of that text in its file
    assert row_id(sample_id) == row(2)["id"]
    assert ids(ledger.accept(None, Chosen(only=[sample_id]))) == [row(2)["id"]]


def test_rows_that_were_asked_about_are_known(ledger):
    ledger.propose([row(1), row(2), row(3)])
    ledger.accept(None, Chosen(only=[row(1)["id"]]))
    ledger.settle()
    ledger.refuse(None, Chosen(only=[row(2)["id"]]))
    ledger.settle()
    assert ledger.known_ids() == {row(n)["id"] for n in (1, 2, 3)}


def test_a_refusal_keeps_no_text(ledger):
    ledger.propose([row(1, "words to forget")])
    ledger.refuse(None, EVERY)
    ledger.settle()
    left = [path.read_text() for path in ledger.folder.iterdir()]
    assert not any("forget" in text for text in left)
    assert ledger.refused_ids() == {row(1)["id"]}


def test_one_of_several_pending_files_must_be_named(ledger):
    first, second = ledger.propose([row(1)]), ledger.propose([row(2)])
    with pytest.raises(InputError, match=f"{first.name}|{second.name}"):
        ledger.accept(None, EVERY)
    assert ledger.accepted() == []
    part = second.stem.removeprefix("pending-")
    assert ids(ledger.accept(part, EVERY)) == [row(2)["id"]]


@pytest.mark.parametrize("name", [None, "nowhere"])
def test_nothing_pending_is_an_error_that_says_what_to_do(ledger, name):
    with pytest.raises(InputError, match="there are: none"):
        ledger.accept(name, EVERY)


def test_an_unknown_id_changes_nothing(ledger):
    ledger.propose([row(1)])
    for chosen in (Chosen(only=["f" * 16]), Chosen(exclude=["f" * 16])):
        with pytest.raises(InputError, match="no such row"):
            ledger.accept(None, chosen)
    assert ledger.accepted() == []


def test_only_and_except_together_are_refused():
    with pytest.raises(InputError, match="give one of them"):
        Chosen(only=["a"], exclude=["b"])


@pytest.mark.parametrize("line", ["{broken", '["a list"]', '{"messages": []}', '{"id": 3}'])
def test_a_damaged_line_is_named(ledger, line):
    path = ledger.propose([row(1)])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=rf"{path.name}:2: found no JSON object with an `id`"):
        ledger.accept(None, EVERY)


def test_a_line_that_a_person_removed_is_not_accepted(ledger):
    path = ledger.propose([row(1), row(2)])
    path.write_text(json.dumps(row(2)) + "\n\n")
    assert ids(ledger.accept(None, EVERY)) == [row(2)["id"]]


def test_answers_given_at_the_same_time_are_all_kept(tmp_path: Path):
    folder = tmp_path / "task"
    Ledger(folder).propose([row(number) for number in range(12)])

    def answer(number: int) -> None:
        each = Ledger(folder)
        answered = each.accept if number % 2 else each.refuse
        answered(None, Chosen(only=[row(number)["id"]]))
        each.settle()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(answer, range(12)))
    ledger = Ledger(folder)
    assert sorted(ids(ledger.accepted())) == [row(n)["id"] for n in range(1, 12, 2)]
    assert sorted(ledger.refused_ids()) == [row(n)["id"] for n in range(0, 12, 2)]
    assert ledger.pending() == {}
