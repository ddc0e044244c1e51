"""Progress: who hears it, and how rate and time left are told."""

import pytest

from sot_pipeline.progress import Listener, describe, duration, listening, reporter


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_rate_and_time_left_follow_from_what_is_done():
    assert (
        describe(1200, 4000, 3.0, "tokens") == "1,200 of 4,000 tokens (30%), 400 tokens/s, 7 s left"
    )
    assert describe(0, 0, 0.0, "steps") == "0 of 0 steps (100%), 0 steps/s"


def test_a_listener_hears_every_step_inside_and_none_outside():
    heard = []

    class Ear(Listener):
        def advanced(self, label, unit, done, total):
            heard.append((label, unit, done, total))

    progress = reporter("embedding", "tokens", lambda line: None)
    with listening(Ear()):
        progress(1, 2)
        progress(2, 2)
    progress(3, 3)
    assert heard == [("embedding", "tokens", 1, 2), ("embedding", "tokens", 2, 2)]


def test_the_log_gets_a_line_only_now_and_then():
    lines = []
    often = reporter("solve", "steps", lines.append, every_seconds=0)
    often(1, 10)
    often(2, 10)
    assert len(lines) == 2
    assert lines[0].startswith("solve: 1 of 10 steps")
    seldom = reporter("solve", "steps", lines.append, every_seconds=1000)
    for step in range(100):
        seldom(step, 100)
    assert len(lines) == 2
