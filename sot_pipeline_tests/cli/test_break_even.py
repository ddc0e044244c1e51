"""Whatever the table gives as a break-even does put the row on the other side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.cli.break_even import break_even_lines
from sot_pipeline.explanations.counterfactuals import false_keep_rate_needed
from sot_pipeline.selection import top_k
from sot_pipeline.transport.calibration import calibrated_cut

ROW = {
    "rank": 38,
    "num_kept_by_cut": 32,
    "keep_fraction": 0.8,
    "max_false_keep_rate": None,
    "num_held_out_harmful": 40,
    "keep_fraction_needed": 38 / 40,
    "false_keep_rate_needed": None,
    "lambda_push": 0.5,
    "lambda_change": 0.92651,
}


def cut(scores: np.ndarray, harmful: np.ndarray, rate: float) -> np.ndarray:
    return calibrated_cut(scores, harmful, max_false_keep_rate=rate, contamination=0.2).kept


def test_settings_are_shown_as_they_are_now():
    assert break_even_lines(ROW, 40) == [
        ["share of rows kept", "0.8", "0.9500"],
        ["lambda, matching held as it is", "0.5", "0.9266"],
    ]
    calibrated = ROW | {"max_false_keep_rate": 0.05, "false_keep_rate_needed": 4 / 21}
    assert break_even_lines(calibrated, 40)[0] == ["false-keep rate", "0.05", "0.1905"]
    assert [line[0] for line in break_even_lines(calibrated, 40)] == [
        "false-keep rate", "lambda, matching held as it is",
    ]  # fmt: skip


def test_what_no_setting_does_is_never():
    best = ROW | {"rank": 1, "keep_fraction_needed": 1 / 40, "lambda_change": None}
    assert [line[2] for line in break_even_lines(best, 40)] == ["never", "never"]
    none = ROW | {"max_false_keep_rate": 0.05}
    assert break_even_lines(none, 40)[0][2] == "never"


def test_lambda_is_rounded_away_from_what_it_is_now():
    assert break_even_lines(ROW | {"lambda_change": 0.12345}, 40)[1][2] == "0.1234"
    assert break_even_lines(ROW | {"lambda_change": 0.3}, 40)[1][2] == "0.3000"


@given(st.integers(1, 3_000), st.data())
def test_the_share_of_rows_as_it_is_told_puts_the_row_on_the_other_side(num_rows, data):
    count, rank = (data.draw(st.integers(1, num_rows)) for _ in range(2))
    row = ROW | {
        "rank": rank, "num_kept_by_cut": count, "keep_fraction_needed": rank / num_rows,
    }  # fmt: skip
    told = break_even_lines(row, num_rows)[0][2]
    if told == "never" or float(told) == 0:
        assert rank <= count
        return
    kept = top_k(-np.arange(num_rows, dtype=float), keep_fraction=float(told))
    # at the least one row stays, at the coarsest the best of thousands
    assert kept[rank - 1] == (rank > count) or kept.sum() == 1


@pytest.mark.parametrize("max_rate", [0.05, 0.1, 0.3])
def test_the_rate_as_it_is_told_puts_the_row_on_the_other_side(max_rate):
    rng = np.random.default_rng(0)
    scores, harmful = rng.normal(1, 1, 60), rng.normal(-1, 1, 40)
    kept = cut(scores, harmful, max_rate)
    needed = false_keep_rate_needed(scores, harmful, contamination=0.2)
    ranks = (-scores).argsort().argsort() + 1
    flipped = 0
    for i in range(60):
        row = ROW | {
            "rank": int(ranks[i]),
            "num_kept_by_cut": int(kept.sum()),
            "max_false_keep_rate": max_rate,
            "false_keep_rate_needed": None if np.isnan(needed[i]) else float(needed[i]),
        }
        told = break_even_lines(row, 60)[0][2]
        if told != "never":
            assert cut(scores, harmful, float(told))[i] != kept[i]
            flipped += 1
    assert flipped > 5
