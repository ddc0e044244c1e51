"""Which rows stand at the cut, also where reviewers moved some across it."""

import dataclasses

import numpy as np
import polars as pl

from sot_pipeline.report.figures.weights import _bins
from sot_pipeline.report.numbers import cut_of, numbers_of
from sot_pipeline.report.row_order import near_the_cut
from sot_pipeline_tests.report.samples import ledger, report_data


def test_a_reviewers_decision_moves_neither_the_cut_nor_the_rows_at_it():
    table = ledger(10, 7)
    plain = numbers_of(report_data(ledger=table))
    best, worst = table["rank"].arg_min(), table["rank"].arg_max()
    kept = table["kept"].to_list()
    kept[best], kept[worst] = False, True  # as a reviewer decided
    decided = dataclasses.replace(
        report_data(ledger=table.with_columns(kept=pl.Series(kept))), num_kept_by_cut=7
    )
    found = numbers_of(decided)
    assert found.cut == plain.cut
    assert found.num_kept == 7
    removed, stays = near_the_cut(found, 10)
    assert best not in removed
    assert worst not in stays
    ranks = table["rank"].to_numpy()
    assert ranks[removed].tolist() == [8, 9]
    assert ranks[stays].tolist() == [7, 6, 5, 4, 3, 2]


def test_every_row_is_in_a_bin_of_the_histogram():
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = np.sort(rng.normal(size=40)) * 10 ** rng.uniform(-3, 1)
        above = np.arange(40) >= 8
        edges = _bins(values[0], values[-1], cut_of(values, above))
        assert np.histogram(values, edges)[0].sum() == 40
