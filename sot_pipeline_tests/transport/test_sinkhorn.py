"""Entropic OT: against ott-jax, against POT, against what the theory says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn

from sot_pipeline.transport.sinkhorn import entropic_ot, soft_c_transform

N, M, EPSILON = 12, 5, 0.1
RELAXATIONS = [1.0, 0.5, 0.05, 0.0]
exact_ot = partial(entropic_ot, threshold=1e-11, max_iterations=20_000)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 2, (N, M)), rng.dirichlet(np.ones(N)), rng.dirichlet(np.ones(M))


def plan(cost, result, epsilon):
    return np.exp((np.asarray(result.f)[:, None] + np.asarray(result.g) - cost) / epsilon)


def kl(p, q):
    return np.sum(p * np.log(p / q) - p + q)


def test_value_and_gradient_are_those_of_ott_jax(float64, problem):
    cost, a, b = problem

    @jax.jit
    def reg_ot_cost(cost, a, b):
        solver = Sinkhorn(threshold=1e-11, max_iterations=20_000)
        return solver(LinearProblem(Geometry(cost, epsilon=EPSILON), a, b)).reg_ot_cost

    value, gradient = jax.value_and_grad(reg_ot_cost, argnums=1)(cost, a, b)
    result = exact_ot(cost, a, b, EPSILON)
    ours = result.f - EPSILON * np.log(a)
    assert result.converged
    np.testing.assert_allclose(result.ot_cost, value, rtol=1e-9)
    np.testing.assert_allclose(ours - ours.mean(), gradient - gradient.mean(), atol=1e-8)


def test_the_plan_is_that_of_pot(float64, problem):
    cost, a, b = problem
    theirs = ot.sinkhorn(a, b, cost, EPSILON, "sinkhorn_log", numItermax=20_000, stopThr=1e-12)
    ours = plan(cost, exact_ot(cost, a, b, EPSILON), EPSILON)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("tau_b", [0.5, 0.05])
def test_the_relaxed_plan_is_that_of_pot(float64, problem, tau_b):
    cost, a, b = problem
    rho = EPSILON * tau_b / (1 - tau_b)
    theirs = ot.unbalanced.sinkhorn_unbalanced(
        a, b, cost, EPSILON, (np.inf, rho), c=np.outer(a, b), numItermax=20_000, stopThr=1e-13
    )
    ours = plan(cost, exact_ot(cost, a, b, EPSILON, tau_b), EPSILON)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("tau_b", RELAXATIONS)
def test_the_dual_value_is_the_primal_objective_of_the_plan(float64, problem, tau_b):
    # with non-uniform b, where ott-jax's own relaxed objective is another one
    cost, a, b = problem
    result = exact_ot(cost, a, b, EPSILON, tau_b)
    p = plan(cost, result, EPSILON)
    primal = np.sum(p * cost) + EPSILON * kl(p, np.outer(a, b))
    if 0 < tau_b < 1:
        primal += EPSILON * tau_b / (1 - tau_b) * kl(p.sum(axis=0), b)
    np.testing.assert_allclose(result.ot_cost, primal, rtol=1e-9)
    np.testing.assert_allclose(p.sum(axis=1), a, rtol=1e-9)


@pytest.mark.parametrize("tau_b", RELAXATIONS)
def test_the_gradient_is_the_slope_along_the_simplex(float64, problem, tau_b):
    cost, a, b = problem
    result = exact_ot(cost, a, b, EPSILON, tau_b)
    gradient = result.f - EPSILON * np.log(a)
    autodiff = jax.grad(lambda a: exact_ot(cost, a, b, EPSILON, tau_b).ot_cost)(a)
    direction = np.zeros(N)
    direction[[3, 7]] = 1, -1
    step = 1e-5 * direction
    up, down = (exact_ot(cost, a + s, b, EPSILON, tau_b).ot_cost for s in (step, -step))
    np.testing.assert_allclose(gradient @ direction, (up - down) / 2e-5, rtol=1e-5)
    np.testing.assert_allclose(autodiff, gradient, atol=1e-12)


def test_with_free_columns_each_row_takes_the_soft_minimum_of_its_costs(problem):
    cost, a, b = problem
    result = entropic_ot(cost, a, b, EPSILON, tau_b=0.0)
    soft_minimum = -EPSILON * np.log(np.exp(-cost / EPSILON) @ b)
    np.testing.assert_allclose(result.ot_cost, a @ soft_minimum, rtol=1e-5)
    np.testing.assert_allclose(result.f - EPSILON * np.log(a), soft_minimum, atol=1e-5)


def test_with_one_target_there_is_one_plan():
    cost = np.array([[0.1], [0.9], [0.4]], np.float32)
    a = np.array([0.2, 0.3, 0.5], np.float32)
    for tau_b in RELAXATIONS:
        result = entropic_ot(cost, a, np.ones(1, np.float32), 0.05, tau_b)
        np.testing.assert_allclose(result.ot_cost, a @ cost[:, 0], rtol=1e-5)


def test_with_a_constant_cost_no_sample_is_worth_more_than_another():
    result = entropic_ot(np.full((N, M), 0.7), np.full(N, 1 / N), np.full(M, 1 / M), EPSILON)
    np.testing.assert_allclose(result.ot_cost, 0.7, rtol=1e-5)
    np.testing.assert_allclose(result.f, np.mean(result.f), atol=1e-6)


def test_a_sample_without_mass_has_a_finite_gradient(problem):
    cost, a, b = problem
    a = np.where(np.arange(N) == 4, 0, a)
    a = a / a.sum()
    result = entropic_ot(cost, a, b, EPSILON)
    gradient = soft_c_transform(jnp.asarray(cost), result.g, EPSILON)
    assert result.converged
    assert np.isfinite(result.ot_cost)
    assert np.isfinite(gradient).all()
    assert result.f[4] == -np.inf


def test_a_warm_start_at_the_solution_needs_one_iteration(float64, problem):
    cost, a, b = problem
    for tau_b in (1.0, 0.5):
        cold = exact_ot(cost, a, b, EPSILON, tau_b)
        warm = entropic_ot(cost, a, b, EPSILON, tau_b, (cold.f, cold.g), threshold=1e-10)
        assert cold.num_iterations > 5
        assert warm.num_iterations == 1
        np.testing.assert_allclose(warm.ot_cost, cold.ot_cost, rtol=1e-9)


def test_too_few_iterations_are_reported(problem):
    cost, a, b = problem
    result = entropic_ot(cost, a, b, 0.01, max_iterations=2)
    p = plan(cost, result, 0.01)
    assert not result.converged
    assert result.num_iterations == 2
    # the error is that of the marginal that the last update leaves open
    np.testing.assert_allclose(result.marginal_error, np.abs(p.sum(axis=0) - b).sum(), rtol=1e-3)


def test_one_compilation_serves_every_epsilon_and_marginal(problem):
    cost, a, b = problem
    entropic_ot(cost, a, b, 0.1)
    num_compiled = entropic_ot._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
    entropic_ot(cost + 0.1, a[::-1].copy(), b, 0.2)
    assert entropic_ot._cache_size() == num_compiled  # pyright: ignore[reportAttributeAccessIssue]
