"""How much do errors in the reference sets matter, and does cleaning them help?

    SOT_NOISE_RESULTS=noise.jsonl pytest -s -m bench \
        sot_pipeline_tests/benchmarks/bench_reference_noise.py

Every score sees the same rows and the same errors (`reference_noise.py`), as they are and after
`references.cleaning`. `$SOT_NOISE_RESULTS` keeps what was measured. Prints Markdown tables and draws
`reference_noise.svg`; REFERENCES.md holds them and says what they mean.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from sot_pipeline_tests.benchmarks.real_sets import TASKS
from sot_pipeline_tests.benchmarks.reference_noise import (
    CURES,
    DEFAULT,
    ESTIMATE,
    FLIPS,
    METHODS,
    NUM_RESAMPLES,
    SEEDS,
    SIDES,
    TREATED,
    Case,
    Results,
    estimate_all,
    measure_all,
    seeds_of,
)

pytestmark = pytest.mark.bench
FIGURE = Path(__file__).with_name("reference_noise.svg")
NONE = Case("none")
Cell = Callable[[str, Case], str]


@pytest.fixture(scope="module")
def results(load, tmp_path_factory) -> Results:
    kept = os.environ.get("SOT_NOISE_RESULTS")
    found = Results(Path(kept) if kept else tmp_path_factory.mktemp("noise") / "noise.jsonl")
    measure_all(load, found)
    estimate_all(load, found)
    return found


def mean_and_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over tasks and draws of `[tasks, draws, 1 + resamples]`, and its 95 % interval: draws are
    drawn again within each task, each with one of the bootstrap samples of its rows."""
    num_tasks, num_draws, _ = values.shape
    rng = np.random.default_rng(0)
    shape = (2_000, num_tasks, num_draws)
    draws, samples = rng.integers(num_draws, size=shape), rng.integers(NUM_RESAMPLES, size=shape)
    means = values[np.arange(num_tasks)[None, :, None], draws, 1 + samples].mean(axis=(1, 2))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values[..., 0].mean()), float(low), float(high)


def cell(values: np.ndarray, sign: str = "") -> str:
    mean, low, high = mean_and_interval(values)
    return f"{mean:{sign}.1f} ({low:{sign}.1f}, {high:{sign}.1f})"


def print_table(title: str, columns: dict[str, Case], names: Iterable[str], entry: Cell) -> None:
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n{'|---' * (1 + len(columns))}|")
    for name in names:
        print(f"| {name} | {' | '.join(entry(name, case) for case in columns.values())} |")


def groups_of_cases() -> dict[str, dict[str, Case]]:
    """Columns of each table."""
    groups = {
        f"flips, {side}": {"none": NONE}
        | {f"{level:.0%}": Case("flips", side, level) for level in FLIPS}
        for side in SIDES
    }
    groups["bias"] = {f"{share:.0%}": Case("bias", "harmful", share) for share in (0, 0.5, 1)}
    groups["missing topics"] = {str(k): Case("missing", "harmful", k) for k in (0, 1, 2, 4)}
    for side in SIDES:
        groups[f"copies, {side}"] = {"none": NONE} | {
            f"{times} times": Case("copies", side, times) for times in (10, 50)
        }
    return groups


def test_average_precision_and_harmful_rows_left(results, capsys):
    with capsys.disabled():
        for title, columns in groups_of_cases().items():
            seeds = seeds_of(list(columns.values())[-1])

            def of(name, case, measure="ap", seeds=seeds):
                return results.of(case, name, measure, seeds=seeds)

            def lead(name, case, of=of):
                return "" if name == DEFAULT else cell(of(name, case) - of(DEFAULT, case), "+")

            print_table(
                f"{title}: AP, %", columns, METHODS, lambda name, case, of=of: cell(of(name, case))
            )
            print_table(f"{title}: AP less that of {DEFAULT}", columns, METHODS, lead)
            print_table(
                f"{title}: harmful rows left, %",
                columns,
                METHODS,
                lambda name, case, of=of: cell(of(name, case, "left")),
            )


def test_harm_of_missing_kinds(results, capsys):
    with capsys.disabled():
        columns = {f"top {k}, {without}": Case("missing", "harmful", level) for k in (1, 2, 4)
                   for without, level in (("there", 0), ("missing", k))}  # fmt: skip
        measures = {case_title: case_title.split(",")[0] for case_title in columns}
        print("\nAP of the harmful custom rows of the missing topics, %\n")
        print(f"| | {' | '.join(columns)} |\n{'|---' * (1 + len(columns))}|")
        for name in METHODS:
            cells = [
                cell(results.of(case, name, measures[title])) for title, case in columns.items()
            ]
            print(f"| {name} | {' | '.join(cells)} |")
        print_table(
            "AP of the harmful custom rows of other topics, %",
            groups_of_cases()["bias"],
            METHODS,
            lambda name, case: cell(results.of(case, name, "elsewhere")),
        )


