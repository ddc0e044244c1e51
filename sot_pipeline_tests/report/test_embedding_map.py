"""The map's axes mean what they say, and are the same every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sot_pipeline.report.embedding_map import embedding_map


def three_sets(seed: int, dimension: int = 6):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, dimension)) + s for n, s in ((30, 0.0), (20, 0.7), (10, -0.5))]


def test_in_the_plane_of_the_centroids_the_answer_is_known():
    safe = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    harmful = np.array([[0.0, 1.0, 0.0]])
    custom = np.array([[0.0, 0.0, 2.0], [0.0, 0.0, -1.0]])
    found = embedding_map(custom, safe, harmful)
    half = np.sqrt(2) / 2
    np.testing.assert_allclose(found.safe[:, 0], -half)
    np.testing.assert_allclose(found.harmful[:, 0], half)
    np.testing.assert_allclose(found.custom[:, 0], 0, atol=1e-12)
    np.testing.assert_allclose(found.custom[:, 1], [1, -1], atol=1e-6)  # scaled to length 1


@given(st.integers(0, 10_000))
@settings(deadline=None)
def test_the_centroids_lie_opposite_each_other_on_the_horizontal_axis(seed):
    found = embedding_map(*three_sets(seed))
    safe, harmful = found.safe.mean(axis=0), found.harmful.mean(axis=0)
    assert harmful[0] > 0
    np.testing.assert_allclose(safe, -harmful, atol=1e-9)
    np.testing.assert_allclose(harmful[1], 0, atol=1e-9)


@given(st.integers(0, 10_000), st.floats(0.1, 50))
@settings(deadline=None, max_examples=30)
def test_neither_rotation_nor_the_length_of_the_vectors_matters(seed, length):
    sets = three_sets(seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    plain, turned = embedding_map(*sets), embedding_map(*(length * s @ rotation for s in sets))
    for one, other in zip(plain, turned, strict=True):
        np.testing.assert_allclose(one[:, 0], other[:, 0], atol=1e-9)
        # power iteration stops near the axis where two directions vary almost alike
        np.testing.assert_allclose(np.abs(one[:, 1]), np.abs(other[:, 1]), atol=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_the_vertical_axis_is_the_main_direction_of_the_rest(seed):
    sets = [s * [1, 1, 1, 2, 1, 1] for s in three_sets(seed)]
    sets = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in sets]
    x = sets[2].mean(axis=0) - sets[1].mean(axis=0)
    x /= np.linalg.norm(x)
    pooled = np.concatenate(sets)
    pooled -= pooled.mean(axis=0)
    _, values, directions = np.linalg.svd(pooled - np.outer(pooled @ x, x))
    assert values[0] > 1.05 * values[1]  # else the direction is not determined
    found = np.concatenate(embedding_map(*sets))[:, 1]
    expected = np.concatenate(sets) @ directions[0]
    correlation = np.corrcoef(found, expected)[0, 1]
    assert abs(correlation) > 0.9999


def test_the_same_sets_give_the_same_map():
    for one, other in zip(
        embedding_map(*three_sets(3)), embedding_map(*three_sets(3)), strict=True
    ):
        assert np.array_equal(one, other)


def test_equal_centroids_and_zero_vectors_make_a_map_too():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    found = embedding_map(rows, rows, rows)
    assert all(np.isfinite(xy).all() for xy in found)
    assert np.ptp(found.custom[:, 0]) > 1  # the main direction takes the horizontal axis
