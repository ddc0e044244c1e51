"""The ground cost: one minus the cosine between two embeddings."""

import hashlib
from typing import NamedTuple

import numpy as np

from sot_pipeline.errors import InputError

# Below this length what is left of a unit row after centring is rounding, not a direction.
NO_DIRECTION = 1e-5
_CHUNK = 65_536  # rows
_ENTRIES = 2**24  # of a cost matrix that are copied at once
_ROUNDING = 1e-6  # a spread of costs below this is none


def pooled_mean(*sets: np.ndarray) -> np.ndarray:
    """Mean of the unit rows of several sets of embeddings, each set counting alike.

    Embeddings of a language model share a large common direction (anisotropy); costs to rows
    centred on it spread over more of [0, 2]. Each set counts once, so that the mean does not
    move with the sizes of the sets.

    Args:
        sets: Arrays `[n_k, d]`, any unit; they need not be normalised.

    Returns:
        `[d]` float32, to be passed to `cosine_cost` as `center`. Keep it with the fit: new rows
        must be centred on the same point.
    """
    if not sets:
        raise InputError("pooled_mean got no embeddings; pass at least one array [n, d]")
    units = [_unit_rows(vectors, f"set {k}") for k, vectors in enumerate(sets)]
    widths = sorted({unit.shape[1] for unit in units})
    if len(widths) > 1:
        raise InputError(
            f"the sets of embeddings have {widths} dimensions: they come from different models. "
            "Embed all of them with the same model."
        )
    return np.mean([unit.mean(axis=0, dtype=np.float64) for unit in units], axis=0).astype(
        np.float32
    )


def center_drift(vectors: np.ndarray, center: np.ndarray) -> float:
    """How far the mean of a set lies from a point, in units of the rows' root mean square
    distance from that point; 0 for a set on the point."""
    apart = _unit_rows(vectors, "vectors").astype(np.float64) - center
    spread = float(np.sqrt(np.mean(np.sum(apart**2, axis=1))))
    return float(np.linalg.norm(apart.mean(axis=0))) / spread if spread > 0 else 0.0


def cosine_cost(x: np.ndarray, y: np.ndarray, *, center: np.ndarray | None = None) -> np.ndarray:
    """Cosine distance of every row of `x` to every row of `y`.

    Args:
        x: Embeddings `[n, d]`, any unit; normalised here.
        y: Embeddings `[m, d]` of the same model.
        center: Point `[d]` that is subtracted from the unit rows before the angle is taken, as
            from `pooled_mean`. A row that lies on the centre has no direction; its cost is 1,
            the cost of a right angle.

    Returns:
        `[n, m]` float32, `1 - cos`, dimensionless, in [0, 2].

    Raises:
        InputError: shapes that do not fit, NaN or infinite values, a row of zeros.
    """
    x_unit, y_unit = _unit_rows(x, "x"), _unit_rows(y, "y")
    if x_unit.shape[1] != y_unit.shape[1]:
        raise InputError(
            f"x has {x_unit.shape[1]} dimensions, y has {y_unit.shape[1]}: they come from "
            "different models. Embed both with the same model."
        )
    if center is None:
        return cosine_of_directions(x_unit, y_unit)
    center = np.asarray(center, dtype=np.float32)
    if center.shape != (x_unit.shape[1],) or not np.isfinite(center).all():
        raise InputError(
            f"center has shape {center.shape}, expected ({x_unit.shape[1]},) and finite values; "
            "take it from pooled_mean of the same embeddings"
        )
    return cosine_of_directions(directions_from(x, center), directions_from(y, center))


class KnownCosts(NamedTuple):
    """Costs `[n, m]` between the rows of `x [n, d]` and `y [m, d]`, seen from `center`."""

    x: np.ndarray
    y: np.ndarray
    cost: np.ndarray
    center: np.ndarray | None


