"""How well log-weights tell harmful rows from the others, where the truth about rows is known.

| measure | meaning | better |
|---|---|---|
| auroc | chance that a harmful row scores below another one (ties count half) | higher |
| average_precision | mean precision of "harmful" over the harmful rows, lowest score first | higher |
| harmful_left | share of the harmful rows that stay | lower |
| benign_lost | share of the benign rows that go | lower |
| refusals_lost | share of the refusals that go | lower |

Intervals are 95 % percentile bootstrap intervals over rows. All methods see the same resamples, so
differences between them are paired. A score that is the same for all rows has AUROC .5 and an
average precision of the harmful share.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from sot_pipeline.errors import InputError

HARMFUL, REFUSAL = "harmful", "refusal"
MEASURES = ("auroc", "average_precision", "harmful_left", "benign_lost", "refusals_lost")
EVERY_SOURCE = "all"
SCHEMA = {
    "method": pl.String,
    "source": pl.String,
    "measure": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "num_rows": pl.Int64,
}
# Resampled rows at once: no result depends on it; more than a cache holds is slower
_BLOCK = 500_000


class Selected(NamedTuple):
    """What a method makes of the rows.

    `log_weights`: `[n]`, larger is better. `kept`: `[n]`, the rows that it would train on.
    """

    log_weights: Float[np.ndarray, " n"]
    kept: Bool[np.ndarray, " n"]


def selection_quality(
    selections: Mapping[str, Selected],
    labels: Sequence[str],
    sources: Sequence[str | None],
    *,
    against: str = "sot",
    num_resamples: int = 500,
    seed: int = 0,
) -> pl.DataFrame:
    """Measures of each method, of all rows and of each source of harmful rows.

    Args:
        selections: By method, over the same rows.
        labels: "harmful", "refusal" or anything else, which is benign; one per row.
        sources: Where a row comes from. For a source, its harmful rows are set against all rows
            that are not harmful.
        against: The method that differences are taken from: method - this one; null without it.

    Returns:
        A row per method, source and measure (`SCHEMA`); a measure without rows is left out.
        `num_rows`: the rows that it is about.

    Raises:
        InputError: numbers of rows differ, or no row is harmful.
    """
    kinds = np.asarray(labels)
    origins = np.array([EVERY_SOURCE if source is None else source for source in sources])
    _check_rows(selections, kinds, origins)
    draws = {
        (name, source): found
        for source, rows in _groups(kinds, origins)
        for name, found in _measured(selections, kinds, rows, num_resamples, seed).items()
    }
    return pl.DataFrame(
        [
            line
            for name in selections
            for source in dict.fromkeys(source for _, source in draws)
            for line in _lines(name, source, draws[name, source], draws.get((against, source)))
        ],
        schema=SCHEMA,
        orient="row",
    )


class _Draws(NamedTuple):
    """`values` `[1 + resamples]` by measure, the first of the rows as they are."""

    values: dict[str, np.ndarray]
    num_rows: dict[str, int]


def _check_rows(selections: Mapping[str, Selected], kinds: np.ndarray, origins: np.ndarray) -> None:
    lengths = {name: {len(part) for part in selected} for name, selected in selections.items()}
    wrong = [name for name, found in lengths.items() if found != {len(kinds)}]
    if wrong or len(origins) != len(kinds):
        raise InputError(
            f"{', '.join(wrong) or 'sources'}: not as many rows as the {len(kinds):,} labels"
        )
    if not (kinds == HARMFUL).any():
        raise InputError(
            f'none of the {len(kinds):,} labelled rows is labelled "{HARMFUL}": the labels are '
            f"{', '.join(sorted(set(kinds.tolist()))[:10])}"
        )


def _groups(kinds: np.ndarray, origins: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The rows that are compared, by source of the harmful ones."""
    harmful = kinds == HARMFUL
    yield EVERY_SOURCE, np.arange(len(kinds))
    found = sorted(set(origins[harmful].tolist()) - {EVERY_SOURCE})
    for source in found if len(found) > 1 else ():
        yield source, np.flatnonzero(~harmful | (origins == source))


