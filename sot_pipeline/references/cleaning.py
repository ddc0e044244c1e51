"""Which reference rows to leave out: copies, and rows that look mislabelled."""

from typing import NamedTuple

import numpy as np

from sot_pipeline.references.duplicates import copy_groups
from sot_pipeline.references.label_noise import FEWEST_ROWS, FlipRate, flip_rates


class Cleaning(NamedTuple):
    """What stays of two references, and why the rest goes."""

    safe: np.ndarray  # [n] bool, stays
    harmful: np.ndarray  # [m] bool, stays
    groups: np.ndarray  # [n + m] number of the row that each row is a copy of
    flips: tuple[FlipRate, FlipRate] | None  # None: too few rows to tell


def clean(safe: np.ndarray, harmful: np.ndarray, *, seed: int = 0) -> Cleaning:
    """Keep one of several copies on a side, and drop the rows whose label looks flipped.

    Args:
        safe: Embeddings `[n, d]`, any unit.
        harmful: Embeddings `[m, d]` of the same model.
        seed: Of `flip_rates`.
    """
    groups = copy_groups(np.concatenate([safe, harmful]))
    kept = [_firsts(part) for part in (groups[: len(safe)], groups[len(safe) :])]
    flips = None
    if min(len(safe), len(harmful)) >= FEWEST_ROWS:
        flips = flip_rates(safe, harmful, groups=groups, seed=seed)
        for stays, flip in zip(kept, flips, strict=True):
            stays[flip.suspicious] = False
    return Cleaning(kept[0], kept[1], groups, flips)


def _firsts(groups: np.ndarray) -> np.ndarray:
    first = np.zeros(len(groups), dtype=bool)
    first[np.unique(groups, return_index=True)[1]] = True
    return first
