"""Copies: equal words are equal rows, near vectors are near rows, each counted once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sot_pipeline.references.duplicates import copy_groups, equal_rows, near_rows, normalised


@pytest.mark.parametrize(
    "text", ["How  are\nyou", "how are you?", "HOW ARE YOU", "How, are... you!", "Ｈow are you"]
)
def test_case_signs_spaces_and_width_do_not_make_a_text_another(text):
    assert normalised(text) == "how are you"


@given(st.text(max_size=20))
@settings(max_examples=50, deadline=None)
def test_normalising_twice_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)


def test_texts_of_signs_alone_are_not_all_the_same():
    assert len(equal_rows(["?!", "...", "+", "..."]).rows) == 1


def test_a_repeated_row_names_the_first_of_its_kind():
    found = equal_rows(["a b", "c", "A b.", "a, b"])
    assert found.rows.tolist() == [2, 3]
    assert found.others.tolist() == [0, 0]


def test_rows_of_another_set_are_named_once_each():
    found = equal_rows(["x", "a"], ["a", "A", "b"])
    assert (found.rows.tolist(), found.others.tolist()) == ([1], [0])


@given(st.lists(st.sampled_from("abcd"), max_size=12))
@settings(max_examples=50, deadline=None)
def test_what_is_left_without_the_repeats_is_the_set_of_texts(texts):
    repeats = set(equal_rows(texts).rows.tolist())
    left = [text for row, text in enumerate(texts) if row not in repeats]
    assert sorted(left) == sorted(set(texts))


def test_near_rows_are_those_above_the_cosine_whatever_their_length():
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [50.0, 1.0], [0.0, -1.0]])
    found = near_rows(vectors)
    assert (found.rows.tolist(), found.others.tolist()) == ([2], [0])
    assert found.similarities[0] == pytest.approx(50 / np.hypot(50, 1))


def test_a_chain_of_near_rows_is_one_group():
    angles = np.deg2rad([0, 10, 20, 90])  # cos 10 degrees = .985, cos 20 degrees = .940
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert copy_groups(vectors).tolist() == [0, 0, 0, 3]


@pytest.mark.parametrize("vectors", [np.zeros((0, 3)), np.ones((1, 3)), np.zeros((1, 3))])
def test_no_row_is_a_copy_of_itself(vectors):
    assert len(near_rows(vectors).rows) == 0
    assert len(equal_rows(["text"] * len(vectors)).rows) == 0


def test_nothing_is_near_an_empty_set():
    assert len(near_rows(np.ones((2, 3)), np.zeros((0, 3))).rows) == 0
    assert len(equal_rows(["a"], []).rows) == 0


def test_of_identical_vectors_all_but_the_first_are_copies():
    assert near_rows(np.ones((2_500, 3))).rows.tolist() == list(range(1, 2_500))