def test_cleaning_and_settings(results, capsys):
    columns = {case.key: case for case in TREATED}

    def gain(name, case):
        return cell(results.of(case, name, cleaned=True) - results.of(case, name), "+")

    def cure(name, case):
        return cell(results.of(case, name) - results.of(case, DEFAULT), "+")

    def cleaned_lead(name, case):
        ours = results.of(case, DEFAULT, cleaned=True)
        return cell(results.of(case, name, cleaned=True) - ours, "+")

    with capsys.disabled():
        print_table("cleaning: gain in AP", columns, METHODS, gain)
        print_table(f"cleaned: AP less that of {DEFAULT}", columns, METHODS, cleaned_lead)
        print_table(f"settings: AP less that of {DEFAULT}", columns, CURES, cure)


def test_estimated_flips_against_planted_ones(results, capsys):
    with capsys.disabled():
        print("\n| planted | of | estimate | interval | holds it | listed | planted among listed |")
        print("|---|---|---|---|---|---|---|")
        for case in [NONE, *groups_of_flips()]:
            for name in ("safe", "harmful"):
                truth = case.level if case.side in (name, "both") else 0.0
                found = np.array(
                    [results.rows[task, seed, case.key, False, ESTIMATE][name]
                     for task in TASKS for seed in SEEDS]
                )  # fmt: skip
                rate, low, high, listed, right = found.mean(axis=0)
                holds = ((found[:, 1] <= truth) & (truth <= found[:, 2])).sum()
                shown = (f"{listed:.0%}", f"{right:.0%}") if truth else ("", "")
                print(
                    f"| {case.key}: {truth:.0%} | {name} | {rate:.1%} | {low:.1%} to {high:.1%} "
                    f"| {holds} of {len(found)} | {shown[0]} | {shown[1]} |"
                )
                assert rate <= truth + 0.1  # flips are not made up


def groups_of_flips() -> list[Case]:
    return [Case("flips", side, level) for side in SIDES for level in FLIPS]


SHOWN = {  # Okabe and Ito's colours
    DEFAULT: ("#000000", "-"),
    "push-pull, balanced": ("#0072B2", "--"),
    "push-pull, one shot": ("#56B4E9", ":"),
    "logistic regression": ("#E69F00", "-"),
    "5 nearest neighbours": ("#CC79A7", "--"),
    "20 nearest neighbours": ("#CC79A7", "-"),
    "centroid": ("#009E73", "-"),
    "DSIR": ("#999999", ":"),
    "DSIR, without the refusals": ("#999999", "-"),
    "SAFT": ("#D55E00", "-"),
}


def test_figure(results):
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "noise", "font.size": 9}):
        figure, axes = plt.subplots(1, 3, figsize=(13, 5), sharey=True, layout="constrained")
        for axis, side in zip(axes, SIDES, strict=True):
            _panel(axis, results, side)
        axes[0].set_ylabel("average precision of harmful rows, %")
        figure.savefig(FIGURE, metadata={"Date": None})
        plt.close(figure)
    assert FIGURE.stat().st_size < 200_000


def _panel(axis, results: Results, side: str) -> None:
    levels = [0.0, *FLIPS]
    ends = {}
    for name, (colour, style) in SHOWN.items():
        cases = [NONE, *(Case("flips", side, level) for level in FLIPS)]
        mean, low, high = np.array([mean_and_interval(results.of(case, name)) for case in cases]).T
        axis.plot(levels, mean, style, color=colour, lw=1.6)
        axis.fill_between(levels, low, high, color=colour, alpha=0.12, lw=0)
        ends[name] = mean[-1]
    for name, height in _apart(ends, gap=3.4).items():
        axis.annotate(
            name, (levels[-1], ends[name]), (0.415, height), color=SHOWN[name][0], va="center",
            annotation_clip=False,
        )  # fmt: skip
    axis.set(
        title=f"flipped rows in {'both references' if side == 'both' else f'the {side} reference'}",
        xlabel="share of flipped rows", xlim=(0, 0.58), xticks=levels,
    )  # fmt: skip
    axis.spines[["top", "right"]].set_visible(False)


def _apart(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Heights of labels, moved down as far as they would overlap."""
    placed: dict[str, float] = {}
    last = np.inf
    for name, height in sorted(heights.items(), key=lambda item: -item[1]):
        last = min(height, last - gap)
        placed[name] = last
    return placed