def updated_cost(
    x: np.ndarray,
    y: np.ndarray,
    *,
    center: np.ndarray | None = None,
    known: KnownCosts | None = None,
) -> tuple[np.ndarray, int]:
    """`cosine_cost`, computing only entries of which a vector is new.

    Args:
        x, y, center: As for `cosine_cost`.
        known: Earlier costs. An entry is taken over where the same two vectors, bit by bit, were
            seen from the same centre; where they stood does not matter.

    Returns:
        `[n, m]` float32, and the number of entries that were computed.
    """
    if known is None or not _same_center(center, known.center):
        return cosine_cost(x, y, center=center), len(x) * len(y)
    rows, columns = _places(x, known.x), _places(y, known.y)
    old_columns = np.flatnonzero(columns >= 0)
    new_rows, new_columns = np.flatnonzero(rows < 0), np.flatnonzero(columns < 0)
    cost = np.empty((len(x), len(y)), dtype=np.float32)
    apart = (np.diff(old_columns) != 1) | (np.diff(columns[old_columns]) != 1)
    for here in np.split(old_columns, np.flatnonzero(apart) + 1):
        if len(here):  # columns that are neighbours, and were
            there = slice(columns[here[0]], columns[here[-1]] + 1)
            _copy_rows(known.cost[:, there], rows, cost[:, here[0] : here[-1] + 1])
    if len(new_columns):
        cost[:, new_columns] = cosine_cost(x, y[new_columns], center=center)
    if len(new_rows) and len(old_columns):
        cost[np.ix_(new_rows, old_columns)] = cosine_cost(
            x[new_rows], y[old_columns], center=center
        )
    return cost, len(x) * len(new_columns) + len(new_rows) * len(old_columns)


