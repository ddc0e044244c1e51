"""Two coordinates per text that keep neighbours together: t-SNE, fitted on a part.

The counterpart of `embedding_map`, whose axis has a meaning: here only nearness has one. Groups
that lie apart are apart in the embedding; how far apart they are drawn, and how large, says little.

Sources: van der Maaten and Hinton (2008); start from the principal components, learning rate
n / exaggeration and perplexity 30 as Kobak and Berens (2019) and Belkina et al. (2019) advise, which
are openTSNE's defaults (Policar, Strazar and Zupan, 2024); new rows are placed by its `transform`.
"""

import warnings
from typing import NamedTuple

import numpy as np

from sot_pipeline.report.embedding_map import EmbeddingMap, embedding_map

MAX_FITTED_ROWS = 2_000  # 6 s of one core; the rest is placed among them
_SHARES = (0.5, 0.25, 0.25)  # of the fitted rows: custom, safe, harmful
_FEWEST_ROWS = 12  # t-SNE of fewer rows shows nothing that the other map does not
_PERPLEXITY = 30
_PLACING_PERPLEXITY, _PLACING_NEIGHBOURS = 5, 25  # openTSNE's defaults for new rows
_PLACING_WORK = 1_000_000  # rows times steps; at most openTSNE's 250 steps, 10 for 100,000 rows
_NUM_DIRECTIONS = 50  # principal components: neighbours of 50 cost a fraction of those of 384
_SEED = 0


class Neighbourhoods(NamedTuple):
    """`points`: the coordinates; `num_fitted`: rows that shaped the map, the others were placed."""

    points: EmbeddingMap
    num_fitted: int


def neighbourhoods(
    custom: np.ndarray,
    safe: np.ndarray,
    harmful: np.ndarray,
    *,
    center: np.ndarray | None = None,
    max_fitted_rows: int = MAX_FITTED_ROWS,
) -> Neighbourhoods:
    """t-SNE of the three sets together; deterministic.

    Args:
        custom, safe, harmful: `[rows, d]`, any float type; safe and harmful not empty.
        center: `[d]`, subtracted from the unit rows, as `cosine_cost` does: the map then shows
            the angles that the transport saw. None: the origin.
        max_fitted_rows: How many rows shape the map: an even sample, half of them custom rows.
            The time grows with them; each further row costs little.

    Returns:
        `Neighbourhoods`. Of fewer than 12 rows in all the coordinates are those of
        `embedding_map`.
    """
    sets = [_directions(vectors, center) for vectors in (custom, safe, harmful)]
    sizes = [len(vectors) for vectors in sets]
    if sum(sizes) < _FEWEST_ROWS:
        return Neighbourhoods(embedding_map(custom, safe, harmful), sum(sizes))
    pooled = np.concatenate(sets)
    fitted = _fitted_rows(sizes, max_fitted_rows)
    xy = _placed(_principal(pooled, fitted), fitted)
    ends = np.cumsum(sizes)[:-1]
    return Neighbourhoods(EmbeddingMap(*np.split(xy, ends)), len(fitted))


def _directions(vectors: np.ndarray, center: np.ndarray | None) -> np.ndarray:
    """Unit rows `[rows, d]` float32, of which `center` was taken."""
    rows = _unit(np.asarray(vectors, dtype=np.float32))
    return rows if center is None else _unit(rows - np.asarray(center, dtype=np.float32))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _fitted_rows(sizes: list[int], most: int) -> np.ndarray:
    """Places of an even sample of each set; what a small set leaves over goes to the others."""
    room = [min(size, int(most * share)) for size, share in zip(sizes, _SHARES, strict=True)]
    for place, size in enumerate(sizes):
        room[place] += min(size - room[place], most - sum(room))
    starts = np.cumsum([0, *sizes[:-1]])
    samples = [
        start + np.linspace(0, size - 1, num).round().astype(np.int64)
        for start, size, num in zip(starts, sizes, room, strict=True)
    ]
    return np.concatenate(samples)


def _principal(pooled: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """`[rows, <= 50]`: coordinates on the main directions of the fitted rows."""
    from sklearn.utils.extmath import randomized_svd

    sample = pooled[fitted]
    middle = sample.mean(axis=0)
    num = min(_NUM_DIRECTIONS, *sample.shape)
    _, _, directions = randomized_svd(sample - middle, num, random_state=_SEED)
    return ((pooled - middle) @ directions.T).astype(np.float64)


def _placed(rows: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """`[rows, 2]`: t-SNE of the fitted rows, the others placed among them one by one."""
    import openTSNE
    from openTSNE import affinity, initialization

    sample = rows[fitted]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal rows, and of its own use of other libraries
        similar = affinity.PerplexityBasedNN(
            sample,
            perplexity=min(_PERPLEXITY, (len(sample) - 1) // 3),
            method="exact",
            random_state=_SEED,
        )
        start = initialization.rescale(_two_columns(sample))
        # Barnes-Hut: repeats to the last bit, and is quicker than interpolation at this size
        method = openTSNE.TSNE(negative_gradient_method="bh", random_state=_SEED, n_jobs=1)
        shape = method.fit(affinities=similar, initialization=start)
        xy = np.empty((len(rows), 2))
        xy[fitted] = np.asarray(shape)
        others = np.setdiff1d(np.arange(len(rows)), fitted)
        if len(others):
            xy[others] = np.asarray(
                shape.transform(
                    rows[others],
                    perplexity=min(_PLACING_PERPLEXITY, (len(sample) - 1) // 3),
                    k=min(_PLACING_NEIGHBOURS, len(sample) - 1),
                    n_iter=min(250, max(1, _PLACING_WORK // len(others))),
                )
            )
    return xy - xy[fitted].mean(axis=0)


def _two_columns(sample: np.ndarray) -> np.ndarray:
    """The first two principal coordinates; noise where the rows do not vary, lest points that
    start on each other stay there."""
    noise = np.random.default_rng(_SEED).normal(scale=1e-6, size=(len(sample), 2))
    width = min(2, sample.shape[1])
    noise[:, :width] += sample[:, :width]
    return noise
