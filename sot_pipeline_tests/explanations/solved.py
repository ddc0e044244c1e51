"""A solved problem whose explanations can be checked against solves of changed problems."""

from typing import NamedTuple

import numpy as np

from sot_pipeline.demo.world import build_world
from sot_pipeline.explanations.counterfactuals import Potentials, kept_at, lambda_change
from sot_pipeline.explanations.transported import TransportedMass, blocks_of, transported_mass
from sot_pipeline.transport.cost import cosine_cost, pooled_mean
from sot_pipeline.transport.push_pull import PushPullFit, learn_weights


class Problem(NamedTuple):
    """Costs of the custom rows to both references, and their solve."""

    pull_cost: np.ndarray
    push_cost: np.ndarray
    fit: PushPullFit

    @property
    def potentials(self) -> Potentials:
        carried = self.fit.epsilon * self.fit.solved_at
        return Potentials(self.fit.f_pull - carried, self.fit.f_push - carried)

    def mass(self, side: str) -> TransportedMass:
        cost, g = (
            (self.pull_cost, self.fit.g_pull)
            if side == "safe"
            else (self.push_cost, self.fit.g_push)
        )
        return transported_mass(blocks_of(cost), g, self.fit.epsilon)

    def log_weights_without(self, side: str, rows: np.ndarray) -> np.ndarray:
        """Log-weights of a real solve without these reference rows, at the same settings."""
        pull, push = self.pull_cost, self.push_cost
        if side == "safe":
            pull = np.delete(pull, rows, axis=1)
        else:
            push = np.delete(push, rows, axis=1)
        return self._solved(pull, push, self.fit.lambda_push).log_weights

    def at_lambda(self, lambda_push: float) -> np.ndarray:
        """Log-weights of a real solve at another lambda; the strength tau follows, as by default."""
        return learn_weights(
            self.pull_cost, self.push_cost, lambda_push=lambda_push, epsilon=self.fit.epsilon
        ).log_weights

    def _solved(self, pull: np.ndarray, push: np.ndarray, lambda_push: float) -> PushPullFit:
        options = {"epsilon": self.fit.epsilon, "tau": self.fit.tau}
        return learn_weights(pull, push, lambda_push=lambda_push, **options)


def solved(custom: np.ndarray, safe: np.ndarray, harmful: np.ndarray) -> Problem:
    center = pooled_mean(safe)
    pull, push = (cosine_cost(custom, y, center=center) for y in (safe, harmful))
    return Problem(pull, push, learn_weights(pull, push))


def demo_vectors(num_custom: int = 600) -> list[np.ndarray]:
    """Words and pairs of words of the demo's rows, hashed: custom, safe, harmful."""
    from sklearn.feature_extraction.text import HashingVectorizer

    world = build_world(0, num_custom=num_custom, num_safe=120, num_harmful=180)
    hashing = HashingVectorizer(n_features=512, ngram_range=(1, 2), alternate_sign=True)
    return [
        hashing.transform([" ".join(turn["content"] for turn in row.messages) for row in rows])
        .toarray()
        .astype(np.float32)
        for rows in (world.custom, world.safe, world.harmful)
    ]


class Faithfulness(NamedTuple):
    """What taking reference rows away did to the log-weights of the rows that named them."""

    named: np.ndarray  # [rows] nats, up where the stated direction is meant
    random: np.ndarray  # the same with as many rows drawn at random

    @property
    def share_in_stated_direction(self) -> float:
        return float(np.mean(self.named > 0))

    @property
    def times_random(self) -> float:
        return float(np.median(np.abs(self.named)) / np.median(np.abs(self.random)))


def faithfulness(problem: Problem, side: str, rows: np.ndarray, seed: int = 0) -> Faithfulness:
    """Take away the reference rows that each row names, and as many at random, and solve again.

    Without the harmful rows that it names a row should weigh more, without the safe ones less.
    """
    rng = np.random.default_rng(seed)
    mass, before = problem.mass(side), problem.fit.log_weights
    sign = 1 if side == "harmful" else -1
    named, drawn = [], []
    for row in rows:
        ids = mass.rows[row]
        others = rng.choice(np.setdiff1d(np.arange(mass.num_rows), ids), len(ids), replace=False)
        for found, out in ((ids, named), (others, drawn)):
            after = problem.log_weights_without(side, found)
            out.append(sign * (after[row] - before[row]))
    return Faithfulness(np.array(named), np.array(drawn))


class Agreement(NamedTuple):
    """Sides at another lambda, as the counterfactual says and as a real solve gives them."""

    lambda_push: float
    same_side: float  # share of all rows
    predicted_flips: int
    found: float  # share of the real flips that were predicted
    right: float  # share of the predicted flips that are real
    margin: float  # median places from the cut, as a share of the rows, of the disagreeing rows


def agreement(problem: Problem, lambda_push: float, keep_fraction: float = 0.8) -> Agreement:
    from sot_pipeline.selection import ranks, top_k

    count = int(keep_fraction * len(problem.fit.log_weights))
    kept = top_k(problem.fit.log_weights, keep_count=count)
    told = kept_at(problem.potentials, count, lambda_push)
    log_weights = problem.at_lambda(lambda_push)
    real = top_k(log_weights, keep_count=count)
    predicted, flips, wrong = told != kept, real != kept, told != real
    places = np.abs(ranks(log_weights) - count - 0.5) / len(kept)
    return Agreement(
        lambda_push,
        same_side=float(np.mean(~wrong)),
        predicted_flips=int(predicted.sum()),
        found=float(np.mean(predicted[flips])) if flips.any() else 1.0,
        right=float(np.mean(flips[predicted])) if predicted.any() else 1.0,
        margin=float(np.median(places[wrong])) if wrong.any() else 0.0,
    )


def break_even_errors(
    problem: Problem, rows: np.ndarray, keep_fraction: float = 0.8, grid: int = 21
) -> np.ndarray:
    """How far each row's `lambda_change` lies from the nearest lambda at which real solves on an
    even grid of `grid` lambdas put it on the other side; NaN where only one of the two is."""
    from sot_pipeline.selection import top_k

    lambda_push = problem.fit.lambda_push
    count = int(keep_fraction * len(problem.fit.log_weights))
    kept = top_k(problem.fit.log_weights, keep_count=count)
    told = lambda_change(problem.potentials, kept, lambda_push)[rows]
    lambdas = np.linspace(0, 1, grid)
    sides = np.array([top_k(problem.at_lambda(v), keep_count=count)[rows] for v in lambdas])
    distance = np.where(sides != kept[rows], np.abs(lambdas - lambda_push)[:, None], np.inf)
    nearest = distance.argmin(axis=0)
    real = np.where(np.isfinite(distance.min(axis=0)), lambdas[nearest], np.nan)
    return told - real
