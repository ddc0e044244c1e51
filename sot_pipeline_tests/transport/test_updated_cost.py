"""Costs of changed sets: what is known is kept, what is new is computed, the answer is the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.transport.cost import (
    KnownCosts,
    center_drift,
    cosine_cost,
    pooled_mean,
    updated_cost,
)

POOL = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
CENTER = np.array([0.1, 0, 0, 0, 0.2], dtype=np.float32)
ROWS = st.lists(st.integers(0, 11), min_size=1, max_size=9)  # rows of the pool, also twice


def known_costs(x: np.ndarray, y: np.ndarray, center: np.ndarray | None = CENTER) -> KnownCosts:
    return KnownCosts(x, y, cosine_cost(x, y, center=center), center)


@given(old_x=ROWS, old_y=ROWS, x=ROWS, y=ROWS)
def test_whatever_came_went_or_moved_the_costs_are_those_of_the_sets(old_x, old_y, x, y):
    known = known_costs(POOL[old_x], POOL[old_y])
    cost, num_computed = updated_cost(POOL[x], POOL[y], center=CENTER, known=known)
    np.testing.assert_allclose(cost, cosine_cost(POOL[x], POOL[y], center=CENTER), atol=1e-6)
    new_x, new_y = (sum(row not in old for row in rows) for rows, old in ((x, old_x), (y, old_y)))
    assert num_computed == len(x) * new_y + new_x * (len(y) - new_y)


@given(x=ROWS, y=ROWS)
def test_known_entries_are_taken_over_and_not_computed_again(x, y):
    known = known_costs(POOL[:6], POOL[:6])
    marked = known._replace(cost=np.full_like(known.cost, 7.0))
    cost, _ = updated_cost(POOL[x], POOL[y], center=CENTER, known=marked)
    was_known = np.outer(np.array(x) < 6, np.array(y) < 6)
    assert (cost[was_known] == 7).all()
    assert (cost[~was_known] <= 2).all()


def test_one_reference_row_replaced_costs_one_column():
    y = POOL[3:9].copy()
    known = known_costs(POOL, y.copy())
    y[2] = [1, 2, 3, 4, 5]
    assert updated_cost(POOL, y, center=CENTER, known=known)[1] == len(POOL)


@pytest.mark.parametrize("center", [None, CENTER + 1e-6])
def test_seen_from_elsewhere_every_cost_is_another(center):
    known = known_costs(POOL, POOL)
    cost, num_computed = updated_cost(POOL, POOL, center=center, known=known)
    assert num_computed == POOL.size // 5 * 12
    np.testing.assert_array_equal(cost, cosine_cost(POOL, POOL, center=center))


def test_vectors_of_another_model_are_not_mistaken_for_known_ones():
    other = np.random.default_rng(1).normal(size=(12, 7)).astype(np.float32)
    known = known_costs(other, other, center=None)
    assert updated_cost(POOL, POOL, known=known)[1] == 144
    with pytest.raises(InputError, match="different models"):
        updated_cost(POOL, other, known=known)


def test_the_drift_of_a_centre_is_in_units_of_the_rows_distance_from_it():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert center_drift(rows, np.zeros(2)) == pytest.approx(0, abs=1e-9)
    assert center_drift(rows, np.array([0.1, 0.0])) == pytest.approx(0.1 / np.sqrt(1.01))
    assert center_drift(rows, pooled_mean(rows)) == pytest.approx(0, abs=1e-6)
    assert center_drift(rows[:1], rows[0]) == 0
