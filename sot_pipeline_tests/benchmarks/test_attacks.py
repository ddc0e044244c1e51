"""The disguises and the windows of `attacks.py`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline_tests.benchmarks.attacks import (
    PLACES,
    blended,
    owners,
    padded,
    pieces,
    seen,
    windows,
    worst,
)

TEXT = "one two three four five six seven eight nine ten " * 12
PAD = "alpha beta gamma delta epsilon zeta eta theta " * 100


@given(st.text(max_size=300), st.integers(1, 50))
def test_pieces_join_to_the_text_and_none_is_too_long(text, size):
    found = pieces(text, size)
    assert "".join(found) == text
    assert all(len(piece) <= size for piece in found)


def test_pieces_of_no_length_are_refused():
    with pytest.raises(ValueError, match="size is 0"):
        pieces("text", 0)


def test_a_short_text_is_its_own_window_and_an_empty_one_has_one():
    assert windows("short", 300) == ["short"]
    assert windows("", 300) == [""]
    assert windows("   ", 2) == ["   "]


def test_text_without_spaces_has_windows_too():
    assert [len(piece) for piece in windows("字" * 700, 300)] == [300, 300, 100]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("budget", [1, 2, 4])
def test_padding_keeps_every_word_of_the_row_and_its_order(place, budget):
    words = padded(TEXT, PAD, budget, place).split()
    own = set(TEXT.split())
    assert [word for word in words if word in own] == TEXT.split()
    added = sum(len(word) + 1 for word in words if word not in own)
    assert 0.9 * budget * len(TEXT) <= added <= budget * len(TEXT) + 10


@pytest.mark.parametrize(
    ("place", "start", "end"),
    [("before", "alpha", "ten"), ("after", "one", "delta"), ("around", "alpha", "delta")],
)
def test_the_padding_stands_where_it_was_asked_for(place, start, end):
    words = padded(TEXT, "alpha beta gamma delta", 4, place).split()
    assert (words[0], words[-1]) == (start, end)


def test_interleaved_padding_leaves_no_window_of_the_row_alone():
    for window in windows(padded(TEXT, PAD, 1, "interleaved"), 300):
        assert set(window.split()) & set(PAD.split())


def test_an_encoder_that_reads_the_beginning_sees_nothing_behind_a_long_pad():
    assert seen(500, 4, "before", visible=1_000) == (0, 1_000)
    assert seen(500, 4, "after", visible=1_000) == (500, 500)
    assert seen(500, 4, "around", visible=1_200) == (200, 1_000)
    assert seen(500, 1, "interleaved", visible=500) == (250, 250)


@given(st.integers(1, 5_000), st.floats(0.1, 8), st.sampled_from(PLACES))
def test_no_more_is_seen_than_there_is(length, budget, place):
    found = seen(length, budget, place)
    assert 0 <= found.of_text <= length
    assert 0 <= found.of_pad <= round(budget * length)
    assert sum(found) <= 1_151


def test_a_blend_of_equal_parts_lies_in_the_middle():
    mixed = blended(np.array([1.0, 0.0]), np.array([[0.0, 1.0]]), seen(100, 1, "after"))
    np.testing.assert_allclose(mixed, [[0.5**0.5, 0.5**0.5]])


def test_a_row_is_as_good_as_its_worst_window():
    rows = owners([["a", "b"], ["c"], ["d", "e", "f"]])
    assert rows.tolist() == [0, 0, 1, 2, 2, 2]
    lowest = worst(np.array([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]), rows, 3)
    assert lowest.tolist() == [1.0, 2.0, 4.0]


def test_a_row_without_a_window_is_refused():
    with pytest.raises(ValueError, match="row 1 has no window"):
        worst(np.array([1.0]), np.array([0]), 2)
