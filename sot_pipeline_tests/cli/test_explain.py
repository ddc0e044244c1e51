"""`sot explain`: a row by any of its names, its evidence, and errors that help."""

import copy
import json
import shutil

import polars as pl
import pytest
from typer.testing import CliRunner

from sot_pipeline.cli.app import app
from sot_pipeline.defs.explained import ExplainedTask
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline.errors import InputError
from sot_pipeline.reviews.decisions import Decision, append
from sot_pipeline_tests.endpoints import Endpoint
from sot_pipeline_tests.small_home import SmallProject

HIDDEN = "what is two\u202e plus two"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    made = SmallProject(tmp_path_factory.mktemp("explain"))
    made.edit("harmful", lambda rows: [row | {"category": "fraud"} for row in rows])

    def with_odd_rows(rows: list[dict]) -> list[dict]:
        rows[4]["prompt"] = HIDDEN
        rows[9]["id"] = "twice"
        rows[10]["id"] = "twice"
        return [*rows, {"prompt": "what is missing"}]  # rejected: line 61

    made.edit("custom", with_odd_rows)
    made.run()
    return made


@pytest.fixture(scope="module")
def explanations(project) -> pl.DataFrame:
    return project.current("explanations").table()


@pytest.fixture
def explain(project):
    def run(*arguments: str):
        result = CliRunner().invoke(app, ["explain", *arguments, "--home", str(project.home.root)])
        if isinstance(result.exception, Exception):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_a_row_is_found_by_every_name_it_has(project, explain):
    custom = project.current("custom_texts").table()
    row = custom.row(20, named=True)
    names = [row["sample_id"], row["sample_id"][:10], row["source_id"], str(row["line"]),
             f"custom.jsonl:{row['line']}", f"{project.files['custom']}:{row['line']}"]  # fmt: skip
    for name in names:
        assert json.loads(explain(name, "--json"))["sample_id"] == row["sample_id"]
    assert json.loads(explain("small", names[0], "--json"))["sample_id"] == row["sample_id"]


def test_the_document_holds_the_evidence_and_where_it_stands(explain, explanations):
    row = explanations.sort("rank").row(-1, named=True)
    document = json.loads(explain(row["sample_id"], "--json"))
    assert document["explanation"] == row["explanation"]
    assert document["rank"] == 60
    assert not document["kept"]
    assert [one["sample_id"] for one in document["harmful"]] == row["harmful_ids"]
    assert [one["share"] for one in document["harmful"]] == pytest.approx(row["harmful_shares"])
    assert {one["file"] for one in document["harmful"]} == {"harmful.jsonl"}
    assert all(one["line"] >= 1 and one["category"] == "fraud" for one in document["harmful"])
    assert document["compared_methods"] == []
    assert "texts" not in document


def test_the_page_shows_paragraph_references_counterfactuals_and_methods(explain, explanations):
    row = explanations.sort("rank").row(-1, named=True)
    page = explain(row["sample_id"])
    assert row["explanation"] in page
    for shown in ("custom.jsonl:", "harmful.jsonl:", "safe.jsonl:", "fraud", "share of the match",
                  row["harmful_ids"][0], "share of rows kept", "lambda, matching held as it is",
                  "methods that disagree"):  # fmt: skip
        assert shown in page


def test_no_text_is_printed_unless_it_is_asked_for(project, explain):
    custom = project.current("custom_texts").table()
    row = custom.filter(pl.col("line") == 5).row(0, named=True)
    assert "plus two" not in explain(row["sample_id"])
    shown = explain(row["sample_id"], "--show-text")
    assert "what is two⟨U+202E⟩ plus two" in shown
    assert "\u202e" not in shown
    assert shown.count("--- harmful") == 3
    texts = json.loads(explain(row["sample_id"], "--show-text", "--json"))["texts"]
    assert len(texts) == 7


def test_the_worst_and_the_borderline_rows_are_listed(explain):
    worst = json.loads(explain("--worst", "3", "--json"))["rows"]
    assert [row["rank"] for row in worst] == [60, 59, 58]
    near = json.loads(explain("small", "--borderline", "4", "--json"))["rows"]
    assert {row["rank"] for row in near} == {47, 48, 49, 50}
    assert explain("--borderline", "2").count("methods that disagree") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["61"], "line 61 was rejected when it was read: missing_answer"),
        (["custom.jsonl:900"], "nearest lines that were read are custom.jsonl:60"),
        (["b999"], r"nearest ids are .*b\d"),
        (["no such thing"], "no id is near it"),
        (["twice"], "2 rows of 'small' are called 'twice'.*whole sample id"),
        (["smal", "b1"], "no task 'smal'"),
        ([], "expected `sot explain \\[TASK\\] ROW`"),
        (["a", "b", "c"], "got 3 words"),
        (["--worst", "2", "--borderline", "2"], "exclude each other"),
        (["b1", "--rewrite"], "give --base-url"),
    ],
)
def test_what_cannot_be_explained_says_what_was_found(explain, arguments, message):
    with pytest.raises(InputError, match=message):
        explain(*arguments)


def test_an_ambiguous_beginning_lists_the_rows(explain, explanations):
    first = pl.Series([one[:1] for one in explanations["sample_id"]])
    letter = first.value_counts(sort=True).filter(~pl.col("").str.contains(r"\d"))[""][0]
    with pytest.raises(InputError, match=f"rows of 'small' are called '{letter}': .*custom.jsonl:"):
        explain(letter)


