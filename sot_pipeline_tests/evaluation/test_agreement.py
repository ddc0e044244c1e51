"""Agreement between raters: published examples, other libraries' answers, laws."""

import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from sot_pipeline.evaluation.agreement import (
    ac1,
    accuracy,
    alpha,
    estimate,
    kappa,
    spearman,
    value_of,
)

NAN = float("nan")
quadratic = partial(kappa, weights="quadratic")
ordinal = partial(alpha, level="ordinal")
OF_TWO = {"accuracy": accuracy, "kappa": kappa, "quadratic kappa": quadratic, "alpha": alpha,
          "ordinal alpha": ordinal, "AC1": ac1, "Spearman": spearman}  # fmt: skip

# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", section C: four observers
# and twelve units, some of them not rated by all
FOUR_CODERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T


def table(*cells: tuple[float, float, int]) -> np.ndarray:
    """Rows of two raters from the cells of their table: (first, second, how often)."""
    return np.concatenate([np.tile([[a, b]], (count, 1)) for a, b, count in cells]).astype(float)


# Gwet (2008), the table of 125 subjects where nearly all are positive for both raters
PARADOX = table((1, 1, 118), (1, 0, 5), (0, 1, 2), (0, 0, 0))


def test_alpha_of_krippendorffs_four_coders():
    assert value_of(alpha, FOUR_CODERS) == pytest.approx(0.743, abs=5e-4)
    assert value_of(ordinal, FOUR_CODERS) == pytest.approx(0.815, abs=5e-4)


def test_alpha_of_krippendorffs_two_observers_of_twelve_articles():
    # Krippendorff (2011), section A: nominal, two observers, binary
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert value_of(alpha, np.array([first, second]).T) == pytest.approx(0.095, abs=5e-4)


def test_ac1_of_the_same_four_coders_is_what_gwets_package_gives():
    # irrCAC, gwet.ac1.raw(cac.raw4raters): coefficient 0.77544, the same twelve units
    assert value_of(ac1, FOUR_CODERS) == pytest.approx(0.77544, abs=5e-6)


def test_the_kappa_paradox():
    # Gwet (2008): raters who agree on 94 % of the subjects, kappa below chance, AC1 .9408
    assert value_of(accuracy, PARADOX) == pytest.approx(0.944)
    assert value_of(kappa, PARADOX) == pytest.approx(-0.0234, abs=5e-5)
    assert value_of(ac1, PARADOX) == pytest.approx(0.9408, abs=5e-5)


def test_kappa_of_cohens_textbook_table():
    # 50 applications and two readers: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no; kappa .4
    ratings = table((1, 1, 20), (1, 0, 5), (0, 1, 10), (0, 0, 15))
    assert value_of(kappa, ratings) == pytest.approx(0.4)


grades = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=60)


@given(rows=grades)
def test_kappa_is_scikit_learns(rows):
    first, second = np.array(rows).T
    if len({*first, *second}) < 2:
        return
    labels = sorted({*first.tolist(), *second.tolist()})
    for measure, weights in ((kappa, None), (quadratic, "quadratic")):
        expected = cohen_kappa_score(first, second, labels=labels, weights=weights)
        assert value_of(measure, np.array(rows, float)) == pytest.approx(expected, abs=1e-12)


def test_quadratic_kappa_counts_steps_on_the_whole_scale():
    rows = np.array([[1, 1], [1, 5], [5, 5], [2, 1], [5, 2]], float)  # nobody gave 3 or 4
    expected = cohen_kappa_score(*rows.T, labels=[1, 2, 3, 4, 5], weights="quadratic")
    assert value_of(quadratic, rows, values=[1, 2, 3, 4, 5]) == pytest.approx(expected)
    assert value_of(quadratic, rows) != pytest.approx(expected)


numbers = st.floats(-3, 3).map(lambda number: round(number, 1))


