"""Which reference rows a custom row was compared with: where its transported mass goes.

The optimal plan of entropic transport is `P_ij = exp((f_i + g_j - C_ij) / epsilon)` (ott-jax's
convention). The custom side is enforced exactly, so that row i of the plan sums to its weight and
its shares `P_ij / sum_k P_ik` depend on the reference's potential `g` alone, whether or not the
reference's side is relaxed. All is computed block by block: the plan itself, `n x m` numbers, is
never held.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

NUM_NAMED = 3  # reference rows named per custom row
_BLOCK_ENTRIES = 4_000_000  # of the plan, held at once


class TransportedMass(NamedTuple):
    """Where the mass of each of n rows goes among the m rows of a reference.

    `top` is at most `NUM_NAMED`; the largest share comes first, ties by the order of the reference.
    """

    rows: Int[np.ndarray, "n top"]  # positions in the reference
    shares: Float[np.ndarray, "n top"]  # of the row's own mass, in [0, 1]
    similarities: Float[np.ndarray, "n top"]  # 1 - cost: cosine, in [-1, 1]
    num_rows: int  # m
    groups: Int[np.ndarray, " n"]  # group with most of the mass, -1 where the ungrouped have it
    group_shares: Float[np.ndarray, " n"]  # what it has


def blocks_of(cost: Float[np.ndarray, "n m"]) -> Iterator[np.ndarray]:
    """Consecutive rows of a cost matrix, which may be memory-mapped."""
    for rows in block_slices(*cost.shape):
        yield cost[rows]


def block_slices(num_rows: int, num_columns: int) -> list[slice]:
    """Rows to take at once, so that a block holds some million entries."""
    size = max(1, _BLOCK_ENTRIES // max(1, num_columns))
    return [slice(start, start + size) for start in range(0, num_rows, size)]


def plan_shares(
    cost: Float[np.ndarray, "n m"], g: Float[np.ndarray, " m"], epsilon: float
) -> Float[np.ndarray, "n m"]:
    """Rows of the optimal plan, each divided by its sum; float32."""
    shares = np.array(cost, dtype=np.float32)
    np.subtract(np.asarray(g, dtype=np.float32), shares, out=shares)
    shares /= np.float32(epsilon)
    shares -= shares.max(axis=1, keepdims=True)
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def transported_mass(
    cost_blocks: Iterable[Float[np.ndarray, "_ m"]],
    g: Float[np.ndarray, " m"],
    epsilon: float,
    *,
    groups: Int[np.ndarray, " m"] | None = None,
) -> TransportedMass:
    """The reference rows that take most of each row's mass, and the group that does.

    Args:
        cost_blocks: Costs of consecutive rows, as from `blocks_of`; at least one block.
        g: The reference's dual potential, unit of the cost.
        epsilon: Of the solved problem, unit of the cost.
        groups: A number >= 0 for each reference row, such as that of its category; -1: none.
    """
    groups = np.full(len(g), -1) if groups is None else np.asarray(groups)
    parts = [_of_block(np.asarray(cost), g, epsilon, groups) for cost in cost_blocks]
    rows, shares, similarities, group, group_shares = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return TransportedMass(rows, shares, similarities, len(g), group, group_shares)


def _of_block(
    cost: np.ndarray, g: np.ndarray, epsilon: float, groups: np.ndarray
) -> tuple[np.ndarray, ...]:
    shares = plan_shares(cost, g, epsilon)
    group, group_shares = _largest_group(shares, groups)
    every = np.arange(len(cost))
    found: list[np.ndarray] = []
    taken: list[np.ndarray] = []
    for _ in range(min(NUM_NAMED, shares.shape[1])):  # a few passes cost less than a sort
        largest = shares.argmax(axis=1)
        found.append(largest)
        taken.append(shares[every, largest])
        shares[every, largest] = -1
    rows = np.stack(found, axis=1)
    similarities = 1 - np.take_along_axis(cost, rows, axis=1)
    as_float64 = (np.stack(taken, axis=1), similarities, group_shares)
    top_shares, similarities, group_shares = (part.astype(np.float64) for part in as_float64)
    return rows, top_shares, similarities, group, group_shares


def _largest_group(shares: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The group with most of each row's mass; rows of no group compete as one."""
    if (groups < 0).all():
        return np.full(len(shares), -1), np.ones(len(shares), dtype=np.float32)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0])
    masses = np.add.reduceat(shares[:, order], starts, axis=1)
    largest = masses.argmax(axis=1)
    return groups[order][starts][largest], masses[np.arange(len(masses)), largest]
