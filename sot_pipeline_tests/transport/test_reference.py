"""Transport to one reference: against ott-jax, POT and its own optimality conditions."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn
from scipy.special import logsumexp

from sot_pipeline.transport import kernel, tiles
from sot_pipeline.transport.cost import cosine_cost, pooled_mean
from sot_pipeline.transport.reference import ReferenceTransport, Transport
from sot_pipeline.transport.tiles import RowCosts
from sot_pipeline.transport.vectors import cosine_columns

N, M = 12, 5
EPSILONS_IN_STDS = [0.02, 0.1, 0.5, 1.0, 5.0]
RELAXATIONS = [0.0, 0.5, 0.9, 1.0]
COSTS = arrays(np.float64, (N, M), elements=st.floats(0, 2))
LOGITS = arrays(np.float64, N, elements=st.floats(-8, 0))
SETTINGS = st.tuples(st.sampled_from(EPSILONS_IN_STDS), st.sampled_from(RELAXATIONS))


def new_transport(cost, epsilon, relaxation, precision="float64", storage=None):
    return ReferenceTransport(
        RowCosts(cost.astype(precision), cost.shape[1]),
        epsilon=epsilon,
        tau_b=1 - relaxation,
        storage=precision if storage is None else storage,
        precision=precision,
    )


def solve(cost, log_weights, epsilon, relaxation, precision="float64", storage=None) -> Transport:
    """Cold, to nearly all that the precision allows."""
    threshold = 1e-10 if precision == "float64" else 5e-6
    problem = new_transport(cost, epsilon, relaxation, precision, storage)
    solved = problem.solve(log_weights, threshold=threshold, max_sweeps=5_000)
    assert solved.marginal_error <= threshold
    return solved


def normalised(logits):
    return logits - logsumexp(logits)


def random_problem(seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 2, (N, M)), normalised(rng.normal(size=N))


def std_of(cost):
    return max(float(cost.std()), 0.05)  # an epsilon of rounding size is no problem to pose


def centred(potential):
    return np.asarray(potential, dtype=np.float64) - np.mean(potential)


# --- what theory says a solution is, in NumPy -------------------------------------------------


class NumpySolution(NamedTuple):
    potential: np.ndarray
    plan: np.ndarray
    marginal_error: float


def numpy_solution(cost, log_weights, g, epsilon, relaxation) -> NumpySolution:
    """What follows from column potentials: each row divides its mass by softmax."""
    num_columns = cost.shape[1]
    potential = -epsilon * logsumexp((g - cost) / epsilon, axis=1)
    plan = np.exp(log_weights[:, None] + (potential[:, None] + g - cost) / epsilon)
    columns = plan.sum(axis=0)
    wanted = columns if relaxation == 1 else np.full(num_columns, 1 / num_columns)
    if 0 < relaxation < 1:  # the derivative of rho KL(columns | b) is -(g - epsilon log b)
        rho = epsilon * (1 - relaxation) / relaxation
        wanted = wanted * np.exp(-(g + epsilon * np.log(num_columns)) / rho)
    return NumpySolution(potential, plan, float(np.abs(columns - wanted).sum()))


def numpy_sinkhorn(cost, log_weights, epsilon, relaxation, max_iterations=50_000):
    """Column potentials from plain alternating updates."""
    num_columns = cost.shape[1]
    log_b, gamma = -np.log(num_columns), np.zeros(num_columns)
    for _ in range(max_iterations):
        f = -epsilon * logsumexp((gamma - cost) / epsilon + log_b, axis=1)
        answer = -epsilon * logsumexp(log_weights[:, None] + (f[:, None] - cost) / epsilon, axis=0)
        moved = (1 - relaxation) * answer - gamma
        moved = moved - moved.mean() * (relaxation == 0)  # balanced, a shift changes nothing
        gamma = gamma + moved
        if np.abs(moved).max() < 1e-14:
            break
    return gamma + epsilon * log_b


def primal_value(plan, cost, weights, epsilon, relaxation) -> float:
    """`<P, C> + epsilon KL(P | a b^T) + rho KL(columns of P | b)`."""

    def kl(p, q):
        terms = np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1)), 0)
        return float(np.sum(terms - p + q))

    num_columns = cost.shape[1]
    product_plan = np.outer(weights, np.full(num_columns, 1 / num_columns))
    value = np.sum(plan * cost) + epsilon * kl(plan, product_plan)
    if 0 < relaxation < 1:
        rho = epsilon * (1 - relaxation) / relaxation
        value += rho * kl(plan.sum(axis=0), np.full(num_columns, 1 / num_columns))
    return float(value)


HOSTILE = np.random.default_rng(4).uniform(0, 2, (N, M))
FAR_COLUMN = HOSTILE + 5 * (np.arange(M) == 2)  # no mass reaches it from where the solve starts
TIES = np.round(HOSTILE)
LOPSIDED = np.where(np.arange(N) == 7, 0.0, -8.0)


@given(cost=COSTS, logits=LOGITS, setting=SETTINGS)
@example(cost=FAR_COLUMN, logits=LOPSIDED, setting=(0.02, 0.0))
@example(cost=FAR_COLUMN, logits=LOPSIDED, setting=(0.02, 0.5))
@example(cost=TIES, logits=LOPSIDED, setting=(0.02, 0.0))
@settings(deadline=None, max_examples=30)
def test_a_plan_of_the_same_value_certifies_the_dual_solution(cost, logits, setting):
    # weak duality: no plan costs less than any dual value, so where they meet both are optimal
    log_weights, relaxation = normalised(logits), setting[1]
    epsilon = setting[0] * std_of(cost)
    solved = solve(cost, log_weights, epsilon, relaxation)
    potential, plan, error = numpy_solution(cost, log_weights, solved.g, epsilon, relaxation)
    assert error < 1e-9
    np.testing.assert_allclose(plan.sum(axis=1), np.exp(log_weights), rtol=1e-9)
    np.testing.assert_allclose(solved.potential, potential, atol=1e-9)
    primal = primal_value(plan, cost, np.exp(log_weights), epsilon, relaxation)
    np.testing.assert_allclose(solved.ot_cost, primal, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_as_epsilon_falls_the_value_is_squeezed_onto_that_of_unregularised_transport(seed):
    # at most the exact plan's own divergence lies between the two
    cost, log_weights = random_problem(seed)
    weights, uniform = np.exp(log_weights), np.full(M, 1 / M)
    epsilon = 0.02 * cost.std()
    plan = ot.emd(weights, uniform, cost)
    lowest = np.sum(plan * cost)
    highest = primal_value(plan, cost, weights, epsilon, relaxation=0.0)
    assert lowest <= solve(cost, log_weights, epsilon, 0.0).ot_cost <= highest


# --- against other solvers --------------------------------------------------------------------


@partial(jax.jit, static_argnums=3)
@partial(jax.value_and_grad, has_aux=True)
def ott_value_and_gradient(weights, cost, epsilon, tau_b):
    uniform = jnp.full(M, 1 / M)
    problem = LinearProblem(Geometry(cost, epsilon=epsilon), weights, uniform, tau_b=tau_b)
    out = Sinkhorn(threshold=1e-11, max_iterations=5_000)(problem)
    return out.reg_ot_cost, (out.matrix, out.f, out.converged)


@given(
    cost=COSTS,
    logits=LOGITS,
    epsilon_in_stds=st.sampled_from([0.1, 0.5, 1.0, 5.0]),
    relaxation=st.sampled_from(RELAXATIONS[:-1]),
)
@settings(deadline=None, max_examples=20)
def test_value_and_gradient_are_those_of_ott_jax(cost, logits, epsilon_in_stds, relaxation):
    log_weights, epsilon = normalised(logits), epsilon_in_stds * std_of(cost)
    weights = np.exp(log_weights)
    with jax.enable_x64(True):
        (value, (plan, f, converged)), autodiff = ott_value_and_gradient(
            weights, cost, epsilon, 1 - relaxation
        )
    assume(converged)  # it may need more than 5,000 iterations where epsilon is small
    # relaxed, ott-jax's value is another one by a constant: that of its plan is compared
    expected = (
        value
        if relaxation == 0
        else primal_value(np.asarray(plan), cost, weights, epsilon, relaxation)
    )
    gradient = centred(np.asarray(f) - epsilon * log_weights)
    size = cost.max() + epsilon
    np.testing.assert_allclose(centred(np.asarray(autodiff)), gradient, atol=1e-7 * size)
    double = solve(cost, log_weights, epsilon, relaxation)
    np.testing.assert_allclose(double.ot_cost, expected, rtol=1e-7, atol=1e-8 * size)
    np.testing.assert_allclose(centred(double.potential), gradient, atol=1e-7 * size)
    if epsilon_in_stds >= 0.5:
        single = solve(cost, log_weights, epsilon, relaxation, "float32")
        np.testing.assert_allclose(single.ot_cost, expected, rtol=1e-5, atol=1e-5 * size)
        # the lightest column is known to threshold / mass only
        np.testing.assert_allclose(centred(single.potential), gradient, atol=1e-4 * size)


@pytest.mark.parametrize("epsilon_in_stds", EPSILONS_IN_STDS)
def test_balanced_it_is_the_transport_of_pot(epsilon_in_stds):
    cost, log_weights = random_problem()
    epsilon, weights = epsilon_in_stds * cost.std(), np.exp(log_weights)
    theirs, log = ot.sinkhorn(
        weights, np.full(M, 1 / M), cost, epsilon, "sinkhorn_log",
        numItermax=100_000, stopThr=1e-11, log=True,
    )  # fmt: skip
    expected = primal_value(theirs, cost, weights, epsilon, 0.0)
    gradient = centred(epsilon * (log["log_u"] - log_weights))
    solved = solve(cost, log_weights, epsilon, 0.0)
    plan = numpy_solution(cost, log_weights, solved.g, epsilon, 0.0).plan
    np.testing.assert_allclose(plan, theirs, rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(solved.ot_cost, expected, rtol=1e-8)
    np.testing.assert_allclose(centred(solved.potential), gradient, atol=1e-7)
    if epsilon_in_stds >= 0.5:
        single = solve(cost, log_weights, epsilon, 0.0, "float32")
        np.testing.assert_allclose(single.ot_cost, expected, rtol=1e-5)
        np.testing.assert_allclose(centred(single.potential), gradient, atol=1e-5)


@pytest.mark.parametrize("epsilon_in_stds", EPSILONS_IN_STDS[1:])  # POT's kernel underflows below
@pytest.mark.parametrize("relaxation", [0.5, 0.9])
def test_relaxed_it_is_the_transport_of_pot(epsilon_in_stds, relaxation):
    cost, log_weights = random_problem()
    epsilon, weights = epsilon_in_stds * cost.std(), np.exp(log_weights)
    theirs, log = ot.unbalanced.sinkhorn_unbalanced(
        weights,
        np.full(M, 1 / M),
        cost,
        epsilon,
        (np.inf, epsilon * (1 - relaxation) / relaxation),
        c=np.outer(weights, np.full(M, 1 / M)),
        numItermax=20_000,
        stopThr=1e-13,
        log=True,
    )
    expected = primal_value(theirs, cost, weights, epsilon, relaxation)
    solved = solve(cost, log_weights, epsilon, relaxation)
    plan = numpy_solution(cost, log_weights, solved.g, epsilon, relaxation).plan
    np.testing.assert_allclose(plan, theirs, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(solved.ot_cost, expected, rtol=1e-8)
    np.testing.assert_allclose(solved.potential, epsilon * log["logu"], atol=1e-8)
    if epsilon_in_stds >= 0.5:
        single = solve(cost, log_weights, epsilon, relaxation, "float32")
        np.testing.assert_allclose(single.ot_cost, expected, rtol=1e-5)
        np.testing.assert_allclose(single.potential, epsilon * log["logu"], atol=1e-5)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_plain_alternating_updates_end_at_the_same_potentials(relaxation):
    cost, log_weights = random_problem(2)
    epsilon = 0.5 * cost.std()
    g = numpy_sinkhorn(cost, log_weights, epsilon, relaxation)
    expected = numpy_solution(cost, log_weights, g, epsilon, relaxation)
    assert expected.marginal_error < 1e-10
    for precision, tolerance in (("float64", 1e-8), ("float32", 1e-5)):
        solved = solve(cost, log_weights, epsilon, relaxation, precision)
        np.testing.assert_allclose(centred(solved.g), centred(g), atol=tolerance)
        np.testing.assert_allclose(
            centred(solved.potential), centred(expected.potential), atol=tolerance
        )


# --- laws -------------------------------------------------------------------------------------


@given(logits=LOGITS, setting=SETTINGS, pair=st.permutations(range(N)))
@settings(deadline=None, max_examples=25)
def test_the_potential_is_the_slope_of_the_value_along_the_simplex(logits, setting, pair):
    cost = random_problem(1)[0]
    epsilon, relaxation = setting[0] * cost.std(), setting[1]
    weights = np.exp(normalised(logits))
    direction = np.zeros(N)
    direction[pair[:2]] = 1, -1
    # second differences grow as epsilon / weight
    size = 1e-4 * min(weights[pair[:2]])
    problem = new_transport(cost, epsilon, relaxation)
    here, up, down = (
        problem.solve(np.log(weights + step * direction), threshold=1e-12, max_sweeps=5_000)
        for step in (0, size, -size)
    )
    slope = (up.ot_cost - down.ot_cost) / (2 * size)
    tolerance = 1e-6 + 1e-14 / size  # curvature, and rounding of the two values
    np.testing.assert_allclose(here.potential @ direction, slope, atol=tolerance)


@given(
    cost=COSTS,
    logits=LOGITS,
    setting=SETTINGS,
    rows=st.permutations(range(N)),
    columns=st.permutations(range(M)),
)
@settings(deadline=None, max_examples=20)
def test_the_order_of_rows_and_columns_does_not_matter(cost, logits, setting, rows, columns):
    log_weights, epsilon = normalised(logits), setting[0] * std_of(cost)
    solved = solve(cost, log_weights, epsilon, setting[1])
    shuffled = solve(cost[rows][:, columns], log_weights[rows], epsilon, setting[1])
    np.testing.assert_allclose(shuffled.ot_cost, solved.ot_cost, atol=1e-8)
    plans = [
        numpy_solution(c, w, s.g, epsilon, setting[1]).plan
        for c, w, s in (
            (cost, log_weights, solved),
            (cost[rows][:, columns], log_weights[rows], shuffled),
        )
    ]
    np.testing.assert_allclose(plans[1], plans[0][rows][:, columns], atol=1e-8)


@given(cost=COSTS, logits=LOGITS, setting=SETTINGS, row=st.integers(0, N - 1))
@settings(deadline=None, max_examples=20)
def test_a_row_given_twice_at_half_its_weight_changes_nothing(cost, logits, setting, row):
    log_weights, epsilon = normalised(logits), setting[0] * std_of(cost)
    halved = np.append(log_weights, log_weights[row]) - np.log(2) * np.isin([*range(N), row], row)
    solved = solve(cost, log_weights, epsilon, setting[1])
    twice = solve(np.vstack([cost, cost[row]]), halved, epsilon, setting[1])
    np.testing.assert_allclose(twice.ot_cost, solved.ot_cost, atol=1e-8)
    np.testing.assert_allclose(twice.potential[-1], twice.potential[row], atol=1e-12)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_with_one_column_there_is_one_plan_and_the_potential_is_the_cost(relaxation, precision):
    cost, log_weights = random_problem()
    solved = solve(cost[:, :1], log_weights, 0.05, relaxation, precision)
    np.testing.assert_allclose(solved.ot_cost, np.exp(log_weights) @ cost[:, 0], rtol=1e-5)
    np.testing.assert_allclose(centred(solved.potential), centred(cost[:, 0]), atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_with_one_row_its_mass_spreads_as_the_reference_asks(precision):
    cost, row = random_problem()[0][:1], np.zeros(1)
    epsilon = 0.3
    single = partial(solve, cost, row, epsilon, precision=precision)
    np.testing.assert_allclose(single(relaxation=0.0).ot_cost, cost.mean(), rtol=1e-5)
    soft_minimum = -epsilon * np.log(np.exp(-cost / epsilon).mean())
    np.testing.assert_allclose(single(relaxation=1.0).ot_cost, soft_minimum, rtol=1e-5)
    assert soft_minimum < single(relaxation=0.5).ot_cost < cost.mean()


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_where_all_costs_are_equal_every_row_costs_that(relaxation, precision):
    log_weights = random_problem()[1]
    solved = solve(np.full((N, M), 0.7), log_weights, 0.1, relaxation, precision)
    np.testing.assert_allclose(solved.ot_cost, 0.7, rtol=1e-6)
    np.testing.assert_allclose(centred(solved.potential), 0, atol=1e-6)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("tiny", [-np.inf, -800.0])
@pytest.mark.parametrize("storage", ["float64", "float32", "float16", "recomputed"])
def test_a_row_without_mass_has_the_soft_minimum_as_its_potential(relaxation, tiny, storage):
    # what its gradient would be, had it any mass; and the others do not notice it
    cost, log_weights = random_problem()
    log_weights[4] = tiny
    log_weights = normalised(log_weights)
    precision = "float64" if storage == "float64" else "float32"
    epsilon = 0.5 * cost.std()
    solved = solve(cost, log_weights, epsilon, relaxation, precision, storage)
    others = np.arange(N) != 4
    without = solve(cost[others], log_weights[others], epsilon, relaxation)
    gap = solved.g - without.g
    expected = numpy_solution(cost[4:5], np.zeros(1), solved.g, epsilon, relaxation).potential
    tolerance = {"float64": 1e-8, "float16": 2e-3}.get(storage, 2e-5)
    assert np.isfinite(solved.potential).all()
    np.testing.assert_allclose(solved.potential[4], expected[0], atol=tolerance)
    np.testing.assert_allclose(solved.ot_cost, without.ot_cost, atol=tolerance)
    np.testing.assert_allclose(gap, gap.mean(), atol=tolerance)


# --- how the kernel is held -------------------------------------------------------------------


@pytest.mark.parametrize("relaxation", [0.0, 0.9])
@pytest.mark.parametrize("in_tiles", [False, True])
@pytest.mark.parametrize("storage", ["float32", "float16", "recomputed"])
def test_neither_storage_nor_tiles_move_the_solution(monkeypatch, storage, in_tiles, relaxation):
    cost, log_weights = random_problem(3)
    epsilon = cost.std()
    expected = solve(cost, log_weights, epsilon, relaxation)
    if in_tiles:
        for limit, num_rows in (("_TILE_BYTES", 5), ("_PIECE_BYTES", 3)):
            monkeypatch.setattr(tiles, limit, num_rows * M * 4)
        monkeypatch.setattr(kernel, "_BLOCK_BYTES", 2 * M * 4)
    problem = new_transport(cost, epsilon, relaxation, "float32", storage)
    assert (len(problem.tiles._tiles) > 1) == in_tiles
    solved = problem.solve(log_weights, threshold=5e-6, max_sweeps=500)
    assert solved.marginal_error <= 5e-6
    tolerance = 2e-3 if storage == "float16" else 1e-5
    np.testing.assert_allclose(solved.ot_cost, expected.ot_cost, atol=tolerance)
    np.testing.assert_allclose(
        centred(solved.potential), centred(expected.potential), atol=tolerance
    )
    problem.tiles.recompute()
    exact = problem.solve(log_weights, threshold=5e-6, max_sweeps=500)
    assert problem.tiles.storage == ("float32" if storage == "float32" else "recomputed")
    np.testing.assert_allclose(centred(exact.potential), centred(expected.potential), atol=1e-5)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("storage", ["float32", "recomputed"])
def test_costs_from_embeddings_are_the_cosine_costs(center, storage):
    rng = np.random.default_rng(0)
    custom, other = (rng.normal(0.5, 1, (k, 6)).astype(np.float32) for k in (N, M))
    point = pooled_mean(other) if center else None
    cost = cosine_cost(custom, other, center=point)
    log_weights, epsilon = random_problem()[1], cost.std()
    rows = RowCosts(custom, M, cosine_columns(other, point))
    problem = ReferenceTransport(rows, epsilon=epsilon, tau_b=0.5, storage=storage)
    solved = problem.solve(log_weights, threshold=5e-6, max_sweeps=500)
    expected = solve(cost, log_weights, epsilon, 0.5)
    np.testing.assert_allclose(solved.ot_cost, expected.ot_cost, rtol=1e-5)
    np.testing.assert_allclose(solved.potential, expected.potential, atol=1e-5)


# --- warm starts ------------------------------------------------------------------------------


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_second_solve_of_the_same_weights_takes_no_more_than_a_look(relaxation, precision):
    cost, log_weights = random_problem()
    problem = new_transport(cost, 0.3, relaxation, precision)
    first, second = (problem.solve(log_weights, threshold=1e-5, max_sweeps=500) for _ in range(2))
    assert second.num_sweeps <= 1 <= first.num_sweeps
    np.testing.assert_allclose(second.potential, first.potential, atol=1e-12)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_row_potentials_of_a_solution_lead_back_to_it(relaxation):
    cost, log_weights = random_problem()
    solved = solve(cost, log_weights, 0.3, relaxation)
    problem = new_transport(cost, 0.3, relaxation)
    problem.start_from(solved.potential, log_weights)
    again = problem.solve(log_weights, threshold=1e-8, max_sweeps=500)
    assert again.num_sweeps == 1
    np.testing.assert_allclose(again.ot_cost, solved.ot_cost, rtol=1e-9)


def test_running_out_of_sweeps_leaves_an_honest_error():
    cost, log_weights = random_problem()
    epsilon = 0.1 * cost.std()
    problem = new_transport(cost, epsilon, 0.0)
    stopped = problem.solve(log_weights, threshold=1e-10, max_sweeps=3)
    error = numpy_solution(cost, log_weights, stopped.g, epsilon, 0.0).marginal_error
    assert stopped.marginal_error > 1e-10
    np.testing.assert_allclose(stopped.marginal_error, error, rtol=1e-9)
    assert stopped.num_sweeps <= 4


@pytest.mark.parametrize("max_sweeps", [36, 40])
def test_potentials_belong_to_the_g_that_is_returned_where_sweeps_run_out(max_sweeps):
    rng = np.random.default_rng(6)
    cost = rng.uniform(0, 2, (N, M))
    log_weights = normalised(3 * rng.normal(size=N))
    epsilon = 0.02 * cost[:, 0].std()
    stopped = new_transport(cost, epsilon, 0.0).solve(
        log_weights, threshold=1e-12, max_sweeps=max_sweeps
    )
    expected = numpy_solution(cost, log_weights, stopped.g, epsilon, 0.0)
    assert stopped.marginal_error > 1e-12
    np.testing.assert_allclose(stopped.potential, expected.potential, atol=1e-9)
