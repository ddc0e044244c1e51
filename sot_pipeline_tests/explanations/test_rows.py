"""The table of evidence holds each row's own numbers."""

import numpy as np
import polars as pl
import pytest

from sot_pipeline.explanations import HeldOut, Reference, Solve, explain_rows
from sot_pipeline.explanations.counterfactuals import Potentials
from sot_pipeline.explanations.transported import transported_mass

WEIGHTS = pl.DataFrame(
    {
        "sample_id": ["a", "b", "c"],
        "log_weight": np.log([0.6, 0.3, 0.1]),
        "rank": [1, 2, 3],
        "pull": [0.5, 0.1, -0.5],
        "push": [0.2, 0.1, -0.2],
        "nearest_safe_row": [1, 0, 0],
        "safe_cost": [0.1, 0.4, 0.7],
        "nearest_harmful_row": [0, 0, 0],
        "harmful_cost": [0.8, 0.5, 0.25],
    }
)
SAFE_COST = np.array([[0.5, 0.1], [0.4, 0.6], [0.7, 0.9]])
HARMFUL_COST = np.array([[0.8, 0.9], [0.5, 0.6], [0.25, 0.3]])
POTENTIALS = Potentials(pull=np.array([-1.0, -0.2, 1.0]), push=np.array([0.4, 0.2, -0.4]))


def reference(cost: np.ndarray, name: str, **extra) -> Reference:
    groups = extra.pop("groups", None)
    mass = transported_mass([cost], np.zeros(2), 0.1, groups=groups)
    return Reference(pl.Series([f"{name}0", f"{name}1"]), mass, **extra)


def explained(weights: pl.DataFrame = WEIGHTS, *, kept: tuple[str, ...] = ("a", "b"), **changed):
    given = {
        "safe": reference(SAFE_COST, "s"),
        "harmful": reference(HARMFUL_COST, "h"),
        "solve": Solve(0.5, POTENTIALS),
    }
    return explain_rows(weights, kept_ids=pl.Series(kept, dtype=pl.String), **(given | changed))


def test_references_are_named_by_their_ids_with_their_similarity():
    table = explained()
    assert table["nearest_safe"].to_list() == ["s1", "s0", "s0"]
    assert table["safe_similarity"].to_list() == pytest.approx([0.9, 0.6, 0.3])
    assert table["nearest_harmful"].to_list() == ["h0", "h0", "h0"]
    assert table["harmful_similarity"].to_list() == pytest.approx([0.2, 0.5, 0.75])


def test_the_rows_with_most_of_the_mass_are_named_with_their_shares():
    table = explained()
    assert table["safe_ids"].to_list() == [["s1", "s0"], ["s0", "s1"], ["s0", "s1"]]
    expected = 1 / (1 + np.exp(-0.4 / 0.1))  # the costs of row a differ by 0.4
    assert table["safe_shares"][0].to_list() == pytest.approx([expected, 1 - expected])
    assert table["safe_similarities"][0].to_list() == pytest.approx([0.9, 0.5])
    assert table["harmful_ids"][2].to_list() == ["h0", "h1"]
    assert table.schema["harmful_ids"] == pl.List(pl.String)
    assert table.schema["harmful_shares"] == pl.List(pl.Float64)


def test_weights_are_told_relative_to_uniform():
    assert explained()["relative_weight"].to_list() == pytest.approx([1.8, 0.9, 0.3])


