"""Does a harmful reference that a person keeps up to date find newer attacks?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_reference_updates.py

Task alpaca (custom_alpaca_p10), the package's defaults; attacks with benign controls from
attack_evolving. A random half of the attacks, split by goal where the set names it, is mined for
proposals; the labels play the person, who accepts the harmful ones. The other half is scored
before and after, by `extend`, without being told. Prints Markdown tables; the README of this
folder holds them and says what they mean. The harmful rows' text is never shown.
"""

import time
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import average_precision_score, roc_auc_score

from sot_pipeline.embedding.views import ANSWER_SHARE, compose
from sot_pipeline.references.representatives import REACH_QUANTILE, representatives, suspicion
from sot_pipeline.selection import top_k
from sot_pipeline.transport.cost import cosine_cost, directions_from, pooled_mean
from sot_pipeline.transport.diagnostics import reference_coverage
from sot_pipeline.transport.fit import PushPullFit, extend
from sot_pipeline.transport.push_pull import learn_weights
from sot_pipeline_tests.benchmarks.real_sets import Load, Set, average_precision, rivals

pytestmark = pytest.mark.bench
SEEDS = range(5)
COUNTS = (20, 50, 100)
OURS = "coverage by suspicion"
SIMPLE = ("centroid difference", "20-nearest-neighbour margin")
FALSE_ALARMS = 0.05
KEEP = 0.8
NEAR = 0.3  # cost below which an evaluated row may be a variant of an accepted one

Measures = dict[str, float]


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
        self.pull = self.cost(self.custom.vectors, self.safe)
        self.push = self.cost(self.custom.vectors, self.harmful)
        self.before = self.solve(np.zeros(0, dtype=int))

    def cost(self, vectors: np.ndarray, reference: Set) -> np.ndarray:
        return cosine_cost(vectors, reference.vectors, center=self.center)

    @cached_property
    def prompts(self) -> np.ndarray:
        """Vectors of the attacks' prompts alone, as a row without an answer has."""
        width = self.attacks.vectors.shape[1] // 2
        asked = self.attacks.vectors[:, :width] / np.sqrt(1 - ANSWER_SHARE)
        return compose(asked, asked)

    @cached_property
    def weights(self) -> np.ndarray:
        own = self.before.fit.log_weights
        return np.sqrt(suspicion(self.before.scores(self.attacks.vectors), own))

    def solve(self, accepted: np.ndarray) -> "Solved":
        """The task's weights with these attacks in its harmful reference."""
        start = time.perf_counter()
        added = self.attacks.take(accepted)
        push = self.push
        if len(accepted):
            push = np.concatenate([push, self.cost(self.custom.vectors, added)], axis=1)
        fit = learn_weights(self.pull, push)
        assert fit.converged
        reference = Set(self.harmful.rows, self.harmful.vectors).and_also(added)
        return Solved(self, fit, reference, time.perf_counter() - start)

    def mined(self, seed: int) -> np.ndarray:
        """Half of the attacks: goals, or rows where the set names no goal."""
        key = self.columns["goal"].fill_null(self.columns["id"]).to_numpy()
        groups = np.unique(key)
        chosen = np.random.default_rng(seed).permutation(groups)[: len(groups) // 2]
        return np.isin(key, chosen)

    def candidates(self, mined: np.ndarray, quantile: float) -> tuple[np.ndarray, float]:
        """Mined rows far from both references, and the harmful reference's reach."""
        coverage = reference_coverage(
            self.attacks.vectors, self.safe.vectors, self.harmful.vectors,
            center=self.center, quantile=quantile,
        )  # fmt: skip
        return np.flatnonzero(mined & coverage.uncovered), coverage.harmful_radius


class Solved(NamedTuple):
    bench: Bench
    fit: PushPullFit
    reference: Set
    seconds: float

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        costs = [self.bench.cost(vectors, each) for each in (self.bench.safe, self.reference)]
        return extend(self.fit, tuple(costs))

    def simple_scores(self, name: str, vectors: np.ndarray) -> np.ndarray:
        return dict(rivals(vectors, self.bench.safe.vectors, self.reference.vectors))[name]()

    def on_the_task(self) -> Measures:
        """What the cut does to the task's own rows."""
        harmful = self.bench.custom.is_harmful
        kept = top_k(self.fit.log_weights, keep_fraction=KEEP)
        return {
            "left": float((kept & harmful).sum()),
            "lost": float((~kept & ~harmful).sum()),
            "task_ap": average_precision(self.fit.log_weights, harmful, ~harmful),
        }


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


def proposed(
    bench: Bench, pool: np.ndarray, count: int, choice: str, seed: int, quantile=REACH_QUANTILE
) -> np.ndarray:
    rows, reach = bench.candidates(pool, quantile)
    directions = directions_from(bench.attacks.vectors[rows], bench.center)
    question = Question(
        directions, count, reach, bench.weights[rows], np.random.default_rng(seed)
    )
    return rows[CHOICES[choice](question)]


def detection(scores: np.ndarray, harmful: np.ndarray, control: np.ndarray) -> Measures:
    """How well low scores tell harmful rows from controls, in %."""
    both = harmful | control
    alarm = np.quantile(scores[control], FALSE_ALARMS)
    return {
        "auroc": 100 * float(roc_auc_score(harmful[both], -scores[both])),
        "ap": 100 * float(average_precision_score(harmful[both], -scores[both])),
        "recall": 100 * float((scores[harmful] < alarm).mean()),
    }


def mean(outcomes: list[Measures]) -> Measures:
    return {name: float(np.mean([each[name] for each in outcomes])) for name in outcomes[0]}


def spread(outcomes: list[Measures], name: str) -> float:
    return float(np.std([each[name] for each in outcomes], ddof=1))


def print_table(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


@pytest.fixture(scope="module")
def bench(load, shared_data) -> Bench:
    return Bench(load, shared_data)
