"""Does a harmful reference that a person keeps up to date find newer attacks?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_reference_updates.py

Task alpaca (custom_alpaca_p10), the package's defaults; attacks with benign controls from
attack_evolving. A random half of the attacks, split by goal where the set names it, is mined for
proposals; the labels play the person, who accepts the harmful ones. The other half is scored
before and after, by `extend`, without being told. Prints Markdown tables; the README of this
folder holds them and says what they mean. The harmful rows' text is never shown.
"""

import time

import numpy as np
import polars as pl
import pytest

from sot_pipeline.references.representatives import REACH_QUANTILE, representatives, suspicion
from sot_pipeline.selection import top_k
from sot_pipeline.transport.cost import directions_from
from sot_pipeline.transport.diagnostics import reference_coverage
from sot_pipeline.transport.push_pull import learn_weights
from sot_pipeline_tests.benchmarks.reference_updates import (
    CHOICES,
    FALSE_ALARMS,
    KEEP,
    OURS,
    Bench,
    Measures,
    Solved,
    Update,
    detection,
)

pytestmark = pytest.mark.bench
SEEDS = range(3)
COUNTS = (20, 50, 100)
SIMPLE = ("centroid difference", "20-nearest-neighbour margin")
NEAR = 0.3  # cost below which an evaluated row may be a variant of an accepted one
MIXED = "attacks among controls"
MEASURES = ("auroc", "ap", "recall")
HEAD = [
    "choice", "proposed", "accepted", "AUROC", "AP", "recall", "± AP", "harmful left",
    "benign lost", "AP on the task", "seconds",
]  # fmt: skip


@pytest.fixture(scope="module")
def bench(load, shared_data) -> Bench:
    return Bench(load, shared_data)


def mean(outcomes: list[Measures]) -> Measures:
    return {name: float(np.mean([each[name] for each in outcomes])) for name in outcomes[0]}


def cells(name: str, outcomes: list[Measures]) -> list[str]:
    m = mean(outcomes)
    spread = np.std([each["ap"] for each in outcomes], ddof=1)
    return [
        name, f"{m['proposed']:.0f}", f"{m['accepted']:.1f}", f"{m['auroc']:.1f}", f"{m['ap']:.1f}",
        f"{m['recall']:.1f}", f"{spread:.1f}", f"{m['left']:.1f}", f"{m['lost']:.1f}",
        f"{m['task_ap']:.1f}", f"{m['seconds']:.1f}",
    ]  # fmt: skip


