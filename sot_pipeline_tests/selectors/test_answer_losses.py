"""Losses of tokens and rows, and which rows can be looked at."""

import numpy as np
import pytest
import torch

from sot_pipeline.errors import InputError
from sot_pipeline.language_model import load_language_model, render_with_answer_mask
from sot_pipeline.selectors.answer_losses import learnable_rows, row_losses
from sot_pipeline_tests.finetuning.test_train import conversations
from sot_pipeline_tests.tiny_models import save_tiny_model

TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "what is two plus three"},
    {"role": "assistant", "content": "five"},
    {"role": "user", "content": "and again"},
    {"role": "assistant", "content": "five is the sum"},
]
ROWS = [*conversations(5), TURNS]
NO_ANSWER = [
    [],
    TURNS[:2],
    [TURNS[1], {**TURNS[2], "train": False}],
]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return load_language_model(save_tiny_model(tmp_path_factory.mktemp("base")), device="cpu")


def test_the_loss_of_a_row_is_transformers_own(lm):
    rows = learnable_rows("custom", lm.tokenizer, ROWS, 512).rows
    expected = []
    for row in ROWS:
        ids, is_answer, _ = render_with_answer_mask(lm.tokenizer, row)
        labels = [token if learn else -100 for token, learn in zip(ids, is_answer, strict=True)]
        with torch.no_grad():
            out = lm.model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
        expected.append(out.loss.item())
    found = row_losses(lm.model, rows, np.arange(6))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    some = row_losses(lm.model, rows, np.array([4, 1]))
    np.testing.assert_allclose(some.numpy(), [expected[4], expected[1]], rtol=1e-5)


@pytest.mark.parametrize("bad", NO_ANSWER)
def test_a_row_without_an_answer_is_left_out_and_the_others_keep_their_positions(lm, bad):
    found = learnable_rows("custom", lm.tokenizer, [ROWS[0], bad, ROWS[1]], 512)
    assert found.positions.tolist() == [0, 2]
    assert len(found.rows.token_ids) == 2


def test_an_empty_answer_has_an_end_token_to_learn(lm):
    empty = [ROWS[0][0], {"role": "assistant", "content": ""}]
    assert learnable_rows("custom", lm.tokenizer, [empty], 512).rows.num_answer_tokens == [1]


def test_an_answer_to_nothing_is_learnt_where_the_template_has_a_header(lm):
    alone = [{"role": "assistant", "content": "five"}]
    assert learnable_rows("custom", lm.tokenizer, [alone], 512).positions.tolist() == [0]


def test_a_row_with_an_answer_that_the_template_refuses_is_an_error(lm, monkeypatch):
    monkeypatch.setattr(
        lm.tokenizer, "chat_template", "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    )
    with pytest.raises(InputError, match=r"safe rows, .*leaves out"):
        learnable_rows("safe", lm.tokenizer, ROWS, 512)


def test_a_set_without_any_answer_is_an_error(lm):
    with pytest.raises(InputError, match="none of the 3 safe rows has a prompt and an answer"):
        learnable_rows("safe", lm.tokenizer, NO_ANSWER, 512)
