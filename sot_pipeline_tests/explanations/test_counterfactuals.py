"""What a counterfactual says comes true when the setting is changed to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sot_pipeline.explanations.counterfactuals import (
    LAMBDA_STEPS,
    Potentials,
    best,
    false_keep_rate_needed,
    keep_fraction_needed,
    kept_at,
    lambda_change,
    ranks_of,
)
from sot_pipeline.explanations.second_opinions import disagreeing_methods
from sot_pipeline.selection import ranks, top_k
from sot_pipeline.transport.calibration import calibrated_cut

# few values, so that ties are common
scores = arrays(np.float64, st.integers(2, 30), elements=st.integers(-5, 5).map(float))


@given(scores, st.data())
def test_ranks_and_the_best_are_those_of_the_selection(values, data):
    count = data.draw(st.integers(1, len(values)))
    np.testing.assert_array_equal(ranks_of(values), ranks(values))
    np.testing.assert_array_equal(best(values, count), top_k(values, keep_count=count))


@given(scores)
def test_the_keep_fraction_needed_keeps_the_row_and_a_row_less_does_not(values):
    for row, fraction in enumerate(keep_fraction_needed(ranks_of(values))):
        assert top_k(values, keep_fraction=fraction)[row]
        fewer = fraction - 1 / len(values)
        assert fewer < 0.5 / len(values) or not top_k(values, keep_fraction=fewer)[row]


@given(
    scores,
    arrays(np.float64, st.integers(3, 25), elements=st.integers(-5, 5).map(float)),
    st.sampled_from([0.0, 0.1, 0.4, 1.0]),
)
def test_the_false_keep_rate_needed_keeps_the_row_and_the_next_lower_one_does_not(
    values, held_out, contamination
):
    m = len(held_out)
    needed = false_keep_rate_needed(values, held_out, contamination=contamination)
    kept = np.array(
        [
            calibrated_cut(
                values, held_out, max_false_keep_rate=k / (m + 1), contamination=contamination
            ).kept
            for k in range(1, m + 1)
        ]
    )
    for row, rate in enumerate(needed):
        if np.isnan(rate):
            assert not kept[:, row].any()
        else:
            place = round(rate * (m + 1))
            assert kept[place - 1 :, row].all()
            assert not kept[: place - 1, row].any()


def test_two_rows_change_places_where_their_lines_cross():
    # scores -pull (1 - lambda) + push lambda: 1 - lambda and lambda cross at a half
    potentials = Potentials(pull=np.array([-1.0, 0.0]), push=np.array([0.0, 1.0]))
    change = lambda_change(potentials, np.array([True, False]), 0.2)
    np.testing.assert_allclose(change, [0.5, 0.5], atol=1e-6)


def test_a_row_that_leads_everywhere_changes_sides_nowhere():
    potentials = Potentials(pull=np.array([-3.0, 0.0, 0.1]), push=np.array([3.0, 0.0, 0.2]))
    change = lambda_change(potentials, np.array([True, False, False]), 0.5)
    assert np.isnan(change).all()


def test_the_nearer_of_two_changes_is_told():
    # the middle row is the lower one near 0.5 only: it changes sides at 0.4 and at 0.9
    lines = np.array([[0.0, 0.0], [0.4, -0.6], [-0.9, 0.1]])  # at lambda 0 and at lambda 1
    potentials = Potentials(pull=-lines[:, 0], push=lines[:, 1])
    kept = kept_at(potentials, 1, 0.5)
    change = lambda_change(potentials, kept, 0.5)
    np.testing.assert_allclose(change, [0.4, 0.4, 0.9], atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_a_row_is_on_the_other_side_just_behind_its_change_and_on_none_before(seed, lambda_push):
    rng = np.random.default_rng(seed)
    potentials = Potentials(*rng.normal(size=(2, 40)))
    count = int(rng.integers(1, 40))
    kept = kept_at(potentials, count, lambda_push)
    change = lambda_change(potentials, kept, lambda_push)
    grid = np.arange(LAMBDA_STEPS + 1) / LAMBDA_STEPS
    sides = np.array([kept_at(potentials, count, value) for value in grid])
    for row in range(40):
        other = grid[sides[:, row] != kept[row]]
        if np.isnan(change[row]):
            assert len(other) == 0
        else:
            nearest = np.abs(other - lambda_push).min()
            assert nearest - 1.001 / LAMBDA_STEPS <= abs(change[row] - lambda_push) <= nearest


def test_a_row_whose_side_the_potentials_do_not_give_has_no_answer():
    potentials = Potentials(pull=np.array([-1.0, 0.0]), push=np.array([0.0, 1.0]))
    change = lambda_change(potentials, np.array([False, True]), 0.2)
    assert np.isnan(change).all()


@pytest.mark.parametrize("kept", [[True, True], [False, False]])
def test_where_all_or_none_stay_nothing_changes_sides(kept):
    potentials = Potentials(pull=np.array([-1.0, 0.0]), push=np.array([0.0, 1.0]))
    assert np.isnan(lambda_change(potentials, np.array(kept), 0.5)).all()


def test_methods_disagree_about_the_rows_that_they_would_put_on_the_other_side():
    kept = np.array([True, True, False, False])
    scores = {"same": np.array([4.0, 3, 2, 1]), "other": np.array([4.0, 1, 3, 2])}
    assert disagreeing_methods(scores, kept, 2) == [[], ["other"], ["other"], []]


def test_methods_disagree_with_the_side_a_row_is_on_though_a_reviewer_put_it_there():
    kept = np.array([True, True, True, False])  # the cut alone keeps two
    scores = {"other": np.array([4.0, 1, 3, 2])}
    assert disagreeing_methods(scores, kept, 2) == [[], ["other"], [], []]
