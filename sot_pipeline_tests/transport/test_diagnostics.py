"""The checks say yes where the references fit, and no where they do not."""

import numpy as np
import pytest

from sot_pipeline.transport.cost import cosine_cost
from sot_pipeline.transport.diagnostics import anchor_match, reference_coverage, weight_collapse
from sot_pipeline.transport.push_pull import learn_weights

DIMENSION = 32


def topic(axis: int, num: int, seed: int) -> np.ndarray:
    """Rows about one topic: scattered around an axis."""
    noise = np.random.default_rng(seed).normal(size=(num, DIMENSION))
    return (3 * np.eye(DIMENSION)[axis] + 0.5 * noise).astype(np.float32)


def test_two_samples_of_one_topic_mix_evenly():
    result = anchor_match(topic(0, 500, 0), topic(0, 100, 1))
    assert result.mixing == pytest.approx(0.5, abs=0.1)
    assert result.matched


def test_another_topic_does_not_match():
    result = anchor_match(topic(0, 500, 0), topic(1, 100, 1))
    assert result.mixing < 0.01
    assert result.matched is False


def test_contamination_and_refusals_leave_a_match_a_match():
    custom = np.concatenate([topic(0, 350, 0), topic(2, 150, 2)])  # 30 % of another topic
    safe = np.concatenate([topic(0, 60, 1), topic(3, 40, 3)])  # 40 % refusals
    result = anchor_match(custom, safe)
    assert result.matched
    assert result.safe_beside_custom < 0.45  # the refusals have no custom neighbours


def test_a_general_reference_that_merely_surrounds_the_topic_does_not_match():
    custom = topic(0, 500, 0) * 0.2 + 3 * np.eye(DIMENSION)[0]  # narrower than the reference
    general = np.concatenate([topic(axis, 10, axis) for axis in range(10)])
    assert anchor_match(custom.astype(np.float32), general).matched is False


def test_the_expected_mixing_is_what_random_draws_average_to():
    rng = np.random.default_rng(0)
    custom, safe = topic(0, 60, 0), topic(0, 12, 1)
    cost = cosine_cost(np.concatenate([safe, custom]), np.concatenate([safe, custom]))
    np.fill_diagonal(cost, np.inf)
    shares = []
    for _ in range(3_000):
        drawn = 12 + rng.permutation(60)[:11]  # as many as there are other safe rows
        nearest = cost[:12][:, np.concatenate([np.arange(12), drawn])].argmin(axis=1)
        shares.append(np.mean(nearest >= 12))
    # drawing with replacement (the formula) or without makes little difference
    assert anchor_match(custom, safe).safe_beside_custom == pytest.approx(np.mean(shares), abs=0.03)


def test_a_few_rows_cannot_be_judged():
    assert anchor_match(topic(0, 500, 0), topic(0, 9, 1)).matched is None
    assert anchor_match(topic(0, 1, 0), topic(0, 50, 1)).matched is None


def test_coverage_counts_the_rows_that_neither_reference_reaches():
    safe, harmful = topic(0, 100, 1), topic(1, 100, 2)
    custom = np.concatenate([topic(0, 80, 0), topic(1, 10, 4), topic(2, 10, 3)])
    result = reference_coverage(custom, safe, harmful)
    assert result.uncovered_share == pytest.approx(0.1, abs=0.02)
    assert result.uncovered[90:].all()
    assert not result.covered
    assert reference_coverage(custom[:90], safe, harmful).covered


def test_a_reference_of_one_row_reaches_its_own_copies_only():
    row = topic(0, 1, 0)
    result = reference_coverage(np.concatenate([row, topic(0, 3, 1)]), row, row)
    np.testing.assert_array_equal(result.uncovered, [False, True, True, True])


def costs(custom, safe, harmful):
    return cosine_cost(custom, safe), cosine_cost(custom, harmful)


def test_references_that_differ_leave_a_signal():
    custom = np.concatenate([topic(0, 150, 0), topic(1, 50, 3)])
    collapse = weight_collapse(learn_weights(*costs(custom, topic(0, 50, 1), topic(1, 50, 2))))
    assert collapse.verdict == "none"
    assert collapse.effective_share == pytest.approx(0.5, abs=0.02)


def test_references_without_a_difference_teach_nothing():
    # the target effective sample size is met all the same, by spreading noise
    fit = learn_weights(*costs(topic(0, 200, 0), topic(0, 50, 1), topic(0, 50, 2)))
    collapse = weight_collapse(fit)
    assert collapse.effective_share == pytest.approx(0.5, abs=0.02)
    assert collapse.verdict == "nothing_learned"
    assert collapse.signal_to_noise < 2.5


def test_uniform_weights_are_nothing_learned():
    custom = np.concatenate([topic(0, 150, 0), topic(1, 50, 3)])
    fit = learn_weights(*costs(custom, topic(0, 50, 1), topic(1, 50, 2)), tau=100.0)
    assert weight_collapse(fit).verdict == "nothing_learned"


def test_a_handful_of_rows_with_all_the_weight_is_degenerate():
    custom = np.concatenate([topic(0, 150, 0), topic(1, 50, 3)])
    fit = learn_weights(*costs(custom, topic(0, 50, 1), topic(1, 50, 2)), tau=2e-3)
    assert weight_collapse(fit).verdict == "degenerate"


def test_identical_samples_are_nothing_learned_and_no_crash():
    same = np.repeat(topic(0, 1, 0), 20, axis=0)
    fit = learn_weights(*costs(same, topic(0, 20, 1), topic(1, 20, 2)))
    assert weight_collapse(fit).verdict == "nothing_learned"
