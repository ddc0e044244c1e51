"""Does push-pull lead the simple scores, whatever the mix of the safe reference?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_reference_mixes.py

The custom set is 1,500 task rows, 300 harmful pairs and 200 refusals of risky prompts; the harmful
reference is 1,000 rows, the safe reference some hundred task rows with refusals mixed in. Each
mix is drawn several times from larger pools. Then the whole contaminated sets, with their whole
references. Every score sees the same vectors, of the whole rows, of prompt and answer apart, and of those
without the answer's echo of its prompt; one group of settings serves all tasks. Prints Markdown
tables; the README of this folder holds them and says what they mean.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from sot_pipeline.transport.cost import cosine_cost, pooled_mean
from sot_pipeline_tests.benchmarks.real_sets import (
    KEEP,
    TASKS,
    Load,
    Parts,
    Set,
    describe,
    fit_of,
    rivals,
)

pytestmark = pytest.mark.bench
SEEDS = range(100, 105)
MIXES = {  # share of refusals in the safe reference: task rows, refusals (650 there are)
    "0 %": (500, 0),
    "20 %": (500, 125),
    "44 %": (500, 400),
    "60 %": (400, 600),
}
PARTS: tuple[Parts, ...] = ("whole", "apart", "no echo")
RELAXED = 0.9
MEASURES = {  # of `describe`: title, factor
    "ap": ("AP of harmful, %", 100),
    "refusals": ("AUROC harmful against the refusals, %", 100),
    "foreign_ap": ("AP of foreign harmful rows against all rows that are not harmful, %", 100),
    "foreign_auroc": ("AUROC of the same, %", 100),
    "share": ("harmful rows left in the kept part, %", 100),
}

Trio = tuple[Set, Set, Set]  # custom, safe, harmful
Results = dict[str, dict[str, list[dict[str, float]]]]  # by score, then by column


def drawn(load: Load, task: str, mix: str, seed: int, parts: Parts) -> Trio:
    """The sets of one draw; the same rows for either kind of vectors."""
    rng = np.random.default_rng(seed)

    def some(rows: Set, num: int) -> Set:
        return rows.take(rng.permutation(len(rows.rows))[:num])

    pool, safe = load(f"custom_{task}_p10", parts), load(f"safe_{task}", parts)
    num_task, num_refusals = MIXES[mix]
    custom = some(pool.where(~pool.is_harmful), 1_500).and_also(
        some(pool.where(pool.is_harmful), 300)
    )
    custom = custom.and_also(some(load("refusals", parts), 200))
    harmful = some(load("harmful_reference", parts), 1_000)
    reference = some(safe.where(~safe.is_refusal), num_task)
    return custom, reference.and_also(some(safe.where(safe.is_refusal), num_refusals)), harmful


def push_pull(custom: Set, safe: Set, harmful: Set, **settings) -> np.ndarray:
    """Log-weights with the package's defaults but for `settings`."""
    fit = fit_of(custom, safe, harmful, pooled_mean(safe.vectors), **settings)
    balanced = settings.get("reference_relaxation") == 0  # a draw of agnews stalls
    assert fit.converged or balanced, f"{settings}: residual {fit.residual}, {fit.marginal_errors}"
    return fit.log_weights


def on_both_centres(custom: Set, safe: Set, harmful: Set) -> np.ndarray:
    """Log-weights with epsilon 1.75 spreads of the whole cost, centred on both references."""
    center = pooled_mean(safe.vectors, harmful.vectors)
    costs = [cosine_cost(custom.vectors, y.vectors, center=center) for y in (safe, harmful)]
    epsilon = 1.75 * float(np.sqrt(np.mean([cost.var() for cost in costs])))
    return fit_of(
        custom, safe, harmful, center, epsilon=epsilon, reference_relaxation=RELAXED
    ).log_weights


OURS = "push-pull, relaxed .9"


