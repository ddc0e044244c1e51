"""The cut with a stated risk: coverage by simulation, contamination on known mixtures."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from sot_pipeline.errors import InputError
from sot_pipeline.transport.calibration import (
    calibrate,
    calibrated_cut,
    estimate_contamination,
    num_held_out_needed,
    p_values,
    split_rows,
)
from sot_pipeline.transport.push_pull import learn_weights
from sot_pipeline_tests.transport.problems import clusters

cut_at_the_rate = partial(calibrated_cut, contamination=0.0)  # never stricter than stated


def mixture(rng, num_rows: int, share: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores and which rows are harmful; harmful ones are standard normal, as held-out ones."""
    is_harmful = np.arange(num_rows) < round(share * num_rows)
    return rng.normal(size=num_rows) + distance * ~is_harmful, is_harmful


# Coverage


@pytest.mark.parametrize(("m", "rate"), [(19, 0.05), (19, 0.1), (50, 0.07), (621, 0.05)])
def test_over_many_draws_the_false_keep_rate_is_the_largest_that_is_allowed(m, rate):
    rng = np.random.default_rng(0)
    kept = np.concatenate(
        [
            cut_at_the_rate(rng.normal(size=5), rng.normal(size=m), max_false_keep_rate=rate).kept
            for _ in range(4_000)
        ]
    )
    expected = np.floor(rate * (m + 1)) / (m + 1)  # exact where no two scores are equal
    assert expected <= rate
    # 5 rows of a draw share its held-out rows: the standard error of 4,000 independent ones
    assert kept.mean() == pytest.approx(expected, abs=4 * np.sqrt(rate / 4_000))


def test_given_the_split_the_rate_follows_a_beta_distribution():
    rng = np.random.default_rng(1)
    m, rate = 199, 0.05
    everywhere = np.linspace(-9, 9, 9_001)  # so that the cut is exactly at the rate
    shares = []
    for _ in range(1_000):
        cut = cut_at_the_rate(everywhere, rng.normal(size=m), max_false_keep_rate=rate)
        shares.append(stats.norm.sf(cut.threshold))
    k = 10  # held-out rows at the threshold and above
    assert stats.kstest(shares, stats.beta(k, m + 1 - k).cdf).pvalue > 0.01


@pytest.mark.parametrize("relaxation", [0.0, 0.9])
def test_the_rate_holds_with_scores_that_are_learned_from_the_rows_themselves(relaxation):
    rate, num_harmful, kept = 0.2, 8, []
    learn = partial(learn_weights, reference_relaxation=relaxation, max_steps=10)
    for seed in range(150):
        # few dimensions and much noise: harmful and harmless rows overlap
        drawn = clusters(40, num_harmful, num_reference=28, dimension=3, seed=seed)
        result = calibrate(drawn.custom, drawn.safe, drawn.harmful, seed=seed, learn=learn)
        harmful = result.custom.log_weights[drawn.is_harmful]
        kept.append(np.mean(p_values(harmful, result.held_out_harmful) <= rate))
    # 14 held out: 3 of 15 places are below the rate, so it is reached exactly
    assert np.mean(kept) == pytest.approx(rate, abs=3.5 * np.std(kept) / np.sqrt(len(kept)))


def test_a_row_scores_alike_as_custom_and_as_held_out_row():
    drawn = clusters()
    split = split_rows(len(drawn.harmful), 0.5, (0, 1))
    twins = np.concatenate([drawn.custom, drawn.harmful[split.held_out]])
    result = calibrate(twins, drawn.safe, drawn.harmful)
    np.testing.assert_array_equal(result.harmful_split.held_out, split.held_out)
    np.testing.assert_allclose(
        result.custom.log_weights[len(drawn.custom) :], result.held_out_harmful, atol=1e-4
    )
    assert np.logaddexp.reduce(result.custom.log_weights) == pytest.approx(0)


def test_the_held_out_rows_are_no_part_of_the_references():
    drawn = clusters()
    result = calibrate(drawn.custom, drawn.safe, drawn.harmful, held_out_share=0.3)
    assert len(result.held_out_harmful) == len(result.held_out_safe) == 6
    assert len(result.fit.g_push) == len(result.fit.g_pull) == 14
    for split in (result.safe_split, result.harmful_split):
        assert sorted([*split.fitted, *split.held_out]) == list(range(20))