def _copy_rows(known: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """Copy each row from its place; rows at place -1 are left alone."""
    if len(rows) == len(known) and np.array_equal(rows, np.arange(len(rows))):
        out[...] = known
        return
    old = np.flatnonzero(rows >= 0)
    for chunk in np.array_split(old, max(1, len(old) * out.shape[1] // _ENTRIES)):
        out[chunk] = known[rows[chunk]]


def _same_center(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _places(vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where each row stands among the known ones, -1 where it does not."""
    if np.array_equal(vectors, known):
        return np.arange(len(vectors))
    place = {_digest(row): index for index, row in enumerate(known)}
    return np.array([place.get(_digest(row), -1) for row in vectors], dtype=np.int64)


def _digest(row: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=16).digest()


class Spreads(NamedTuple):
    """How much two cost matrices vary, in the unit of the cost; > 0, so that they can divide."""

    pooled_std: float  # root mean variance of the two; 1 where neither varies
    # Root mean variance of a row's costs to one reference, of the reference where it is less.
    # Epsilon is given in it: a pooled standard deviation also measures how far the two sets are
    # from each other, which says nothing about which reference rows are near.
    within_rows: float


def spreads(pull_cost: np.ndarray, push_cost: np.ndarray) -> Spreads:
    """In one pass over the costs."""
    moments = [_moments(cost) for cost in (pull_cost, push_cost)]
    return spreads_of_variances(*(np.array(pair) for pair in zip(*moments, strict=True)))


def spreads_of_variances(of_all: np.ndarray, within_rows: np.ndarray) -> Spreads:
    """From the two matrices' variances `[2]`, of all entries and on average within a row."""
    std = float(np.sqrt(max(0.0, of_all.mean())))
    std = std if std > _ROUNDING else 1.0
    within = np.sqrt(np.maximum(within_rows, 0))
    return Spreads(std, float(min(within[within > _ROUNDING], default=std)))


def pooled_std(pull_cost: np.ndarray, push_cost: np.ndarray) -> float:
    """Root mean variance of the two costs; 1 where neither varies, so that it can divide."""
    return spreads(pull_cost, push_cost).pooled_std


def _moments(cost: np.ndarray) -> tuple[float, float]:
    """Variance of all entries and mean variance within a row, in chunks that stay in cache."""
    n, m = cost.shape
    rows = max(1, 262_144 // m)
    middle = cost.dtype.type(cost[0].mean())  # near the mean, so that little cancels
    total, squares, squares_of_means = 0.0, 0.0, 0.0
    for start in range(0, n, rows):
        moved = cost[start : start + rows] - middle
        means = moved.mean(axis=1)
        total += float(means.sum(dtype=np.float64))
        squares_of_means += float(np.square(means, dtype=np.float64).sum())
        squares += float(np.vdot(moved, moved)) / m
    return squares / n - (total / n) ** 2, (squares - squares_of_means) / n


def checked_costs(pull_cost: np.ndarray, push_cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two costs as floating-point arrays of the same number of rows, or an InputError."""
    costs = []
    for name, values in (("pull_cost", pull_cost), ("push_cost", push_cost)):
        cost = np.asarray(values)
        if cost.ndim != 2 or 0 in cost.shape or cost.dtype.kind not in "fiu":
            raise InputError(
                f"{name} is an array of {cost.dtype} of shape {cost.shape}; expected numbers of "
                "shape [custom rows, reference rows], neither of them 0"
            )
        if not (cost.min() >= 0 and cost.max() < np.inf):  # either is NaN if one entry is
            row = np.flatnonzero(~(np.isfinite(cost) & (cost >= 0)).all(axis=1))[0]
            raise InputError(
                f"{name}: row {row} holds a NaN, infinite or negative cost; expected finite "
                "costs >= 0, as cosine_cost gives. Compute the costs again."
            )
        costs.append(cost)
    if len(costs[0]) != len(costs[1]):
        raise InputError(
            f"pull_cost has {len(costs[0])} rows, push_cost {len(costs[1])}: both need one row "
            "per custom sample, in the same order"
        )
    dtype = np.result_type(np.float32, *costs)
    return costs[0].astype(dtype, copy=False), costs[1].astype(dtype, copy=False)


def check_embeddings(vectors: np.ndarray, name: str, *, width: int | None = None) -> None:
    """Raise an InputError unless every row `[n, d]` is finite and has a direction.

    Reads the rows in chunks, so that a memory-mapped array stays on disk.
    """
    if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind not in "fiu":
        raise InputError(
            f"{name} is an array of {vectors.dtype} of shape {vectors.shape}; "
            "expected numbers of shape [rows, dimensions], neither of them 0"
        )
    if width is not None and vectors.shape[1] != width:
        raise InputError(
            f"{name} has {vectors.shape[1]} dimensions, the references {width}: they come from "
            "different models. Embed all with the same model."
        )
    infinite, zero = [], []
    for start in range(0, len(vectors), _CHUNK):
        largest = np.abs(vectors[start : start + _CHUNK]).max(axis=1)  # NaN if one entry is
        infinite.append(start + np.flatnonzero(~np.isfinite(largest)))
        zero.append(start + np.flatnonzero(largest == 0))
    for rows, what in (
        (np.concatenate(infinite), "holds NaN or infinite values"),
        (np.concatenate(zero), "is all zeros and has no direction"),
    ):
        if len(rows):
            raise InputError(
                f"{name}: row {rows[0]} {what} ({len(rows)} such rows of {len(vectors)}); remove "
                "them or embed them again, in float32 if the model ran in half precision"
            )


def directions_from(vectors: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Unit vectors `[n, d]` float32 from the centre; the zero vector for a row that lies on it."""
    moved = _unit_rows(vectors, "vectors") - center
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.where(length > NO_DIRECTION, moved / np.maximum(length, NO_DIRECTION), 0)


def _unit_rows(vectors: np.ndarray, name: str) -> np.ndarray:
    vectors = np.asarray(vectors)
    check_embeddings(vectors, name)
    vectors = vectors.astype(np.promote_types(vectors.dtype, np.float32), copy=False)
    # scaled by the largest entry first: squares of tiny or huge entries leave float32
    scaled = (vectors / np.abs(vectors).max(axis=1, keepdims=True)).astype(np.float32)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def cosine_of_directions(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine cost `[n, m]` of unit vectors, as from `directions_from`."""
    cost = x @ y.T
    np.subtract(1, cost, out=cost)
    return np.clip(cost, 0, 2, out=cost)  # rounding leaves parallel rows a little below 0
