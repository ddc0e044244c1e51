"""The walk through the UI in a real browser; what it proves has tests without one as well."""

import pytest

pytest.importorskip("selenium")
from sot_pipeline_tests.walkthrough.browser import CHROMEDRIVER, CHROMIUM
from sot_pipeline_tests.walkthrough.walk import walk


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None or CHROMEDRIVER is None, reason="no Chromium here")
def test_a_new_user_finds_runs_reads_and_understands_a_purification(tmp_path):
    pictures = walk(tmp_path / "pictures", tmp_path / "work")
    assert len(pictures) >= 15
    assert all(picture.stat().st_size > 5_000 for picture in pictures)
