"""Scoring rows that were not in the fit."""

from functools import partial

import numpy as np
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.transport.push_pull import extend, learn_weights, score_rows
from sot_pipeline_tests.transport.problems import random_problem

PULL, PUSH = random_problem(n=30)


@pytest.mark.parametrize("relaxation", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("optimizer", ["mirror", "one_shot"])
def test_a_row_of_the_fit_gets_its_own_log_weight(optimizer, relaxation):
    fit = learn_weights(PULL, PUSH, reference_relaxation=relaxation, optimizer=optimizer)
    np.testing.assert_allclose(extend(fit, (PULL, PUSH)), fit.log_weights, atol=1e-4)
    scores = score_rows(fit, (PULL[7:9], PUSH[7:9]))
    np.testing.assert_allclose(scores.pull_scores, fit.pull_scores[7:9], atol=1e-4)
    np.testing.assert_allclose(scores.push_scores, fit.push_scores[7:9], atol=1e-4)


def test_also_where_the_solve_has_not_converged():
    fit = learn_weights(PULL, PUSH, reference_relaxation=0.0, tau=0.02, max_steps=2)
    assert not fit.converged
    np.testing.assert_allclose(extend(fit, (PULL, PUSH)), fit.log_weights, atol=1e-3)


def test_a_new_row_gets_the_log_weight_of_a_fit_that_held_it_in_a_large_crowd():
    # among many samples one more has hardly any mass, so the potentials hardly move
    pull, push = random_problem(n=400)
    fit_all = learn_weights(pull, push, reference_relaxation=0.0, tau=0.3)
    fit_most = learn_weights(pull[:-1], push[:-1], reference_relaxation=0.0, tau=0.3)
    extended = extend(fit_most, (pull[-1:], push[-1:]))
    np.testing.assert_allclose(extended, fit_all.log_weights[-1:], atol=0.02)


def test_with_free_references_a_score_depends_on_the_row_alone():
    free = partial(learn_weights, reference_relaxation=1.0, tau=0.3, epsilon=0.5)
    few, many = free(PULL[:10], PUSH[:10]), free(PULL, PUSH)
    difference = extend(few, (PULL, PUSH)) - many.log_weights
    np.testing.assert_allclose(difference, difference[0], atol=1e-4)  # the normaliser only


@pytest.mark.parametrize("settings", [{"tau": 0.0, "max_steps": 30}, {"optimizer": "adam"}])
def test_where_log_weights_are_no_function_of_potentials_the_best_line_is_used(settings):
    fit = learn_weights(PULL, PUSH, reference_relaxation=0.0, **settings)
    extended = extend(fit, (PULL, PUSH))
    residual = fit.log_weights - extended
    assert abs(residual.mean()) < 1e-4  # least squares: no line has smaller residuals
    assert abs(np.corrcoef(residual, extended)[0, 1]) < 1e-2
    assert np.corrcoef(extended, fit.log_weights)[0, 1] > 0.8


def test_costs_to_another_reference_are_refused():
    fit = learn_weights(PULL, PUSH)
    with pytest.raises(InputError, match="pull_cost has 4 columns, the fit was made with a"):
        extend(fit, (PULL[:, :4], PUSH))
    with pytest.raises(InputError, match="push_cost has 8 columns"):
        extend(fit, (PULL, np.tile(PUSH[:, :4], 2)))
    with pytest.raises(InputError, match="pull_cost has 2 rows, push_cost 3"):
        extend(fit, (PULL[:2], PUSH[:3]))
