"""SAFT on states whose directions are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA, TruncatedSVD

from sot_pipeline.errors import InputError
from sot_pipeline.selectors.saft import main_directions, saft

LABELS = np.arange(40) < 12


def states(harmful_spread, harmless_spread, *, width=12, seed=0):
    """Custom [100, width], 10 of them harmful, and validation [40, width]: spread along axis 0."""
    rng = np.random.default_rng(seed)

    def rows(is_harmful):
        x = 0.1 * rng.normal(size=(len(is_harmful), width))
        sides = rng.choice([-1.0, 1.0], size=len(is_harmful))
        x[:, 0] += sides * np.where(is_harmful, harmful_spread, harmless_spread)
        return (x + 5.0).astype(np.float32)

    return rows(np.arange(100) < 10), rows(LABELS)


def noise(seed, count):
    return np.random.default_rng(seed).normal(size=(count, 12)).astype(np.float32)


@pytest.mark.parametrize("shape", [(80, 12), (9, 40)])
def test_the_directions_are_those_of_scikit_learn(shape):
    x = np.random.default_rng(0).normal(size=shape) * np.geomspace(1, 20, shape[1]) + 3.0
    ours = main_directions(x, 5)
    np.testing.assert_allclose(ours @ ours.T, np.eye(5), atol=1e-8)
    pca = PCA(5, svd_solver="full").fit(x).components_
    truncated = TruncatedSVD(5, algorithm="arpack").fit(x - x.mean(0)).components_
    for theirs in (pca, truncated):
        np.testing.assert_allclose(ours.T @ ours, theirs.T @ theirs, atol=1e-7)


def test_the_score_is_the_mean_of_squared_projections():
    """Squares of means would be zero for a row with opposite projections."""
    custom, validation = states(3.0, 0.5)
    fit = saft(custom[None], validation[None], LABELS, max_directions=3)
    centred = custom - custom.mean(axis=0)
    directions = PCA(3, svd_solver="full").fit(custom).components_[: fit.num_directions]
    expected = np.mean((centred @ directions.T) ** 2, axis=1)
    np.testing.assert_allclose(-fit.log_weights, expected, rtol=1e-4)


def test_rows_far_out_are_harmful_where_the_labels_say_so():
    custom, validation = states(3.0, 0.5)
    fit = saft(custom[None], validation[None], LABELS)
    assert fit.sign == 1
    assert fit.num_directions == 1
    assert fit.validation_auroc == 1.0
    assert fit.log_weights[:10].max() < fit.log_weights[10:].min()
    assert fit.log_weights.dtype == np.float64


def test_the_side_is_not_given_by_the_states_but_by_the_labels():
    """With harmful rows near the mean, "far out is harmful" would keep all of them."""
    custom, validation = states(0.2, 3.0)
    fit = saft(custom[None], validation[None], LABELS)
    assert fit.sign == -1
    assert fit.validation_auroc == 1.0
    assert fit.log_weights[:10].max() < fit.log_weights[10:].min()


def test_the_layer_that_tells_the_labels_apart_is_chosen():
    custom, validation = states(3.0, 0.5)
    fit = saft(
        np.stack([noise(1, 100), custom, noise(2, 100)]),
        np.stack([noise(3, 40), validation, noise(4, 40)]),
        LABELS,
    )
    assert fit.layer == 1
    single = saft(custom[None], validation[None], LABELS)
    np.testing.assert_array_equal(fit.log_weights, single.log_weights)


def test_of_equal_layers_the_first_is_taken():
    custom, validation = states(3.0, 0.5)
    fit = saft(np.stack([custom] * 3), np.stack([validation] * 3), LABELS)
    assert fit.layer == 0


def test_a_layer_without_any_direction_is_passed_over():
    """As layer 0 is where every row ends with the same token."""
    custom, validation = states(3.0, 0.5)
    alike = [np.full_like(x, 0.1) for x in (custom, validation)]
    fit = saft(np.stack([alike[0], custom]), np.stack([alike[1], validation]), LABELS)
    assert fit.layer == 1


@given(seed=st.integers(0, 50), shift=st.floats(-100, 100))
def test_a_shift_of_all_states_changes_nothing(seed, shift):
    custom, validation = (x.astype(np.float64) for x in states(3.0, 0.5, seed=seed))
    plain = saft(custom[None], validation[None], LABELS)
    moved = saft(custom[None] + shift, validation[None] + shift, LABELS)
    np.testing.assert_allclose(moved.log_weights, plain.log_weights, rtol=1e-5, atol=1e-8)


CUSTOM, VALIDATION = (x[None] for x in states(3.0, 0.5))


@pytest.mark.parametrize(
    ("custom", "validation", "labels", "options", "message"),
    [
        (CUSTOM[0], VALIDATION, LABELS, {}, r"expected \[layers, rows, width\]"),
        (CUSTOM, np.repeat(VALIDATION, 2, axis=0), LABELS, {}, "same layers"),
        (CUSTOM, VALIDATION[:, :, 1:], LABELS, {}, "same layers"),
        (CUSTOM, VALIDATION, LABELS[:5], {}, "40 validation rows, labels of shape"),
        (CUSTOM, VALIDATION, LABELS & False, {}, "0 of 40 validation rows are harmful"),
        (CUSTOM, VALIDATION, LABELS | True, {}, "40 of 40 validation rows are harmful"),
        (CUSTOM, VALIDATION, LABELS, {"max_directions": 0}, "max_directions is 0"),
        (CUSTOM * 0 + 1, VALIDATION, LABELS, {}, "same state in every layer"),
    ],
)
def test_states_and_labels_that_decide_nothing_are_refused(
    custom, validation, labels, options, message
):
    with pytest.raises(InputError, match=message):
        saft(custom, validation, labels, **options)