def test_the_category_with_most_of_the_mass_is_named():
    harmful = reference(HARMFUL_COST, "h", groups=np.array([1, 0]), categories=("fraud", "privacy"))
    table = explained(harmful=harmful)
    assert table["harmful_category"].to_list() == ["privacy"] * 3
    assert table["harmful_category_share"][0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert explained()["harmful_category"].to_list() == [None] * 3
    assert explained()["harmful_category_share"].to_list() == [None] * 3


def test_rows_without_a_category_compete_as_one():
    harmful = reference(HARMFUL_COST, "h", groups=np.array([-1, 0]), categories=("fraud",))
    assert explained(harmful=harmful)["harmful_category"].to_list() == [None] * 3


def test_counterfactuals_and_methods_that_disagree_are_columns():
    table = explained()
    assert table["keep_fraction_needed"].to_list() == pytest.approx([1 / 3, 2 / 3, 1])
    assert table["false_keep_rate_needed"].to_list() == [None] * 3
    assert table["lambda_change"].to_list() == [None] * 3  # both parts agree on the order
    assert table["disagreeing_methods"].to_list() == [[], [], []]
    lines = Potentials(pull=np.array([-1.0, 0.0, -0.5]), push=np.array([0.4, 0.2, 0.3]))
    other = explained(solve=Solve(0.5, lines), kept=("a",), weights=WEIGHTS)
    assert other["lambda_change"].to_list() == [None] * 3
    assert explained(solve=Solve(0.5, lines))["disagreeing_methods"].to_list() == [
        [], ["pull_alone", "push_alone"], ["pull_alone", "push_alone"],
    ]  # fmt: skip


def test_without_potentials_nothing_is_said_of_lambda():
    table = explained(solve=Solve(0.5))
    assert table["lambda_change"].to_list() == [None] * 3
    assert "lambda" not in " ".join(table["explanation"])


def test_a_calibrated_cut_tells_its_rates():
    held_out = HeldOut(np.log(np.array([0.05, 0.08, 0.1, 0.2])), 0.3, 0.2)
    weights = WEIGHTS.with_columns(harmful_p_value=pl.Series([0.2, 0.2, 0.6]))
    table = explained(weights, held_out=held_out)
    assert table["harmful_p_value"].to_list() == [0.2, 0.2, 0.6]
    assert table["false_keep_rate_needed"].to_list()[:2] == [0.2, 0.2]
    assert (
        "20 % of rows known to be harmful would come as high or higher" in table["explanation"][0]
    )


def test_a_row_that_both_references_are_far_from_is_marked():
    far = explained(
        safe=reference(SAFE_COST, "s", reach=0.2), harmful=reference(HARMFUL_COST, "h", reach=0.3)
    )
    assert far["far_from_references"].to_list() == [False, True, False]
    assert "this evidence is weak" in far["explanation"][1]


def test_a_reviewers_decision_stands_beside_what_the_numbers_say():
    decisions = pl.DataFrame({"sample_id": ["c", "a"], "decision": ["keep", "keep"]})
    table = explained(kept=("a", "b", "c"), decisions=decisions)
    assert table["decision"].to_list() == ["keep", None, "keep"]
    assert table["kept"].to_list() == [True, True, True]
    # the cut itself was after place 2: the kept row at place 3 does not move it
    assert "place 3 of 3, the best first, disagrees" in table["explanation"][2]
    assert "place 1 of 3, the best first, agrees" in table["explanation"][0]


def test_the_last_of_several_decisions_counts_and_strangers_add_no_row():
    decisions = pl.DataFrame(
        {"sample_id": ["a", "a", "z"], "decision": ["keep", "drop", "drop"], "note": ["", "", ""]}
    )
    table = explained(kept=("b",), decisions=decisions)
    assert table.height == 3
    assert table["decision"].to_list() == ["drop", None, None]


def test_a_decision_holds_for_all_rows_of_a_text_and_one_who_is_unsure_decides_nothing():
    weights = WEIGHTS.with_columns(sample_id=pl.Series(["aa-0", "bb-0", "aa-1"]))
    decisions = pl.DataFrame({"sample_id": ["aa-0", "bb-0"], "decision": ["keep", "unsure"]})
    table = explained(weights, kept=("aa-0", "bb-0", "aa-1"), decisions=decisions)
    assert table["decision"].to_list() == ["keep", None, "keep"]
    # the copy at place 3 stays by decision: the cut is after place 2 for all that
    assert "place 3 of 3, the best first, disagrees" in table["explanation"][2]
    assert "the cut comes after place 2" in table["explanation"][1]


def test_the_cut_is_where_it_was_though_a_reviewer_dropped_the_row_at_it():
    decisions = pl.DataFrame({"sample_id": ["b"], "decision": ["drop"]})
    table = explained(kept=("a",), decisions=decisions, num_kept_by_cut=2)
    assert "the cut comes after place 2" in table["explanation"][0]
    assert "place 2 of 3, the best first, disagrees" in table["explanation"][1]


def test_methods_that_agree_with_a_reviewer_do_not_disagree():
    # likeness to the safe reference alone would keep c instead of b
    lines = Potentials(pull=np.array([-1.0, 0.5, -0.5]), push=np.array([0.4, 0.3, -0.4]))
    decisions = pl.DataFrame({"sample_id": ["c"], "decision": ["keep"]})
    given = {"decisions": decisions, "num_kept_by_cut": 2, "solve": Solve(0.5, lines)}
    table = explained(kept=("a", "b", "c"), **given)
    assert table["disagreeing_methods"].to_list() == [
        [], ["pull_alone"], ["push_alone", "nearest_rows"],
    ]  # fmt: skip
    assert "Without the decision it would go" in table["explanation"][2]
    assert "likeness to the safe reference alone" not in table["explanation"][2]


def test_no_row_is_told_that_a_side_decided_which_alone_decides_otherwise():
    lines = Potentials(pull=np.array([-1.0, 0.0, -0.5]), push=np.array([0.4, 0.5, -2.0]))
    table = explained(solve=Solve(0.5, lines))
    assert table["disagreeing_methods"].to_list() == [[], ["pull_alone"], ["pull_alone"]]
    assert "less like the harmful reference" in table["explanation"][1]
    assert "more like the harmful reference" in table["explanation"][2]


def test_no_rows_give_no_reasons():
    nothing = transported_mass([np.empty((0, 2))], np.zeros(2), 0.1)
    ids = pl.Series(["x0", "x1"])
    empty = explain_rows(
        WEIGHTS.head(0),
        kept_ids=pl.Series([], dtype=pl.String),
        safe=Reference(ids, nothing),
        harmful=Reference(ids, nothing),
        solve=Solve(0.5),
    )
    assert empty.height == 0
    assert {"reason", "explanation"} <= set(empty.columns)
    assert empty.schema == explained().schema
