"""The map of neighbourhoods keeps neighbours together, repeats to the last bit, and places any set."""

import itertools

import numpy as np
import pytest

from sot_pipeline.report.embedding_map import embedding_map
from sot_pipeline.report.neighbourhoods import _fitted_rows, neighbourhoods


def clusters(num_rows: int, *, seed: int = 0, num_clusters: int = 5, dimension: int = 30):
    """Rows around a few centres that all sets share, and the cluster of each row."""
    centres = 6 * np.random.default_rng(99).normal(size=(num_clusters, dimension))
    rng = np.random.default_rng(seed)
    member = rng.integers(num_clusters, size=num_rows)
    return centres[member] + rng.normal(size=(num_rows, dimension)), member


def nearest_share(xy: np.ndarray, member: np.ndarray) -> float:
    """Share of points whose nearest other point is of the same cluster."""
    apart = ((xy[:, None] - xy[None]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    return float(np.mean(member[apart.argmin(axis=1)] == member))


def three_sets(*sizes: int):
    made = [clusters(size, seed=seed) for seed, size in enumerate(sizes)]
    return [rows for rows, _ in made], np.concatenate([member for _, member in made])


@pytest.mark.parametrize("max_fitted_rows", [1_000, 120])
def test_rows_of_a_group_lie_together_whether_they_shaped_the_map_or_were_placed(max_fitted_rows):
    sets, member = three_sets(200, 60, 60)
    found = neighbourhoods(*sets, max_fitted_rows=max_fitted_rows)
    assert found.num_fitted == min(320, max_fitted_rows)
    assert nearest_share(np.concatenate(found.points), member) > 0.97


def test_the_same_sets_give_the_same_map_to_the_last_bit():
    sets, _ = three_sets(80, 30, 30)
    once, again = (neighbourhoods(*sets, max_fitted_rows=90).points for _ in range(2))
    for one, other in zip(once, again, strict=True):
        assert np.array_equal(one, other)


def test_the_length_of_the_vectors_does_not_matter():
    sets, _ = three_sets(60, 30, 30)
    once, again = (neighbourhoods(*(scale * s for s in sets)).points for scale in (1.0, 8.0))
    np.testing.assert_allclose(once.custom, again.custom, rtol=1e-6)


def test_angles_are_taken_from_the_centre():
    rows, member = clusters(120, num_clusters=2)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    far_away = np.zeros(rows.shape[1])
    far_away[0] = 500.0
    shifted = rows + far_away  # seen from the origin all of them point the same way
    centre = (shifted / np.linalg.norm(shifted, axis=1, keepdims=True)).mean(axis=0)
    found = neighbourhoods(shifted, shifted[:20], shifted[:20], center=centre)
    assert nearest_share(found.points.custom, member) > 0.95


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ([10_000, 5_000, 5_000], [1_500, 750, 750]),
        ([100, 5_000, 50], [100, 2_850, 50]),  # what small sets leave goes to the others
        ([10_000, 20, 30], [2_950, 20, 30]),
        ([5, 6, 7], [5, 6, 7]),
    ],
)
def test_every_set_shapes_the_map(sizes, counts):
    rows = _fitted_rows(sizes, 3_000)
    ends = np.cumsum([0, *sizes])
    assert [int(((rows >= a) & (rows < b)).sum()) for a, b in itertools.pairwise(ends)] == counts
    assert len(np.unique(rows)) == len(rows)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (9, 1, 1), (13, 1, 1), (40, 2, 2)])
def test_small_sets_make_a_map_too(sizes):
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(size, 4)) for size in sizes]
    found = neighbourhoods(*sets)
    assert [xy.shape for xy in found.points] == [(size, 2) for size in sizes]
    assert all(np.isfinite(xy).all() for xy in found.points)
    if sum(sizes) < 12:
        assert np.array_equal(found.points.custom, embedding_map(*sets).custom)


def test_equal_rows_and_zero_vectors_make_a_map_too():
    rows = np.repeat([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], 20, axis=0)
    found = neighbourhoods(rows, rows[:10], rows[-10:], max_fitted_rows=30)
    assert all(np.isfinite(xy).all() for xy in found.points)
