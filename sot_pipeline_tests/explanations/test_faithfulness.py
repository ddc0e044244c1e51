"""The rows that an explanation names are those that move the score, seen by solving again."""

import numpy as np
import pytest

from sot_pipeline_tests.explanations.solved import (
    Problem,
    agreement,
    break_even_errors,
    demo_vectors,
    faithfulness,
    solved,
)


@pytest.fixture(scope="module")
def problem() -> Problem:
    found = solved(*demo_vectors())
    assert found.fit.converged
    return found


@pytest.fixture(scope="module")
def sampled(problem) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(problem.fit.weights))[:40]


@pytest.mark.parametrize("side", ["harmful", "safe"])
def test_without_the_rows_it_names_a_row_scores_as_the_explanation_says(problem, sampled, side):
    # harmful rows gone: the row weighs more; safe rows gone: less
    found = faithfulness(problem, side, sampled)
    assert found.share_in_stated_direction >= 0.95
    assert found.times_random >= 5


@pytest.mark.parametrize("lambda_push", [0.0, 0.25, 0.4, 0.6, 0.75, 1.0])
def test_sides_at_another_lambda_are_those_of_a_real_solve(problem, lambda_push):
    found = agreement(problem, lambda_push)
    assert found.predicted_flips > 0
    assert found.same_side >= 0.99
    assert found.margin <= 0.01  # the few others are at the cut


def test_break_even_lambdas_are_those_of_real_solves(problem, sampled):
    errors = break_even_errors(problem, sampled, grid=41)
    known = errors[~np.isnan(errors)]
    assert len(known) >= 5
    # the grid alone puts a real change up to a step (0.025) behind
    assert np.mean(np.abs(known) <= 0.05) >= 0.9
