"""Safe rows among the task's own: how many, which, and with which weights."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.mixing import num_to_add, spread, with_demonstrations, with_safe_rows


def rows(count: int, word: str = "row"):
    return [[{"role": "user", "content": f"{word} {i}"}] for i in range(count)]


def test_ninety_seven_rows_get_three_demonstrations_for_a_share_of_three_percent():
    mixed = with_demonstrations(rows(97), np.ones(97), rows(10, "safe"), share=0.03, seed=0)
    assert mixed.num_added == 3
    assert mixed.conversations[:97] == rows(97)
    assert all(added in rows(10, "safe") for added in mixed.conversations[97:])


def test_a_demonstration_weighs_what_the_rows_weigh_on_average():
    weights = np.array([0.5, 1.0, 3.0])
    mixed = with_demonstrations(rows(3), weights, rows(2, "safe"), share=0.5, seed=0)
    np.testing.assert_allclose(mixed.weights, [0.5, 1.0, 3.0, 1.5, 1.5, 1.5])


@given(num_rows=st.integers(1, 5000), share=st.floats(0.001, 0.9))
def test_the_share_is_met_as_nearly_as_whole_rows_allow(num_rows, share):
    added = num_to_add(num_rows, share)
    assert added >= 1
    exact = num_rows * share / (1 - share)
    assert abs(added - exact) <= 0.5 or added == 1


@given(population=st.integers(1, 50), count=st.integers(0, 300), seed=st.integers(0, 5))
def test_no_demonstration_is_repeated_more_than_once_more_than_another(population, count, seed):
    chosen = spread(population, count, seed)
    assert len(chosen) == count
    times = Counter(chosen.tolist())
    frequencies = [times[place] for place in range(population)]
    assert sum(frequencies) == count
    assert max(frequencies) - min(frequencies) <= 1


def test_another_seed_mixes_other_demonstrations_the_same_seed_the_same():
    def mix(seed: int):
        return with_demonstrations(rows(90), np.ones(90), rows(99, "safe"), share=0.1, seed=seed)

    assert mix(1).conversations == mix(1).conversations
    assert mix(1).conversations != mix(2).conversations


def test_the_control_learns_every_safe_row_with_weight_one():
    mixed = with_safe_rows(rows(2), np.array([0.2, 5.0]), rows(3, "safe"))
    assert mixed.conversations == [*rows(2), *rows(3, "safe")]
    assert mixed.weights.tolist() == [0.2, 5.0, 1.0, 1.0, 1.0]
    assert mixed.num_added == 3


def test_without_demonstrations_nothing_can_be_mixed():
    with pytest.raises(InputError, match="there is none"):
        with_demonstrations(rows(3), np.ones(3), [], share=0.1, seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_no_number_of_rows_gives_is_refused(share):
    with pytest.raises(InputError, match="between 0 and 1"):
        with_demonstrations(rows(3), np.ones(3), rows(1, "safe"), share=share, seed=0)
