"""Columns come out of the page as they went in, and stay within their room."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.report import packing
from sot_pipeline_tests.report.unpacked import unpacked

optional_texts = st.lists(st.none() | st.text(st.characters(codec="utf-8")), max_size=40)


@given(optional_texts)
def test_texts_and_names_come_back_as_they_were(values):
    assert unpacked(packing.texts(values)) == values
    assert unpacked(packing.names(values)) == values


@given(st.lists(st.integers(0, 2**31), max_size=40))
def test_counts_come_back_in_as_few_bytes_as_they_need(values):
    packed = packing.whole_numbers(np.array(values, dtype=np.int64))
    assert unpacked(packed) == values
    largest = max(values, default=0)
    assert packed["type"] == (
        "uint8" if largest < 256 else "uint16" if largest < 65_536 else "uint32"
    )


def test_shares_keep_four_decimals_and_know_what_is_missing():
    found = unpacked(packing.hundredths_of_a_percent(np.array([0.12344, -1.0, np.nan, 9.0])))
    np.testing.assert_allclose(found, [0.1234, -1.0, np.nan, 3.0], atol=1e-9)


@given(optional_texts, st.integers(0, 5_000))
def test_as_many_texts_as_fit_are_the_first_ones(values, room):
    packed = packing.as_many_texts(values, np.arange(len(values)) + 7, room)
    if packed is None:
        return
    assert packing.size_of(packed) <= room
    assert unpacked(packed) == [(7 + i, value) for i, value in enumerate(values[: packed["count"]])]


@pytest.mark.parametrize("room", [2_000, 20_000, 60_000])
def test_more_room_holds_more_texts_and_is_used(room):
    rng = np.random.default_rng(0)
    values = [f"{value:x}" for value in rng.integers(2**62, size=10_000)]
    packed = packing.as_many_texts(values, np.arange(10_000), room)
    assert packed is None if room < 5_000 else packed is not None and packed["count"] >= 500
    if packed is not None:
        assert packing.size_of(packed) > 0.6 * room


def test_the_block_is_plain_json_without_markup():
    packed = packing.texts(["</script><script>", "<!--", "\u2028"])
    assert not set("<>&'") & set(json.dumps(packed))
