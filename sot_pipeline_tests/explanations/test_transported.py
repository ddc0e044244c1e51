"""Shares of the plan are ott-jax's own, whatever the size of a block."""

import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn

from sot_pipeline.explanations import transported
from sot_pipeline.explanations.transported import blocks_of, plan_shares, transported_mass
from sot_pipeline.transport.push_pull import learn_weights

EPSILON = 0.1
RNG = np.random.default_rng(0)
COST = RNG.uniform(0, 2, (40, 9)).astype(np.float32)


@pytest.mark.parametrize("relaxation", [0.0, 0.9])
def test_shares_are_the_rows_of_otts_own_transport_matrix(relaxation):
    # the marginals' side of it: rows exact, columns exact or relaxed
    weights = RNG.dirichlet(np.full(40, 5.0)).astype(np.float32)
    problem = LinearProblem(
        Geometry(jnp.asarray(COST), epsilon=EPSILON),
        jnp.asarray(weights),
        jnp.full(9, 1 / 9),
        tau_b=1 - relaxation,
    )
    out = Sinkhorn(threshold=1e-6, max_iterations=20_000)(problem)
    plan = np.asarray(out.matrix)
    np.testing.assert_allclose(plan.sum(axis=1), weights, rtol=1e-3)
    shares = plan_shares(COST, np.asarray(out.g), EPSILON)
    np.testing.assert_allclose(shares, plan / plan.sum(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("relaxation", [0.0, 0.9, 1.0])
def test_the_potentials_of_a_fit_give_a_plan_whose_rows_sum_to_the_weights(relaxation):
    push = RNG.uniform(0, 2, (40, 7)).astype(np.float32)
    fit = learn_weights(COST, push, epsilon=0.3, reference_relaxation=relaxation, tolerance=1e-4)
    plan = np.exp((fit.f_push[:, None] + fit.g_push - push) / fit.epsilon)
    np.testing.assert_allclose(plan.sum(axis=1), fit.weights, rtol=1e-2)
    shares = plan_shares(push, fit.g_push, fit.epsilon)
    np.testing.assert_allclose(shares, plan / plan.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_rows_with_most_of_the_mass_come_first_with_their_cosine():
    g = RNG.normal(0, 0.1, 9)
    mass = transported_mass(blocks_of(COST), g, EPSILON)
    shares = plan_shares(COST, g, EPSILON)
    expected = np.argsort(-shares, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(mass.rows, expected)
    np.testing.assert_allclose(mass.shares, np.take_along_axis(shares, expected, 1))
    np.testing.assert_allclose(mass.similarities, 1 - np.take_along_axis(COST, expected, 1))
    assert mass.num_rows == 9


def test_blocks_and_memory_mapped_costs_change_nothing(tmp_path, monkeypatch):
    np.save(tmp_path / "cost.npy", COST)
    whole = transported_mass(blocks_of(COST), np.zeros(9), EPSILON, groups=np.arange(9) % 2)
    monkeypatch.setattr(transported, "_BLOCK_ENTRIES", 70)
    mapped = np.load(tmp_path / "cost.npy", mmap_mode="r")
    parts = list(blocks_of(mapped))
    assert [len(part) for part in parts] == [7] * 5 + [5]
    again = transported_mass(iter(parts), np.zeros(9), EPSILON, groups=np.arange(9) % 2)
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_group_has_the_mass_of_all_its_rows():
    groups = np.array([2, 0, 2, -1, 0, 2, -1, 0, 2])
    mass = transported_mass(blocks_of(COST), np.zeros(9), EPSILON, groups=groups)
    shares = plan_shares(COST, np.zeros(9), EPSILON)
    masses = np.stack([shares[:, groups == name].sum(axis=1) for name in (-1, 0, 2)], axis=1)
    np.testing.assert_array_equal(mass.groups, np.array([-1, 0, 2])[masses.argmax(axis=1)])
    np.testing.assert_allclose(mass.group_shares, masses.max(axis=1), rtol=1e-5)


def test_without_groups_no_row_has_one():
    assert (transported_mass(blocks_of(COST), np.zeros(9), EPSILON).groups == -1).all()


def test_a_small_reference_names_all_its_rows():
    mass = transported_mass(blocks_of(COST[:, :2]), np.zeros(2), EPSILON)
    assert mass.rows.shape == (40, 2)
    np.testing.assert_allclose(mass.shares.sum(axis=1), 1, rtol=1e-6)


def test_costs_far_apart_leave_no_nan():
    cost = np.array([[0.0, 2.0, 2.0]], dtype=np.float32)
    mass = transported_mass([cost], np.zeros(3), 1e-3)
    np.testing.assert_array_equal(mass.shares, [[1, 0, 0]])
