"""An attacker who pads harmful answers or prompts with harmless text, and chooses the padding.

The attacker knows the encoder, the references and the score that it aims at.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.selectors.on_references import logistic_regression
from sot_pipeline.transport.fit import extend
from sot_pipeline_tests.benchmarks.attacked_sets import (
    SEED,
    Bench,
    Rows,
    drawn,
    fitted,
    windowed,
)
from sot_pipeline_tests.benchmarks.attacks import Place, blended, padded, seen, worst

NUM_ATTACKED, NUM_BENIGN, NUM_PADS = 200, 1_800, 32
EVERY_PAD, BENIGN_PADS = range(NUM_PADS), range(NUM_PADS // 2)
PAD_LENGTH = 8_000  # characters, at least
NUM_TRIED = 2  # padded rows that the attacker embeds, per row and score it aims at
OURS, LINEAR = "push-pull, relaxed", "logistic regression"

Scorer = Callable[[np.ndarray], np.ndarray]  # vectors of rows to scores, large is good


class Battle(NamedTuple):
    """A custom set, which of its rows the attacker owns, and pads to disguise them with."""

    custom: Rows
    attacked: np.ndarray
    pads: list[str]
    aims: dict[str, Scorer]


def battle(bench: Bench) -> Battle:
    custom, attacked = drawn(bench, "alpaca", NUM_BENIGN, NUM_ATTACKED)
    references = bench.references()
    safe, harmful = references.safe.vectors, references.harmful.vectors
    fit = fitted(custom.vectors, references)  # of the set before the attack
    middle = safe.mean(axis=0)
    aims: dict[str, Scorer] = {
        OURS: lambda vectors: extend(fit, vectors),
        LINEAR: lambda vectors: logistic_regression(vectors, safe, harmful),
        "safe centroid": lambda vectors: vectors @ middle,  # no query
    }
    return Battle(custom, attacked, pads(bench), aims)


def pads(bench: Bench) -> list[str]:
    """Half benign answers, half refusals."""
    rng, half = np.random.default_rng(SEED), NUM_PADS // 2
    return [
        _drawn(table, rng) for table in (benign_rows(bench), _refusals(bench)) for _ in range(half)
    ]


def benign_rows(bench: Bench) -> pl.DataFrame:
    return pl.read_parquet(bench.data / "custom_alpaca_extra.parquet")


def _refusals(bench: Bench) -> pl.DataFrame:
    return pl.read_parquet(bench.data / "agreement.parquet").filter(
        (pl.col("source") == "do_not_answer") & (pl.col("label") == "refusal"),
        pl.col("response").str.len_chars() >= 100,
    )


def _drawn(table: pl.DataFrame, rng: np.random.Generator) -> str:
    """Answers of several rows, one after the other."""
    answers, pad = table["response"], ""
    while len(pad) < PAD_LENGTH:
        pad += answers[int(rng.integers(len(answers)))].strip() + "\n\n"
    return pad


def unaimed(bench: Bench, b: Battle, place: Place, budget: int) -> Rows:
    """The custom set after an attack that knows nothing: each answer has a random benign pad of
    its own, so that no pad occurs twice."""
    rows, table = b.custom.take(b.attacked), benign_rows(bench)
    rng = np.random.default_rng(SEED + 1)
    answers = [padded(text, _drawn(table, rng), budget, place) for text in rows.answers]
    vectors = bench.embedder.rows(rows.prompts, answers)
    return replaced(b, rows._replace(answers=answers, vectors=vectors))


def promising(
    bench: Bench, field: str, b: Battle, place: Place, budget: int, pads: Sequence[int]
) -> dict[str, np.ndarray]:
    """The pads that look best for each row, `[rows, NUM_TRIED]`, by what the attacker aims at.

    A guess: nothing is embedded but the pads, whose vectors are blended with the rows'.
    """
    rows = b.custom.take(b.attacked)
    texts = rows.answers if field == "answer" else rows.prompts
    own, of_pads = bench.embedder(texts), bench.embedder([b.pads[k][:1_000] for k in pads])
    guesses = [
        blended(vector, of_pads, seen(len(text), budget, place))
        for vector, text in zip(own, texts, strict=True)
    ]
    guess = composed(bench, rows, field, guesses)
    order = {
        aim: np.argsort(-score(guess).reshape(len(texts), -1), axis=1)
        for aim, score in b.aims.items()
    }
    return {aim: np.asarray(pads)[ranked[:, :NUM_TRIED]] for aim, ranked in order.items()}


def disguised(
    bench: Bench, field: str, b: Battle, place: Place, budget: int, pads: Sequence[int]
) -> dict[str, Rows]:
    """The custom set after the attack, by what the attacker aims at.

    With queries the attacker embeds the rows with the two most promising pads and keeps the one
    that scores better; without, the first.
    """
    rows = b.custom.take(b.attacked)
    texts = rows.answers if field == "answer" else rows.prompts
    tried = promising(bench, field, b, place, budget, pads)
    tried["safe centroid"] = tried["safe centroid"][:, :1]
    result = {}
    for aim, columns in tried.items():
        options = [
            [padded(text, b.pads[k], budget, place) for k in ks]
            for text, ks in zip(texts, columns, strict=True)
        ]
        flat = bench.embedder([text for of_row in options for text in of_row])
        vectors = composed(bench, rows, field, np.split(flat, len(texts)))
        best = b.aims[aim](vectors).reshape(len(texts), -1).argmax(axis=1)
        chosen = [of_row[k] for of_row, k in zip(options, best, strict=True)]
        picked = vectors.reshape(len(texts), columns.shape[1], -1)[np.arange(len(texts)), best]
        result[aim] = replaced(b, rows._replace(**{f"{field}s": chosen}, vectors=picked))
    return result


def replaced(b: Battle, changed: Rows) -> Rows:
    others = np.setdiff1d(np.arange(len(b.custom.labels)), b.attacked)
    return b.custom.take(others).and_also(changed)


def aimed_at_windows(bench: Bench, b: Battle, place: Place, budget: int) -> Rows:
    """As `disguised`, by an attacker who knows the windows and queries their worst score."""
    rows = b.custom.take(b.attacked)
    tried = promising(bench, "answer", b, place, budget, range(NUM_PADS))[OURS]
    score, options, values = b.aims[OURS], [], []
    for pads in tried.T:
        answers = [
            padded(text, b.pads[k], budget, place)
            for text, k in zip(rows.answers, pads, strict=True)
        ]
        changed = rows._replace(answers=answers, vectors=bench.embedder.rows(rows.prompts, answers))
        views, owner, _ = windowed(bench, changed)
        values.append(np.minimum(worst(score(views), owner, len(answers)), score(changed.vectors)))
        options.append(changed)
    best = np.argmax(values, axis=0)
    answers = [options[k].answers[i] for i, k in enumerate(best)]
    vectors = np.stack([options[k].vectors[i] for i, k in enumerate(best)])
    return replaced(b, rows._replace(answers=answers, vectors=vectors))


def composed(bench: Bench, rows: Rows, field: str, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Vectors of rows whose answer, or prompt, has each of these vectors in turn."""
    from sot_pipeline.embedding.views import compose

    repeats = [len(part) for part in parts]
    other = bench.embedder(rows.prompts if field == "answer" else rows.answers)
    kept, changed = np.repeat(other, repeats, axis=0), np.concatenate(parts)
    return compose(kept, changed) if field == "answer" else compose(changed, kept)
