"""The side that is blamed is one that decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sot_pipeline.explanations.counterfactuals import best
from sot_pipeline.explanations.second_opinions import disagreeing_methods
from sot_pipeline.explanations.sides import speaking_sides

PARTS = st.integers(1, 30).flatmap(
    # few distinct values: ties are the hard case
    lambda n: arrays(np.float64, (2, n), elements=st.integers(-6, 6).map(float))
)


@given(PARTS, st.integers(0, 30))
def test_no_side_is_blamed_whose_own_order_puts_the_row_on_the_other_side(parts, count):
    safe, harmful = parts
    count = min(count, len(safe))
    kept = best(safe + harmful, count)
    sides = speaking_sides(safe, harmful, kept)
    others = disagreeing_methods({"safe": safe, "harmful": harmful}, kept, count)
    for name, disagreeing in zip(sides.names, others, strict=True):
        assert name not in disagreeing


@given(PARTS, st.integers(0, 30))
def test_the_number_of_rows_passed_is_that_of_the_side_and_the_larger_of_both(parts, count):
    kept = best(parts.sum(axis=0), min(count, parts.shape[1]))
    sides = speaking_sides(*parts, kept)
    by_name = dict(zip(("safe", "harmful"), parts, strict=True))
    for row, (name, passed) in enumerate(zip(sides.names, sides.num_passed, strict=True)):
        if name not in by_name:
            assert passed == 0
            continue
        part = by_name[name]
        assert passed == np.sum(part < part[row] if kept[row] else part > part[row]) > 0


def test_a_skewed_part_does_not_take_the_blame_of_the_other():
    # the last row is far from most on the safe side; on the harmful side, whose mean one row
    # pulls down, it is below the mean and yet among the better ones
    safe = np.array([0.4, 0.3, 0.2, 0.1, -0.5])
    harmful = np.array([0.5, 0.4, 0.3, -2.0, 0.35])
    kept = np.array([True, True, True, False, False])
    sides = speaking_sides(safe, harmful, kept)
    assert sides.names[3:] == ["harmful", "safe"]
    assert sides.num_passed[3:].tolist() == [4, 4]


def test_where_only_the_sum_decides_both_sides_do():
    safe, harmful = np.array([9.0, 8.0, 0.0, 7.0]), np.array([0.0, 7.0, 9.0, 8.0])
    kept = best(safe + harmful, 1)
    assert kept.tolist() == [False, True, False, False]  # the first of two equal sums
    assert speaking_sides(safe, harmful, kept).names[1] == "both"


@pytest.mark.parametrize("count", [0, 3])
def test_parts_that_are_the_same_for_all_rows_have_no_say(count):
    varied, none = np.array([3.0, 2.0, 1.0]), np.zeros(3)
    kept = best(varied, count)
    assert set(speaking_sides(none, varied, kept).names) <= {"harmful", "neither"}
    assert speaking_sides(none, none, kept).names == ["both"] * 3
