"""Rows that say the same: equal texts after normalisation, and vectors that point the same way."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sot_pipeline.references.directions import unit_rows

# Cosine from which on two rows count as repeats (vectors of prompt and answer apart, all-MiniLM-L6-v2).
# Among 5,150 rows that are all different, the share with such a neighbour is 0 (alpaca, GSM8K; at .95
# 0.1 %), 0.2 % (harmful reference) and 2 % (AG News, whose prompts share a frame; at .95 6 %).
# Light rewordings (a tenth of the words left out, typing errors, the last sentence cut) reach it in
# four of ten cases, at .95 in six: what it finds are repeats, what repeats are it does not all find.
NEAR_DUPLICATE = 0.97
_CHUNK = 2_048  # rows whose cosines to a whole set are held at once
_WORD = re.compile(r"\w+")


class Pairs(NamedTuple):
    """Rows of one set with their likest row of another."""

    rows: np.ndarray  # [k] int64, rising
    others: np.ndarray  # [k] int64
    similarities: np.ndarray  # [k] float32, cosine; 1 for equal texts


def normalised(text: str) -> str:
    """A text without what does not change its words: NFKC, case, punctuation, spaces."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return " ".join(words) or text.strip()  # a text of signs alone stands for itself


def equal_rows(texts: Sequence[str], others: Sequence[str] | None = None) -> Pairs:
    """Rows whose normalised text occurs in another set, or, without one, earlier in their own."""
    first: dict[str, int] = {}
    if others is not None:
        for row, text in enumerate(others):
            first.setdefault(normalised(text), row)
    found = []
    for row, text in enumerate(texts):
        key = normalised(text)
        if key in first:
            found.append((row, first[key]))
        elif others is None:
            first[key] = row
    return _pairs([row for row, _ in found], [other for _, other in found], [1.0] * len(found))


def near_rows(
    vectors: np.ndarray, others: np.ndarray | None = None, *, threshold: float = NEAR_DUPLICATE
) -> Pairs:
    """Rows with a cosine of at least `threshold` to a row of another set, or to an earlier row of
    their own; the likest such row each.

    Args:
        vectors: `[n, d]`, any unit.
        others: `[m, d]` of the same model; None: `vectors`.
    """
    x = unit_rows(vectors)
    y = x if others is None else unit_rows(others)
    rows, likest, similarities = [], [], []
    for start in range(0, len(x), _CHUNK):
        cosine = x[start : start + _CHUNK] @ y.T
        if others is None:
            here = np.arange(start, start + len(cosine))
            cosine[np.arange(len(y))[None, :] >= here[:, None]] = -1
        if not cosine.size:
            continue
        best = cosine.argmax(axis=1)
        value = cosine[np.arange(len(cosine)), best]
        near = np.flatnonzero(value >= threshold)
        rows += (start + near).tolist()
        likest += best[near].tolist()
        similarities += value[near].tolist()
    return _pairs(rows, likest, similarities)


def copy_groups(vectors: np.ndarray, *, threshold: float = NEAR_DUPLICATE) -> np.ndarray:
    """`[n]` the number of the first row that each row is a (near) copy of, chains included."""
    group = np.arange(len(vectors))
    found = near_rows(vectors, threshold=threshold)
    for row, other in zip(found.rows, found.others, strict=True):
        group[row] = group[other]  # the other stands earlier, so its group is final
    return group


def _pairs(rows: list[int], others: list[int], similarities: list[float]) -> Pairs:
    return Pairs(
        np.array(rows, dtype=np.int64),
        np.array(others, dtype=np.int64),
        np.array(similarities, dtype=np.float32),
    )
