"""Row copies in proportion to weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sot_pipeline.errors import InputError
from sot_pipeline.publishing.resampling import resampled_counts

weights = arrays(np.float64, st.integers(1, 40), elements=st.floats(0.001, 1000, allow_nan=False))
factors = st.floats(0.1, 8)


@given(weights=weights, factor=factors, seed=st.integers(0, 100))
def test_every_row_is_copied_floor_or_ceil_of_its_expected_times(weights, factor, seed):
    counts = resampled_counts(weights, factor=factor, seed=seed)
    total = max(1, round(len(weights) * factor))
    expected = total * weights / weights.sum()
    assert counts.sum() == total
    assert (counts >= np.floor(expected - 1e-6)).all()
    assert (counts <= np.ceil(expected + 1e-6)).all()


@given(
    n=st.integers(1, 200), weight=st.floats(1e-300, 1e300), factor=st.integers(1, 5),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_equal_weights_give_every_row_as_often_as_the_factor_says(n, weight, factor, seed):
    counts = resampled_counts(np.full(n, weight), factor=factor, seed=seed)
    np.testing.assert_array_equal(counts, factor)


@given(weights=weights, factor=factors, seed=st.integers(0, 100))
def test_the_same_seed_gives_the_same_copies(weights, factor, seed):
    first, second = (resampled_counts(weights, factor=factor, seed=seed) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@given(weights=weights, factor=factors, scale=st.floats(1e-3, 1e3))
def test_the_scale_of_the_weights_means_nothing(weights, factor, scale):
    expected = max(1, round(len(weights) * factor)) * weights / weights.sum()
    if np.abs(expected - np.round(expected)).min() > 1e-6:  # else rounding may tip a row
        np.testing.assert_array_equal(
            resampled_counts(weights * scale, factor=factor),
            resampled_counts(weights, factor=factor),
        )


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_on_average_over_seeds_the_copies_are_proportional_to_the_weights(factor):
    # a copy more or less is a coin toss: over 4,000 seeds its mean is within 5 standard errors
    weights = np.array([0.2, 5.0, 1.0, 0.7, 0.31, 2.2, 0.2, 0.0])
    counts = np.mean(
        [resampled_counts(weights, factor=factor, seed=seed) for seed in range(4000)], axis=0
    )
    expected = round(len(weights) * factor) * weights / weights.sum()
    np.testing.assert_allclose(counts, expected, atol=5 * 0.5 / np.sqrt(4000))


def test_neighbouring_rows_do_not_exclude_each_other():
    # on a grid laid over rows in their order, two rows of chance 1/2 side by side never both stay
    weights = np.ones(8)
    both = [
        (resampled_counts(weights, factor=0.5, seed=seed)[:2] == 1).all() for seed in range(400)
    ]
    assert 0.1 < np.mean(both) < 0.35  # 3/14 if every half of the rows is equally likely


def test_a_row_without_weight_is_never_there():
    counts = resampled_counts(np.array([0.0, 1.0, 1.0]), factor=10)
    np.testing.assert_array_equal(counts, [0, 15, 15])


@pytest.mark.parametrize(
    ("weights", "factor", "message"),
    [
        ([], 1, "one number per row"),
        ([1.0, -1.0], 1, "finite, >= 0"),
        ([1.0, np.nan], 1, "finite, >= 0"),
        ([0.0, 0.0], 1, "not all 0"),
        ([1.0], 0, "factor is 0"),
        ([1.0], np.inf, "factor is inf"),
    ],
)
def test_what_cannot_be_resampled_is_refused(weights, factor, message):
    with pytest.raises(InputError, match=message):
        resampled_counts(np.array(weights), factor=factor)
