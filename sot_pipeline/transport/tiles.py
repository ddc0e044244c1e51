"""The custom rows on the devices: in tiles, as stored kernels or as costs taken anew.

A tile is spread over all devices, each of which sweeps its own rows; what the columns get is added
up over the devices (one all-reduce of m numbers). How a tile holds its numbers is its storage:

    float32, float64   the kernel, in the precision of the sums
    float16            the kernel at half the memory; sums are still taken in float32
    recomputed         nothing: costs and exponentials are taken anew in every sweep
"""

from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sot_pipeline.transport.kernel import (
    MAX_DRIFT,
    CosineColumns,
    blocking,
    build_blocks,
    column_maxima_and_sums,
    curvature,
    sweep_blocks,
    sweep_costs,
)

Storage = Literal["float32", "float64", "float16", "recomputed"]
Precision = Literal["float32", "float64"]
BYTES_PER_ENTRY: dict[Storage, int] = {"float32": 4, "float64": 8, "float16": 2, "recomputed": 0}
_TILE_BYTES = 512 << 20  # per device: the kernel that one call of a compiled program sweeps
_RUNTIME_BYTES = 256 << 20  # of jax itself and of the programs it compiles; 0.2 GB measured
_PIECE_BYTES = 16 << 20  # per device: what is moved there at once; malloc keeps such memory


class RowCosts(NamedTuple):
    """Costs of n custom rows to m reference rows, given or to be computed."""

    rows: np.ndarray  # [n, m] costs, or [n, d] embeddings; may be memory-mapped
    num_columns: int
    columns: CosineColumns | None = None  # given with embeddings


