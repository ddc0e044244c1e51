"""Simple scores on vectors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.selectors import on_references
from sot_pipeline.selectors.on_references import centroid, logistic_regression, nearest_neighbours

SELECTORS = [logistic_regression, nearest_neighbours, centroid]


def near(direction, count, seed):
    rng = np.random.default_rng(seed)
    return (direction + 0.15 * rng.normal(size=(count, len(direction)))).astype(np.float32)


SAFE, HARMFUL = near(np.eye(8)[0], 30, 0), near(np.eye(8)[1], 40, 1)
CUSTOM = np.concatenate([near(np.eye(8)[0], 20, 2), near(np.eye(8)[1], 5, 3)])


@pytest.mark.parametrize("selector", SELECTORS)
def test_rows_like_the_safe_reference_weigh_more_than_rows_like_the_harmful_one(selector):
    log_weights = selector(CUSTOM, SAFE, HARMFUL)
    assert log_weights.dtype == np.float64
    assert log_weights[:20].min() > log_weights[20:].max()


@pytest.mark.parametrize("selector", SELECTORS)
@given(seed=st.integers(0, 100))
def test_only_directions_count(selector, seed):
    lengths = np.random.default_rng(seed).uniform(0.1, 10, size=(len(CUSTOM), 1))
    scaled = selector(CUSTOM * lengths.astype(np.float32), SAFE * 3, HARMFUL)
    np.testing.assert_allclose(scaled, selector(CUSTOM, SAFE, HARMFUL), atol=1e-4)


@pytest.mark.parametrize("selector", [nearest_neighbours, centroid])
def test_with_the_references_exchanged_the_order_turns_round(selector):
    np.testing.assert_allclose(
        selector(CUSTOM, HARMFUL, SAFE), -selector(CUSTOM, SAFE, HARMFUL), atol=1e-6
    )


def test_the_margin_is_the_difference_of_the_mean_nearest_cosines():
    custom = np.array([[1.0, 0.0]])
    safe = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    harmful = np.array([[0.0, 1.0], [0.8, 0.6]])
    [margin] = nearest_neighbours(custom, safe, harmful, num_neighbours=2)
    assert margin == pytest.approx((1.0 + 0.6) / 2 - (0.0 + 0.8) / 2)
    [whole] = nearest_neighbours(custom, safe, harmful, num_neighbours=100)
    assert whole == pytest.approx(centroid(custom, safe, harmful)[0])


def test_blocks_change_memory_not_the_result(monkeypatch):
    whole = nearest_neighbours(CUSTOM, SAFE, HARMFUL)
    monkeypatch.setattr(on_references, "_BLOCK_ENTRIES", 100)
    np.testing.assert_allclose(nearest_neighbours(CUSTOM, SAFE, HARMFUL), whole, atol=1e-6)


def test_references_of_different_size_count_alike():
    few = logistic_regression(
        np.array([[1.0, 1.0]]), np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    )
    many = np.repeat(np.array([[0.0, 1.0]]), 50, axis=0)
    skewed = logistic_regression(np.array([[1.0, 1.0]]), np.array([[1.0, 0.0]]), many)
    np.testing.assert_allclose([few[0], skewed[0]], 0.0, atol=1e-3)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize(
    ("custom", "message"),
    [
        (np.zeros((2, 8)), "custom row 0 has a vector of length 0.0"),
        (np.full((1, 8), np.nan), "length nan"),
        (np.ones((2, 7)), "safe vectors have shape"),
        (np.ones((0, 8)), r"custom vectors have shape \(0, 8\)"),
        (np.ones(8), "custom vectors have shape"),
    ],
)
def test_vectors_without_a_direction_are_refused(selector, custom, message):
    with pytest.raises(InputError, match=message):
        selector(custom, SAFE, HARMFUL)


def test_no_neighbour_is_no_score():
    with pytest.raises(InputError, match="num_neighbours is 0"):
        nearest_neighbours(CUSTOM, SAFE, HARMFUL, num_neighbours=0)
