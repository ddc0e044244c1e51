"""Rows judged one by one."""

import numpy as np
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.evaluation.judge import KeywordJudge
from sot_pipeline.selectors.judged import guard_scores, judge_scores
from sot_pipeline.selectors.turns import exchange


def row(*contents, roles=("user", "assistant")):
    return [
        {"role": role, "content": text}
        for role, text in zip(roles * len(contents), contents, strict=False)
    ]


class Grader:
    """Grades by the answer, and remembers what it was asked."""

    name, fingerprint, kinds = "grader", "grader", frozenset(("help",))

    def __init__(self, grades):
        self.grades, self.asked = grades, []

    def judge(self, prompts, answers, kind, references=None):
        assert kind == "help"
        self.asked += list(zip(prompts, answers, strict=True))
        return [self.grades.get(answer) for answer in answers]


class Guard:
    def __init__(self, probabilities):
        self.found = probabilities

    def probabilities(self, prompts, answers):
        return [self.found[answer] for answer in answers]


def test_a_row_weighs_its_grade():
    judged = judge_scores(Grader({"a": 5.0, "b": 1.0, "c": 4.5}), [row("?", x) for x in "abc"])
    np.testing.assert_array_equal(judged.log_weights, [5.0, 1.0, 4.5])
    assert judged.log_weights.dtype == np.float64
    assert judged.num_unreadable == 0


def test_unreadable_verdicts_rank_last_and_are_counted():
    judged = judge_scores(Grader({"a": 1.0, "c": 2.0}), [row("?", x) for x in "abcd"])
    assert judged.num_unreadable == 2
    first, second, third, fourth = judged.log_weights
    assert second == fourth < first < third


def test_rows_without_an_answer_are_unreadable_and_not_asked_about():
    grader = Grader({"a": 3.0})
    judged = judge_scores(grader, [row("?"), row("?", "a"), row("a", roles=("assistant",)), []])
    assert judged.num_unreadable == 3
    assert judged.log_weights.argmax() == 1
    assert len(grader.asked) == 1


def test_the_last_answer_is_judged_with_all_that_came_before():
    grader = Grader({"second": 4.0})
    conversation = [{"role": "system", "content": "be brief"}, *row("q", "first", "and?", "second")]
    judge_scores(grader, [conversation])
    assert grader.asked == [(conversation[:-1], "second")]


def test_turns_behind_the_last_answer_belong_to_nothing():
    assert exchange(row("q", "a", "thanks")) == (row("q"), "a")


def test_a_guard_gives_minus_the_log_odds_of_harm():
    judged = guard_scores(Guard({"a": 0.5, "b": 0.9, "c": None}), [row("?", x) for x in "abc"])
    np.testing.assert_allclose(judged.log_weights[:2], [0.0, np.log(0.1 / 0.9)], atol=1e-12)
    assert judged.num_unreadable == 1
    assert judged.log_weights.argmin() == 2


def test_a_guard_that_is_certain_still_gives_numbers():
    certain = Guard({"a": 0.0, "b": 1e-30, "c": 1.0 - 1e-10, "d": 1.0})
    log_weights = guard_scores(certain, [row("?", x) for x in "abcd"]).log_weights
    assert np.isfinite(log_weights).all()
    assert (np.diff(log_weights) < 0).all()


def test_a_judge_that_says_nothing_is_an_error():
    with pytest.raises(InputError, match=r"none of the 2 rows has a verdict.*\(1 have a prompt"):
        judge_scores(Grader({}), [row("?", "a"), row("?")])


def test_a_judge_of_another_kind_is_refused():
    with pytest.raises(InputError, match="judges harm, refusal, not help"):
        judge_scores(KeywordJudge(), [row("?", "a")])