def test_the_seed_decides_the_split_and_nothing_else_does():
    assert np.array_equal(split_rows(50, 0.5, 3).held_out, split_rows(50, 0.5, 3).held_out)
    assert not np.array_equal(split_rows(50, 0.5, 3).held_out, split_rows(50, 0.5, 4).held_out)
    drawn = clusters()
    first, second = (calibrate(drawn.custom, drawn.safe, drawn.harmful) for _ in range(2))
    np.testing.assert_array_equal(first.custom.log_weights, second.custom.log_weights)


# p-values and cut


def test_a_p_value_counts_the_harmful_rows_that_score_at_least_as_high():
    held_out = np.array([1.0, 2.0, 3.0, 4.0])
    values = p_values(np.array([0.0, 2.0, 2.5, 9.0]), held_out)
    np.testing.assert_allclose(values, [5 / 5, 4 / 5, 3 / 5, 1 / 5])


scores = arrays(np.float64, 30, elements=st.integers(-5, 5))  # many ties
held_out_scores = arrays(np.float64, 19, elements=st.integers(-5, 5))


@given(scores, held_out_scores, st.floats(0.05, 0.9), st.floats(0, 1))
def test_the_cut_keeps_the_highest_rows_and_none_above_the_rate(scores, held_out, rate, share):
    cut = calibrated_cut(scores, held_out, max_false_keep_rate=rate, contamination=share)
    assert 0 <= cut.rate <= rate
    np.testing.assert_array_equal(cut.kept, scores > cut.threshold)
    np.testing.assert_array_equal(cut.kept, p_values(scores, held_out) <= cut.rate)
    # the observed rate, the row in question counted in
    assert (np.sum(held_out > cut.threshold) + 1) / 20 <= max(rate, 1 / 20) + 1e-12


@given(scores, held_out_scores)
def test_only_the_order_of_the_scores_counts(scores, held_out):
    before, after = (
        (estimate_contamination(a, b), *cut_at_the_rate(a, b, max_false_keep_rate=0.3)[::2])
        for a, b in ((scores, held_out), (np.exp(scores) - 7, np.exp(held_out) - 7))
    )
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2] == after[2]


def test_a_smaller_rate_keeps_fewer_rows():
    rng = np.random.default_rng(0)
    values, _ = mixture(rng, 500, 0.2, distance=2)
    held_out = rng.normal(size=200)
    kept = [
        cut_at_the_rate(values, held_out, max_false_keep_rate=rate).kept.sum()
        for rate in (0.01, 0.05, 0.2, 0.5)
    ]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


def test_where_harm_lies_apart_the_cut_goes_into_the_gap_and_not_to_the_rate():
    rng = np.random.default_rng(0)
    values, is_harmful = mixture(rng, 1_000, 0.2, distance=12)
    held_out = rng.normal(size=300)
    share = estimate_contamination(values, held_out).share
    cut = calibrated_cut(values, held_out, max_false_keep_rate=0.1, contamination=share)
    assert cut.kept[~is_harmful].all()
    assert cut.kept[is_harmful].mean() <= 0.01
    at_the_rate = cut_at_the_rate(values, held_out, max_false_keep_rate=0.1)
    assert at_the_rate.kept[~is_harmful].all()


# Contamination


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("distance", [4.0, 8.0])
def test_the_contamination_of_a_known_mixture_is_found(share, distance):
    rng = np.random.default_rng(0)
    values, is_harmful = mixture(rng, 5_000, share, distance)
    found = estimate_contamination(values, rng.normal(size=600))
    assert found.share == pytest.approx(is_harmful.mean(), abs=0.03)
    assert found.low <= found.share <= found.high


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("num_rows", "num_held_out"), [(200, 40), (2_000, 300)])
def test_the_interval_covers_the_truth_as_often_as_it_says(share, num_rows, num_held_out):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        values, is_harmful = mixture(rng, num_rows, share, distance=8)
        found = estimate_contamination(values, rng.normal(size=num_held_out))
        covered.append(found.low <= is_harmful.mean() <= found.high)
    assert np.mean(covered) >= 0.95


def test_harm_that_is_milder_than_the_reference_is_counted_all_the_same():
    # half of the reference is far more extreme than anything in the set: a density ratio or a
    # best bin in the tail would find next to nothing
    rng = np.random.default_rng(0)
    values, is_harmful = mixture(rng, 5_000, 0.1, distance=8)
    held_out = rng.normal(size=600) - np.where(np.arange(600) < 300, 5, 0)
    found = estimate_contamination(values, held_out)
    assert found.share == pytest.approx(is_harmful.mean(), abs=0.03)


