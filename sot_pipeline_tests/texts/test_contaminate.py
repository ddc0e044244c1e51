"""Drawing a contaminated set: counts, separation, determinism, refusals."""

import hashlib
import json
from pathlib import Path

import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.texts.contaminate import Draw, SourceFiles, Sources, contaminate
from sot_pipeline.texts.fetch import InputFile
from sot_pipeline.texts.originals import opening_question
from sot_pipeline.texts.read import read_texts
from sot_pipeline_tests.published import (
    beavertails_row,
    hh_row,
    slimorca_row,
    write_jsonl,
)

DRAW = Draw(20, 0.1, 5, 10, 8, 6, seed=0)


def source(name: str, layout: str, path: Path, licence: str = "MIT") -> SourceFiles:
    file = InputFile(path.name, path, str(path), "c" * 40, licence, "task file")
    return SourceFiles(name, layout, [file], licence)


@pytest.fixture
def rows() -> dict[str, list[dict]]:
    return {
        "orca": [slimorca_row(i) for i in range(40)],
        "hh_train": [hh_row(f"train question {i}") for i in range(20)],
        "hh_test": [hh_row(f"test question {i}") for i in range(20)],
        "beaver": [beavertails_row(i) for i in range(40)],
    }


def drawn(folder: Path, rows: dict[str, list[dict]], draw: Draw = DRAW):
    for name, content in rows.items():
        write_jsonl(folder / f"{name}.jsonl", content)
    orca = source("orca", "sharegpt", folder / "orca.jsonl")
    return contaminate(
        Sources(
            custom=orca,
            contamination=source("hh_train", "hh_rejected", folder / "hh_train.jsonl"),
            harmful=source("beaver", "beavertails", folder / "beaver.jsonl", "CC-BY-NC-4.0"),
            harmful_prompts=source("hh_test", "hh_prompt", folder / "hh_test.jsonl"),
            task_prompts=orca,
        ),
        draw,
        folder / "out",
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_set_has_as_many_rows_as_asked(tmp_path, rows):
    prepared = drawn(tmp_path, rows)
    counts = {name: len(lines(path)) for name, path in prepared.files.items()}
    assert counts == {
        "custom": 20, "custom_clean": 18, "safe": 5, "harmful": 10, "eval_harmful": 8,
        "eval_task": 6,
    }  # fmt: skip
    labels = [row["label"] for row in lines(prepared.files["custom"])]
    assert labels.count("harmful") == 2


def test_the_pipeline_reads_every_set_back_without_a_rejected_row(tmp_path, rows):
    prepared = drawn(tmp_path, rows)
    for name, path in prepared.files.items():
        read = read_texts(path, require_response=not name.startswith("eval"))
        assert read.rejected.height == 0
        assert read.num_read == prepared.manifest["files"][path.name]["rows"]
    harmful = read_texts(prepared.files["harmful"])
    assert harmful.files[0].licences == {"CC-BY-NC-4.0": 10}
    assert all(text.startswith("petty answer") for text in harmful.rows["response"])


def test_the_clean_set_is_the_custom_set_without_its_contamination(tmp_path, rows):
    prepared = drawn(tmp_path, rows)
    benign = [row["id"] for row in lines(prepared.files["custom"]) if row["label"] == "benign"]
    assert benign == [row["id"] for row in lines(prepared.files["custom_clean"])]


def test_no_question_is_in_two_sets(tmp_path, rows):
    files = drawn(tmp_path, rows).files
    asked = {
        name: {opening_question(row["messages"]) for row in lines(path)}
        for name, path in files.items()
        if name not in ("custom_clean", "harmful")
    }
    total = sum(len(questions) for questions in asked.values())
    assert len(set.union(*asked.values())) == total == 20 + 5 + 8 + 6


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(tmp_path, rows):
    first, again = drawn(tmp_path, rows), drawn(tmp_path, rows)
    assert first.manifest == again.manifest
    other = drawn(tmp_path, rows, DRAW._replace(seed=1))
    assert other.manifest["files"]["custom.jsonl"] != first.manifest["files"]["custom.jsonl"]


def test_the_manifest_tells_sources_revisions_counts_and_hashes(tmp_path, rows):
    prepared = drawn(tmp_path, rows)
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert written == prepared.manifest
    file = written["sources"]["beaver"]["files"][0]
    content = (tmp_path / "beaver.jsonl").read_bytes()
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert (file["revision"], file["rows"], file["bytes"]) == ("c" * 40, 40, len(content))
    assert written["draw"]["seed"] == 0
    out = (tmp_path / "out" / "custom.jsonl").read_bytes()
    assert written["files"]["custom.jsonl"]["sha256"] == hashlib.sha256(out).hexdigest()


def test_test_prompts_that_training_rows_ask_too_are_removed_and_counted(tmp_path, rows):
    rows["hh_train"] = rows["hh_train"][:2]  # both are drawn
    rows["hh_test"] += [hh_row("Train question 0!"), hh_row("train question 1")]
    rows["beaver"] = [beavertails_row(i) for i in range(14)]  # all that are unsafe are drawn
    rows["hh_test"] += [hh_row("petty question 0")]
    prepared = drawn(tmp_path, rows, DRAW._replace(num_harmful_prompts=20))
    asked = {opening_question(row["messages"]) for row in lines(prepared.files["eval_harmful"])}
    assert all(question.startswith("test question") for question in asked)
    removed = prepared.manifest["counts"]["removed_harmful_prompts"]
    assert 0 < removed <= 3  # those met while drawing
    assert prepared.manifest["sources"]["hh_test"]["not_used"] == {"asked_in_training": removed}
    with pytest.raises(InputError, match=r"20 of its 23 rows .*\(not used: 3 asked_in_training\)"):
        drawn(tmp_path, rows, DRAW._replace(num_harmful_prompts=21))


def test_questions_in_the_custom_set_and_the_harmful_reference_are_counted(tmp_path, rows):
    rows["hh_train"] = [hh_row("petty question 0"), hh_row("petty question 1")]
    rows["beaver"] = [beavertails_row(i) for i in range(14)]
    assert drawn(tmp_path, rows).manifest["counts"]["shared_questions_custom_harmful"] == 2


def test_task_prompts_keep_their_answer_where_accuracy_is_measured(tmp_path, rows):
    without = lines(drawn(tmp_path, rows).files["eval_task"])
    assert all(row["messages"][-1]["role"] == "user" for row in without)
    with_answers = drawn(tmp_path, rows, DRAW._replace(references=True))
    assert all(
        row["messages"][-1]["role"] == "assistant" for row in lines(with_answers.files["eval_task"])
    )


def test_the_earlier_answers_of_a_contaminating_row_are_not_learned(tmp_path, rows):
    bad = next(r for r in lines(drawn(tmp_path, rows).files["custom"]) if r["label"] == "harmful")
    assert [turn.get("weight") for turn in bad["messages"]] == [None, 0, None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_custom": 200}, "40 of its 40 rows are left for the custom set, 180 are needed"),
        ({"num_safe": 30}, "22 of its 40 rows are left for the safe reference, 30 are needed"),
        ({"num_harmful": 31}, "30 of its 40 rows .* harmful reference, 31 .*10 other_side"),
        ({"num_harmful_prompts": 21}, "20 of its 20 rows are left for the harmful prompts"),
        ({"contamination": 1.0}, "contamination is 1.0; expected a share"),
    ],
)
def test_too_few_rows_are_refused_with_what_is_there(tmp_path, rows, change, message):
    with pytest.raises(InputError, match=message):
        drawn(tmp_path, rows, DRAW._replace(**change))
    assert not (tmp_path / "out").exists()


def test_a_harmful_reference_without_labels_is_refused(tmp_path, rows):
    rows["beaver"] = [{**row, "is_safe": None} for row in rows["beaver"]]
    with pytest.raises(InputError, match=r"0 of its 40 rows .*40 unlabelled"):
        drawn(tmp_path, rows)


def test_a_row_that_is_there_twice_is_drawn_once(tmp_path, rows):
    rows["orca"] += rows["orca"]
    prepared = drawn(tmp_path, rows)
    assert (
        len({row["messages"][1]["content"] for row in lines(prepared.files["custom_clean"])}) == 18
    )
