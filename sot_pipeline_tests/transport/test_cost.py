"""The cosine cost: known angles, laws, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sot_pipeline.errors import InputError
from sot_pipeline.transport.cost import checked_costs, cosine_cost, pooled_mean, pooled_std

VECTORS = arrays(np.float32, (4, 3), elements=st.floats(-1, 1, width=32)).filter(
    lambda v: np.abs(v).max(axis=1).min() > 1e-3
)


def test_known_angles():
    # the same way, at a right angle, opposite, at 60 degrees
    x = np.array([[1.0, 0.0]])
    y = np.array([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.5, np.sqrt(0.75)]])
    cost = cosine_cost(x, y)
    np.testing.assert_allclose(cost, [[0, 1, 2, 0.5]], atol=1e-6)
    assert cost.dtype == np.float32


@given(x=VECTORS, y=VECTORS)
@settings(deadline=None)
def test_costs_lie_in_0_to_2_and_transpose_when_the_sets_are_swapped(x, y):
    cost = cosine_cost(x, y)
    assert cost.min() >= 0
    assert cost.max() <= 2
    np.testing.assert_allclose(cosine_cost(y, x), cost.T, atol=1e-6)


@given(x=VECTORS, y=VECTORS, scale=st.floats(1e-20, 1e20))
@settings(deadline=None)
def test_the_length_of_a_vector_does_not_matter(x, y, scale):
    np.testing.assert_allclose(
        cosine_cost(x.astype(np.float64) * scale, y), cosine_cost(x, y), atol=1e-5
    )


@given(x=VECTORS, y=VECTORS, order=st.permutations(range(4)))
@settings(deadline=None)
def test_rows_of_the_cost_follow_the_rows_of_x(x, y, order):
    np.testing.assert_allclose(cosine_cost(x[order], y), cosine_cost(x, y)[order], atol=1e-6)


def test_a_common_direction_hides_the_rest_until_it_is_centred_away():
    # two opposite directions on top of a large common one
    x = np.array([[10.0, 1.0], [10.0, -1.0]])
    assert cosine_cost(x, x).max() < 0.03
    np.testing.assert_allclose(
        cosine_cost(x, x, center=pooled_mean(x)), [[0, 2], [2, 0]], atol=1e-5
    )


def test_the_pooled_mean_counts_each_set_once_whatever_its_size():
    few, many = np.array([[2.0, 0.0]]), np.tile([0.0, 5.0], (100, 1))
    np.testing.assert_allclose(pooled_mean(few, many), [0.5, 0.5], atol=1e-7)


def test_a_row_on_the_centre_has_no_direction_and_costs_1_everywhere():
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    cost = cosine_cost(x, x, center=np.array([1.0, 0.0]))
    np.testing.assert_allclose(cost[0], 1)
    assert np.isfinite(cost).all()


def test_half_precision_and_integers_are_understood():
    x = np.array([[1, 2], [3, 4]])
    np.testing.assert_allclose(cosine_cost(x, x), cosine_cost(x.astype(np.float16), x), atol=1e-3)


ZERO = np.array([[1.0, 0.0], [0.0, 0.0]])
NAN = np.array([[1.0, 0.0], [np.nan, 0.0], [0.0, np.inf]])
GOOD = np.eye(2)


@pytest.mark.parametrize(
    ("x", "y", "center", "message"),
    [
        (ZERO, GOOD, None, "x: row 1 is all zeros"),
        (GOOD, ZERO, None, "y: row 1 is all zeros"),
        (NAN, GOOD, None, r"x: row 1 holds NaN or infinite values \(2 such rows of 3\)"),
        (np.eye(3), GOOD, None, "x has 3 dimensions, y has 2"),
        (np.ones(3), GOOD, None, "expected numbers of shape"),
        (np.empty((0, 2)), GOOD, None, "neither of them 0"),
        (np.array([["a", "b"]]), GOOD, None, "expected numbers"),
        (GOOD, GOOD, np.zeros(3), "center has shape"),
        (GOOD, GOOD, np.array([np.nan, 0]), "finite"),
    ],
)
def test_vectors_without_an_angle_are_refused_by_row(x, y, center, message):
    with pytest.raises(InputError, match=message):
        cosine_cost(x, y, center=center)


def test_sets_of_different_models_have_no_mean():
    with pytest.raises(InputError, match=r"\[2, 3\] dimensions"):
        pooled_mean(GOOD, np.eye(3))
    with pytest.raises(InputError, match="no embeddings"):
        pooled_mean()


def test_the_pooled_std_is_the_root_mean_variance():
    pull, push = np.array([[0.0, 2.0]]), np.array([[0.0, 0.0, 4.0, 4.0]])  # std 1 and 2
    assert pooled_std(pull, push) == pytest.approx(np.sqrt(2.5))
    assert pooled_std(pull * 0, push * 0 + 1) == 1  # nothing varies: still divides


@pytest.mark.parametrize(
    ("pull", "push", "message"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), "pull_cost has 3 rows, push_cost 4"),
        (np.array([[1.0], [-0.1]]), np.ones((2, 1)), "pull_cost: row 1 holds a NaN, infinite or"),
        (np.ones((2, 1)), np.array([[np.inf], [1.0]]), "push_cost: row 0 holds"),
        (np.ones((2, 1)), np.array([[1.0], [np.nan]]), "push_cost: row 1 holds"),
        (np.ones((0, 1)), np.ones((0, 1)), "neither of them 0"),
        (np.ones((2, 0)), np.ones((2, 1)), "neither of them 0"),
        (np.ones(2), np.ones((2, 1)), "expected numbers of"),
        (np.ones((2, 1), bool), np.ones((2, 1)), "array of bool"),
    ],
)
def test_costs_that_cannot_be_transported_are_refused(pull, push, message):
    with pytest.raises(InputError, match=message):
        checked_costs(pull, push)
