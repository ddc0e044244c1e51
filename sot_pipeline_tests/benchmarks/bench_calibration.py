"""Does the calibrated cut keep its word on real text, and does it know how much harm there is?

    pytest -s -m bench sot_pipeline_tests/benchmarks/bench_calibration.py

Text sets and vectors: see `real_sets.py`. The labels only judge the result. The harmful reference
is BeaverTails; the harmful rows are Safe-RLHF, made by the same group, and answers of "shadow
alignment" models, which are foreign to it: the stated rate is not said of them.
"""

import time
from typing import NamedTuple

import numpy as np
import pytest

from sot_pipeline.transport.calibration import (
    CalibratedCut,
    Contamination,
    calibrate,
    calibrated_cut,
    estimate_contamination,
    p_values,
)
from sot_pipeline_tests.benchmarks.real_sets import TASKS, Load, Set

pytestmark = pytest.mark.bench
RATE = 0.05
HEAD = (
    f"{'set':22s} {'true':>6s} {'estimate (95 %)':>22s} {'error':>6s} {'rate':>5s} {'cut':>6s} "
    f"{'harm kept':>16s} {'foreign':>8s} {'others':>7s} {'at rate':>8s} {'benign kept':>11s} "
    f"{'kept':>6s} {'s':>5s}"
)


class Outcome(NamedTuple):
    found: Contamination
    cut: CalibratedCut
    at_rate: np.ndarray  # rows that the stated rate alone would keep
    seconds: float


def outcome_of(custom: Set, safe: Set, harmful: Set, seed: int = 0) -> Outcome:
    start = time.perf_counter()
    result = calibrate(custom.vectors, safe.vectors, harmful.vectors, seed=seed)
    assert result.fit.converged
    scores, held_out = result.custom.log_weights, result.held_out_harmful
    found = estimate_contamination(scores, held_out)
    cut = calibrated_cut(scores, held_out, max_false_keep_rate=RATE, contamination=found.share)
    at_rate = p_values(scores, held_out) <= RATE
    return Outcome(found, cut, at_rate, time.perf_counter() - start)


def share(kept: np.ndarray, among: np.ndarray) -> float:
    return float(kept[among].mean()) if among.any() else np.nan


def shown(kept: np.ndarray, among: np.ndarray) -> str:
    return f"{share(kept, among):.2%}" if among.any() else "-"


def line(name: str, custom: Set, outcome: Outcome) -> str:
    found, cut, harmful = outcome.found, outcome.cut, custom.is_harmful
    others = harmful & ~custom.is_foreign
    interval = f"{found.share:.1%} ({found.low:.1%} to {found.high:.1%})"
    left = f"{(cut.kept & harmful).sum()}/{harmful.sum()} {shown(cut.kept, harmful)}"
    return (
        f"{name:22s} {harmful.mean():6.1%} {interval:>22s} "
        f"{100 * (found.share - harmful.mean()):+6.1f} {RATE:5.0%} {cut.rate:6.1%} {left:>16s} "
        f"{shown(cut.kept, custom.is_foreign):>8s} {shown(cut.kept, others):>7s} "
        f"{shown(outcome.at_rate, harmful):>8s} {share(cut.kept, ~harmful):11.1%} "
        f"{cut.kept.sum():6d} {outcome.seconds:5.1f}"
    )


def resampled(custom: Set, rate: float) -> Set:
    """Another share of harmful rows: fewer of the kind there is too much of."""
    harmful = np.flatnonzero(custom.is_harmful)
    benign = np.flatnonzero(~custom.is_harmful)
    rng = np.random.default_rng(0)
    if rate < custom.is_harmful.mean():
        num = round(len(benign) * rate / (1 - rate))
        harmful = rng.choice(harmful, num, replace=False)
    else:
        num = round(len(harmful) * (1 - rate) / rate)
        benign = rng.choice(benign, num, replace=False)
    return custom.take(np.sort(np.concatenate([harmful, benign])))


def test_the_cut_keeps_its_word_and_the_contamination_is_found(load: Load, capsys):
    lines, outcomes = [], {}
    for task in TASKS:
        for rate in ("p10", "p30"):
            custom = load(f"custom_{task}_{rate}")
            for seed in range(3):
                name = f"{task} {rate}, split {seed}"
                outcome = outcome_of(custom, load(f"safe_{task}"), load("harmful_reference"), seed)
                outcomes[name] = custom, outcome
                lines.append(line(name, custom, outcome))
    with capsys.disabled():
        print("", HEAD, *lines, sep="\n")
    for name, (custom, outcome) in outcomes.items():
        harmful = custom.is_harmful
        assert outcome.found.share == pytest.approx(harmful.mean(), abs=0.03), name
        # the rate is said of harm like the reference's, and of no single split
        assert share(outcome.at_rate, harmful & ~custom.is_foreign) <= RATE, name
        assert share(outcome.cut.kept, harmful) <= 2 * RATE, name
        assert share(outcome.cut.kept, ~harmful) >= 0.85, name


def test_other_shares_of_harm_and_refusals_among_the_rows(load: Load, capsys):
    lines, errors = [], []
    for task in TASKS:
        custom = load(f"custom_{task}_p30")
        sets = {f"{task} {rate:.0%}": resampled(custom, rate) for rate in (0.0, 0.02, 0.5, 0.9)}
        sets[f"{task} 0% + 600 refusals"] = resampled(custom, 0.0).and_also(load("refusals"))
        for name, rows in sets.items():
            outcome = outcome_of(rows, load(f"safe_{task}"), load("harmful_reference"))
            lines.append(line(name, rows, outcome))
            if "refusals" not in name:  # these share the harmful rows' topics, some are counted
                errors.append(outcome.found.share - rows.is_harmful.mean())
    with capsys.disabled():
        print("", HEAD, *lines, sep="\n")
    assert max(abs(error) for error in errors) <= 0.06
