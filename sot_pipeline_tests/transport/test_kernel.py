"""The absorbed kernel: the same numbers as a plain one, where a plain one has none left."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry.geometry import Geometry
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn
from scipy.special import logsumexp

from sot_pipeline.transport import kernel
from sot_pipeline.transport.cost import cosine_cost, directions_from, pooled_mean
from sot_pipeline.transport.kernel import (
    MAX_DRIFT,
    AbsorbedKernel,
    CosineColumns,
    column_maxima_and_sums,
    cost_block,
    curvature,
    sweep_costs,
)

N, M = 13, 5
SMALL = 0.01  # an epsilon at which exp(-C / epsilon) is 0 in float32, everywhere


@pytest.fixture
def cost():
    return np.random.default_rng(0).uniform(1.1, 1.3, (N, M)).astype(np.float32)


@pytest.fixture
def a():
    return np.random.default_rng(1).dirichlet(np.ones(N)).astype(np.float32)


@pytest.fixture
def in_blocks(monkeypatch):
    """Kernels come in blocks of four rows, the last padded."""
    monkeypatch.setattr(kernel, "_WHOLE_BYTES", 0)
    monkeypatch.setattr(kernel, "_BLOCK_BYTES", 4 * M * 4)


def soft_rows(cost, g, epsilon):
    """`-f`: the log-sum-exp of every row, in float64."""
    return epsilon * logsumexp((g - cost.astype(np.float64)) / epsilon, axis=1)


def soft_columns(cost, f, epsilon):
    return epsilon * logsumexp((f[:, None] - cost.astype(np.float64)) / epsilon, axis=0)


# --- ott-jax's solver on it -------------------------------------------------------------------


@partial(jax.jit, static_argnums=2)
def solve_with_ott(geometry, a, tau_b):
    solver = Sinkhorn(lse_mode=True, threshold=1e-5, max_iterations=2_000)
    out = solver(LinearProblem(geometry, a, jnp.full(M, 1 / M), tau_b=tau_b))
    return out.f, out.g, out.reg_ot_cost, out.converged


@pytest.mark.parametrize("tau_b", [1.0, 0.5])
def test_ott_jax_finds_the_potentials_of_the_plain_cost(cost, a, tau_b):
    assert np.exp(-cost / SMALL).max() == 0
    f, g, value, converged = solve_with_ott(Geometry(cost, epsilon=SMALL), a, tau_b)
    absorbed = solve_with_ott(AbsorbedKernel.absorb(jnp.asarray(cost), SMALL), a, tau_b)
    assert converged
    assert absorbed[3]
    shift = (absorbed[0] - f).mean() if tau_b == 1 else 0  # balanced, a constant may move over
    np.testing.assert_allclose(absorbed[0] - shift, f, atol=1e-5)
    np.testing.assert_allclose(absorbed[1] + shift, g, atol=1e-5)
    np.testing.assert_allclose(absorbed[2], value, rtol=1e-5)


def test_absorbing_the_solution_leaves_ott_jax_nothing_to_do(cost, a):
    f, g, *_ = solve_with_ott(Geometry(cost, epsilon=SMALL), a, 1.0)
    geometry = AbsorbedKernel.absorb(jnp.asarray(cost), SMALL, g)
    out = Sinkhorn(threshold=1e-3, inner_iterations=1)(
        LinearProblem(geometry, a, jnp.full(M, 1 / M)), init=(f, g)
    )
    assert out.n_iters == 1
    np.testing.assert_allclose(out.matrix.sum(axis=0), 1 / M, rtol=1e-3)


# --- its products -----------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", ["one block", "in_blocks"])
def test_log_sum_exps_along_both_axes(request, cost, blocks):
    if blocks == "in_blocks":
        request.getfixturevalue(blocks)
    rng = np.random.default_rng(2)
    g, f = rng.uniform(0, 0.1, M), 1.2 + rng.uniform(0, 0.1, N)
    geometry = AbsorbedKernel.absorb(jnp.asarray(cost), SMALL)
    assert len(geometry.blocks) == (1 if blocks == "one block" else 4)
    f32, g32 = jnp.asarray(f, jnp.float32), jnp.asarray(g, jnp.float32)
    rows, sign = geometry.apply_lse_kernel(f32, g32, SMALL, axis=1)
    np.testing.assert_allclose(rows, soft_rows(cost, g, SMALL), atol=1e-5)
    assert (sign == 1).all()
    columns, _ = geometry.apply_lse_kernel(f32, g32, SMALL, axis=0)
    np.testing.assert_allclose(columns, soft_columns(cost, f, SMALL), atol=1e-5)
    # with factors, whose sum may be negative
    vec = rng.normal(size=M).astype(np.float32)
    exponent = (g - cost) / SMALL
    largest = exponent.max(axis=1)
    total = np.exp(exponent - largest[:, None]) @ vec
    value, sign = geometry.apply_lse_kernel(f32, g32, SMALL, vec=vec, axis=1)
    np.testing.assert_array_equal(sign, np.sign(total))
    expected = SMALL * (np.log(np.abs(total)) + largest)
    np.testing.assert_allclose(value, expected, atol=1e-4)


def test_a_row_without_mass_adds_nothing_to_the_columns(cost):
    geometry = AbsorbedKernel.absorb(jnp.asarray(cost), SMALL)
    f = np.where(np.arange(N) == 3, -np.inf, 1.2).astype(np.float32)
    columns, _ = geometry.apply_lse_kernel(jnp.asarray(f), jnp.zeros(M), SMALL, axis=0)
    np.testing.assert_allclose(columns, soft_columns(cost, f, SMALL), atol=1e-5)


def test_products_with_the_kernel_of_the_cost_itself(cost):
    # at an epsilon where it has numbers left
    geometry, plain = AbsorbedKernel.absorb(jnp.asarray(cost), 0.5), np.exp(-cost / 0.5)
    u, v = np.linspace(-1, 2, N, dtype=np.float32), np.linspace(2, -1, M, dtype=np.float32)
    np.testing.assert_allclose(geometry.apply_kernel(v, axis=1), plain @ v, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(geometry.apply_kernel(u, axis=0), u @ plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(geometry.kernel_matrix, plain, rtol=1e-4)


@pytest.mark.parametrize("g", [None, np.linspace(0, 0.05, M, dtype=np.float32)])
def test_the_cost_comes_back_from_the_kernel(cost, g):
    geometry = AbsorbedKernel.absorb(jnp.asarray(cost), SMALL, g)
    assert geometry.shape == (N, M)
    np.testing.assert_allclose(geometry.cost_matrix, cost, atol=1e-5)


def test_it_passes_through_jit_and_tree_maps(cost):
    geometry = AbsorbedKernel.absorb(jnp.asarray(cost), SMALL)
    for copy in (
        jax.jit(lambda g: g)(geometry),
        jax.tree.map(lambda leaf: leaf + 0, geometry),
    ):
        assert isinstance(copy, AbsorbedKernel)
        assert copy.shape == (N, M)
        assert copy.epsilon == pytest.approx(SMALL)
        np.testing.assert_array_equal(copy.cost_matrix, geometry.cost_matrix)


# --- sweeps -----------------------------------------------------------------------------------


def expected_sweep(cost, g, a, epsilon):
    f = -soft_rows(cost, g, epsilon)
    plan = np.exp((f[:, None] + g - cost) / epsilon)
    return f, a @ plan


DRIFT = SMALL * MAX_DRIFT * np.linspace(-1, 1, M)


@pytest.mark.parametrize("g", [np.zeros(M), DRIFT])
@pytest.mark.parametrize("blocks", ["one block", "in_blocks"])
def test_a_sweep_answers_column_potentials_as_far_as_they_may_drift(request, cost, a, blocks, g):
    if blocks == "in_blocks":
        request.getfixturevalue(blocks)
    geometry = AbsorbedKernel.absorb(jnp.asarray(cost), SMALL)
    f, mass = geometry.sweep(jnp.asarray(g, jnp.float32), a)
    expected_f, expected_mass = expected_sweep(cost, g, a, SMALL)
    np.testing.assert_allclose(f, expected_f, atol=1e-5)
    np.testing.assert_allclose(mass, expected_mass, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(mass.sum(), 1, rtol=1e-5)


def test_half_precision_is_right_to_a_thousandth(cost, a, in_blocks):
    whole = AbsorbedKernel.absorb(jnp.asarray(cost), 0.1)
    half = AbsorbedKernel.absorb(jnp.asarray(cost), 0.1, dtype=jnp.float16)
    assert half.blocks.dtype == jnp.float16
    row_sums = half.blocks.astype(jnp.float32).reshape(-1, M)[:N].sum(axis=1)
    np.testing.assert_allclose(row_sums, 1, atol=1e-3)
    g = jnp.linspace(0, 0.05, M)
    np.testing.assert_allclose(half.sweep(g, a).f, whole.sweep(g, a).f, atol=1e-3)
    np.testing.assert_allclose(
        half.sweep(g, a).column_mass, whole.sweep(g, a).column_mass, rtol=2e-3
    )


@pytest.mark.parametrize("center", [False, True])
def test_nothing_stored_gives_the_same_sweep(a, center):
    rng = np.random.default_rng(3)
    x, y = (rng.normal(0.5, 1, (k, 4)).astype(np.float32) for k in (N + 3, M))
    point = pooled_mean(y) if center else np.zeros(4, np.float32)
    columns = CosineColumns(jnp.asarray(directions_from(y, point)), jnp.asarray(point))
    cost = cosine_cost(x, y, center=point if center else None)
    np.testing.assert_allclose(cost_block(jnp.asarray(x), columns), cost, atol=1e-6)
    g, epsilon = np.linspace(0, 0.2, M).astype(np.float32), jnp.float32(0.3)
    blocked = (x.reshape(4, -1, 4), np.pad(a, (0, 3)).reshape(4, -1))
    f, mass = sweep_costs(blocked[0], columns, g, blocked[1], epsilon)
    expected_f, expected_mass = expected_sweep(cost, g, np.pad(a, (0, 3)), 0.3)
    np.testing.assert_allclose(f.reshape(-1), expected_f, atol=1e-5)
    np.testing.assert_allclose(mass, expected_mass, rtol=1e-4)


def test_a_row_on_the_centre_costs_1_everywhere():
    columns = CosineColumns(jnp.eye(2), jnp.array([1.0, 0.0]))
    rows = jnp.array([[3.0, 0.0], [0.0, 0.0]])  # on the centre, and padding
    np.testing.assert_allclose(cost_block(rows, columns)[0], 1)
    assert np.isfinite(cost_block(rows, columns)).all()


# --- what updates of the column potentials need -----------------------------------------------


def test_column_sums_are_taken_in_logs(cost):
    # exponents whose exp is 0 in float32, and padding that counts for nothing
    exponent = np.append(np.linspace(-300, -250, N), -np.inf).astype(np.float32)
    rows = np.append(cost, np.zeros((1, M), np.float32), axis=0)
    largest, total = column_maxima_and_sums(
        jnp.asarray(rows.reshape(2, -1, M)), jnp.asarray(exponent.reshape(2, -1)), None, SMALL
    )
    z = exponent[:N, None] - cost.astype(np.float64) / SMALL
    np.testing.assert_allclose(largest, z.max(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.log(total) + largest, logsumexp(z, axis=0), rtol=1e-5)


def test_the_curvature_is_the_derivative_of_the_column_masses(cost, a):
    # mass_j = sum_i a_i p_ij with p_i a softmax of g / epsilon
    g, epsilon = np.linspace(0, 0.1, M), 0.1
    padded = np.pad(cost, ((0, 3), (0, 0))).reshape(4, -1, M), np.pad(a, (0, 3)).reshape(4, -1)
    found = curvature(
        jnp.asarray(padded[0]), None, jnp.asarray(g, jnp.float32), jnp.asarray(padded[1]), epsilon
    )
    mass = expected_sweep(cost, g, a, epsilon)[1]
    derivative = [
        (expected_sweep(cost, g + h, a, epsilon)[1] - expected_sweep(cost, g - h, a, epsilon)[1])
        / 2e-6
        for h in 1e-6 * np.eye(M)
    ]
    np.testing.assert_allclose((np.diag(mass) - found) / epsilon, derivative, atol=1e-5)
