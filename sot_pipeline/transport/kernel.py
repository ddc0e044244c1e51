"""The kernel of entropic transport in memory-friendly form: potentials absorbed, rows in blocks.

A Sinkhorn sweep reads a kernel of n x m numbers twice, once along the rows and once along the
columns, and computes next to nothing with them: what it costs is memory traffic. Here both
products are taken block by block while a block is in cache, so that memory is read once, and the
exponentials are taken once for many sweeps.

What is stored is `P_ij = exp((alpha_i + beta_j - C_ij) / epsilon)` with potentials under which
every row sums to 1. A product with it can neither overflow nor vanish, whatever epsilon: row sums
lie between the smallest and the largest entry of the vector it is multiplied with. It stays
exact while the potentials are within `MAX_DRIFT` epsilons of the absorbed ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float
from ott.geometry.geometry import Geometry

from sot_pipeline.transport.cost import NO_DIRECTION

# An entry below exp(-87), float32's least, counts as 0; that far from the absorbed potentials it
# would still be below exp(-87 + 2 * 20) of its row.
MAX_DRIFT = 20.0
# Measured on CPUs: a kernel about the size of the last cache is fastest whole; a larger one in
# blocks that stay in cache between the two products.
_WHOLE_BYTES = 64 << 20
_BLOCK_BYTES = 4 << 20


class Sweep(NamedTuple):
    """Row potentials that answer column potentials, and the mass that each column then gets."""

    f: Float[Array, " n"]  # unit of the cost, without epsilon * log(a)
    column_mass: Float[Array, " m"]


@jax.tree_util.register_pytree_node_class
class AbsorbedKernel(Geometry):
    """A geometry whose kernel has potentials absorbed, for ott-jax's solvers and for `sweep`.

    ott-jax's log-domain interface runs on it at the price of products with a stored kernel:
    `Sinkhorn(lse_mode=True)` on this geometry is a stabilised kernel-mode Sinkhorn.

    Args:
        blocks: `[num_blocks, rows, m]`, rows sum to 1; those beyond `num_rows` are padding.
        alpha: `[num_blocks * rows]`, absorbed row potentials, unit of the cost.
        beta: `[m]`, absorbed column potentials.
        epsilon: The regularisation strength the kernel was made with.
        num_rows: Rows that count.
    """

    def __init__(self, blocks, alpha, beta, epsilon, num_rows: int):
        super().__init__(epsilon=epsilon)
        self.blocks, self.alpha, self.beta = blocks, alpha, beta
        self.num_rows = num_rows

    @classmethod
    def absorb(cls, cost, epsilon, g=None, dtype=None) -> "AbsorbedKernel":
        """From a cost matrix `[n, m]`, near the solution that has column potentials `g`."""
        n, m = cost.shape
        g = jnp.zeros(m, cost.dtype) if g is None else g
        dtype = cost.dtype if dtype is None else dtype
        num_blocks, rows = blocking(n, m, jnp.dtype(dtype).itemsize)
        padded = jnp.pad(cost, ((0, num_blocks * rows - n), (0, 0)))
        costs = padded.reshape(num_blocks, rows, m)
        blocks = jnp.zeros(costs.shape, dtype)
        f, blocks = build_blocks(blocks, costs, 0, None, g, epsilon, 1)
        return cls(blocks, f.reshape(-1), g, epsilon, n)

    @property
    def shape(self) -> tuple[int, int]:
        return self.num_rows, self.blocks.shape[-1]

    @property
    def dtype(self):
        """Of the potentials and sums; blocks may be held in less."""
        return self.beta.dtype

    @property
    def cost_matrix(self) -> Float[Array, "n m"]:
        """Recovered from the kernel; +inf where an entry is below the floating point."""
        log_kernel = jnp.log(self._matrix().astype(self.beta.dtype))
        return self.alpha[: self.num_rows, None] + self.beta[None, :] - self.epsilon * log_kernel

    @property
    def kernel_matrix(self) -> Float[Array, "n m"]:
        return jnp.exp(-self.cost_matrix / self.epsilon)

    def sweep(self, g: Float[Array, " m"], a: Float[Array, " n"]) -> Sweep:
        """One Sinkhorn half-step on the rows, and the column masses of the plan it gives."""
        v = jnp.exp((g - self.beta) / self.epsilon)
        log_s, mass = sweep_blocks(self.blocks, v, self._blocked(a))
        f = self.alpha - self.epsilon * log_s.reshape(-1)
        return Sweep(f[: self.num_rows], v * mass)

    def apply_lse_kernel(self, f, g, eps, vec=None, axis=0):
        """`eps log sum exp((g_j - C_ij) / eps)` over j (axis 1), or over i with f (axis 0)."""
        moved = (g - self.beta) / eps if axis == 1 else (f - self.alpha[: self.num_rows]) / eps
        largest = jnp.max(jnp.where(jnp.isfinite(moved), moved, -jnp.inf))
        scaling = jnp.exp(moved - largest)
        product = self._apply(scaling if vec is None else scaling * vec, axis)
        absorbed = self.alpha[: self.num_rows] if axis == 1 else self.beta
        log_product = eps * (jnp.log(jnp.abs(product)) + largest) - absorbed
        return log_product, jnp.sign(product)

    def apply_kernel(self, vec, eps=None, axis=0):
        """The kernel of the cost itself, as ott-jax's scalings want it: it may underflow."""
        epsilon = self.epsilon if eps is None else eps
        alpha = self.alpha[: self.num_rows]
        inner, outer = (self.beta, alpha) if axis == 1 else (alpha, self.beta)
        return self._apply(vec * jnp.exp(-inner / epsilon), axis) * jnp.exp(-outer / epsilon)

    def _apply(self, vec, axis: int):
        if axis == 1:
            return lax.map(lambda block: _rows(block, vec), self.blocks).reshape(-1)[
                : self.num_rows
            ]

        def add(total, block_and_vec):
            block, part = block_and_vec
            return total + _columns(part, block), None

        zero = jnp.zeros(self.blocks.shape[-1], self.beta.dtype)
        return lax.scan(add, zero, (self.blocks, self._blocked(vec)))[0]

    def _blocked(self, vec):
        num_blocks, rows, _ = self.blocks.shape
        return jnp.pad(vec, (0, num_blocks * rows - self.num_rows)).reshape(num_blocks, rows)

    def _matrix(self):
        return self.blocks.reshape(-1, self.blocks.shape[-1])[: self.num_rows]

    def tree_flatten(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        children = (self.blocks, self.alpha, self.beta, self._epsilon_init)
        return children, {"num_rows": self.num_rows}

    @classmethod
    def tree_unflatten(cls, aux_data, children):
        return cls(*children, **aux_data)


def blocking(num_rows: int, m: int, itemsize: int) -> tuple[int, int]:
    """How many blocks, and rows in each: a block fits the cache, all have one size."""
    num_blocks = max(1, -(-num_rows * m * itemsize // _BLOCK_BYTES))
    rows = -(-num_rows // num_blocks)
    return -(-num_rows // rows), rows


def sweep_blocks(
    blocks: Float[Array, "k r m"], v: Float[Array, " m"], a: Float[Array, "k r"]
) -> tuple[Float[Array, "k r"], Float[Array, " m"]]:
    """`log s` with `s = P v`, and `(a / s) P`, reading P once."""

    def step(total, block_and_mass):
        block, mass = block_and_mass
        block = block.astype(v.dtype)
        s = _rows(block, v)
        return total + _columns(mass / s, block), jnp.log(s)

    if blocks.nbytes <= _WHOLE_BYTES and blocks.dtype == v.dtype:
        mass, log_s = step(jnp.zeros_like(v), (blocks.reshape(-1, len(v)), a.reshape(-1)))
        return log_s.reshape(a.shape), mass
    mass, log_s = lax.scan(step, jnp.zeros_like(v), (blocks, a))
    return log_s, mass


def sweep_costs(
    rows: Float[Array, "k r c"],
    columns,
    g: Float[Array, " m"],
    a: Float[Array, "k r"],
    epsilon: Float[Array, ""],
) -> tuple[Float[Array, "k r"], Float[Array, " m"]]:
    """Row potentials and column masses straight from the costs, nothing stored."""

    def step(total, block_and_mass):
        block, mass = block_and_mass
        f, plan = _soft_rows(cost_block(block, columns), g, epsilon)
        return total + _columns(mass, plan), f

    mass, f = lax.scan(step, jnp.zeros_like(g), (rows, a))
    return f, mass


def build_blocks(
    kernel: Float[Array, "k r m"],
    rows: Float[Array, "p r c"],
    start,
    columns,
    g: Float[Array, " m"],
    epsilon,
    unit,
) -> tuple[Float[Array, "p r"], Float[Array, "k r m"]]:
    """Row potentials that answer `g`, and the kernel with both absorbed: rows sum to `unit`.

    Blocks `start` to `start + p` of `kernel` are written, in place where it is donated.
    """

    def step(kernel, index_and_block):
        index, block = index_and_block
        f, plan = _soft_rows(cost_block(block, columns), g, epsilon)
        return lax.dynamic_update_index_in_dim(
            kernel, (unit * plan).astype(kernel.dtype), index, 0
        ), f

    kernel, f = lax.scan(step, kernel, (start + jnp.arange(len(rows)), rows))
    return f, kernel


def column_maxima_and_sums(
    rows: Float[Array, "k r c"], exponent: Float[Array, "k r"], columns, epsilon
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """`max_i z_ij` and `sum_i exp(z_ij - max)` for `z_ij = exponent_i - C_ij / epsilon`."""

    def step(carry, block_and_exponent):
        largest, total = carry
        block, row_exponent = block_and_exponent
        z = row_exponent[:, None] - cost_block(block, columns).astype(exponent.dtype) / epsilon
        new = jnp.maximum(largest, jnp.max(z, axis=0))
        return (new, total * jnp.exp(largest - new) + jnp.sum(jnp.exp(z - new), axis=0)), None

    m = rows.shape[-1] if columns is None else len(columns.directions)
    start = jnp.full(m, jnp.finfo(exponent.dtype).min), jnp.zeros(m, exponent.dtype)
    return lax.scan(step, start, (rows, exponent))[0]


def curvature(
    rows: Float[Array, "k r c"], columns, g: Float[Array, " m"], a: Float[Array, "k r"], epsilon
) -> Float[Array, "m m"]:
    """`sum_i a_i p_i p_i^T`, where p_i is how row i divides its mass among the columns."""

    def step(total, block_and_mass):
        block, mass = block_and_mass
        _, plan = _soft_rows(cost_block(block, columns), g, epsilon)
        product = jnp.matmul((mass[:, None] * plan).T, plan, precision=lax.Precision.HIGHEST)
        return total + product, None

    return lax.scan(step, jnp.zeros((len(g), len(g)), g.dtype), (rows, a))[0]


class CosineColumns(NamedTuple):
    """The reference that rows of embeddings are compared with."""

    directions: Float[Array, "m d"]  # unit vectors from the centre
    center: Float[Array, " d"]  # zero: angles at the origin


def cost_block(rows: Float[Array, "r c"], columns: CosineColumns | None) -> Float[Array, "r m"]:
    """Costs of some rows: they are costs already, or embeddings to take cosines of."""
    if columns is None:
        return rows
    directions = unit_directions(rows.astype(jnp.float32), columns.center)
    cosine = jnp.matmul(directions, columns.directions.T, precision=lax.Precision.HIGHEST)
    return jnp.clip(1 - cosine, 0, 2)


def unit_directions(vectors: Float[Array, "r d"], center: Float[Array, " d"]):
    """As `cost.directions_from`: unit vectors from the centre, zero for a row on it."""
    largest = jnp.max(jnp.abs(vectors), axis=1, keepdims=True)
    scaled = vectors / jnp.where(largest > 0, largest, 1)
    length = jnp.linalg.norm(scaled, axis=1, keepdims=True)
    moved = scaled / jnp.where(length > 0, length, 1) - center
    length = jnp.linalg.norm(moved, axis=1, keepdims=True)
    return jnp.where(length > NO_DIRECTION, moved / jnp.maximum(length, NO_DIRECTION), 0)


def _soft_rows(cost, g, epsilon):
    """Soft minimum of each row of `cost - g`, and the probabilities that belong to it."""
    exponent = (g - cost.astype(g.dtype)) / epsilon
    largest = jnp.max(exponent, axis=1, keepdims=True)
    plan = jnp.exp(exponent - largest)
    total = jnp.sum(plan, axis=1, keepdims=True)
    return -epsilon * (largest + jnp.log(total))[:, 0], plan / total


def _rows(block, v):
    return jnp.matmul(block, v, precision=lax.Precision.HIGHEST)


def _columns(u, block):
    # u @ P, never P.T @ u: XLA's CPU backend takes the latter ten times as long
    return jnp.matmul(u, block, precision=lax.Precision.HIGHEST)
