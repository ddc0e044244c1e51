"""A task whose harmful reference learns from attacks: proposing, accepting, solving again.

What `bench_reference_updates.py` measures. The rows' labels play the person who accepts.
"""

import time
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl
from sklearn.cluster import KMeans
from sklearn.metrics import average_precision_score, roc_auc_score

from sot_pipeline.embedding.views import ANSWER_SHARE, compose
from sot_pipeline.references.representatives import REACH_QUANTILE, representatives, suspicion
from sot_pipeline.selection import top_k
from sot_pipeline.transport.cost import cosine_cost, directions_from, pooled_mean
from sot_pipeline.transport.diagnostics import reference_coverage
from sot_pipeline.transport.fit import PushPullFit, extend
from sot_pipeline.transport.push_pull import learn_weights
from sot_pipeline_tests.benchmarks.real_sets import Load, average_precision, rivals

OURS = "coverage by suspicion"
FALSE_ALARMS = 0.05
KEEP = 0.8

Measures = dict[str, float]


class Question(NamedTuple):
    """What a choice of rows is given."""

    directions: np.ndarray
    count: int
    reach: float
    weights: np.ndarray
    rng: np.random.Generator


def at_random(q: Question) -> np.ndarray:
    return q.rng.permutation(len(q.directions))[: q.count]


def farthest_first(q: Question) -> np.ndarray:
    chosen = [int(q.rng.integers(len(q.directions)))]
    nearest = 1 - q.directions @ q.directions[chosen[0]]
    while len(chosen) < min(q.count, len(q.directions)):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, 1 - q.directions @ q.directions[chosen[-1]])
    return np.array(chosen)


def medoids(q: Question) -> np.ndarray:
    """Of k-means clusters, the row nearest to the mean of each."""
    num_clusters = min(q.count, len(q.directions))
    means = KMeans(num_clusters, n_init=1, random_state=int(q.rng.integers(2**31)))
    labels = means.fit_predict(q.directions)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen.append(members[(q.directions[members] @ means.cluster_centers_[label]).argmax()])
    return np.array(chosen)


def covering(q: Question) -> np.ndarray:
    alike = np.ones(len(q.directions))
    return representatives(q.directions, q.count, reach=q.reach, weights=alike).rows


def covering_by_suspicion(q: Question) -> np.ndarray:
    return representatives(q.directions, q.count, reach=q.reach, weights=q.weights).rows


CHOICES: dict[str, Callable[[Question], np.ndarray]] = {
    "random": at_random,
    "farthest first": farthest_first,
    "k-medoids": medoids,
    "coverage": covering,
    OURS: covering_by_suspicion,
}


def detection(scores: np.ndarray, harmful: np.ndarray, control: np.ndarray) -> Measures:
    """How well low scores tell harmful rows from controls, in %."""
    both = harmful | control
    alarm = np.quantile(scores[control], FALSE_ALARMS)
    return {
        "auroc": 100 * float(roc_auc_score(harmful[both], -scores[both])),
        "ap": 100 * float(average_precision_score(harmful[both], -scores[both])),
        "recall": 100 * float((scores[harmful] < alarm).mean()),
    }


