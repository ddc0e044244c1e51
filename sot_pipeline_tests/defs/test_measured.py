"""Time and memory of a piece of work."""

import sys
import time

import numpy as np
import pytest

from sot_pipeline.defs.measured import measured


def test_time_is_that_of_the_block():
    with measured() as cost:
        time.sleep(0.02)
    assert 0.02 <= cost.seconds < 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak")
def test_memory_that_was_given_back_still_counts_and_earlier_peaks_do_not():
    earlier = np.ones(40_000_000)  # 320 MB
    del earlier
    with measured() as cost:
        block = np.ones(12_500_000)  # 100 MB
        del block
    assert cost.peak_bytes is not None
    assert 80e6 < cost.peak_bytes < 200e6
