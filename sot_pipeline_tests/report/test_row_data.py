"""What the page's script is given: every row, and as many reasons as there is room for."""

import json

import numpy as np
import polars as pl
import pytest

from sot_pipeline.report.numbers import numbers_of
from sot_pipeline.report.render import render_report
from sot_pipeline.report.row_data import row_data
from sot_pipeline_tests.report.large import large_report_data
from sot_pipeline_tests.report.samples import ledger, report_data, without_drawing
from sot_pipeline_tests.report.unpacked import data_block, unpacked


def block_of(data, max_size: int = 10**7):
    found = row_data(data, numbers_of(data), max_size)
    assert len(found.block) <= max_size
    return json.loads(found.block), found.left_out


def test_every_row_is_there_with_its_numbers():
    data = large_report_data(2_000)
    block, left_out = block_of(data)
    columns = {name: unpacked(column) for name, column in block["columns"].items()}
    table = data.ledger
    assert columns["id"] == table["sample_id"].to_list()
    assert columns["source"] == table["source_id"].to_list()
    for name in ("line", "rank"):
        assert columns[name] == table[name].to_list()
    for name in ("category", "nearest_safe", "nearest_harmful"):
        assert columns[name] == table[name].to_list()
    assert [bool(kept) for kept in columns["kept"]] == table["kept"].to_list()
    np.testing.assert_allclose(
        columns["weight"], numbers_of(data).log10_relative, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        columns["harmful_similarity"], table["harmful_similarity"], atol=1e-4
    )
    assert not left_out


def test_coordinates_keep_their_places_on_the_map():
    data = large_report_data(500)
    block, _ = block_of(data)
    points = data.neighbours
    assert points is not None
    for name in ("custom", "safe", "harmful"):
        xy = np.reshape(unpacked(block["maps"]["neighbours"][name]), (2, -1)).T
        true = getattr(points, name)
        for axis in range(2):
            assert np.corrcoef(xy[:, axis], true[:, axis])[0, 1] > 0.999_999
    assert (
        unpacked(block["references"]["safe"]["id"])[:5]
        == data.references["sample_id"][:5].to_list()
    )


def test_with_little_room_rows_at_the_cut_and_removed_rows_keep_their_explanations():
    data = large_report_data(20_000)
    block, left_out = block_of(data, 1_500_000)
    explained = dict(unpacked(block["texts"]["explanation"]))
    table = data.ledger.with_row_index("place")
    assert len(explained) < 20_000
    for place, text in list(explained.items())[:200]:
        assert text == table["explanation"][place]
    numbers = numbers_of(data)
    nearest = np.argsort(np.abs(numbers.log10_relative - numbers.cut))[:20]
    assert set(nearest.tolist()) <= set(explained)
    lowest = table.filter(~pl.col("kept")).sort("log_weight")["place"][:400]
    assert set(lowest) <= set(explained)
    assert any(f"{len(explained):,} of 20,000 rows" in sentence for sentence in left_out)


def test_rows_that_do_not_fit_are_kept_ones_and_are_told():
    data = large_report_data(20_000, num_references=50)
    block, left_out = block_of(data, 400_000)
    assert block["rows"] < 20_000
    kept = unpacked(block["columns"]["kept"])
    assert kept.count(0) == 4_000  # every removed row
    assert f"{20_000 - block['rows']:,} of 20,000 rows" in left_out[0]


def test_each_row_is_explained_or_has_its_reason_but_not_both():
    table = ledger(10, 8).with_columns(
        explanation=pl.when(pl.col("rank") != 3).then(None).otherwise(pl.lit("told in full"))
    )
    block, _ = block_of(report_data(ledger=table))
    assert [row for row, _ in unpacked(block["texts"]["explanation"])] == [2]
    assert {row for row, _ in unpacked(block["texts"]["reason"])} == set(range(10)) - {2}


@pytest.mark.parametrize("show_text", [True, False])
def test_the_text_of_rows_is_in_the_block_only_if_asked_for_and_without_personal_data(
    show_text, monkeypatch
):
    without_drawing(monkeypatch)
    table = ledger(6, 4).with_columns(prompt=pl.lit("write to jo@example.org"))
    html = render_report(
        report_data(ledger=table, points=None, neighbours=None, show_text=show_text)
    )
    assert "jo@example.org" not in html
    texts = data_block(html)["texts"]
    assert ("prompt" in texts) is show_text
    if show_text:
        assert {text for _, text in unpacked(texts["prompt"])} == {"write to [email]"}
