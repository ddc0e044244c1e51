"""A page of 100,000 rows is at most 10 MB."""

import time

import pytest

from sot_pipeline.report.render import render_report
from sot_pipeline_tests.report.large import large_report_data
from sot_pipeline_tests.report.samples import without_drawing


@pytest.mark.slow
@pytest.mark.parametrize("show_text", [False, True])
def test_a_report_of_100_000_rows_is_at_most_10_mb(show_text):
    data = large_report_data(100_000, show_text=show_text)
    start = time.perf_counter()
    size = len(render_report(data).encode())
    print(f"\n100,000 rows: {size:,} bytes in {time.perf_counter() - start:.1f} s")
    assert size <= 10_000_000


def test_a_page_stays_below_the_size_it_is_given(monkeypatch):
    without_drawing(monkeypatch)
    for most in (700_000, 1_000_000):
        html = render_report(
            large_report_data(10_000, num_references=300, max_rows=50, max_bytes=most)
        )
        assert 0.7 * most < len(html.encode()) <= most
