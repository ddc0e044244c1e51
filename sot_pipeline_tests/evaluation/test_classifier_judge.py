"""The classifier judge, on a tiny classifier whose weights say what it finds harmful."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from sot_pipeline.errors import InputError
from sot_pipeline.evaluation.classifier_judge import ClassifierJudge
from sot_pipeline_tests.embedding.test_sentence import save_tiny_encoder

ASKED = [{"role": "user", "content": "what is two plus three"}]


@pytest.fixture
def save_classifier(tmp_path):
    def save(labels=("safe", "harmful"), problem_type=None, bias=None):
        directory = save_tiny_encoder(
            tmp_path / f"c{len(list(tmp_path.iterdir()))}", {"pooling_mode": "mean"}
        )
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
        torch.manual_seed(3)
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=32, max_position_embeddings=40, initializer_range=1.0,
                id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
                problem_type=problem_type,
            )
        )  # fmt: skip
        if bias is not None:
            with torch.no_grad():
                model.classifier.weight.zero_()
                model.classifier.bias.copy_(torch.tensor(bias))
        model.save_pretrained(directory)
        return directory

    return save


ANSWERS = ["five", "the sum is five", "please why because", "ten", "you are helpful", "six seven"]


def test_verdicts_are_those_of_the_model_one_by_one(save_classifier):
    directory = save_classifier()
    judge = ClassifierJudge(directory, "harmful", batch_size=4)
    verdicts = judge.judge([ASKED] * 6, ANSWERS, "harm")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    model = BertForSequenceClassification.from_pretrained(directory).eval()
    with torch.inference_mode():
        expected = [
            float(model(**tokenizer(ASKED[0]["content"], a, return_tensors="pt")).logits.argmax())
            for a in ANSWERS
        ]
    assert verdicts == expected
    assert set(verdicts) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("labels", "problem_type", "bias", "harmful", "verdict"),
    [
        (("safe", "harmful"), None, [0.0, 1.0], "harmful", 1.0),
        (("safe", "harmful"), None, [1.0, 0.0], "harmful", 0.0),
        # Exclusive labels add up: two times .3 against .4.
        (("safe", "hate", "drugs"), None, [0.3, 0.0, 0.0], ["hate", "drugs"], 1.0),
        (("safe", "hate", "drugs"), None, [0.3, 0.0, 0.0], "hate", 0.0),
        # Independent labels: any one that is more likely than not.
        (("hate", "drugs"), "multi_label_classification", [-3.0, 0.1], ["hate", "drugs"], 1.0),
        (("hate", "drugs"), "multi_label_classification", [-3.0, -0.1], ["hate", "drugs"], 0.0),
        (("harmful",), None, [0.1], "harmful", 1.0),
        (("harmful",), None, [-0.1], "harmful", 0.0),
    ],
)
def test_how_labels_become_a_verdict(save_classifier, labels, problem_type, bias, harmful, verdict):
    judge = ClassifierJudge(save_classifier(labels, problem_type, bias), harmful)
    assert judge.judge([ASKED], ["five"], "harm") == [verdict]


def test_probabilities_are_the_softmax_of_the_harmful_labels(save_classifier):
    judge = ClassifierJudge(
        save_classifier(("safe", "hate", "drugs"), bias=[0.3, 0.0, -1.0]), ["hate", "drugs"]
    )
    harmful = np.exp(0.0) + np.exp(-1.0)
    [p] = judge.probabilities([ASKED], ["five"])
    assert p == pytest.approx(harmful / (np.exp(0.3) + harmful), rel=1e-6)


def test_probabilities_near_zero_keep_their_order(save_classifier):
    found = []
    for bias in (-40.0, -50.0):
        judge = ClassifierJudge(save_classifier(bias=[0.0, bias]), "harmful")
        found += judge.probabilities([ASKED], ["five"])
    assert found == pytest.approx([np.exp(-40), np.exp(-50)])


def test_there_is_a_probability_for_each_answer_or_none(save_classifier):
    judge = ClassifierJudge(save_classifier(), "harmful", batch_size=4)
    found = judge.probabilities([ASKED] * 6, ANSWERS)
    assert [float(p >= 0.5) for p in found] == judge.judge([ASKED] * 6, ANSWERS, "harm")
    broken = ClassifierJudge(save_classifier(bias=[float("nan"), 0.0]), "harmful")
    assert broken.probabilities([ASKED], ["five"]) == [None]
    with pytest.raises(ValueError, match="1 prompts, but 2 answers"):
        broken.probabilities([ASKED], ["five", "six"])


def test_a_probability_that_is_no_number_is_unreadable(save_classifier):
    judge = ClassifierJudge(save_classifier(bias=[float("nan"), 0.0]), "harmful")
    assert judge.judge([ASKED], ["five"], "harm") == [None]


def test_a_long_answer_is_cut(save_classifier):
    judge = ClassifierJudge(save_classifier(), "harmful")
    assert judge.judge([ASKED], ["five " * 500], "harm")[0] in (0.0, 1.0)


def test_an_unknown_label_is_named_with_the_known_ones(save_classifier):
    with pytest.raises(InputError, match="no label unsafe; it has safe, harmful"):
        ClassifierJudge(save_classifier(), "unsafe")


def test_it_judges_harm_only(save_classifier):
    with pytest.raises(InputError, match="judges harm, not help"):
        ClassifierJudge(save_classifier(), "harmful").judge([ASKED], ["five"], "help")


def test_the_fingerprint_follows_weights_labels_and_threshold(save_classifier):
    directory, other = save_classifier(), save_classifier(bias=[0.0, 1.0])
    judges = [
        ClassifierJudge(directory, "harmful"),
        ClassifierJudge(directory, "safe"),
        ClassifierJudge(directory, "harmful", threshold=0.9),
        ClassifierJudge(other, "harmful"),
    ]
    assert len({judge.fingerprint for judge in judges}) == 4
    assert ClassifierJudge(directory, "harmful", batch_size=1).fingerprint == judges[0].fingerprint
