"""Which rows stay: the cut, overruled by what people decided."""

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.reviews.honour import Honoured, honour_decisions
from sot_pipeline.reviews.near_cut import rows_near_cut
from sot_pipeline.selection import top_k, training_weights

TEXTS = [f"{number:02x}" for number in range(10)]
rows = st.lists(st.sampled_from(TEXTS[:6]), min_size=1, max_size=12)
decisions = st.dictionaries(
    st.sampled_from(TEXTS).map("{}-1".format), st.sampled_from(["keep", "drop", "unsure"])
)


def ids(texts: list[str]) -> pl.Series:
    """Sample ids of rows: copies of a text count up."""
    return pl.Series([f"{text}-{texts[:i].count(text) + 1}" for i, text in enumerate(texts)])


def honoured(kept: list[bool], texts: list[str], decided: dict[str, str]) -> Honoured:
    try:
        return honour_decisions(np.array(kept), ids(texts), decided)
    except InputError:
        assume(False)
        raise


@given(rows, st.data(), decisions)
def test_keep_keeps_drop_drops_and_nothing_else_moves(texts, data, decided):
    kept = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    result = honoured(kept, texts, decided)
    for stays, by_cut, text in zip(result.kept, kept, texts, strict=True):
        expected = {"keep": True, "drop": False}.get(decided.get(f"{text}-1", ""), by_cut)
        assert stays == expected
    moved = result.summary["num_kept_against_cut"] - result.summary["num_dropped_against_cut"]
    assert result.kept.sum() == result.summary["num_kept_by_cut"] + moved
    assert not np.any((result.kept != np.array(kept)) & ~result.decided)


@given(rows, st.data(), decisions)
def test_honouring_twice_is_honouring_once(texts, data, decided):
    kept = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    once = honoured(kept, texts, decided)
    np.testing.assert_array_equal(honoured(list(once.kept), texts, decided).kept, once.kept)


@given(rows, decisions)
def test_every_decision_is_counted_once(texts, decided):
    summary = honoured([True] * len(texts), texts, decided).summary
    present = {name: word for name, word in decided.items() if name.partition("-")[0] in texts}
    assert summary["num_honoured"] == sum(word != "unsure" for word in present.values())
    assert summary["num_unsure"] == list(decided.values()).count("unsure")
    assert summary["num_naming_no_row"] == len(decided) - len(present)


def test_a_decision_follows_its_text_when_a_copy_above_it_goes():
    # b-2 was decided on; without the first copy the same row is called b-1
    before = honour_decisions(np.array([True, True, True]), ids(["a", "b", "b"]), {"b-2": "drop"})
    after = honour_decisions(np.array([True, True]), ids(["a", "b"]), {"b-2": "drop"})
    assert before.kept.tolist() == [True, False, False]  # copies share a decision
    assert after.kept.tolist() == [True, False]
    assert after.summary["num_naming_no_row"] == 0


def test_a_set_of_which_nothing_would_stay_is_refused():
    with pytest.raises(InputError, match="no row would stay: of 2 rows the cut keeps 1"):
        honour_decisions(np.array([True, False]), ids(["a", "b"]), {"a-1": "drop"})


@given(st.lists(st.floats(-20, 5), min_size=4, max_size=12), st.data())
def test_training_weights_of_a_reviewed_selection_have_mean_one_and_stay_within_the_clip(
    log_weights, data
):
    log_weights = np.array(log_weights)
    texts = TEXTS[: len(log_weights)] + TEXTS[: max(len(log_weights) - len(TEXTS), 0)]
    kept = honoured(list(top_k(log_weights, keep_fraction=0.5)), texts, data.draw(decisions)).kept
    weights = training_weights(log_weights, kept, clip=(0.2, 5.0))
    assert np.mean(weights) == pytest.approx(1)
    assert weights.min() >= 0.2 - 1e-12
    assert weights.max() <= 5 + 1e-12


def explained(num_rows: int, num_kept: int) -> pl.DataFrame:
    rank = pl.Series("rank", np.random.default_rng(0).permutation(num_rows) + 1)
    return pl.DataFrame({"rank": rank, "kept": rank <= num_kept})


def ranks(which, num_rows: int, table: pl.DataFrame, num_kept: int) -> list[int]:
    found = rows_near_cut(table, num_kept_by_cut=num_kept, which=which, num_rows=num_rows)
    return found["rank"].to_list()


def test_borderline_rows_are_half_above_and_half_below_nearest_first():
    assert ranks("borderline", 6, explained(20, 15), 15) == [15, 16, 14, 17, 13, 18]


def test_where_one_side_is_short_the_other_fills_up():
    assert ranks("borderline", 6, explained(20, 19), 19) == [19, 20, 18, 17, 16, 15]
    assert sorted(ranks("borderline", 50, explained(20, 15), 15)) == list(range(1, 21))


def test_removed_rows_are_those_that_are_out_now():
    assert ranks("removed", 0, explained(20, 15), 15) == [16, 17, 18, 19, 20]
    reviewed = explained(20, 15).with_columns(kept=pl.col("rank") != 3)
    assert ranks("removed", 2, reviewed, 15) == [3]


def test_all_rows_are_nearest_first_too():
    assert ranks("all", 0, explained(4, 2), 2) == [2, 3, 1, 4]
    assert ranks("all", 2, explained(4, 2), 2) == [2, 3]
