"""The descent on the simplex, on energies whose minimiser is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sot_pipeline.transport.anderson import MEMORY, Step, extrapolate
from sot_pipeline.transport.descent import (
    Energy,
    adam,
    mirror_descent,
    normalise,
    stationarity_residual,
    tau_for_ess,
)

N = 8
SLOPES = np.random.default_rng(0).normal(size=N)


def linear(log_weights):
    return Energy(float(np.exp(log_weights) @ SLOPES), SLOPES)


def stiff(log_weights, curvature):
    """A convex quadratic; the target is where its gradient vanishes."""
    difference = np.exp(log_weights) - np.exp(normalise(SLOPES))
    return Energy(0.5 * curvature * float(difference @ difference), curvature * difference)


def descend(oracle, tau, *, tolerance=1e-8, max_steps=200, **options):
    return mirror_descent(
        oracle,
        np.zeros(N),
        lambda gradient: tau,
        scale=1.0,
        tolerance=tolerance,
        max_steps=max_steps,
        **options,
    )


def test_a_linear_energy_has_its_gibbs_weights_after_one_step():
    found = descend(linear, 0.3)
    assert found.converged
    assert found.num_steps == 2  # the start, and the answer
    np.testing.assert_allclose(found.log_weights, normalise(-SLOPES / 0.3), atol=1e-10)


@pytest.mark.parametrize("curvature", [1.0, 30.0, 1_000.0])
def test_a_stiff_convex_energy_converges_to_its_fixed_point(curvature):
    tau = 0.01
    found = descend(lambda log_weights: stiff(log_weights, curvature), tau)
    gradient = stiff(found.log_weights, curvature).gradient
    assert found.converged
    np.testing.assert_allclose(found.log_weights, normalise(-gradient / tau), atol=1e-5)


def test_the_objective_falls_at_every_step():
    found = descend(lambda log_weights: stiff(log_weights, 100.0), 0.01)
    assert len(found.objective_trace) > 3
    assert np.diff(found.objective_trace).max() < 1e-9
    assert found.residual_trace[-1] == found.residual <= 1e-8


def test_without_entropy_the_weight_gathers_where_the_slope_is_least():
    found = descend(linear, 0.0, tolerance=1e-6)
    assert found.converged
    assert np.exp(found.log_weights)[SLOPES.argmin()] > 1 - 1e-5


def test_running_out_of_steps_is_said():
    found = descend(lambda log_weights: stiff(log_weights, 1_000.0), 0.01, max_steps=3)
    assert not found.converged
    assert found.num_steps == 3
    assert found.residual > 1e-8


def test_an_energy_that_breaks_ends_the_descent_unconverged():
    found = descend(lambda log_weights: Energy(np.nan, np.full(N, np.nan)), 0.1)
    assert not found.converged


def test_a_gradient_that_is_too_rough_is_asked_to_be_sharper():
    roughness = [1e-2]
    rng = np.random.default_rng(0)

    def rough(log_weights):
        energy = stiff(log_weights, 30.0)
        return Energy(energy.value, energy.gradient + roughness[0] * rng.normal(size=N))

    def sharpen():
        roughness[0] /= 1_000
        return True

    assert not descend(rough, 0.01, tolerance=1e-5).converged
    assert descend(rough, 0.01, tolerance=1e-5, sharpen=sharpen).converged


def test_progress_counts_up_to_the_end():
    calls = []
    found = descend(linear, 0.3, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (found.num_steps, 200)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_adam_reaches_the_same_minimiser_in_more_steps():
    options = {"scale": 1.0, "tolerance": 1e-3, "max_steps": 2_000}
    found = adam(linear, np.zeros(N), lambda gradient: 0.5, learning_rate=0.05, **options)
    assert found.converged
    assert found.num_steps > 20
    np.testing.assert_allclose(found.log_weights, normalise(-SLOPES / 0.5), atol=1e-2)


GRADIENTS = arrays(np.float64, N, elements=st.floats(-1, 1)).filter(
    lambda g: np.diff(np.sort(g)).min() > 1e-4
)


@given(gradient=GRADIENTS, target=st.floats(1.2, N - 0.1))
@settings(deadline=None)
def test_tau_for_ess_gives_the_effective_sample_size_asked_for(gradient, target):
    tau = tau_for_ess(gradient, target)
    weights = np.exp(normalise(-gradient / tau))
    reachable = tau > 1.1e-3 * np.std(gradient)  # near ties need a tau below the smallest
    assert not reachable or 1 / (weights**2).sum() == pytest.approx(target, rel=1e-6)


def test_a_constant_gradient_has_no_tau():
    assert tau_for_ess(np.ones(N), 3.0) == 0


@given(gradient=GRADIENTS, tau=st.floats(0.05, 10))
@settings(deadline=None)
def test_the_residual_vanishes_at_gibbs_weights_and_nowhere_near(gradient, tau):
    stationary = normalise(-gradient / tau)
    assert stationarity_residual(stationary, gradient, tau, 1.0) < 1e-12
    moved = normalise(stationary + np.eye(N)[0])
    assert stationarity_residual(moved, gradient, tau, 1.0) > 0.1 * tau


# Anderson's extrapolation


@given(dimension=st.integers(1, MEMORY - 1), seed=st.integers(0, 1_000))
@settings(deadline=None, max_examples=30)
def test_a_linear_fixed_point_is_found_after_one_step_more_than_it_has_dimensions(dimension, seed):
    # x -> x + A (solution - x), A far enough from singular; the plain iteration may diverge
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    matrix = turn @ np.diag(np.linspace(0.5, 2.5, dimension)) @ turn.T
    solution = rng.normal(size=dimension)
    memory, x = [], np.zeros(dimension)
    for _ in range(dimension + 1):
        memory.append(Step(x, matrix @ (solution - x)))
        x = extrapolate(memory)
    np.testing.assert_allclose(x, solution, atol=1e-5)


def test_with_nothing_to_look_back_on_it_is_the_plain_step():
    step = Step(SLOPES, 2 * SLOPES)
    np.testing.assert_allclose(extrapolate([step]), 3 * SLOPES)
    np.testing.assert_allclose(extrapolate([step], damping=0.25), 1.5 * SLOPES)


@pytest.mark.parametrize("num_same", [2, 5])
@pytest.mark.parametrize("size", [0.0, 1e-200, 1.0, 1e100])
def test_steps_that_teach_nothing_leave_a_plain_step(num_same, size):
    same = [Step(SLOPES, size * SLOPES)] * num_same
    np.testing.assert_allclose(extrapolate(same), SLOPES + size * SLOPES)


def test_more_steps_than_dimensions_stay_finite():
    memory = [Step(np.array([float(x)]), np.array([3.0 - x])) for x in range(MEMORY)]
    np.testing.assert_allclose(extrapolate(memory), 3, atol=1e-6)