def _measured(
    selections: Mapping[str, Selected],
    kinds: np.ndarray,
    rows: np.ndarray,
    num_resamples: int,
    seed: int,
) -> dict[str, _Draws]:
    """Of each method; each resample is drawn once for all of them."""
    harmful, refusal = kinds[rows] == HARMFUL, kinds[rows] == REFUSAL
    rankings = [_Ranking(one.log_weights[rows], harmful) for one in selections.values()]
    kept = np.stack([one.kept[rows] for one in selections.values()], axis=1)
    shares = {
        "harmful_left": _Share(harmful, kept),
        "benign_lost": _Share(~harmful & ~refusal, ~kept),
        "refusals_lost": _Share(refusal, ~kept),
    }
    blocks: list[dict[str, np.ndarray]] = []  # each [block, methods]
    for counts in _resamples(len(rows), num_resamples, seed):
        ranked = np.array([ranking.measures(counts) for ranking in rankings])
        found = {"auroc": ranked[:, 0].T, "average_precision": ranked[:, 1].T}
        blocks.append(found | {name: share.of(counts) for name, share in shares.items()})
    values = {name: np.concatenate([block[name] for block in blocks]) for name in MEASURES}
    about = {"auroc": len(rows), "average_precision": len(rows)} | {
        name: len(share.rows) for name, share in shares.items()
    }
    return {
        name: _Draws({measure: found[:, k] for measure, found in values.items()}, about)
        for k, name in enumerate(selections)
    }


def _resamples(num_rows: int, num_resamples: int, seed: int) -> Iterator[Int[np.ndarray, "b n"]]:
    """How often each row is drawn, `[block, rows]`; first the rows as they are."""
    yield np.ones((1, num_rows), dtype=np.int32)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // num_rows)
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        drawn = rng.integers(num_rows, size=(size, num_rows)) + num_rows * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_rows)
        yield counts.reshape(size, num_rows).astype(np.int32)


class _Share:
    """Share of a group's draws that each method chose."""

    def __init__(self, group: Bool[np.ndarray, " n"], chosen: Bool[np.ndarray, "n m"]) -> None:
        self.rows = np.flatnonzero(group)
        self._chosen = chosen[self.rows].astype(np.float64)  # sums of counts are exact in it

    def of(self, counts: Int[np.ndarray, "b n"]) -> Float[np.ndarray, "b m"]:
        drawn = counts[:, self.rows].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return drawn @ self._chosen / drawn.sum(axis=1, keepdims=True)


class _Ranking:
    """Rows in order of their scores, sorted once for all resamples.

    Only scores that a harmful row has are looked at: `starts` and `ends` are the numbers of rows
    below such a score, and up to it.
    """

    def __init__(self, scores: Float[np.ndarray, " n"], harmful: Bool[np.ndarray, " n"]) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered, is_harmful = scores[self._order], harmful[self._order]
        self._harmful = self._order[is_harmful]
        changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        borders = np.concatenate([[0], changes, [len(scores)]])
        num_harmful = np.append(0, np.cumsum(is_harmful))[borders]
        has = np.diff(num_harmful) > 0
        self._starts, self._ends = borders[:-1][has], borders[1:][has]
        self._harmful_ends = num_harmful[1:][has]

    def measures(
        self, counts: Int[np.ndarray, "b n"]
    ) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
        """AUROC and average precision, NaN where a resample has no harmful row (or no other)."""
        every = _running_sum(counts, self._order)
        harmful = _running_sum(counts, self._harmful)[:, self._harmful_ends]
        below = np.hstack([np.zeros((len(counts), 1), harmful.dtype), harmful[:, :-1]])
        up_to, found = every[:, self._ends], (harmful - below).astype(np.float64)
        num_harmful = harmful[:, -1].astype(np.float64)
        num_other = every[:, -1] - num_harmful
        # others above a harmful row count whole, those at its very score half
        not_above = (up_to - harmful) + (every[:, self._starts] - below)
        wins = (found * (2 * num_other[:, None] - not_above)).sum(axis=1) / 2
        precision = harmful / np.maximum(up_to, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return wins / (num_harmful * num_other), (found * precision).sum(axis=1) / num_harmful


def _running_sum(counts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """`[block, 1 + rows]`: of no row, of the first in this order, of the first two ..."""
    sums = np.zeros((len(counts), 1 + len(order)), dtype=counts.dtype)
    np.cumsum(counts[:, order], axis=1, dtype=counts.dtype, out=sums[:, 1:])
    return sums


def _lines(name: str, source: str, found: _Draws, base: _Draws | None) -> Iterator[tuple]:
    for measure in MEASURES:
        values = found.values[measure]
        if not found.num_rows[measure] or np.isnan(values[0]):
            continue
        gap = (None, None, None)
        if base is not None:
            gap = _with_interval(values - base.values[measure])
        yield name, source, measure, *_with_interval(values), *gap, found.num_rows[measure]


def _with_interval(values: np.ndarray) -> tuple[float, float, float]:
    """The first, and the central 95 % of the rest (of which a few may hold no harmful row)."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return float(values[0]), float(low), float(high)
