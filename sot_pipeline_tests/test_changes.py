"""What changed between two purifications: known answers on four rows."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.changes import SCHEMA, Purification, compare, plan_shares, total_variation

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.1, 5), min_size=1)


def texts(ids: str) -> pl.DataFrame:
    lines = pl.Series("line", range(1, len(ids) + 1), dtype=pl.Int64)
    return pl.DataFrame(
        {"sample_id": list(ids), "source_id": [None] * len(ids), "file": [None] * len(ids)},
        schema_overrides={"source_id": pl.String, "file": pl.String},
    ).with_columns(lines)


def weights(values: dict[str, float]) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": list(values), "sample_weight": list(values.values())})


def purification(order: str, *, kept: int = 2, safe="s", harmful="h", push_cost=None, scores=None):
    """Custom rows a to d, ranked in this order; the first `kept` stay."""
    ranks = [order.index(name) + 1 for name in "abcd"]
    costs = np.full((4, len(harmful)), 0.5) if push_cost is None else np.array(push_cost)
    return Purification(
        custom=texts("abcd"),
        safe=texts(safe),
        harmful=texts(harmful),
        rows=pl.DataFrame(
            {
                "sample_id": list("abcd"),
                "kept": [rank <= kept for rank in ranks],
                "rank": ranks,
                "log_weight": [-float(rank) for rank in ranks],
            }
        ),
        training_weights=weights(dict.fromkeys(order[:kept], 1.0)),
        pull_cost=np.full((4, len(safe)), 0.5),
        push_cost=costs,
        g_pull=np.zeros(len(safe)),
        g_push=np.zeros(len(harmful)),
        epsilon=0.1,
        scores=scores or {},
    )


@given(one=WEIGHTS, other=WEIGHTS)
def test_total_variation_is_a_distance_between_0_and_1(one, other):
    moved = total_variation(weights(one), weights(other))
    assert 0 <= moved <= 1 + 1e-12
    assert moved == pytest.approx(total_variation(weights(other), weights(one)))
    doubled = {name: 2 * value for name, value in one.items()}
    assert total_variation(weights(one), weights(doubled)) == pytest.approx(0, abs=1e-12)


def test_known_total_variations():
    assert total_variation(weights({"a": 1, "b": 1}), weights({"c": 3})) == pytest.approx(1)
    assert total_variation(weights({"a": 1, "b": 1}), weights({"b": 1, "c": 1})) == 0.5
    assert total_variation(weights({"a": 1, "b": 3}), weights({"a": 1, "b": 1})) == 0.25


def test_the_same_purification_has_no_changes():
    changes = compare(purification("abcd"), purification("abcd"))
    assert changes.table.is_empty()
    assert changes.table.schema == pl.Schema(SCHEMA)
    assert changes.summary["moved"] == changes.summary["weights_moved"] == 0


def test_rows_that_change_sides_come_with_old_and_new_rank():
    changes = compare(purification("abcd"), purification("acbd"))
    columns = ["change", "sample_id", "rank_before", "rank_after", "log_weight_before",
               "log_weight_after", "line", "because"]  # fmt: skip
    assert changes.table.select(columns).rows() == [
        ("newly_kept", "c", 3, 2, -3.0, -2.0, 3, None),
        ("newly_removed", "b", 2, 3, -2.0, -3.0, 2, None),
    ]
    assert changes.summary["num_newly_kept"] == changes.summary["num_newly_removed"] == 1
    assert changes.summary["moved"] == 0.5


def test_reference_rows_that_came_and_went_are_listed():
    before = purification("abcd", safe="st", harmful="h")
    changes = compare(before, purification("abcd", safe="s", harmful="hik"))
    rows = changes.table.select("text_set", "change", "sample_id", "line").rows()
    assert rows == [
        ("safe", "gone", "t", 2), ("harmful", "added", "i", 2), ("harmful", "added", "k", 3)
    ]  # fmt: skip
    assert changes.summary["num_harmful_rows_added"] == 2
    assert changes.summary["num_safe_rows_gone"] == 1


def test_the_reference_row_responsible_is_the_changed_one_that_the_plan_leans_on():
    # b goes; of the two harmful rows added, i and k, it lies near k; c stays in its place, but
    # no harmful row went that could have held it back
    near_k = [[0.5, 0.9, 0.9], [0.5, 0.6, 0.1], [0.5, 0.9, 0.9], [0.5, 0.9, 0.9]]
    changes = compare(purification("abcd"), purification("acbd", harmful="hik", push_cost=near_k))
    flips = changes.table.filter(pl.col("change").str.starts_with("newly"))
    removed = flips.row(by_predicate=pl.col("sample_id") == "b", named=True)
    assert (removed["because"], removed["because_of"]) == ("harmful row added", "k")
    expected = np.exp([-5, -6, -1]) / np.exp([-5, -6, -1]).sum()
    assert removed["share"] == pytest.approx(expected[2])
    kept = flips.row(by_predicate=pl.col("sample_id") == "c", named=True)
    assert (kept["because"], kept["because_of"], kept["share"]) == (None, None, None)


def test_a_row_that_stays_now_owes_it_to_the_harmful_row_that_went():
    near_i = [[0.5, 0.9], [0.5, 0.9], [0.5, 0.1], [0.5, 0.9]]
    changes = compare(
        purification("abcd", harmful="hi", push_cost=near_i), purification("acbd", harmful="h")
    )
    kept = changes.table.row(by_predicate=pl.col("change") == "newly_kept", named=True)
    assert (kept["because"], kept["because_of"]) == ("harmful row gone", "i")


def test_scores_stand_side_by_side_where_they_are_known():
    before = purification("abcd", scores={"harmfulness_score": 0.3})
    summary = compare(
        before, purification("abcd", scores={"harmfulness_score": 0.1, "accuracy": 1.0})
    ).summary
    assert summary["harmfulness_score_before"] == 0.3
    assert summary["harmfulness_score_after"] == 0.1
    assert "accuracy_before" not in summary
    assert summary["accuracy_after"] == 1.0


def test_the_plan_of_a_row_sums_to_one_over_a_reference():
    shares = plan_shares(purification("abcd", harmful="hik"), "harmful", np.array([0, 3]))
    np.testing.assert_allclose(shares, np.full((2, 3), 1 / 3))
