"""Reasons are made of the row's own numbers."""

import numpy as np
import polars as pl
import pytest

from sot_pipeline.explanations import explain_rows

WEIGHTS = pl.DataFrame(
    {
        "sample_id": ["a", "b"],
        "log_weight": np.log([0.9, 0.1]),
        "rank": [1, 2],
        "pull": [0.5, -0.5],
        "push": [0.2, -0.2],
        "nearest_safe_row": [1, 0],
        "safe_cost": [0.1, 0.7],
        "nearest_harmful_row": [0, 0],
        "harmful_cost": [0.8, 0.25],
    }
)


@pytest.fixture
def table() -> pl.DataFrame:
    return explain_rows(
        WEIGHTS,
        kept_ids=pl.Series(["a"]),
        safe_ids=pl.Series(["s0", "s1"]),
        harmful_ids=pl.Series(["h0"]),
    )


def test_references_are_named_by_their_ids_with_their_similarity(table):
    assert table["nearest_safe"].to_list() == ["s1", "s0"]
    assert table["safe_similarity"].to_list() == pytest.approx([0.9, 0.3])
    assert table["nearest_harmful"].to_list() == ["h0", "h0"]
    assert table["harmful_similarity"].to_list() == pytest.approx([0.2, 0.75])


def test_weights_are_told_relative_to_uniform(table):
    assert table["relative_weight"].to_list() == pytest.approx([1.8, 0.2])


def test_a_reason_tells_the_verdict_the_rank_and_the_nearer_reference(table):
    kept, removed = table["reason"]
    assert kept.startswith("Kept: rank 1 of 2, 1.8 times")
    assert "closer to the safe reference" in kept
    assert removed.startswith("Removed: rank 2 of 2, 0.2 times")
    assert "closer to the harmful reference: harmful h0 (similarity 0.75)" in removed


def test_a_p_value_is_told_where_there_is_one(table):
    assert table["harmful_p_value"].to_list() == [None, None]
    assert "Of harmful rows" not in table["reason"][0]
    known = explain_rows(
        WEIGHTS.with_columns(harmful_p_value=pl.Series([0.002, 0.6])),
        kept_ids=pl.Series(["a"]),
        safe_ids=pl.Series(["s0", "s1"]),
        harmful_ids=pl.Series(["h0"]),
    )
    assert known["harmful_p_value"].to_list() == [0.002, 0.6]
    assert known["reason"][1].endswith("Of harmful rows about 60.0% score as high.")


def test_no_rows_give_no_reasons():
    empty = explain_rows(
        WEIGHTS.head(0),
        kept_ids=pl.Series([], dtype=pl.String),
        safe_ids=pl.Series(["s0"]),
        harmful_ids=pl.Series(["h0"]),
    )
    assert empty.height == 0
    assert "reason" in empty.columns
