"""Categories, coverage, changes, decisions and the summary: counted, told, and absent without data."""

import numpy as np
import polars as pl
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.report.categories import MAX_CATEGORIES, UNNAMED, category_tables
from sot_pipeline.report.changed import changed_since
from sot_pipeline.report.coverage import coverage_tables
from sot_pipeline.report.data import Coverage, ReportCheck, held_out_harmful_kept
from sot_pipeline.report.numbers import numbers_of
from sot_pipeline.report.render import render_report
from sot_pipeline.report.row_tables import decision_rows
from sot_pipeline.report.summary import summary_of
from sot_pipeline.report.verdict import verdict_of
from sot_pipeline.transport.calibration import calibrated_cut
from sot_pipeline_tests.report.samples import (
    METHOD_SCORES,
    Page,
    evaluation,
    ledger,
    report_data,
    without_drawing,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    without_drawing(monkeypatch)


def test_categories_are_counted_with_the_most_removed_first():
    table = ledger(8, 5, category=["a", "a", "b", None, "c", "b", "b", "a"])
    (found,) = category_tables(report_data(ledger=table, points=None, neighbours=None))
    assert [(row.name, row.num_rows, row.num_removed) for row in found.rows] == [
        ("b", 3, 2), ("a", 3, 1), ("c", 1, 0), (UNNAMED, 1, 0),
    ]  # fmt: skip
    assert found.rows[0].share == pytest.approx(2 / 3)


def test_many_categories_are_cut_and_counted():
    names = [f"c{i}" for i in range(100)]
    (found,) = category_tables(report_data(ledger=ledger(100, 50, category=names)))
    assert len(found.rows) == MAX_CATEGORIES
    assert found.num_left_out == 60


def test_without_categories_there_is_no_such_section():
    assert category_tables(report_data()) == []
    nothing = ledger(8, 5, category=pl.Series([None] * 8, dtype=pl.String))
    assert category_tables(report_data(ledger=nothing)) == []
    assert "Categories removed" not in Page(render_report(report_data())).text


def coverage(num_rows: int, far: list[int]) -> Coverage:
    """`far`: the rows out of reach, the farthest last."""
    safe, harmful = np.full(num_rows, 0.1), np.full(num_rows, 0.2)
    for step, row in enumerate(far, 1):
        safe[row] = harmful[row] = 0.5 + 0.1 * step
    uncovered = np.isin(np.arange(num_rows), far)
    return Coverage(uncovered, safe, harmful, 0.3, 0.4, 0.05)


def test_the_rows_that_no_reference_reaches_come_farthest_first():
    data = report_data(coverage=coverage(40, [7, 33, 20]))
    found = coverage_tables(data)
    assert found is not None
    assert (found.num_uncovered, found.share) == (3, 3 / 40)
    assert [row.line for row in found.farthest] == ["21", "34", "8"]
    assert [row.kept for row in found.farthest] == [True, False, True]
    assert found.farthest[0].safe_cost == "0.80"
    text = Page(render_report(data)).text
    assert "3 of 40 custom rows (7.5 %) lie farther from both references" in text


def test_coverage_by_reference_category_says_how_many_rows_lie_near_and_were_removed():
    references = pl.DataFrame(
        {
            "text_set": ["safe", "harmful", "harmful", "harmful"],
            "sample_id": ["safe-1", "harm-1", "harm-2", "harm-3"],
            "category": ["good", "x", "y", "x"],
        }
    )
    found = coverage_tables(report_data(coverage=coverage(40, []), references=references))
    assert found is not None
    # every sample row is nearest to safe-1 and harm-1; ten of forty are removed
    assert [row[:5] for row in found.reached] == [
        ("safe", "good", 1, 40, 10), ("harmful", "x", 2, 40, 10), ("harmful", "y", 1, 0, 0),
    ]  # fmt: skip
    assert found.reached[2].similarity == "–"


CHANGES = pl.DataFrame(
    {
        "change": ["newly_removed", "newly_kept", "added"],
        "text_set": ["custom", "custom", "harmful"],
        "sample_id": ["r1", "r2", "h9"],
        "source_id": ["s1", None, None],
        "line": [4, 5, 9],
        "rank_before": [10, 31, None],
        "rank_after": [33, 12, None],
        "because": ["harmful row added", None, None],
        "because_of": ["h9", None, None],
        "share": [0.25, None, None],
    }
)


def test_what_changed_names_the_rows_that_changed_sides_and_whose_doing_it_was():
    summary = {"num_harmful_rows_added": 1, "num_newly_removed": 1, "num_newly_kept": 1, "moved": 0.031}  # fmt: skip
    data = report_data(changes=CHANGES, change_summary=summary)
    found = changed_since(data)
    assert found is not None
    assert [(row.sample_id, row.rank_before, row.rank_after) for row in found.rows] == [
        ("r1", "10", "33"), ("r2", "31", "12"),
    ]  # fmt: skip
    assert (found.rows[0].because_of, found.rows[0].share) == (
        "h9",
        "25\N{NO-BREAK SPACE}% of the row's mass",
    )
    facts = dict(found.facts)
    assert facts["Harmful rows"] == "1 added, 0 gone"
    assert facts["Changed sides"] == "1 newly removed, 1 newly kept"
    assert facts["Training weight"] == "3.1\N{NO-BREAK SPACE}% of it lies on other rows than before"
    assert "no single reference row" in Page(render_report(data)).text


def test_a_first_run_says_nothing_of_changes():
    assert changed_since(report_data()) is None
    assert changed_since(report_data(changes=CHANGES.clear())) is None
    assert "What changed" not in Page(render_report(report_data())).text


DECISIONS = pl.DataFrame(
    {
        "sample_id": ["000000000000001f-0", "gone-0"],
        "decision": ["keep", "drop"],
        "reviewer": ["ana", None],
        "note": ["a recipe", None],
        "decided": ["2026-11-20", "2026-11-21"],
    }
)


def test_decisions_are_listed_the_latest_first_with_the_row_if_it_is_still_there():
    rows = decision_rows(report_data(decisions=DECISIONS))
    assert [(row.sample_id, row.decision, row.line) for row in rows] == [
        ("gone-0", "drop", ""), ("000000000000001f-0", "keep", "32"),
    ]  # fmt: skip
    text = Page(render_report(report_data(decisions=DECISIONS))).text
    assert "a recipe" in text
    assert "Reviewers decided on 2 rows." in text


def test_without_decisions_there_is_no_such_section():
    for decisions in (None, DECISIONS.clear()):
        assert "Reviewers" not in Page(render_report(report_data(decisions=decisions))).text


def test_a_frame_of_decisions_that_lacks_a_column_is_refused():
    with pytest.raises(InputError, match="decisions frame lacks reviewer"):
        report_data(decisions=DECISIONS.drop("reviewer"))


def summary(status: str = "passed", **changes) -> str:
    data = report_data(**changes)
    return summary_of(data, numbers_of(data), status).replace("\N{NO-BREAK SPACE}", " ")


def test_the_summary_says_it_in_plain_words():
    assert summary() == (
        "10 of the 40 rows of alpaca (25 %) were set aside. "
        "They were ranked lowest between the examples of good answers and the examples of harm; how "
        "many go was set beforehand. The other 30 are ready for training. A model trained on the kept rows answers 11 % of harmful requests harmfully; "
        "trained on all rows it does so for 41 %. It is better at its task: 46 % right, against "
        "45 % with all rows."
    )


def test_rows_that_reviewers_moved_are_counted_apart():
    said = summary(num_dropped_against_cut=9, num_kept_against_cut=1)
    assert "1 row was ranked lowest between" in said
    assert "Reviewers removed 9 rows that the cut would have kept." in said
    assert "Reviewers kept 1 row that the cut would have removed." in said
    assert "ranked lowest" not in summary(num_dropped_against_cut=10)
    data = report_data(num_dropped_against_cut=9)
    assert "Reviewers removed 9 rows" in str(verdict_of(data, numbers_of(data)).paragraphs)


def test_an_unsure_reviewer_decided_nothing():
    unsure = DECISIONS.with_columns(decision=pl.Series(["unsure", "drop"]))
    assert "Reviewers decided on 1 row." in summary(decisions=unsure)
    unsure = DECISIONS.with_columns(decision=pl.lit("unsure"))
    assert "Reviewers decided" not in summary(decisions=unsure)


def test_no_sentence_says_that_rows_are_told_apart_where_a_check_doubts_it():
    for status in ("warned", "failed"):
        check = ReportCheck("weights_tell_rows_apart", status, "chance would do as well")
        data = report_data(checks=(check,))
        found = dict(verdict_of(data, numbers_of(data)).paragraphs)["Found"]
        assert not any(one.startswith("The weights tell the rows apart") for one in found)
        assert any("A check doubts that the weights tell the rows apart" in one for one in found)
        assert "A check doubts that this ranking" in summary(checks=(check,))
    assert "doubts" not in summary()


@pytest.mark.parametrize(
    ("rate", "num_held_out", "said"),
    [(1 / 21, 20, "0 of 20"), (0.0, 20, "0 of 20"), (4 / 21, 20, "no more than 3 of 20")],
)
def test_the_bound_of_a_cut_is_told_apart_from_what_was_counted(rate, num_held_out, said):
    assert held_out_harmful_kept(rate, num_held_out) == said


def test_the_count_above_a_cut_is_that_of_the_held_out_scores():
    held_out, scores = np.arange(20.0), np.linspace(0, 30, 500)
    cut = calibrated_cut(scores, held_out, max_false_keep_rate=0.3, contamination=0.01)
    above = int(np.sum(held_out > cut.threshold))
    assert above > 0
    assert held_out_harmful_kept(cut.rate, 20) == f"no more than {above} of 20"


def test_the_summary_says_what_is_not_known_and_what_failed():
    assert "No model has been trained on them" in summary(evaluation=None)
    assert "do not use the result" in summary("failed")
    assert summary(ledger=ledger(9, 9)).startswith("All 9 rows of alpaca stay.")
    worse = METHOD_SCORES | {"sot": METHOD_SCORES["sot"] | {"accuracy": 0.3}}
    assert "It is worse at its task: 30 % right" in summary(evaluation=evaluation(worse))
