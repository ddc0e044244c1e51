"""What a solve on embeddings needs to know before it starts, without computing the costs."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sot_pipeline.errors import InputError
from sot_pipeline.transport.cost import (
    Spreads,
    check_embeddings,
    directions_from,
    spreads_of_variances,
)
from sot_pipeline.transport.kernel import CosineColumns, unit_directions
from sot_pipeline.transport.tiles import BYTES_PER_ENTRY, RowCosts, Storage, working_bytes

_CHUNK = 65_536  # rows
# Float64 vectors of n that a descent holds at once: five steps remembered, as many points,
# potentials, weights and what is computed from them
_VECTORS_OF_DESCENT = 40


def cosine_columns(reference: np.ndarray, center: np.ndarray | None) -> CosineColumns:
    """A reference as unit directions from the centre."""
    check_embeddings(reference, "reference")
    width = reference.shape[1]
    point = np.zeros(width, np.float32) if center is None else np.asarray(center, np.float32)
    if point.shape != (width,) or not np.isfinite(point).all():
        raise InputError(
            f"center has shape {point.shape}, the reference {width} dimensions; take it from "
            "pooled_mean of embeddings of the same model"
        )
    return CosineColumns(jnp.asarray(directions_from(reference, point)), jnp.asarray(point))


def spreads_of_cosines(custom: np.ndarray, *references: CosineColumns) -> Spreads:
    """`cost.spreads` of cosine costs from second moments, `O((n + m) d^2)`: no cost is computed."""
    mean, covariance = _moments(custom, np.asarray(references[0].center))
    of_all, within_rows = [], []
    for reference in references:
        directions = np.asarray(reference.directions, dtype=np.float64)
        middle = directions.mean(axis=0)
        own = (directions - middle).T @ (directions - middle) / len(directions)
        # sums of what is not negative: nothing cancels, however near the embeddings are
        within_rows.append(np.sum(covariance * own) + mean @ own @ mean)
        of_all.append(within_rows[-1] + middle @ covariance @ middle)
    return spreads_of_variances(np.array(of_all), np.array(within_rows))


def storage_within(limit: int, pull: RowCosts, push: RowCosts) -> tuple[Storage, Storage]:
    """The fastest storage of the two kernels that keeps a solve within `limit` bytes."""
    num_rows = len(pull.rows)
    needed = 8 * _VECTORS_OF_DESCENT * num_rows + working_bytes()
    choices: tuple[tuple[Storage, Storage], ...] = (
        ("float32", "float32"),
        ("float32", "float16"),
        ("float16", "float32"),
        ("float16", "float16"),
        ("float16", "recomputed"),
        ("recomputed", "float16"),
        ("recomputed", "recomputed"),
    )
    for storages in choices:
        widths = zip(storages, (pull.num_columns, push.num_columns), strict=True)
        entry_bytes = sum(BYTES_PER_ENTRY[storage] * width for storage, width in widths)
        if needed + num_rows * entry_bytes <= limit:
            return storages
    raise InputError(
        f"memory_limit={limit:,} bytes; {num_rows:,} rows need {needed:,} bytes even with "
        "costs that are computed anew in every sweep. Raise the limit or solve fewer rows."
    )


def free_memory() -> int:
    """Bytes that are free on the devices that solve."""
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats:
        return (stats["bytes_limit"] - stats["bytes_in_use"]) * jax.device_count()
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _moments(vectors: np.ndarray, center: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the directions from the centre."""
    width = vectors.shape[1]
    sums, products = np.zeros(width), np.zeros((width, width))
    pivot = directions_from(vectors[:_CHUNK], center).mean(axis=0)  # near the mean
    for start in range(0, len(vectors), _CHUNK):
        chunk = np.asarray(vectors[start : start + _CHUNK], np.float32)
        chunk_sums, chunk_products = _sums(chunk, center, pivot)
        sums, products = sums + chunk_sums, products + chunk_products
    moved = sums / len(vectors)
    return pivot + moved, products / len(vectors) - np.outer(moved, moved)


@jax.jit
def _sums(vectors: Float[Array, "r d"], center: Float[Array, " d"], pivot: Float[Array, " d"]):
    moved = unit_directions(vectors, center) - pivot
    return moved.sum(axis=0), jnp.matmul(moved.T, moved, precision=jax.lax.Precision.HIGHEST)