def test_the_task_must_be_named_where_there_are_several(tmp_path, project):
    project.home.write_task("other", project.home.read_task("small"))
    try:
        result = CliRunner().invoke(app, ["explain", "b1", "--home", str(project.home.root)])
        assert "name the task" in str(result.exception)
        result = CliRunner().invoke(
            app, ["explain", "other", "b1", "--home", str(project.home.root)]
        )
        assert "has not been purified" in str(result.exception)
    finally:
        project.home.task_path("other").unlink()


def test_compared_methods_are_read_where_they_are_there(project, monkeypatch, explanations):
    row = explanations.row(0, named=True)
    selected = project.current("selected_samples")

    class Compared:
        def __init__(self, made_from: str) -> None:
            self.manifest = {"inputs": {"selected_samples": made_from}}

        def table(self) -> pl.DataFrame:
            sides = {"sot": row["kept"], "knn": not row["kept"], "saft": row["kept"]}
            return pl.DataFrame(
                {"method": sides.keys(), "sample_id": row["sample_id"], "kept": sides.values()}
            )

    known = Store.current

    def current(made_from: str):
        return lambda self, task, asset: (
            Compared(made_from) if asset == "compared_selections" else known(self, task, asset)
        )

    monkeypatch.setattr(Store, "current", current(selected.fingerprint))
    found = ExplainedTask(project.home, "small").evidence(row["sample_id"])
    assert found["compared_methods"] == ["knn", "saft"]
    assert found["compared_methods_that_disagree"] == ["knn"]
    monkeypatch.setattr(Store, "current", current("another selection"))
    found = ExplainedTask(project.home, "small").evidence(row["sample_id"])
    assert found["compared_methods"] == []


def test_a_model_may_word_the_paragraph_if_it_adds_no_fact(explain, explanations):
    pytest.importorskip("openai")
    row = explanations.sort("rank").row(-1, named=True)
    for reply, by_model in (("Removed: it came last, at place 60 of 60.", True),
                            ("Removed: 99 of 100 people agree.", False)):  # fmt: skip
        server = Endpoint(lambda messages, reply=reply: reply)
        arguments = [row["sample_id"], "--rewrite", "--base-url", server.url, "--model", "m"]
        document, page = json.loads(explain(*arguments, "--json")), explain(*arguments)
        server.close()
        assert document["text_by_model"] == by_model
        assert document["text"] == (reply if by_model else row["explanation"])
        assert ("the template's words" in page) != by_model


@pytest.fixture
def copied(project, tmp_path) -> SmallProject:
    """The project with a home that may be changed."""
    made = copy.copy(project)
    shutil.copytree(project.home.root, tmp_path / "data")
    made.home = Home(tmp_path / "data")
    made.store = Store(made.home.store)
    return made


def run_on(project: SmallProject, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["explain", *arguments, "--home", str(project.home.root)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_the_settings_are_shown_beside_where_they_change_sides(explain, explanations):
    row = explanations.sort("rank").row(-1, named=True)
    page = explain(row["sample_id"])
    line = next(line for line in page.splitlines() if "share of rows kept" in line)
    assert line.split()[-2:] == ["0.8", "1.0000"]
    assert "false-keep rate" not in page


def test_a_reviewed_row_says_who_decided_and_the_cut_is_where_it_was(copied, explanations):
    by_rank = explanations.sort("rank")
    last = by_rank["sample_id"][-1]
    said = Decision(last, "keep", "Ann", "fine\u202e as it is", "2026-01-01T00:00:00+00:00")
    append(copied.home.reviews("small"), [said])
    for name in ("review_decisions", "selected_samples", "explanations"):
        copied.run_only(name)
    document = json.loads(run_on(copied, last, "--json"))
    assert (document["kept"], document["decision"], document["reviewer"]) == (True, "keep", "Ann")
    assert document["note"] == "fine\u202e as it is"
    assert "Without the decision it would go, and stay only if 100 %" in document["explanation"]
    page = run_on(copied, last)
    assert "decision to keep it by Ann: fine⟨U+202E⟩ as it is" in page
    assert "without the decision" in page
    near = json.loads(run_on(copied, "--borderline", "4", "--json"))["rows"]
    assert {row["rank"] for row in near} == {47, 48, 49, 50}
    other = json.loads(run_on(copied, by_rank["sample_id"][0], "--json"))
    assert (other["reviewer"], other["note"]) == (None, None)


def test_explanations_that_are_out_of_date_say_so_and_why(copied, explanations):
    row = explanations["sample_id"][0]
    assert json.loads(run_on(copied, row, "--json"))["stale"] == []
    assert "not purified since" not in run_on(copied, row)
    append(copied.home.reviews("small"), [Decision(row, "drop", "Ann")])
    assert json.loads(run_on(copied, row, "--json"))["stale"] == [
        "the source of review_decisions changed"
    ]
    assert run_on(copied, row).startswith(
        "not purified since the source of review_decisions changed: run `sot purify --task small`"
    )
    settings = copied.home.read_task("small")
    changed = settings.settings | {"selection": {"keep_fraction": 0.5}}
    copied.home.write_task("small", settings.model_copy(update={"settings": changed}))
    stale = json.loads(run_on(copied, "--worst", "1", "--json"))["stale"]
    assert "setting selection.keep_fraction changed" in stale


def test_explanations_of_an_earlier_version_ask_for_another_run(project, monkeypatch):
    table = Stored.table
    monkeypatch.setattr(
        Stored,
        "table",
        lambda self: table(self).drop("explanation", strict=False),
    )
    with pytest.raises(InputError, match="run `sot purify --task small` again"):
        ExplainedTask(project.home, "small")
