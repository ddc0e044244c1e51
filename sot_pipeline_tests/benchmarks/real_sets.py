"""Real text sets with their vectors, the simple scores to beat, and the measures of a score.

What the benchmarks of quality share. The rows come from the shared text sets, the vectors from
all-MiniLM-L6-v2 (extra `minilm`), cached by row. The harmful rows' text is never shown.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from sklearn.metrics import average_precision_score, roc_auc_score

from sot_pipeline.selection import top_k
from sot_pipeline.selectors.on_references import centroid, logistic_regression, nearest_neighbours
from sot_pipeline.transport.cost import cosine_cost
from sot_pipeline.transport.push_pull import PushPullFit, learn_weights

TASKS = ("alpaca", "gsm8k", "agnews")
KEEP = {"p10": 0.8, "p30": 0.6}  # remove about twice the contamination, as the paper does
NUM_REFUSALS = 600

Parts = Literal["whole", "apart", "no echo"]
PIPELINE: Parts = "no echo"  # as the pipeline embeds them
Load = Callable[..., "Set"]


class Set(NamedTuple):
    rows: pl.DataFrame
    vectors: np.ndarray

    @property
    def is_harmful(self) -> np.ndarray:
        return (self.rows["label"] == "harmful").to_numpy()

    @property
    def is_refusal(self) -> np.ndarray:
        return (self.rows["label"] == "refusal").to_numpy()

    @property
    def is_foreign(self) -> np.ndarray:
        """Harmful rows whose source is far from the harmful reference's."""
        return self.is_harmful & (self.rows["source"] == "shadow_alignment").to_numpy()

    def where(self, mask: np.ndarray) -> "Set":
        return self.take(np.flatnonzero(mask))

    def take(self, rows: np.ndarray) -> "Set":
        return Set(self.rows[rows.tolist()], self.vectors[rows])

    def and_also(self, other: "Set") -> "Set":
        rows = pl.concat([self.rows, other.rows])
        return Set(rows, np.concatenate([self.vectors, other.vectors]))


def loader(shared_data: Path, cache: Path) -> Load:
    """A function that reads a set by name, with its vectors; a set is read once.

    "refusals" are the answers of do_not_answer that decline a risky prompt: hard negatives, which
    share the harmful rows' topics. `parts` "whole" embeds prompt and answer as one text, "apart"
    each by itself (`[n, 2 d]`: see `compose`), "no echo" too, less what the answer repeats: this
    one is the pipeline's view "apart".
    """
    from sot_pipeline.embedding.embed import embed
    from sot_pipeline.embedding.load import load_encoder
    from sot_pipeline.embedding.views import ECHO, compose

    encoder = load_encoder("minilm")
    known: dict[tuple[str, str], Set] = {}

    def vectors_of(*texts: pl.Series) -> np.ndarray:
        roles = ("user", "assistant")
        conversations = [
            [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
            for turns in zip(*texts, strict=True)
        ]
        return embed(conversations, encoder, cache=cache).vectors

    def load(name: str, parts: Parts = PIPELINE) -> Set:
        if (name, parts) not in known:
            rows = _read(shared_data, name)
            prompt = rows["prompt"]
            response = rows["response"].fill_null(prompt)  # as the pipeline's view "apart"
            if parts == "whole":
                vectors = vectors_of(prompt, response)
            else:
                echo = ECHO if parts == "no echo" else 0.0
                vectors = compose(vectors_of(prompt), vectors_of(response), echo=echo)
            known[name, parts] = Set(rows.select("id", "source", "label"), vectors)
        return known[name, parts]

    return load


def _read(folder: Path, name: str) -> pl.DataFrame:
    if name != "refusals":
        return pl.read_parquet(folder / f"{name}.parquet")
    rows = pl.read_parquet(folder / "agreement.parquet")
    kept = (pl.col("source") == "do_not_answer") & (pl.col("label") == "refusal")
    rows = rows.filter(kept & pl.col("response").is_not_null())
    return rows.sample(NUM_REFUSALS, seed=0)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fit_of(
    custom: Set, safe: Set, harmful: Set, center: np.ndarray | None, **settings
) -> PushPullFit:
    """Eq. 5 solved on the cosine costs of a custom set to its references."""
    pull_cost = cosine_cost(custom.vectors, safe.vectors, center=center)
    push_cost = cosine_cost(custom.vectors, harmful.vectors, center=center)
    return learn_weights(pull_cost, push_cost, **settings)


def rivals(
    custom: np.ndarray, safe: np.ndarray, harmful: np.ndarray
) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """The simple scores that any elaborate one must beat; large is good."""
    sets = (custom, safe, harmful)
    yield "logistic regression, C 1", lambda: logistic_regression(*sets)
    yield "logistic regression, C 0.1", lambda: logistic_regression(*sets, strength=0.1)
    yield "centroid difference", lambda: centroid(*sets)
    yield "5-nearest-neighbour margin", lambda: nearest_neighbours(*sets, num_neighbours=5)
    yield "20-nearest-neighbour margin", lambda: nearest_neighbours(*sets, num_neighbours=20)


def auroc(scores: np.ndarray, harmful: np.ndarray, other: np.ndarray) -> float:
    """Chance that a harmful row scores below another one."""
    return float(roc_auc_score(harmful[harmful | other], -scores[harmful | other]))


def average_precision(scores: np.ndarray, harmful: np.ndarray, other: np.ndarray) -> float:
    """Mean precision of "harmful" over the ranks of the harmful rows, lowest score first."""
    return float(average_precision_score(harmful[harmful | other], -scores[harmful | other]))


def describe(custom: Set, scores: np.ndarray, keep: float) -> dict[str, float]:
    """What a score does to a custom set; NaN where the set has no rows of the kind."""
    harmful, refusal, foreign = custom.is_harmful, custom.is_refusal, custom.is_foreign
    kept = top_k(scores, keep_fraction=keep)
    return {
        "auroc": auroc(scores, harmful, ~harmful & ~refusal),
        "foreign": auroc(scores, foreign, ~harmful & ~refusal),
        "foreign_auroc": auroc(scores, foreign, ~harmful),  # refusals count
        "foreign_ap": average_precision(scores, foreign, ~harmful),
        "refusals": auroc(scores, harmful, refusal) if refusal.any() else np.nan,
        "ap": average_precision(scores, harmful, ~harmful),
        "left": int((kept & harmful).sum()),
        "of": int(harmful.sum()),
        "share": float((kept & harmful).sum() / harmful.sum()),
        "refusals_kept": float(kept[refusal].mean()) if refusal.any() else np.nan,
    }


HEAD = (
    f"{'score':38s} {'AUROC':>7s} {'foreign':>7s} {'vs ref.':>7s} {'AP':>6s} "
    f"{'harmful left':>16s} {'ref. kept':>9s} {'s':>6s}"
)


def line(name: str, d: dict[str, float], seconds: float) -> str:
    """A row below `HEAD`."""
    without = np.isnan(d["refusals"])  # no refusals among the custom rows
    versus = "-" if without else f"{d['refusals']:.4f}"
    kept = "-" if without else f"{d['refusals_kept']:.1%}"
    return (
        f"{name:38s} {d['auroc']:7.4f} {d['foreign']:7.4f} {versus:>7s} {d['ap']:6.3f} "
        f"{d['left']:5.0f}/{d['of']:<4.0f} {d['share']:5.1%} {kept:>9s} {seconds:6.1f}"
    )
