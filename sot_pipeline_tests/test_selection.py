"""From log-weights to the rows that are kept and what each counts in training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sot_pipeline.errors import InputError
from sot_pipeline.selection import (
    effective_sample_size,
    nearest_reference,
    ranks,
    top_k,
    training_weights,
)

LOG_WEIGHTS = st.integers(1, 40).flatmap(
    lambda n: arrays(np.float64, n, elements=st.floats(-500, 0))
)


# --- top_k ----------------------------------------------------------------------------------


def test_the_heaviest_rows_are_kept():
    log_weights = np.log([0.1, 0.4, 0.2, 0.3])
    np.testing.assert_array_equal(top_k(log_weights, keep_count=2), [False, True, False, True])
    np.testing.assert_array_equal(top_k(log_weights, keep_fraction=0.75), [False, True, True, True])


def test_ties_go_to_the_earlier_row():
    kept = top_k(np.array([0.0, -1.0, -1.0, -1.0]), keep_count=3)
    np.testing.assert_array_equal(kept, [True, True, True, False])


def test_weights_too_small_for_floating_point_are_still_ranked():
    # as weights they would all be 0
    kept = top_k(np.array([-3_000.0, -1_000.0, -2_000.0]), keep_count=1)
    np.testing.assert_array_equal(kept, [False, True, False])


@given(log_weights=LOG_WEIGHTS, data=st.data())
@settings(deadline=None)
def test_exactly_k_rows_are_kept_and_none_of_them_is_lighter_than_a_dropped_one(log_weights, data):
    k = data.draw(st.integers(1, len(log_weights)))
    kept = top_k(log_weights, keep_count=k)
    assert kept.sum() == k
    assert k == len(log_weights) or log_weights[kept].min() >= log_weights[~kept].max()


@given(log_weights=LOG_WEIGHTS, data=st.data())
@settings(deadline=None)
def test_keeping_more_keeps_what_was_kept(log_weights, data):
    few = data.draw(st.integers(1, len(log_weights)))
    many = data.draw(st.integers(few, len(log_weights)))
    assert top_k(log_weights, keep_count=many)[top_k(log_weights, keep_count=few)].all()


@given(log_weights=LOG_WEIGHTS, fraction=st.floats(0.001, 1))
@settings(deadline=None)
def test_a_fraction_is_the_nearest_count_and_at_least_one(log_weights, fraction):
    num_kept = top_k(log_weights, keep_fraction=fraction).sum()
    assert num_kept >= 1
    assert abs(num_kept - fraction * len(log_weights)) <= max(0.5, 1 - fraction * len(log_weights))


@given(log_weights=LOG_WEIGHTS, data=st.data())
@settings(deadline=None)
def test_the_kept_rows_are_the_first_ranks(log_weights, data):
    k = data.draw(st.integers(1, len(log_weights)))
    rank = ranks(log_weights)
    assert sorted(rank) == list(range(1, len(log_weights) + 1))
    np.testing.assert_array_equal(top_k(log_weights, keep_count=k), rank <= k)


@pytest.mark.parametrize(
    ("how_many", "message"),
    [
        ({}, "give exactly one"),
        ({"keep_fraction": 0.5, "keep_count": 1}, "give exactly one"),
        ({"keep_fraction": 0.0}, "keep_fraction=0.0"),
        ({"keep_fraction": 1.01}, "keep_fraction=1.01"),
        ({"keep_fraction": float("nan")}, "keep_fraction=nan"),
        ({"keep_count": 0}, "keep_count=0; expected a whole number from 1 to 3"),
        ({"keep_count": 4}, "keep_count=4"),
        ({"keep_count": 1.5}, "keep_count=1.5"),
    ],
)
def test_how_many_to_keep_must_be_clear(how_many, message):
    with pytest.raises(InputError, match=message):
        top_k(np.zeros(3), **how_many)


def test_nan_cannot_be_ranked():
    with pytest.raises(InputError, match="row 1 is NaN"):
        top_k(np.array([0.0, np.nan]), keep_count=1)
    with pytest.raises(InputError, match="not empty"):
        top_k(np.array([]), keep_count=1)


# --- training weights -----------------------------------------------------------------------


def test_training_weights_are_the_softmax_times_the_number_of_kept_rows():
    log_weights = np.log([0.1, 0.2, 0.3, 0.4])
    kept = np.array([False, True, True, True])
    np.testing.assert_allclose(
        training_weights(log_weights, kept), np.array([2, 3, 4]) / 3, rtol=1e-9
    )


def test_the_temperature_softens_them():
    log_weights, kept = np.log([1.0, 4.0]), np.ones(2, bool)
    np.testing.assert_allclose(
        training_weights(log_weights, kept, temperature=2.0), [2 / 3, 4 / 3], rtol=1e-9
    )
    np.testing.assert_allclose(training_weights(log_weights, kept, temperature=1e9), 1, rtol=1e-6)


def test_a_row_that_would_count_too_much_is_bounded_and_the_others_make_up_for_it():
    log_weights = np.log([100.0, 1.0, 1.0, 1.0])
    weights = training_weights(log_weights, np.ones(4, bool), clip=(0.2, 2.0))
    np.testing.assert_allclose(weights, [2, 2 / 3, 2 / 3, 2 / 3], rtol=1e-9)


@given(
    log_weights=LOG_WEIGHTS,
    temperature=st.floats(0.01, 100),
    low=st.floats(0, 1),
    high=st.floats(1, 20),
    data=st.data(),
)
@settings(deadline=None)
def test_mean_1_within_bounds_in_order_for_any_weights(log_weights, temperature, low, high, data):
    kept = top_k(log_weights, keep_count=data.draw(st.integers(1, len(log_weights))))
    weights = training_weights(log_weights, kept, temperature=temperature, clip=(low, high))
    assert len(weights) == kept.sum()
    assert low <= weights.min() <= weights.max() <= high
    assert weights.mean() == pytest.approx(1, abs=1e-6)
    order = np.argsort(log_weights[kept])
    assert (np.diff(weights[order]) >= 0).all()


@given(log_weights=LOG_WEIGHTS, shift=st.floats(-100, 100))
@settings(deadline=None)
def test_only_differences_of_log_weights_matter(log_weights, shift):
    kept = np.ones(len(log_weights), bool)
    np.testing.assert_allclose(
        training_weights(log_weights + shift, kept), training_weights(log_weights, kept), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("kept", "options", "message"),
    [
        (np.zeros(2, bool), {}, "keeps at least one row"),
        (np.ones(3, bool), {}, r"expected a bool mask of shape \(2,\)"),
        (np.ones(2), {}, "array of float64"),
        (np.ones(2, bool), {"temperature": 0.0}, "temperature=0.0"),
        (np.ones(2, bool), {"clip": (2.0, 5.0)}, "low <= 1 <= high"),
        (np.ones(2, bool), {"clip": (-0.1, 5.0)}, "neither negative"),
    ],
)
def test_training_weights_refuse_what_cannot_have_mean_1(kept, options, message):
    with pytest.raises(InputError, match=message):
        training_weights(np.zeros(2), kept, **options)


def test_a_kept_row_needs_a_finite_log_weight():
    with pytest.raises(InputError, match="not finite"):
        training_weights(np.array([0.0, -np.inf]), np.ones(2, bool))


# --- effective sample size, neighbours ------------------------------------------------------


def test_equal_weights_count_fully_and_one_weight_counts_once():
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_sample_size(np.array([1.0, 0, 0])) == pytest.approx(1)
    assert effective_sample_size(np.array([0.5, 0.25, 0.25])) == pytest.approx(1 / 0.375)


@given(
    weights=arrays(np.float64, 10, elements=st.floats(1e-3, 1)),
    scale=st.sampled_from([1e-200, 1.0, 1e200]),
)
@settings(deadline=None)
def test_the_effective_sample_size_lies_between_1_and_n_and_has_no_unit(weights, scale):
    size = effective_sample_size(weights)
    assert 1 <= size <= 10 + 1e-9
    assert effective_sample_size(weights * scale) == pytest.approx(size)


@pytest.mark.parametrize("weights", [[], [-1.0, 2.0], [np.nan], [0.0, 0.0]])
def test_weights_must_be_weights(weights):
    with pytest.raises(InputError):
        effective_sample_size(np.array(weights))


def test_the_nearest_reference_row_and_its_cost():
    nearest = nearest_reference(np.array([[0.3, 0.1, 0.2], [0.5, 0.5, 0.9]]))
    np.testing.assert_array_equal(nearest.indices, [1, 0])  # a tie goes to the earlier row
    np.testing.assert_array_equal(nearest.costs, [0.1, 0.5])
    with pytest.raises(InputError, match="custom rows, reference rows"):
        nearest_reference(np.zeros((3, 0)))