class Tiles:
    """Sweeps over the costs of n rows to m columns, for one epsilon.

    Args:
        costs: Where costs come from.
        epsilon: Regularisation strength, unit of the cost.
        storage: How the kernel is held.
        precision: Of the sums.
    """

    def __init__(
        self, costs: RowCosts, *, epsilon: float, storage: Storage, precision: Precision
    ) -> None:
        self.costs, self.epsilon = costs, float(epsilon)
        self.storage: Storage = storage
        self.precision: Precision = precision
        self.num_rows, self.num_columns = len(costs.rows), costs.num_columns
        self.num_sweeps = 0
        self._devices = _mesh().size
        self._tiles = self._cut()
        self._kernel: list[jax.Array] = []  # per tile
        self._alpha: list[np.ndarray] = []  # row potentials absorbed, per tile
        self._beta = np.zeros(0)  # column potentials absorbed

    def place(self, weights: np.ndarray) -> list[jax.Array]:
        """Row weights `[n]` as `sweep` takes them."""
        # times n: the weights of a million rows are not to fall below the floating point
        return [self._place(self.num_rows * weights[rows]) for rows in self._tiles]

    def sweep(self, g: np.ndarray, masses: list[jax.Array]) -> tuple[list[jax.Array], np.ndarray]:
        """Per tile what gives the rows' potentials, and the column masses `[m]`, float64."""
        self.num_sweeps += 1
        programs, epsilon = _programs(_mesh()), self._scalar(self.epsilon)
        if self.storage == "recomputed":
            answers = [
                programs.sweep_costs(
                    self._place(self.costs.rows[rows]),
                    self.costs.columns,
                    self._vector(g),
                    mass,
                    epsilon,
                )
                for rows, mass in zip(self._tiles, masses, strict=True)
            ]
            scaling = np.ones_like(g)
        else:
            if not self._kernel or np.abs(g - self._beta).max() > MAX_DRIFT * self.epsilon:
                self._absorb(g)
            scaling = np.exp((g - self._beta) / self.epsilon)
            v = self._vector(scaling / self._kernel_unit)
            answers = [
                programs.sweep(kernel, v, mass)
                for kernel, mass in zip(self._kernel, masses, strict=True)
            ]
            scaling = scaling / self._kernel_unit
        column_mass = np.sum([np.asarray(mass, dtype=np.float64) for _, mass in answers], axis=0)
        return [rows for rows, _ in answers], scaling * column_mass / self.num_rows

    def _absorb(self, g: np.ndarray) -> None:
        """Store the kernel with `g` and the rows' answer to it absorbed."""
        programs, dtype = _programs(_mesh()), jnp.dtype(self.storage)
        self._alpha, self._beta = [], g.copy()
        kernels, self._kernel = self._kernel, []
        for tile, rows in enumerate(self._tiles):
            shape = (*self._layout, self.num_columns)
            # the old kernel's memory is used again
            kernel = kernels[tile] if kernels else programs.empty(shape=shape, dtype=dtype)
            alpha = np.empty(self._layout)
            for start in range(0, self._layout[1], self._piece):
                kernel, f = programs.build(
                    kernel,
                    self._place(self.costs.rows[rows], start),
                    np.int32(start),
                    self.costs.columns,
                    self._vector(g),
                    self._scalar(self.epsilon),
                    self._scalar(self._kernel_unit),
                )
                alpha[:, start : start + self._piece] = np.asarray(f)
            self._kernel.append(kernel)
            self._alpha.append(alpha.reshape(-1)[: rows.stop - rows.start])

    def potential(self, answers: list[jax.Array]) -> np.ndarray:
        """Row potentials `[n]`, float64, from the first part of what `sweep` returned last."""
        fetched = [self._fetch(rows, tile) for rows, tile in zip(answers, self._tiles, strict=True)]
        if self.storage != "recomputed":
            fetched = [
                alpha - self.epsilon * log_s
                for alpha, log_s in zip(self._alpha, fetched, strict=True)
            ]
        return np.concatenate(fetched)

    def curvature(self, g: np.ndarray, masses: list[jax.Array]) -> np.ndarray:
        """`sum_i w_i p_i p_i^T`, `[m, m]`: how columns compete for the rows' mass at `g`."""
        self.num_sweeps += 1
        total = np.zeros((self.num_columns, self.num_columns))
        for rows, mass in zip(self._tiles, masses, strict=True):
            total += np.asarray(
                _programs(_mesh()).curvature(
                    self._place(self.costs.rows[rows]),
                    self.costs.columns,
                    self._vector(g),
                    mass,
                    self._scalar(self.epsilon),
                )
            )
        return total / self.num_rows

    def log_column_sums(self, exponent: np.ndarray) -> np.ndarray:
        """`log sum_i exp(exponent_i - C_ij / epsilon)`, `[m]`, whatever the size of either."""
        largest, total = np.full(self.num_columns, -np.inf), np.zeros(self.num_columns)
        for rows in self._tiles:
            tile_largest, tile_total = jax.device_get(
                _programs(_mesh()).columns(
                    self._place(self.costs.rows[rows]),
                    self._place(exponent[rows], fill=-np.inf),
                    self.costs.columns,
                    self._scalar(self.epsilon),
                )
            )
            new = np.maximum(largest, tile_largest)
            total = total * np.exp(largest - new) + tile_total * np.exp(tile_largest - new)
            largest = new
        return largest + np.log(total)

    def recompute(self) -> None:
        """Give up a rounded kernel for exact costs."""
        if self.storage == "float16":
            self.storage, self._kernel = "recomputed", []
            self._tiles = self._cut()

    @property
    def _kernel_unit(self) -> float:
        """Rows of the kernel sum to this: float16 has 65,504 above 1 and little below."""
        return float(min(self.num_columns, 60_000)) if self.storage == "float16" else 1.0

    def _cut(self) -> list[slice]:
        stored = self.num_columns * BYTES_PER_ENTRY[self.storage]
        given = self.costs.rows.shape[1] * self.costs.rows.dtype.itemsize
        # what is not stored is placed anew in every sweep: in pieces whose memory is used again
        most = self._devices * (_TILE_BYTES // stored if stored else _PIECE_BYTES // given)
        num_tiles = -(-self.num_rows // max(1, most))
        edges = np.linspace(0, self.num_rows, num_tiles + 1).astype(int)
        size = int(np.diff(edges).max())  # all tiles are padded to one size: one compilation
        num_blocks, rows = blocking(-(-size // self._devices), self.num_columns, self._itemsize)
        num_pieces = -(-num_blocks * rows * max(given, stored) // _PIECE_BYTES)
        self._piece = -(-num_blocks // num_pieces)  # blocks
        if stored:
            num_blocks = -(-num_blocks // self._piece) * self._piece
            rows = -(-size // (self._devices * num_blocks))
        self._layout = (self._devices, num_blocks, rows)
        return [slice(a, b) for a, b in pairwise(edges.tolist())]

    @property
    def _itemsize(self) -> int:
        return BYTES_PER_ENTRY[self.storage] or np.dtype(self.precision).itemsize

    def _place(self, values: np.ndarray, start: int | None = None, fill: float = 0.0) -> jax.Array:
        """Rows of one tile as `[devices, blocks, rows, ...]`, the first axis spread.

        With `start` only a piece: as many blocks of each device, from that one on.
        """
        num_devices, num_blocks, size = self._layout
        if start is not None:
            edges = [(d * num_blocks + start) * size for d in range(num_devices)]
            num_blocks = self._piece
            parts = [values[edge : edge + num_blocks * size] for edge in edges]
        else:
            parts = [values]
        each = num_blocks * size * (1 if start is not None else num_devices)
        kept = np.float16 if values.dtype == np.float16 else self.precision
        parts = [_padded(np.asarray(part, kept), each, fill) for part in parts]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        shaped = whole.reshape(num_devices, num_blocks, size, *values.shape[1:])
        return jax.device_put(shaped, NamedSharding(_mesh(), P("rows")))

    def _fetch(self, values: jax.Array, rows: slice) -> np.ndarray:
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        return flat[: rows.stop - rows.start]

    def _vector(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values, self.precision)

    def _scalar(self, value: float) -> np.ndarray:
        return np.asarray(value, self.precision)


def working_bytes() -> int:
    """Most bytes that a sweep or a build takes beside kernels and vectors."""
    return _RUNTIME_BYTES + 8 * jax.device_count() * _PIECE_BYTES


def _padded(rows: np.ndarray, num_rows: int, fill: float) -> np.ndarray:
    if len(rows) == num_rows:
        return rows
    padding = np.full((num_rows - len(rows), *rows.shape[1:]), fill, rows.dtype)
    return np.concatenate([rows, padding])


class _Programs(NamedTuple):
    curvature: Callable
    empty: Callable
    build: Callable
    sweep: Callable
    sweep_costs: Callable
    columns: Callable


def _mesh() -> Mesh:
    return _mesh_of(tuple(jax.devices()))


@cache
def _mesh_of(devices: tuple) -> Mesh:
    return Mesh(np.array(devices), ("rows",))


@cache
def _programs(mesh: Mesh) -> _Programs:
    """The compiled passes; each works on its device's rows and adds up what columns get."""
    each, same = P("rows"), P()

    def own(tile):  # a reshape, since an index would copy the kernel in every sweep
        return tile.reshape(tile.shape[1:])

    spread = partial(jax.shard_map, mesh=mesh, check_vma=False)

    @partial(jax.jit, static_argnames=("shape", "dtype"), out_shardings=NamedSharding(mesh, each))
    def empty(shape, dtype):
        return jnp.zeros(shape, dtype)

    def local_build(kernel, rows, start, columns, g, epsilon, unit):
        f, kernel = build_blocks(own(kernel), own(rows), start, columns, g, epsilon, unit)
        return kernel[None], f[None]

    spread_build = spread(
        local_build,
        in_specs=(each, each, same, same, same, same, same),
        out_specs=(each, each),
    )

    def local_sweep(blocks, v, mass):
        log_s, column_mass = sweep_blocks(own(blocks), v, own(mass))
        return log_s[None], jax.lax.psum(column_mass, "rows")

    def local_sweep_costs(rows, columns, g, mass, epsilon):
        f, column_mass = sweep_costs(own(rows), columns, g, own(mass), epsilon)
        return f[None], jax.lax.psum(column_mass, "rows")

    def local_columns(rows, exponent, columns, epsilon):
        largest, total = column_maxima_and_sums(own(rows), own(exponent), columns, epsilon)
        shared = jax.lax.pmax(largest, "rows")
        return shared, jax.lax.psum(total * jnp.exp(largest - shared), "rows")

    def local_curvature(rows, columns, g, mass, epsilon):
        return jax.lax.psum(curvature(own(rows), columns, g, own(mass), epsilon), "rows")

    return _Programs(
        jax.jit(spread(local_curvature, in_specs=(each, same, same, each, same), out_specs=same)),
        empty,
        jax.jit(spread_build, donate_argnums=0),
        jax.jit(spread(local_sweep, in_specs=(each, same, each), out_specs=(each, same))),
        jax.jit(
            spread(
                local_sweep_costs,
                in_specs=(each, same, same, each, same),
                out_specs=(each, same),
            )
        ),
        jax.jit(spread(local_columns, in_specs=(each, each, same, same), out_specs=(same, same))),
    )