def scores_of(trio: Trio) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    yield from rivals(*(rows.vectors for rows in trio))
    yield "push-pull, one shot", lambda: push_pull(*trio, optimizer="one_shot")
    yield "push-pull, balanced", lambda: push_pull(*trio, reference_relaxation=0.0)
    yield OURS, lambda: push_pull(*trio, reference_relaxation=RELAXED)
    yield "push-pull, free references", lambda: push_pull(*trio, reference_relaxation=1.0)
    yield "centred on both, spread of the whole cost", lambda: on_both_centres(*trio)


def is_simple(name: str) -> bool:
    return "push-pull" not in name and "centred" not in name


def add(results: Results, column: str, trio: Trio, parts: Parts, keep: float) -> None:
    for name, score in scores_of(trio):
        row = results.setdefault(f"{parts}: {name}", {}).setdefault(column, [])
        row.append(describe(trio[0], score(), keep))


def values(results: Results, name: str, column: str, measure: str) -> np.ndarray:
    return np.array([draw[measure] for draw in results[name][column]])


def lead(
    results: Results, column: str, parts: Parts, over: Parts | None = None, measure: str = "ap"
) -> np.ndarray:
    """Of relaxed push-pull over the simple score that is best on average; one number a draw.

    `over` names the vectors of the simple scores, the same ones by default.
    """
    simple = [
        values(results, name, column, measure)
        for name in results
        if is_simple(name) and name.startswith(f"{over or parts}:")
    ]
    best = max(simple, key=np.mean)
    return 100 * (values(results, f"{parts}: {OURS}", column, measure) - best)


def cell(numbers: np.ndarray, sign: str = "") -> str:
    spread = f" ± {numbers.std(ddof=1):.1f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():{sign}.1f}{spread}"


def print_tables(title: str, results: Results) -> None:
    columns = list(next(iter(results.values())))
    for measure, (meaning, factor) in MEASURES.items():
        if any(np.isnan(values(results, n, c, measure)).any() for n in results for c in columns):
            continue
        print(f"\n{title}: {meaning}\n\n| score | {' | '.join(columns)} |")
        print("|---" * (1 + len(columns)) + "|")
        for name in results:
            cells = [cell(factor * values(results, name, c, measure)) for c in columns]
            print(f"| {name} | {' | '.join(cells)} |")
        for parts in PARTS if measure != "share" else ():
            cells = [cell(lead(results, column, parts, measure=measure), "+") for column in columns]
            print(f"| {parts}: lead over the best simple score | {' | '.join(cells)} |")


@pytest.mark.parametrize("task", TASKS)
def test_push_pull_leads_in_every_mix_of_the_safe_reference(load, task, capsys):
    results: Results = {}
    for parts in PARTS:
        for mix in MIXES:
            for seed in SEEDS:
                add(results, mix, drawn(load, task, mix, seed, parts), parts, keep=0.8)
    with capsys.disabled():
        print_tables(task, results)
    for mix in MIXES:
        assert lead(results, mix, "no echo", over="whole").mean() >= 3
        # of the same vectors: ahead or level
        assert lead(results, mix, "apart").mean() >= 0
        assert lead(results, mix, "no echo").mean() >= -1
    relaxed, balanced = (
        100 * values(results, f"no echo: {name}", "60 %", "ap").mean()
        for name in (OURS, "push-pull, balanced")
    )
    assert task == "agnews" or relaxed >= balanced + 2  # agnews: balanced stops short there


@pytest.mark.parametrize("task", TASKS)
def test_push_pull_leads_on_the_whole_sets(load, task, capsys):
    results: Results = {}
    for parts in PARTS:
        for rate, keep in KEEP.items():
            names = (f"custom_{task}_{rate}", f"safe_{task}", "harmful_reference")
            custom, safe, harmful = (load(name, parts) for name in names)
            add(results, rate, (custom, safe, harmful), parts, keep)
    with capsys.disabled():
        print_tables(task, results)
    for rate in KEEP:
        for parts in PARTS:
            assert lead(results, rate, parts).mean() >= -0.1
            assert lead(results, rate, parts, measure="foreign_ap").mean() >= -0.3
        left = values(results, f"no echo: {OURS}", rate, "share").mean()
        assert left <= (0.02 if task == "alpaca" else 0)
        if task == "alpaca":
            assert lead(results, rate, "no echo", over="whole").mean() >= 2