class Bench:
    """The task, the attacks, and what does not change between the runs."""

    def __init__(self, load: Load, shared_data) -> None:
        self.custom, self.safe = load("custom_alpaca_p10"), load("safe_alpaca")
        self.harmful, self.attacks = load("harmful_reference"), load("attack_evolving")
        self.columns = pl.read_parquet(shared_data / "attack_evolving.parquet")
        self.answered = self.columns["response"].is_not_null().to_numpy()
        self.is_control = (self.columns["label"] == "benign").to_numpy()
        self.is_harmful = self.attacks.is_harmful
        self.center = pooled_mean(self.safe.vectors)
        self.pull = self.cost(self.custom.vectors, self.safe.vectors)
        self.push = self.cost(self.custom.vectors, self.harmful.vectors)
        self.pools = {
            "attacks among controls": self.answered,
            "attacks alone": self.answered & ~self.is_control,
            "all rows": np.ones(len(self.answered), dtype=bool),
        }
        self.before = self.solve(np.zeros(0, dtype=int))
        self.updates: dict[tuple, Update] = {}

    def cost(self, vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
        return cosine_cost(vectors, reference, center=self.center)

    @cached_property
    def rows(self) -> "Scored":
        """The attacks as they are."""
        return Scored(self, self.attacks.vectors)

    @cached_property
    def prompts(self) -> "Scored":
        """The attacks' prompts alone, with the vectors of rows without an answer."""
        width = self.attacks.vectors.shape[1] // 2
        asked = self.attacks.vectors[:, :width] / np.sqrt(1 - ANSWER_SHARE)
        return Scored(self, compose(asked, asked))

    @cached_property
    def weights(self) -> np.ndarray:
        return np.sqrt(suspicion(self.rows.scores(self.before), self.before.fit.log_weights))

    @lru_cache(maxsize=8)  # noqa: B019, one bench a run
    def far(self, quantile: float) -> tuple[np.ndarray, float]:
        """Which attacks are far from both references, and the harmful reference's reach."""
        coverage = reference_coverage(
            self.attacks.vectors, self.safe.vectors, self.harmful.vectors,
            center=self.center, quantile=quantile,
        )  # fmt: skip
        return coverage.uncovered, coverage.harmful_radius

    def mined(self, seed: int) -> np.ndarray:
        """Half of the attacks: goals, or rows where the set names no goal."""
        key = self.columns["goal"].fill_null(self.columns["id"]).to_numpy()
        groups = np.unique(key)
        chosen = np.random.default_rng(seed).permutation(groups)[: len(groups) // 2]
        return np.isin(key, chosen)

    def solve(self, accepted: np.ndarray) -> "Solved":
        """The task's weights with these attacks in its harmful reference."""
        start = time.perf_counter()
        added = self.attacks.vectors[accepted]
        push = [self.push] + ([self.cost(self.custom.vectors, added)] if len(accepted) else [])
        fit = learn_weights(self.pull, np.concatenate(push, axis=1))
        assert fit.converged
        return Solved(self, fit, accepted, time.perf_counter() - start)

    def update(
        self, pool: str, count: int, choice: str, seed: int, quantile: float = REACH_QUANTILE
    ) -> "Update":
        """Propose from the mined half of a pool, accept what is harmful, solve again."""
        key = (pool, count, choice, seed, quantile)
        if key not in self.updates:
            far, reach = self.far(quantile)
            rows = np.flatnonzero(far & self.pools[pool] & self.mined(seed))
            directions = directions_from(self.attacks.vectors[rows], self.center)
            rng = np.random.default_rng(seed)
            proposed = rows[
                CHOICES[choice](Question(directions, count, reach, self.weights[rows], rng))
            ]
            after = self.solve(proposed[self.is_harmful[proposed]])
            self.updates[key] = Update(rows, proposed, after)
        return self.updates[key]


class Scored:
    """Rows to score, with their costs to the references that stay."""

    def __init__(self, bench: Bench, vectors: np.ndarray) -> None:
        self.bench, self.vectors = bench, vectors
        self.pull = bench.cost(vectors, bench.safe.vectors)
        self.push = bench.cost(vectors, bench.harmful.vectors)

    def scores(self, solved: "Solved") -> np.ndarray:
        push = [self.push]
        if len(solved.accepted):
            push.append(self.cost_to(solved.accepted))
        return extend(solved.fit, (self.pull, np.concatenate(push, axis=1)))

    def cost_to(self, accepted: np.ndarray) -> np.ndarray:
        return self.bench.cost(self.vectors, self.bench.attacks.vectors[accepted])

    def simple_scores(self, solved: "Solved", name: str) -> np.ndarray:
        reference = [self.bench.harmful.vectors, self.bench.attacks.vectors[solved.accepted]]
        of = rivals(self.vectors, self.bench.safe.vectors, np.concatenate(reference))
        return dict(of)[name]()


class Solved(NamedTuple):
    bench: Bench
    fit: PushPullFit
    accepted: np.ndarray
    seconds: float

    def on_the_task(self) -> Measures:
        """What the cut does to the task's own rows."""
        harmful = self.bench.custom.is_harmful
        kept = top_k(self.fit.log_weights, keep_fraction=KEEP)
        return {
            "left": float((kept & harmful).sum()),
            "lost": float((~kept & ~harmful).sum()),
            "task_ap": 100 * average_precision(self.fit.log_weights, harmful, ~harmful),
        }


class Update(NamedTuple):
    candidates: np.ndarray
    proposed: np.ndarray
    after: Solved

    def described(self, judged: np.ndarray) -> Measures:
        """Detection among the rows `judged`, and what it cost."""
        bench = self.after.bench
        scores = bench.rows.scores(self.after)
        found = detection(scores, judged & bench.is_harmful, judged & bench.is_control)
        return (
            found
            | self.after.on_the_task()
            | {
                "proposed": float(len(self.proposed)),
                "accepted": float(len(self.after.accepted)),
                "seconds": self.after.seconds,
            }
        )
