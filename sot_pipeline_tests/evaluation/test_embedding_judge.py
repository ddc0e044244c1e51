"""The judge that learns: from planted directions, with honest folds and honest probabilities."""

import numpy as np
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.evaluation.embedding_judge import (
    EmbeddingJudge,
    LabelledAnswers,
    cross_fitted,
    fit,
    split,
)

DIMENSION = 8


def embed(conversations):
    """The vector of an answer is written in it; a word in place of a number is NaN."""
    texts = [conversation[-1]["content"] for conversation in conversations]
    return np.array([[float(x) for x in text.split()] for text in texts])


def asked(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def planted(num_rows, *, strength=4.0, seed=0):
    """Vectors, labels with P(yes) = logistic(strength x first coordinate), true probabilities."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(num_rows, DIMENSION))
    probabilities = 1 / (1 + np.exp(-strength * vectors[:, 0]))
    return vectors, rng.random(num_rows) < probabilities, probabilities


def labelled(num_rows=200, **labels):
    vectors, truth, _ = planted(num_rows)
    answers = [" ".join(f"{x:.6f}" for x in row) for row in vectors]
    prompts = asked(*(f"prompt {row // 2}" for row in range(num_rows)))
    return LabelledAnswers(prompts, answers, labels or {"harm": truth.tolist()})


def test_it_finds_what_was_planted():
    judge = EmbeddingJudge(embed, "e", labelled())
    answers = ["2" + " 0" * 7, "-2" + " 0" * 7]
    assert judge.judge(asked("a", "b"), answers, "harm") == [1.0, 0.0]
    assert judge.kinds == {"harm"}


def test_prompts_are_grouped_once_however_many_answers_there_are(monkeypatch):
    made = []
    real = LabelledAnswers.groups
    monkeypatch.setattr(
        LabelledAnswers, "groups", property(lambda self: made.append(1) or real.__get__(self))
    )
    EmbeddingJudge(embed, "e", labelled())
    assert len(made) == 1


def test_probabilities_are_calibrated():
    vectors, labels, _ = planted(2_000)
    model = fit(vectors, labels, [str(row) for row in range(2_000)])
    fresh, _, probabilities = planted(4_000, seed=1)
    found = model.probability(fresh)
    assert np.abs(found - probabilities).mean() < 0.03
    for low in np.arange(0, 1, 0.1):
        inside = (found >= low) & (found < low + 0.1)
        assert probabilities[inside].mean() == pytest.approx(found[inside].mean(), abs=0.06)


def test_labels_that_nothing_predicts_give_their_share_and_no_more():
    vectors, _, _ = planted(600)
    labels = np.random.default_rng(5).random(600) < 0.2
    found = cross_fitted(vectors, labels, [str(row) for row in range(600)])
    assert found.mean() == pytest.approx(labels.mean(), abs=0.03)
    assert found.max() < 0.5


def test_no_row_is_judged_by_a_model_that_saw_its_prompt():
    # One direction per prompt says its label, and says nothing of any other prompt.
    num_prompts = 60
    vectors = np.repeat(np.eye(num_prompts), 4, axis=0)
    labels = np.repeat(np.random.default_rng(0).random(num_prompts) < 0.5, 4)
    groups = np.repeat([f"p{i}" for i in range(num_prompts)], 4).tolist()
    apart = cross_fitted(vectors, labels, groups)
    accuracy = np.mean((apart >= 0.5) == labels)
    assert accuracy < 0.7, "prompts were held out"
    leaking = cross_fitted(vectors, labels, [str(row) for row in range(len(labels))])
    assert np.mean((leaking >= 0.5) == labels) > 0.95, "the same rows, without the groups"


def test_folds_cover_every_row_once_and_keep_groups_together():
    groups = [f"g{row // 3}" for row in range(90)]
    labels = np.arange(90) % 3 == 0
    folds = split(labels, groups)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(90))
    for train, test in folds:
        assert not {groups[row] for row in train} & {groups[row] for row in test}


def test_each_kind_learns_from_the_answers_that_have_a_label_for_it():
    harm = labelled().labels["harm"]
    both = labelled(
        harm=[label if row % 2 else None for row, label in enumerate(harm)],
        refusal=[not label for label in harm],
    )
    judge = EmbeddingJudge(embed, "e", both)
    answers = ["2" + " 0" * 7, "-2" + " 0" * 7]
    assert judge.kinds == {"harm", "refusal"}
    assert judge.judge(asked("a", "b"), answers, "refusal") == [0.0, 1.0]
    assert judge.judge(asked("a", "b"), answers, "harm") == [1.0, 0.0]


def test_an_answer_whose_vector_is_no_number_is_unreadable():
    judge = EmbeddingJudge(embed, "e", labelled())
    assert judge.judge(asked("a"), ["nan" + " 0" * 7], "harm") == [None]


def test_the_fingerprint_follows_encoder_labels_and_threshold():
    flipped = labelled(harm=[not label for label in labelled().labels["harm"]])
    judges = [
        EmbeddingJudge(embed, "e", labelled()),
        EmbeddingJudge(embed, "other", labelled()),
        EmbeddingJudge(embed, "e", flipped),
        EmbeddingJudge(embed, "e", labelled(), threshold=0.9),
    ]
    assert len({judge.fingerprint for judge in judges}) == 4
    again = EmbeddingJudge(embed, "e", labelled())
    assert again.fingerprint == judges[0].fingerprint
    text = [["1" + " 0" * 7]]
    assert again.probabilities(asked("a"), *text, "harm") == judges[0].probabilities(
        asked("a"), *text, "harm"
    )


def test_too_few_labels_are_an_error_that_counts_them():
    few = labelled(20, harm=[row == 0 for row in range(20)])
    with pytest.raises(InputError, match="1 prompts have an answer labelled yes"):
        EmbeddingJudge(embed, "e", few)
    with pytest.raises(InputError, match="None of the labelled answers"):
        EmbeddingJudge(embed, "e", labelled(20, harm=[None] * 20))


def test_it_judges_what_it_learned_and_no_answers_cost_nothing():
    judge = EmbeddingJudge(embed, "e", labelled())
    with pytest.raises(InputError, match="judges harm, not refusal"):
        judge.judge(asked("a"), ["1"], "refusal")
    assert judge.judge([], [], "harm") == []