@given(rows=st.lists(st.tuples(numbers, numbers), min_size=3, max_size=60))
def test_spearman_is_scipys(rows):
    first, second = np.array(rows).T
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert np.isnan(value_of(spearman, np.array(rows)))
        return
    expected = spearmanr(first, second).statistic
    assert value_of(spearman, np.array(rows)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", OF_TWO)
@given(rows=grades, order=st.randoms(use_true_random=False))
def test_neither_the_order_of_raters_nor_of_rows_matters(name, rows, order):
    ratings = np.array(rows, float)
    value = value_of(OF_TWO[name], ratings)
    shuffled = list(rows)
    order.shuffle(shuffled)
    others = (ratings[:, ::-1], np.array(shuffled, float))
    for other in others:
        np.testing.assert_allclose(value_of(OF_TWO[name], other), value, atol=1e-12)


@pytest.mark.parametrize("name", OF_TWO)
@given(column=st.lists(st.integers(1, 5), min_size=2, max_size=40).filter(lambda c: len({*c}) > 1))
def test_perfect_agreement_is_one(name, column):
    ratings = np.array([column, column], float).T
    assert value_of(OF_TWO[name], ratings) == pytest.approx(1)
    found = estimate(OF_TWO[name], ratings, num_resamples=100)
    assert found == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("measure", [accuracy, kappa, alpha, ac1])
@given(rows=grades, names=st.permutations(range(1, 6)))
def test_nominal_measures_do_not_care_how_the_categories_are_called(measure, rows, names):
    ratings = np.array(rows)
    renamed = np.array(names, float)[ratings - 1]
    np.testing.assert_allclose(
        value_of(measure, renamed), value_of(measure, ratings.astype(float)), atol=1e-12
    )


@pytest.mark.parametrize("measure", [quadratic, ordinal, spearman])
@given(rows=grades)
def test_ordinal_measures_survive_turning_the_scale_round(measure, rows):
    ratings = np.array(rows, float)
    np.testing.assert_allclose(
        value_of(measure, 6 - ratings), value_of(measure, ratings), atol=1e-9
    )


@pytest.mark.parametrize("name", OF_TWO)
@given(rows=grades)
def test_a_row_without_ratings_changes_nothing(name, rows):
    ratings = np.array(rows, float)
    more = np.concatenate([ratings, [[NAN, NAN]]])
    np.testing.assert_allclose(value_of(OF_TWO[name], more), value_of(OF_TWO[name], ratings))


@pytest.mark.parametrize("measure", [accuracy, kappa, alpha, spearman])
def test_a_row_that_one_of_two_raters_left_out_changes_nothing(measure):
    ratings = np.array([[1, 1], [2, 2], [1, 2], [2, 2]], float)
    more = np.concatenate([ratings, [[1, NAN], [NAN, 2]]])
    assert value_of(measure, more) == pytest.approx(value_of(measure, ratings))


def test_chance_agreement_is_about_nothing():
    ratings = np.random.default_rng(0).integers(0, 3, size=(20_000, 2)).astype(float)
    for measure in (kappa, quadratic, alpha, ordinal, ac1, spearman):
        assert value_of(measure, ratings) == pytest.approx(0, abs=0.03)


def test_where_nobody_varies_kappa_and_alpha_are_undefined_and_ac1_is_one():
    ratings = np.ones((20, 2))
    for measure in (kappa, alpha, spearman):
        assert np.isnan(estimate(measure, ratings)).all()
    assert value_of(ac1, ratings) == value_of(accuracy, ratings) == 1


def test_no_row_that_both_rated_is_undefined_and_no_error():
    for ratings in (np.array([[1, NAN], [NAN, 2]]), np.empty((0, 2))):
        for measure in OF_TWO.values():
            assert np.isnan(estimate(measure, ratings)).all()


def test_the_interval_covers_what_the_population_gives_about_as_often_as_it_says():
    # Samples of 100 rows from a table whose kappa is .6; 95 of 100 intervals should hold it.
    cells = [(1, 1, 0.4), (1, 0, 0.1), (0, 1, 0.1), (0, 0, 0.4)]
    rng, inside = np.random.default_rng(1), 0
    for seed in range(200):
        drawn = rng.multinomial(100, [share for *_, share in cells])
        sample = table(*((a, b, n) for (a, b, _), n in zip(cells, drawn, strict=True)))
        found = estimate(kappa, sample, num_resamples=400, seed=seed)
        inside += found.low <= 0.6 <= found.high
    assert 0.90 <= inside / 200 <= 0.985


def test_the_interval_depends_on_rows_and_seed_alone():
    ratings = np.random.default_rng(0).integers(1, 4, size=(50, 2)).astype(float)
    first = estimate(kappa, ratings, seed=3)
    assert estimate(kappa, ratings[::-1], seed=3) == first
    assert estimate(kappa, ratings, seed=4) != first
    assert first.low < first.value < first.high


def test_thousands_of_resamples_of_thousands_of_rows_take_about_a_second():
    ratings = np.random.default_rng(0).random((5_000, 2))  # no two rows alike
    start = time.perf_counter()
    estimate(spearman, ratings, num_resamples=2_000)
    assert time.perf_counter() - start < 10, "about a second on an idle machine"


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="3 raters: this measure compares two"):
        value_of(kappa, np.ones((4, 3)))
    with pytest.raises(ValueError, match="distinct values: expected at most"):
        value_of(alpha, np.random.default_rng(0).random((100, 2)))
    with pytest.raises(ValueError, match=r"7\.0 is a rating, expected one of"):
        value_of(kappa, np.array([[1.0, 7.0]]), values=[1, 2])
