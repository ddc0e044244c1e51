"""Scoring rows that were not in the fit."""

from functools import partial

import numpy as np
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.transport import fit as fit_module
from sot_pipeline.transport.cost import cosine_cost, pooled_mean
from sot_pipeline.transport.push_pull import (
    extend,
    learn_weights,
    learn_weights_from_embeddings,
    score_rows,
)
from sot_pipeline_tests.transport.problems import clusters, random_problem

PULL, PUSH = random_problem(n=30)
DATA = clusters()
SETS = (DATA.custom, DATA.safe, DATA.harmful)
NEW = clusters(num_custom=17, seed=5).custom


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


@pytest.mark.parametrize("costs", [np.full((1, 5), np.nan), np.full((1, 5), -0.1)])
def test_costs_that_are_none_are_refused(costs):
    fit = learn_weights(PULL, PUSH)
    with pytest.raises(InputError, match="pull_cost: row 0 holds a NaN, infinite or negative"):
        extend(fit, (costs, PUSH[:1]))


# Vectors of new rows


@pytest.mark.parametrize("center", [None, pooled_mean(DATA.safe, DATA.harmful)])
@pytest.mark.parametrize("relaxation", [0.0, 0.9, 1.0])
def test_vectors_score_as_their_costs_do(monkeypatch, center, relaxation):
    fit = learn_weights_from_embeddings(*SETS, center=center, reference_relaxation=relaxation)
    costs = tuple(cosine_cost(NEW, other, center=center) for other in (DATA.safe, DATA.harmful))
    by_costs = score_rows(fit, costs)
    for chunk in (16_384, 5):
        monkeypatch.setattr(fit_module, "_CHUNK", chunk)
        by_vectors = score_rows(fit, NEW)
        for name, values in by_vectors._asdict().items():
            np.testing.assert_allclose(values, getattr(by_costs, name), atol=1e-4, err_msg=name)


@pytest.mark.parametrize("optimizer", ["mirror", "one_shot"])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_a_vector_of_the_fit_gets_its_own_log_weight(optimizer, tolerance):
    fit = learn_weights_from_embeddings(*SETS, optimizer=optimizer, tolerance=tolerance)
    np.testing.assert_allclose(extend(fit, DATA.custom), fit.log_weights, atol=1e-4)
    assert (extend(fit, NEW)[-6:] < np.median(fit.log_weights)).all()  # the harmful ones


def test_a_fit_from_costs_knows_no_vectors():
    fit = learn_weights(*(cosine_cost(DATA.custom, other) for other in SETS[1:]))
    with pytest.raises(InputError, match="this fit was made from costs"):
        extend(fit, NEW)


@pytest.mark.parametrize(
    ("new_rows", "message"),
    [
        (NEW[:, :5], "new_rows has 5 dimensions, the references 8"),
        (NEW[0], "new_rows is an array of float32 of shape"),
        (np.where(np.arange(17)[:, None] == 3, np.nan, NEW), "new_rows: row 3 holds NaN"),
        (np.where(np.arange(17)[:, None] == 3, 0, NEW), "new_rows: row 3 is all zeros"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(new_rows, message):
    fit = learn_weights_from_embeddings(*SETS, max_steps=1)
    with pytest.raises(InputError, match=message):
        extend(fit, new_rows)


def test_half_precision_rows_of_the_fit_get_their_own_log_weight():
    half = DATA.custom.astype(np.float16)
    fit = learn_weights_from_embeddings(half, DATA.safe, DATA.harmful, tolerance=2e-4)
    np.testing.assert_allclose(extend(fit, half), fit.log_weights, atol=1e-4)