@given(scores, held_out_scores)
def test_the_estimate_is_a_share_inside_its_interval(scores, held_out):
    found = estimate_contamination(scores, held_out)
    assert 0 <= found.low <= found.share <= found.high <= 1
    wider = estimate_contamination(scores, held_out, confidence=0.999)
    assert wider.low <= found.low
    assert found.high <= wider.high


# Small, equal, hostile


def test_a_set_of_harm_alone_keeps_nothing_or_next_to_nothing():
    rng = np.random.default_rng(0)
    values, held_out = rng.normal(size=2_000), rng.normal(size=300)
    share = estimate_contamination(values, held_out).share
    assert share == pytest.approx(1, abs=0.05)
    cut = calibrated_cut(values, held_out, max_false_keep_rate=0.05, contamination=share)
    assert cut.kept.mean() < 0.01


def test_rows_that_cannot_be_told_from_harm_go():
    equal = np.zeros(10)
    found = estimate_contamination(equal, np.zeros(40))
    assert found.share == 1
    cut = calibrated_cut(equal, np.zeros(40), max_false_keep_rate=0.5, contamination=0.0)
    assert not cut.kept.any()
    assert cut.threshold == np.inf
    assert cut.rate == 0


def test_identical_rows_everywhere_are_no_error():
    same = np.ones((30, 4), dtype=np.float32)
    result = calibrate(same, same, same)
    np.testing.assert_allclose(p_values(result.custom.log_weights, result.held_out_harmful), 1)


def test_references_of_two_rows_can_be_split():
    drawn = clusters(num_reference=2)
    result = calibrate(drawn.custom, drawn.safe, drawn.harmful)
    assert len(result.held_out_harmful) == 1
    found = estimate_contamination(result.custom.log_weights, result.held_out_harmful)
    assert found.high - found.low > 0.9  # one row says next to nothing, and says so


@pytest.mark.parametrize(("rate", "needed"), [(0.5, 1), (0.05, 19), (0.1, 9), (0.03, 33)])
def test_too_few_held_out_rows_are_refused_with_the_number_that_would_do(rate, needed):
    assert num_held_out_needed(rate) == needed
    enough = cut_at_the_rate(np.full(3, 9.0), np.zeros(needed), max_false_keep_rate=rate)
    assert enough.kept.all()
    if needed > 1:
        with pytest.raises(InputError, match=f"needs {needed} held-out harmful rows, there"):
            cut_at_the_rate(np.full(3, 9.0), np.zeros(needed - 1), max_false_keep_rate=rate)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, np.nan])
def test_a_rate_must_be_a_share(rate):
    with pytest.raises(InputError, match=r"max_false_keep_rate=.*expected a share between 0 and 1"):
        cut_at_the_rate(np.zeros(3), np.zeros(30), max_false_keep_rate=rate)


@pytest.mark.parametrize("share", [-0.1, 1.1, np.nan])
def test_a_contamination_must_be_a_share(share):
    with pytest.raises(InputError, match=r"contamination=.*expected a share from 0 to 1"):
        calibrated_cut(np.zeros(3), np.zeros(30), max_false_keep_rate=0.1, contamination=share)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, np.nan])
def test_a_held_out_share_must_leave_both_parts_rows(share):
    with pytest.raises(InputError, match="held_out_share="):
        split_rows(10, share, 0)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_an_extreme_share_still_leaves_a_row_in_each_part(share):
    split = split_rows(10, share, 0)
    assert min(len(split.fitted), len(split.held_out)) == 1


def test_a_reference_of_one_row_cannot_be_split():
    drawn = clusters()
    with pytest.raises(InputError, match="reference of 1 rows cannot be split"):
        calibrate(drawn.custom, drawn.safe, drawn.harmful[:1])


@pytest.mark.parametrize("bad", [[], [[1.0]], [np.nan], [np.inf, 1.0]])
def test_scores_must_be_finite_numbers(bad):
    good = np.arange(30.0)
    for call in (p_values, estimate_contamination):
        with pytest.raises(InputError, match="scores has shape"):
            call(np.array(bad), good)
        with pytest.raises(InputError, match="held_out_harmful has shape"):
            call(good, np.array(bad))
    with pytest.raises(InputError, match="confidence"):
        estimate_contamination(good, good, confidence=95)
