"""Which rows stand for many."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.references import representatives as module
from sot_pipeline.references.representatives import representatives, suspicion


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def groups(*sizes: int, spread: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Directions around one axis per group, and the group of each; in random order."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return unit(np.eye(8)[group] + spread * rng.normal(size=(len(group), 8))), group


def benefit(directions: np.ndarray, rows: tuple[int, ...], reach: float) -> float:
    closeness = np.maximum(0, 1 - (1 - directions @ directions[list(rows)].T) / reach)
    return float(closeness.max(axis=1).sum())


def test_one_row_of_each_group_the_largest_group_first():
    directions, group = groups(10, 30, 20)
    chosen = representatives(directions, 3, reach=0.5, weights=np.ones(60))
    assert group[chosen.rows].tolist() == [1, 2, 0]
    assert chosen.cluster_sizes.tolist() == [30, 20, 10]
    assert chosen.num_within_reach.tolist() == [30, 20, 10]
    assert chosen.num_covered == 60


def test_fewer_rows_than_groups_leave_the_smallest_group_uncovered():
    directions, _ = groups(10, 30, 20)
    chosen = representatives(directions, 2, reach=0.5, weights=np.ones(60))
    assert chosen.num_covered == 50


def test_overlapping_rows_are_counted_once_in_the_clusters():
    # the row between two others is within reach of both
    directions = unit(np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]]))
    chosen = representatives(directions, 3, reach=0.4, weights=np.array([1, 0, 1]))
    assert sorted(chosen.rows) == [0, 2]
    assert chosen.num_within_reach.tolist() == [2, 2]
    assert sorted(chosen.cluster_sizes) == [1, 2]
    assert chosen.num_covered == 3


@given(seed=st.integers(0, 10_000), count=st.integers(1, 4))
def test_the_greedy_choice_is_within_63_per_cent_of_the_best(seed, count):
    directions = unit(np.random.default_rng(seed).normal(size=(9, 3)))
    chosen = representatives(directions, count, reach=0.6, weights=np.ones(9))
    best = max(benefit(directions, rows, 0.6) for rows in combinations(range(9), count))
    assert benefit(directions, tuple(chosen.rows), 0.6) >= (1 - 1 / np.e) * best - 1e-4


@given(seed=st.integers(0, 10_000))
def test_every_row_is_the_one_that_adds_most(seed):
    """The lazy bounds change nothing."""
    rng = np.random.default_rng(seed)
    directions, weights = unit(rng.normal(size=(20, 3))), rng.uniform(size=20)
    closeness = np.maximum(0, 1 - (1 - directions @ directions.T) / 0.5)
    covered = np.zeros(20)
    allowed = np.ones(20, dtype=bool)
    for row in representatives(directions, 5, reach=0.5, weights=weights).rows:
        gains = weights * (np.maximum(closeness - covered, 0) @ weights)
        assert gains[row] >= gains[allowed].max() - 1e-4
        covered = np.maximum(covered, closeness[row])
        allowed &= closeness[row] < module.NEAR_DUPLICATE


def test_near_duplicates_are_shown_once():
    one, other = np.eye(4)[:2]
    directions = unit(np.array([one, one, one + 0.01 * other, other, other]))
    chosen = representatives(directions, 5, reach=0.5, weights=np.ones(5))
    assert len(chosen.rows) == 2
    assert chosen.cluster_sizes.tolist() == [3, 2]


def test_a_light_row_is_not_shown_for_the_company_it_keeps():
    directions, group = groups(30, 20)
    suspect = group == 1
    chosen = representatives(directions, 1, reach=0.5, weights=np.where(suspect, 1.0, 0.1))
    assert suspect[chosen.rows].all()
    assert representatives(directions, 5, reach=0.5, weights=np.zeros(50)).rows.size == 0


def test_more_rows_than_are_held_at_once_are_drawn(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 40)
    directions, group = groups(60, 40)
    chosen = representatives(directions, 2, reach=0.5, weights=np.ones(100), seed=1)
    assert sorted(group[chosen.rows]) == [0, 1]
    assert chosen.num_covered == 40
    again = representatives(directions, 2, reach=0.5, weights=np.ones(100), seed=1)
    assert again.rows.tolist() == chosen.rows.tolist()


def test_suspicion_is_the_share_of_own_rows_that_weigh_more():
    own = np.array([-4.0, -1.0, -2.0, -3.0])
    assert suspicion(np.array([-5.0, -3.0, -2.5, 0.0]), own).tolist() == [1.0, 0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    "wrong",
    [{"reach": 0.0}, {"count": 0}, {"weights": np.ones(2)}, {"weights": np.array([1, -1, 1])}],
)
def test_settings_out_of_range_are_refused(wrong):
    given_ = {"count": 1, "reach": 0.5, "weights": np.ones(3)} | wrong
    with pytest.raises(InputError, match="expected"):
        representatives(np.eye(3), given_.pop("count"), **given_)