def print_table(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def judged(bench: Bench, seed: int) -> np.ndarray:
    """The half that was not mined, of rows with an answer."""
    return ~bench.mined(seed) & bench.answered


def before(bench: Bench) -> list[Measures]:
    none = np.zeros(0, dtype=int)
    return [Update(none, none, bench.before).described(judged(bench, seed)) for seed in SEEDS]


@pytest.mark.parametrize(("pool", "counts"), [(MIXED, COUNTS), ("attacks alone", (50,))])
def test_accepted_rows_find_their_kin(bench, pool, counts, capsys):
    """Rows with an answer, as the pipeline reads reference rows."""
    at_first = before(bench)
    table, found = [cells("before", at_first)], {}
    for count in counts:
        for choice in CHOICES:
            outcomes = [
                bench.update(pool, count, choice, seed).described(judged(bench, seed))
                for seed in SEEDS
            ]
            table.append(cells(choice, outcomes))
            found[choice, count] = mean(outcomes)
    with capsys.disabled():
        print_table(f"{pool}, {len(SEEDS)} splits", HEAD, table)
    ours = found[OURS, 50]
    assert ours["ap"] >= mean(at_first)["ap"] + 4
    assert ours["left"] <= mean(at_first)["left"] + 1
    assert ours["lost"] <= mean(at_first)["lost"] + 5
    if pool == MIXED:
        rivals = [found[choice, 50]["ap"] for choice in CHOICES if choice != OURS]
        assert ours["ap"] >= max(rivals) - 0.2


def test_simple_scores_learn_from_the_same_rows(bench, capsys):
    table = []
    for count in (0, *COUNTS):
        found: dict[str, list[Measures]] = {}
        for seed in SEEDS:
            solved = bench.update(MIXED, count, OURS, seed).after if count else bench.before
            rows = judged(bench, seed)
            scores = {name: bench.rows.simple_scores(solved, name) for name in SIMPLE}
            scores["push-pull"] = bench.rows.scores(solved)
            for name, values in scores.items():
                found.setdefault(name, []).append(
                    detection(values, rows & bench.is_harmful, rows & bench.is_control)
                )
            if count:
                rows &= bench.rows.cost_to(solved.accepted).min(axis=1) > NEAR
                found.setdefault("push-pull, near variants of accepted rows left out", []).append(
                    detection(scores["push-pull"], rows & bench.is_harmful, rows & bench.is_control)
                )
        for name, outcomes in found.items():
            m = mean(outcomes)
            table.append([f"{count}", name, *(f"{m[each]:.1f}" for each in MEASURES)])
    with capsys.disabled():
        print_table("the same accepted rows", ["proposed", "score", "AUROC", "AP", "recall"], table)


def test_every_family_of_attacks(bench, capsys):
    """Rows flagged at 5 % false alarms over all controls, and where the false alarms are."""
    family = bench.columns.select(pl.concat_str("attack", "language", separator=", "))
    names = family.to_series().to_numpy()
    shares: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        rows = judged(bench, seed)
        for column, solved in enumerate((bench.before, bench.update(MIXED, 50, OURS, seed).after)):
            scores = bench.rows.scores(solved)
            flagged = scores < np.quantile(scores[rows & bench.is_control], FALSE_ALARMS)
            for kind, of in (("harmful", bench.is_harmful), ("control", bench.is_control)):
                for name in np.unique(names[rows & of]):
                    one = rows & of & (names == name)
                    columns = shares.setdefault(f"{kind}: {name}", [[], [], []])
                    columns[column].append(100 * float(flagged[one].mean()))
                    columns[2].append(float(one.sum()))
    table = [
        [name, f"{np.mean(num):.0f}", f"{np.mean(first):.1f}", f"{np.mean(then):.1f}"]
        for name, (first, then, num) in sorted(shares.items())
    ]
    with capsys.disabled():
        print_table("flagged, %, 50 proposed", ["rows", "judged", "before", "after"], table)


def test_prompts_without_an_answer(bench, capsys):
    """What reference rows without an answer would be worth, were they read. Harmful prompts are
    judged against the controls' prompts alone, so that a missing answer is no mark of harm."""
    language = bench.columns["language"].to_numpy()
    alone = bench.is_harmful & ~bench.answered
    table, auroc = [], {}
    for pool in (None, MIXED, "all rows"):
        outcomes = []
        for seed in SEEDS:
            solved = bench.before if pool is None else bench.update(pool, 50, OURS, seed).after
            scores, rows = bench.prompts.scores(solved), ~bench.mined(seed)
            control = rows & bench.is_control
            found = detection(scores, rows & alone, control)
            for each in np.unique(language[alone]):
                one = rows & alone & (language == each)
                found[f"{each}"] = detection(scores, one, control)["auroc"]
            rows &= bench.answered
            whole = bench.rows.scores(solved)
            kinds = rows & bench.is_harmful, rows & bench.is_control
            found["AP with answers"] = detection(whole, *kinds)["ap"]
            outcomes.append(found | {"harmful left": solved.on_the_task()["left"]})
        m = mean(outcomes)
        auroc[pool] = m["auroc"]
        table.append([pool or "before", *(f"{value:.1f}" for value in m.values())])
    with capsys.disabled():
        print_table("prompts alone, 50 proposed; by language: AUROC", ["from", *m], table)
    assert auroc["all rows"] >= auroc[MIXED] + 10


def test_how_far_is_far_from_both_references(bench, capsys):
    table = []
    for quantile in (0.99, 0.9, REACH_QUANTILE, 0.5):
        outcomes = []
        for seed in SEEDS:
            update = bench.update(MIXED, 50, OURS, seed, quantile)
            far = {"far": len(update.candidates), "of": bench.is_harmful[update.candidates].mean()}
            outcomes.append(update.described(judged(bench, seed)) | far)
        m = mean(outcomes)
        found = [f"{quantile}", f"{m['far']:.0f}", f"{m['of']:.0%}"]
        table.append([*found, *cells("", outcomes)[1:7]])
    head = ["quantile", "rows farther", "of them harmful", *HEAD[1:7]]
    with capsys.disabled():
        print_table("reach of the references", head, table)


def test_the_tasks_own_removed_rows(bench, capsys):
    """Without a file the candidates are rows that the cut removed."""
    own = bench.before.fit.log_weights
    removed = np.flatnonzero(~top_k(own, keep_fraction=KEEP))
    custom = bench.custom.take(removed)
    coverage = reference_coverage(
        custom.vectors, bench.safe.vectors, bench.harmful.vectors,
        center=bench.center, quantile=REACH_QUANTILE,
    )  # fmt: skip
    far = custom.where(coverage.uncovered)
    weights = np.sqrt(suspicion(own[removed][coverage.uncovered], own))
    directions = directions_from(far.vectors, bench.center)
    table = []
    for count in COUNTS:
        start = time.perf_counter()
        chosen = representatives(
            directions, count, reach=coverage.harmful_radius, weights=weights
        ).rows
        seconds = time.perf_counter() - start
        accepted = far.take(chosen).where(far.is_harmful[chosen])
        added = bench.cost(bench.custom.vectors, accepted.vectors)
        fit = learn_weights(bench.pull, np.concatenate([bench.push, added], axis=1))
        m = Solved(bench, fit, np.zeros(0, dtype=int), 0.0).on_the_task()
        table.append(
            [
                f"{len(far.rows)}", f"{far.is_harmful.mean():.0%}", f"{len(chosen)}",
                f"{len(accepted.rows)}", f"{m['left']:.0f}", f"{m['lost']:.0f}",
                f"{m['task_ap']:.1f}", f"{seconds:.2f}",
            ]
        )  # fmt: skip
    head = [
        "far removed rows", "of them harmful", "proposed", "accepted", "harmful left",
        "benign lost", "AP on the task", "s to choose",
    ]  # fmt: skip
    with capsys.disabled():
        print_table("the task's own removed rows", head, table)
