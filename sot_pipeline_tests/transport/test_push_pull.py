"""Eq. 5: closed forms, an independent solver, laws, and honesty about convergence."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sot_pipeline.errors import InputError
from sot_pipeline.transport.cost import cosine_cost, pooled_std, spreads
from sot_pipeline.transport.oracle import PushPull
from sot_pipeline.transport.push_pull import (
    EPSILON_IN_SPREADS,
    TARGET_ESS,
    learn_weights,
    learn_weights_from_embeddings,
    push_pull_objective,
)
from sot_pipeline.transport.tiles import RowCosts
from sot_pipeline_tests.transport.problems import clusters, random_problem
from sot_pipeline_tests.transport.test_reference import numpy_sinkhorn, numpy_solution

EPSILON = 0.5
balanced = partial(learn_weights, epsilon=EPSILON, reference_relaxation=0.0)
exact = partial(balanced, tolerance=1e-8, max_steps=500, max_sinkhorn_iterations=20_000)


def softmax(values, axis):
    exponentials = np.exp(values - values.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


# --- closed forms ---------------------------------------------------------------------------


@pytest.mark.parametrize("lambda_push", [0.0, 0.5, 1.0])
def test_with_one_safe_and_one_harmful_row_eq5_is_linear(lambda_push):
    # A single target leaves one coupling, w b^T: OT = <w, c> for every epsilon.
    w = jnp.array([0.2, 0.3, 0.5])
    pull, push = jnp.array([[0.1], [0.9], [0.4]]), jnp.array([[0.8], [0.1], [0.5]])
    slope = ((1 - lambda_push) * pull - lambda_push * push)[:, 0]
    for relaxation in (0.0, 0.5, 1.0):
        value = push_pull_objective(
            w,
            pull,
            push,
            lambda_push=lambda_push,
            epsilon=0.05,
            reference_relaxation=relaxation,
        )
        np.testing.assert_allclose(value, w @ slope, atol=1e-5)
    fit = learn_weights(np.array(pull), np.array(push), lambda_push=lambda_push, tau=0.2)
    assert fit.converged
    np.testing.assert_allclose(fit.weights, softmax(-np.array(slope) / 0.2, 0), atol=1e-5)


def test_pull_only_with_tau_equal_to_epsilon_spreads_each_safe_row_by_softmax(float64):
    # KL form + epsilon KL(w | u) is the entropy form: w_i = mean_j softmax_i(-C_ij / epsilon)
    pull, push = random_problem()
    fit = exact(pull, push, lambda_push=0.0, tau=EPSILON)
    assert fit.converged
    np.testing.assert_allclose(fit.weights, softmax(-pull / EPSILON, 0).mean(axis=1), rtol=1e-5)


def test_pull_only_without_tau_is_where_blahut_and_arimoto_end(float64):
    pull, push = random_problem()
    kernel = np.exp(-pull / EPSILON)
    w = np.full(len(pull), 1 / len(pull))
    for _ in range(20_000):
        w = w * (kernel / (w @ kernel)).mean(axis=1)
    fit = balanced(pull, push, lambda_push=0.0, tau=0.0, tolerance=1e-6, max_steps=2_000)
    assert fit.converged
    np.testing.assert_allclose(fit.weights, w, atol=1e-4)


@pytest.mark.parametrize("lambda_push", [0.2, 0.4])
def test_an_independent_solver_finds_the_same_minimiser(float64, lambda_push):
    """DCA: linearise the concave push at w, solve the pull in closed form, repeat.

    It minimises the entropy form, which is Eq. 5 with tau = epsilon (1 - 2 lambda); the push
    potential comes from plain Sinkhorn iterations.
    """
    pull, push = random_problem(seed=3)
    w = np.full(len(pull), 1 / len(pull))
    kernel = np.exp(-push / EPSILON)
    ratio = lambda_push / (1 - lambda_push)
    for _ in range(300):
        u = np.ones(len(w))
        for _ in range(300):
            u = w / (kernel @ (1 / push.shape[1] / (kernel.T @ u)))
        f_push = EPSILON * np.log(u)
        w = softmax((-pull + ratio * f_push[:, None]) / EPSILON, 0).mean(axis=1)
    fit = exact(pull, push, lambda_push=lambda_push, tau=EPSILON * (1 - 2 * lambda_push))
    assert fit.converged
    np.testing.assert_allclose(fit.weights, w, rtol=1e-4)


def test_with_free_references_the_answer_is_a_soft_density_ratio(float64):
    pull, push = random_problem()
    soft = [-EPSILON * np.log(np.exp(-c / EPSILON).mean(axis=1)) for c in (pull, push)]
    fit = learn_weights(
        pull, push, epsilon=EPSILON, tau=0.3, reference_relaxation=1.0, tolerance=1e-6
    )
    np.testing.assert_allclose(fit.weights, softmax(-(soft[0] - soft[1]) / 2 / 0.3, 0), rtol=1e-9)
    assert fit.num_steps == 2


# --- value and gradient ---------------------------------------------------------------------


@partial(jax.jit, static_argnames="reference_relaxation")
@jax.value_and_grad
def exact_objective(weights, pull_cost, push_cost, lambda_push, reference_relaxation):
    return push_pull_objective(
        weights,
        pull_cost,
        push_cost,
        lambda_push=lambda_push,
        epsilon=EPSILON,
        reference_relaxation=reference_relaxation,
        threshold=1e-12,
        max_iterations=20_000,
    )


@pytest.mark.parametrize("relaxation", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("lambda_push", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_what_the_descent_goes_by_is_eq5_and_its_derivative(lambda_push, relaxation, precision):
    pull, push = random_problem(seed=5)
    log_weights = np.log(np.random.default_rng(5).dirichlet(np.ones(len(pull))))
    oracle = PushPull(
        RowCosts(pull, pull.shape[1]),
        RowCosts(push, push.shape[1]),
        lambda_push=lambda_push,
        epsilon=EPSILON,
        reference_relaxation=relaxation,
        threshold=1e-10,  # or as near as the precision allows
        scale=1.0,
        adaptive=False,
        max_sweeps=2_000,
        largest_cost=2.0,
        storages=(precision, precision),
        precision=precision,
    )
    energy = oracle(log_weights)
    with jax.enable_x64(True):
        value, derivative = exact_objective(
            np.exp(log_weights), pull, push, lambda_push, reference_relaxation=relaxation
        )
        derivative = np.asarray(derivative)
    tolerance = 1e-8 if precision == "float64" else 1e-5
    assert oracle.accepted_error < tolerance
    np.testing.assert_allclose(energy.value, value, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        energy.gradient - energy.gradient.mean(), derivative - derivative.mean(), atol=tolerance
    )


# --- the minimiser --------------------------------------------------------------------------


@pytest.mark.parametrize("relaxation", [0.0, 0.5])
def test_no_direction_along_the_simplex_leads_down_from_the_minimiser(float64, relaxation):
    pull, push = random_problem(seed=1)
    tau = 0.1
    fit = exact(pull, push, tau=tau, reference_relaxation=relaxation)
    objective = jax.jit(
        partial(
            push_pull_objective,
            pull_cost=pull,
            push_cost=push,
            epsilon=EPSILON,
            tau=tau,
            reference_relaxation=relaxation,
            threshold=1e-12,
            max_iterations=20_000,
        )
    )
    lowest = float(objective(fit.weights))
    np.testing.assert_allclose(fit.objective_trace[-1], lowest, atol=1e-10)
    gradient = jax.grad(objective)(fit.weights)
    assert np.ptp(gradient) < 1e-6
    rng = np.random.default_rng(0)
    for _ in range(20):
        direction = rng.normal(size=len(pull)) * fit.weights
        direction -= fit.weights * direction.sum()
        for size in (1e-3, 0.3):
            assert objective(fit.weights + size * direction) >= lowest - 1e-12


def test_converged_means_a_residual_below_the_tolerance():
    pull, push = random_problem()
    for tolerance in (1e-1, 1e-3, 1e-4):
        fit = balanced(pull, push, target_ess=0.3, tolerance=tolerance)
        assert fit.converged
        assert fit.residual == fit.residual_trace[-1] <= tolerance
        # recomputed from the potentials: f holds epsilon log(a), equal parts of which cancel
        gradient = 0.5 * (fit.f_pull - fit.f_push)
        residual = np.std(gradient + fit.tau * fit.solved_at) / fit.cost_std
        assert residual == pytest.approx(fit.residual, abs=1e-5)
        # the weights that come back are what those potentials ask for, as near as that
        moved = np.std(fit.log_weights - fit.solved_at)
        assert moved * fit.tau / fit.cost_std == pytest.approx(fit.residual, abs=1e-5)


@pytest.mark.parametrize("epsilon_in_stds", [0.1, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("relaxation", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_an_independent_sinkhorn_confirms_what_converged_says(
    tolerance, relaxation, epsilon_in_stds
):
    pull, push = random_problem(seed=1)
    fit = learn_weights(
        pull,
        push,
        epsilon=epsilon_in_stds * pooled_std(pull, push),
        reference_relaxation=relaxation,
        tolerance=tolerance,
    )
    assert fit.converged
    setting = (fit.solved_at, fit.epsilon, relaxation)
    solutions = [
        numpy_solution(cost, setting[0], numpy_sinkhorn(cost, *setting), *setting[1:])
        for cost in (pull, push)
    ]
    assert max(solution.marginal_error for solution in solutions) < 1e-8
    gradient = 0.5 * (solutions[0].potential - solutions[1].potential)
    residual = np.std(gradient + fit.tau * fit.solved_at) / fit.cost_std
    # the solver knows its gradient to a part of the tolerance
    assert residual < 1.5 * tolerance


@pytest.mark.parametrize("seed", [0, 4, 5])
@pytest.mark.parametrize("epsilon_in_stds", [0.02, 0.1, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("relaxation", [0.0, 0.5, 0.9, 1.0])
def test_random_problems_converge_or_say_that_they_have_not(seed, relaxation, epsilon_in_stds):
    pull, push = random_problem(seed=seed)
    fit = learn_weights(
        pull,
        push,
        epsilon=epsilon_in_stds * pooled_std(pull, push),
        reference_relaxation=relaxation,
        max_steps=60,
    )
    if relaxation > 0 or epsilon_in_stds >= 0.3:  # balanced and sharp, Eq. 5 has kinks
        assert fit.converged
    assert fit.converged == (fit.residual <= fit.tolerance)
    assert max(fit.marginal_errors) <= 1e-3
    for values in fit:
        if isinstance(values, np.ndarray | float):
            assert np.isfinite(values).all()
    assert fit.weights.sum() == pytest.approx(1)


def test_running_out_of_steps_is_said():
    pull, push = random_problem()
    fit = balanced(pull, push, tau=0.05, max_steps=1)
    assert not fit.converged
    assert fit.residual > fit.tolerance


def test_transport_that_is_not_solved_is_said():
    pull, push = random_problem()
    fit = learn_weights(
        pull, push, epsilon=0.02, tau=10.0, reference_relaxation=0.0, max_sinkhorn_iterations=2
    )
    assert not fit.converged
    assert max(fit.marginal_errors) > 1e-3


def test_the_other_optimisers_rank_alike():
    pull, push = random_problem(n=30)
    mirror = balanced(pull, push, tau=0.3)
    adam = balanced(pull, push, tau=0.3, optimizer="adam", max_steps=400)
    one_shot = balanced(pull, push, tau=0.3, optimizer="one_shot")
    assert mirror.converged
    assert adam.converged
    assert one_shot.converged
    np.testing.assert_allclose(adam.log_weights, mirror.log_weights, atol=0.02)
    # one-shot potentials are those of uniform weights: near, but not stationary, and it says so
    assert np.corrcoef(one_shot.log_weights, mirror.log_weights)[0, 1] > 0.98
    assert one_shot.residual > 10 * mirror.residual
    assert one_shot.num_steps == 1


def test_a_warm_start_ends_at_the_same_weights_in_fewer_steps():
    pull, push = random_problem(n=30)
    solve = partial(balanced, tau=0.05, tolerance=1e-4)
    cold = solve(pull, push)
    warm = solve(pull, push, init=cold)
    assert warm.num_steps == 1 < cold.num_steps
    np.testing.assert_allclose(warm.log_weights, cold.log_weights, atol=0.05)
    # a reference that gained rows
    more = np.concatenate([push, push[:, :2] + 0.1], axis=1)
    again = solve(pull, more, init=cold)
    from_scratch = solve(pull, more)
    assert again.num_steps <= from_scratch.num_steps
    np.testing.assert_allclose(again.log_weights, from_scratch.log_weights, atol=0.05)


CHANGES = {
    "the same": lambda cost: cost,
    "gained": lambda cost: np.concatenate([cost, cost[:, :3] + 0.05], axis=1),
    "lost": lambda cost: cost[:, 2:],
    "reordered": lambda cost: cost[:, ::-1],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("relaxation", [0.0, 0.5, 0.9, 1.0])
def test_a_start_from_other_references_ends_at_the_cold_weights(change, relaxation):
    data = clusters(300, 30, 40)
    pull, push = (cosine_cost(data.custom, other) for other in (data.safe, data.harmful))
    learn = partial(learn_weights, reference_relaxation=relaxation, tolerance=2e-4)
    init, (pull, push) = learn(pull, push), (CHANGES[change](cost) for cost in (pull, push))
    cold, warm = learn(pull, push), learn(pull, push, init=init)
    assert cold.converged
    assert warm.converged
    np.testing.assert_allclose(warm.log_weights, cold.log_weights, atol=2e-3)
    assert warm.num_sweeps <= cold.num_sweeps


def test_a_start_serves_embeddings_as_well():
    data = clusters(300, 30, 40)
    learn = partial(learn_weights_from_embeddings, tolerance=2e-4)
    init = learn(data.custom, data.safe, data.harmful)
    references = data.safe[3:], data.harmful[::-1]
    cold, warm = learn(data.custom, *references), learn(data.custom, *references, init=init)
    assert warm.converged
    np.testing.assert_allclose(warm.log_weights, cold.log_weights, atol=2e-3)
    assert warm.num_sweeps <= cold.num_sweeps
    with pytest.raises(InputError, match="fit of 300 custom samples, the costs have 299"):
        learn(data.custom[1:], *references, init=init)


# --- laws -----------------------------------------------------------------------------------

COSTS = arrays(np.float32, (6, 4), elements=st.floats(0, 2, width=32))
TAU = 0.3
fit_small = partial(balanced, tau=TAU)
objective = jax.jit(partial(push_pull_objective, epsilon=EPSILON))


@given(pull=COSTS, push=COSTS, order=st.permutations(range(6)))
@settings(deadline=None, max_examples=30)
def test_weights_follow_their_samples(pull, push, order):
    fit, shuffled = fit_small(pull, push), fit_small(pull[order], push[order])
    np.testing.assert_allclose(shuffled.log_weights, fit.log_weights[order], atol=2e-2)


@given(pull=COSTS, push=COSTS, order=st.permutations(range(6)))
@settings(deadline=None, max_examples=30)
def test_the_objective_ignores_the_order_of_the_samples(pull, push, order):
    w, order = jnp.array([0.1, 0.15, 0.2, 0.25, 0.12, 0.18]), np.array(order)
    shuffled = objective(w[order], pull[order], push[order])
    np.testing.assert_allclose(shuffled, objective(w, pull, push), atol=1e-4)


@given(pull=COSTS, push=COSTS, order=st.permutations(range(4)))
@settings(deadline=None, max_examples=30)
def test_the_order_of_the_references_does_not_matter(pull, push, order):
    fit, shuffled = fit_small(pull, push), fit_small(pull[:, order], push[:, order])
    np.testing.assert_allclose(shuffled.log_weights, fit.log_weights, atol=2e-2)


@given(pull=COSTS, push=COSTS)
@settings(deadline=None, max_examples=30)
def test_a_sample_given_twice_shares_its_weight(pull, push):
    fit = fit_small(pull, push)
    twice = fit_small(np.repeat(pull, 2, axis=0), np.repeat(push, 2, axis=0))
    np.testing.assert_allclose(twice.weights, np.repeat(fit.weights, 2) / 2, rtol=2e-2)


@given(pull=COSTS, push=COSTS)
@settings(deadline=None, max_examples=30)
def test_a_reference_given_twice_changes_nothing(pull, push):
    fit, twice = fit_small(pull, push), fit_small(np.tile(pull, 2), np.tile(push, 2))
    np.testing.assert_allclose(twice.log_weights, fit.log_weights, atol=2e-2)


@given(pull=COSTS, push=COSTS)
@settings(deadline=None, max_examples=30)
def test_swapping_the_references_at_one_half_negates_the_first_gradient(pull, push):
    shoot = partial(balanced, tau=TAU, optimizer="one_shot")
    one, other = shoot(pull, push), shoot(push, pull)
    np.testing.assert_allclose(one.pull_scores, -other.push_scores, atol=1e-2)
    np.testing.assert_allclose(one.push_scores, -other.pull_scores, atol=1e-2)


@given(pull=COSTS, push=COSTS, constant=st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_a_constant_added_to_a_cost_moves_no_weight(pull, push, constant):
    fit, moved = fit_small(pull, push), fit_small(pull + np.float32(constant), push)
    np.testing.assert_allclose(moved.log_weights, fit.log_weights, atol=2e-2)


@given(pull=COSTS, push=COSTS, scale=st.floats(0.1, 10))
@settings(deadline=None, max_examples=20)
def test_with_defaults_the_unit_of_the_cost_does_not_matter(pull, push, scale):
    if pooled_std(pull, push) in (1.0,) or pooled_std(pull, push) < 1e-2:
        return  # no spread to take the unit from
    fit, scaled = learn_weights(pull, push), learn_weights(scale * pull, scale * push)
    assert scaled.epsilon == pytest.approx(scale * fit.epsilon, rel=1e-4)
    np.testing.assert_allclose(scaled.log_weights, fit.log_weights, atol=0.05)


def test_the_ends_of_lambda_look_at_one_reference_only():
    pull, push = random_problem()
    other = random_problem(seed=9)
    pull_only = partial(balanced, lambda_push=0.0, tau=TAU)
    push_only = partial(balanced, lambda_push=1.0, tau=TAU)
    np.testing.assert_allclose(
        pull_only(pull, push).log_weights, pull_only(pull, other.push_cost).log_weights, atol=1e-2
    )
    np.testing.assert_allclose(
        push_only(pull, push).log_weights, push_only(other.pull_cost, push).log_weights, atol=1e-2
    )
    assert (pull_only(pull, push).push_scores == 0).all()
    assert (push_only(pull, push).pull_scores == 0).all()


def test_near_the_safe_and_far_from_the_harmful_reference_weighs_more():
    pull, push = np.array([[0.1], [1.0], [1.0], [1.9]]), np.array([[1.0], [1.9], [0.1], [1.0]])
    fit = learn_weights(pull, push)
    order = np.argsort(fit.log_weights)
    assert {*order[:2]} == {2, 3}
    assert {*order[2:]} == {0, 1}
    assert fit.pull_scores[0] == fit.pull_scores.max()
    assert fit.push_scores[2] == fit.push_scores.min()


# --- what a fit says of itself --------------------------------------------------------------


@pytest.mark.parametrize("relaxation", [0.0, 0.9, 1.0])
def test_defaults_part_the_contamination_from_the_rest(relaxation):
    data = clusters()
    costs = [cosine_cost(data.custom, reference) for reference in (data.safe, data.harmful)]
    fit = learn_weights(*costs, reference_relaxation=relaxation)
    assert fit.converged
    assert fit.epsilon == pytest.approx(EPSILON_IN_SPREADS * spreads(*costs).within_rows)
    assert fit.log_weights[data.is_harmful].max() < fit.log_weights[~data.is_harmful].min()
    assert fit.effective_sample_size == pytest.approx(1 + TARGET_ESS * 59, rel=1e-2)
    assert fit.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("relaxation", [0.0, 0.9, 1.0])
def test_the_parts_of_the_score_add_up_to_the_log_weight(relaxation):
    pull, push = random_problem()
    fit = learn_weights(pull, push, reference_relaxation=relaxation, lambda_push=0.3)
    total = fit.mean_log_weight + fit.pull_scores + fit.push_scores
    np.testing.assert_allclose(total, fit.log_weights, atol=1e-5)
    assert abs(fit.pull_scores.mean()) < 1e-5
    assert abs(fit.push_scores.mean()) < 1e-5


@given(target=st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=20)
def test_the_effective_sample_size_is_the_one_asked_for(target):
    pull, push = random_problem(n=30)
    fit = balanced(pull, push, target_ess=target)
    assert fit.converged
    assert fit.effective_sample_size == pytest.approx(1 + 29 * target, rel=0.02)
    assert fit.effective_sample_size == pytest.approx(1 / (fit.weights**2).sum())


@pytest.mark.parametrize("epsilon_in_stds", [0.02, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("relaxation", [0.0, 0.9, 1.0])
def test_no_epsilon_leads_to_nan(epsilon_in_stds, relaxation):
    pull, push = random_problem()
    fit = learn_weights(
        pull,
        push,
        epsilon=epsilon_in_stds * pooled_std(pull, push),
        reference_relaxation=relaxation,
        max_steps=20,
    )
    assert np.isfinite(fit.log_weights).all()
    assert np.isfinite([fit.residual, *fit.marginal_errors, *fit.objective_trace]).all()
    assert fit.converged or epsilon_in_stds < 1


@pytest.mark.parametrize("optimizer", ["mirror", "one_shot", "adam"])
@pytest.mark.parametrize("relaxation", [0.0, 0.9, 1.0])
def test_a_single_sample_has_all_the_weight(optimizer, relaxation):
    fit = learn_weights(
        np.array([[0.3, 0.5]]),
        np.array([[0.9]]),
        optimizer=optimizer,
        reference_relaxation=relaxation,
    )
    assert fit.converged
    np.testing.assert_allclose(fit.weights, [1])


@pytest.mark.parametrize("relaxation", [0.0, 0.9, 1.0])
def test_identical_samples_weigh_the_same(relaxation):
    pull, push = random_problem(n=1)
    fit = learn_weights(
        np.repeat(pull, 5, axis=0), np.repeat(push, 5, axis=0), reference_relaxation=relaxation
    )
    assert fit.converged
    np.testing.assert_allclose(fit.weights, 0.2, rtol=1e-3)
    assert fit.effective_sample_size == pytest.approx(5, rel=1e-3)


def test_progress_is_reported_in_steps():
    calls = []
    pull, push = random_problem()
    fit = balanced(pull, push, progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (1, 200)
    assert calls[-1] == (fit.num_steps, 200)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"lambda_push": 1.1}, "lambda_push=1.1"),
        ({"lambda_push": float("nan")}, "lambda_push=nan"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"epsilon": float("inf")}, "epsilon=inf"),
        ({"tau": -1.0}, "tau=-1.0"),
        ({"tau": 0.0, "optimizer": "one_shot"}, "one_shot"),
        ({"tau": 0.1, "target_ess": 0.5}, "give one of them"),
        ({"target_ess": 1.0}, "target_ess=1.0"),
        ({"target_ess": 0.0}, "target_ess=0.0"),
        ({"reference_relaxation": -0.1}, "reference_relaxation=-0.1"),
        ({"optimizer": "sgd"}, "optimizer='sgd'"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings_, message):
    with pytest.raises(InputError, match=message):
        learn_weights(*random_problem(), **settings_)


def test_costs_of_different_rows_are_refused():
    pull, push = random_problem()
    with pytest.raises(InputError, match="pull_cost has 12 rows, push_cost 11"):
        learn_weights(pull, push[:-1])
    with pytest.raises(InputError, match="row 3 holds"):
        learn_weights(np.where(np.arange(12)[:, None] == 3, np.nan, pull), push)


def test_a_fit_of_other_samples_cannot_be_a_start():
    pull, push = random_problem()
    fit = learn_weights(pull[:-1], push[:-1])
    with pytest.raises(InputError, match="fit of 11 custom samples, the costs have 12"):
        learn_weights(pull, push, init=fit)
