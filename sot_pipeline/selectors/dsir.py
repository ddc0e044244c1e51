"""DSIR: log-importance weights on hashed words and word pairs.

    log w(x) = sum over the n-grams g of x of  log p_target(g) - log p_custom(g)

with g one of `num_buckets` hash buckets of words and pairs of words. Rows that read like the
target set weigh most; the harmful reference plays no part.

Source: Xie, Santurkar, Ma, Liang, "Data Selection for Language Models via Importance Resampling"
(NeurIPS 2023, arXiv 2302.03169), and its package `data-selection` 1.0.3 (MIT), whose features and
weights these are with `smoothing=0` and `per_token=False`.

What differs, and why:

* No row is dropped for being short; theirs drops all below 100 words, which are all rows of some
  sets.
* A small target leaves most buckets empty, and a log of 1e-8 for each n-gram it happens not to
  hold drowns the rest: `smoothing` adds a count to every bucket. Much of it favours rare words:
  it can turn the ranking round (`bench_rival_references`).
* A sum grows with the length of the row: `per_token` takes the mean.
* A target that holds refusals of risky prompts draws the harmful rows, which share their topics:
  give texts of the task (`bench_rival_references`).
* The weights hold no noise unless `sampling_seed` asks for it.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from sot_pipeline.errors import InputError
from sot_pipeline.rendering import Conversation

_TOKEN = re.compile(r"\w+|[^\w\s]+")  # nltk's WordPunctTokenizer
_FLOOR = 1e-8  # under the logarithms, as in the package


def plain_text(conversation: Conversation) -> str:
    """What a row says, to be compared: its turns without roles, template or system turn.

    Words that a template or a system turn puts into every row tell nothing of one.
    """
    return "\n".join(turn["content"] for turn in conversation if turn["role"] != "system")


def dsir(
    custom: Sequence[str],
    target: Sequence[str],
    *,
    num_buckets: int = 10_000,
    smoothing: float = 0.01,
    per_token: bool = True,
    sampling_seed: int | None = None,
) -> Float[np.ndarray, " n"]:
    """Log-importance of each custom text, nats, for a target set.

    Args:
        custom, target: Texts as `plain_text` gives them.
        smoothing: Counts added to each bucket of the target, >= 0.
        per_token: The mean over a text's n-grams instead of their sum.
        sampling_seed: Adds Gumbel noise: the texts with the largest log-weights are then a draw
            without replacement, each in proportion to its weight, as the paper draws (Kool et al.
            2019, arXiv 1903.06059). None: no noise.

    Returns:
        0 for a text without a word.

    Raises:
        InputError: no words at all in one of the sets, or settings out of range.
    """
    if num_buckets < 1 or not smoothing >= 0 or np.isinf(smoothing):
        raise InputError(
            f"num_buckets={num_buckets}, smoothing={smoothing}; expected at least one bucket and "
            "a finite count >= 0"
        )
    buckets = _Buckets(num_buckets)
    rows = [buckets.of(text) for text in custom]
    raw = _counts("custom", rows, num_buckets)
    wanted = _counts("target", map(buckets.of, target), num_buckets) + smoothing
    gain = np.log(wanted / wanted.sum() + _FLOOR) - np.log(raw / raw.sum() + _FLOOR)
    sums = np.array([gain[row].sum() for row in rows])
    weights = sums / np.array([max(1, len(row)) for row in rows]) if per_token else sums
    return weights if sampling_seed is None else weights + gumbel(len(rows), sampling_seed)


def gumbel(size: int, seed: int) -> Float[np.ndarray, " size"]:
    """Standard Gumbel noise, from a generator of its own."""
    return np.random.default_rng(seed).gumbel(size=size)


def features(text: str, num_buckets: int) -> Int[np.ndarray, " buckets"]:
    """How often each bucket occurs in a text."""
    return np.bincount(_Buckets(num_buckets).of(text), minlength=num_buckets)


class _Buckets:
    """Bucket numbers of a text's words, then of its pairs of neighbouring words."""

    def __init__(self, num_buckets: int) -> None:
        self._num_buckets = num_buckets
        self._known: dict[str, int] = {}

    def of(self, text: str) -> Int[np.ndarray, " ngrams"]:
        words = _TOKEN.findall(text.lower())
        return np.fromiter(map(self._bucket, _ngrams(words)), dtype=np.int64)

    def _bucket(self, ngram: str) -> int:
        bucket = self._known.get(ngram)
        if bucket is None:
            # half of a surrogate pair, as broken JSON escapes leave it, has no UTF-8
            digest = hashlib.sha256(ngram.encode("utf-8", "surrogatepass")).digest()
            bucket = self._known[ngram] = int.from_bytes(digest, "big") % self._num_buckets
        return bucket


def _ngrams(words: list[str]) -> Iterator[str]:
    yield from words
    for first, second in itertools.pairwise(words):
        yield f"{first} {second}"


def _counts(
    name: str, rows: Iterable[np.ndarray], num_buckets: int
) -> Float[np.ndarray, " buckets"]:
    counts = np.zeros(num_buckets)
    for row in rows:
        np.add.at(counts, row, 1)
    if not counts.any():
        raise InputError(f"the {name} texts hold no word: there is nothing to compare")
    return counts
