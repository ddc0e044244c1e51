"""The rows and the arithmetic of `bench_cost_against_size.py`."""

import numpy as np
import pytest

from sot_pipeline_tests.benchmarks.bench_cost_against_size import (
    PURIFYING,
    Watch,
    cpu_seconds,
    estimates,
    jittered,
    purification,
    repeated,
)


def test_rows_repeat_only_once_all_have_been_taken():
    rows = repeated(7, 21)
    for start in (0, 7, 14):
        assert sorted(rows[start : start + 7]) == list(range(7))


def test_no_two_jittered_vectors_are_equal_and_none_has_moved_far():
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    made = jittered(vectors, 220)
    assert made.shape == (220, 8)
    assert len(np.unique(made, axis=0)) == 220
    original = vectors[repeated(50, 220)]
    moved = np.linalg.norm(made - original, axis=1) / np.linalg.norm(original, axis=1)
    np.testing.assert_allclose(moved[:50], 0)
    np.testing.assert_allclose(moved[50:], 0.01, rtol=1e-3)


def test_a_watch_sees_the_memory_that_a_block_takes_for_a_while():
    with Watch() as watch:
        block = np.ones(25_000_000)
        del block
    assert watch.result["megabytes"] == pytest.approx(200, rel=0.2)
    assert watch.result["seconds"] > 0


def test_purification_is_its_parts_and_the_embedding_of_every_row():
    results = {(part, 10): {"seconds": 9.0, "cpu_seconds": 1.0} for part in PURIFYING}
    results["embedding minilm", 4] = {"seconds": 8.0, "cpu_seconds": 2.0, "rows": 4}
    assert purification(results, "minilm", 10) == pytest.approx(3 + 10 * 0.5)


def test_the_time_of_a_training_is_that_of_its_steps():
    result = {"seconds": 10.0, "cpu_seconds": 8.0, "steps": 5.0}
    assert cpu_seconds(result) == 4.0


def test_more_rows_are_estimated_to_take_longer(shared_data):
    few, many = (estimates(n, "h100") for n in (1_000, 10_000))
    for name in ("training", "purification"):
        assert few[name][0] < few[name][1]
        assert many[name][0] > few[name][0]
    assert many["training"][0] > 5 * few["training"][0]
