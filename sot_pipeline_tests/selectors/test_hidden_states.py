"""Hidden states at the end of a row, layer by layer."""

import numpy as np
import pytest
import torch

from sot_pipeline.errors import InputError
from sot_pipeline.language_model import load_language_model, render
from sot_pipeline.selectors import hidden_states
from sot_pipeline.selectors.hidden_states import last_token_states
from sot_pipeline_tests.finetuning.test_train import conversations
from sot_pipeline_tests.tiny_models import save_adapter, save_tiny_model

TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "what is two plus three"},
    {"role": "assistant", "content": "five"},
    {"role": "user", "content": "and three plus three"},
    {"role": "assistant", "content": "six"},
]
ROWS = [*conversations(9), TURNS]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("base"), num_hidden_layers=3)


@pytest.fixture(scope="module")
def lm(base):
    return load_language_model(base, device="cpu")


def one_by_one(lm, rows):
    states = []
    for row in rows:
        ids = torch.tensor([render(lm.tokenizer, row)])
        with torch.no_grad():
            found = lm.model(input_ids=ids, output_hidden_states=True).hidden_states
        states.append(torch.stack([layer[0, -1] for layer in found]).numpy())
    return np.stack(states, axis=1)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_the_states_are_those_of_each_row_alone_whatever_the_padding(lm, side, batch_tokens):
    lm.tokenizer.padding_side = side
    states = last_token_states(lm, ROWS, max_length=256, batch_tokens=batch_tokens)
    assert states.shape == (4, 10, 32)
    assert states.dtype == np.float32
    np.testing.assert_allclose(states, one_by_one(lm, ROWS), atol=1e-4)


def test_layers_are_given_in_the_order_asked_for(lm):
    whole = last_token_states(lm, ROWS, max_length=256)
    some = last_token_states(lm, ROWS, max_length=256, layers=[-1, 1])
    np.testing.assert_array_equal(some, whole[[3, 1]])


def test_a_template_that_ends_rows_alike_leaves_nothing_to_see_at_layer_zero(lm):
    states = last_token_states(lm, ROWS, max_length=256, layers=[0, 1])
    assert np.ptp(states[0], axis=0).max() == 0
    assert np.ptp(states[1], axis=0).max() > 0


def test_an_adapter_counts(base, tmp_path):
    plain = last_token_states(load_language_model(base, device="cpu"), ROWS, max_length=256)
    adapter = save_adapter(base, tmp_path / "adapter")
    adapted = load_language_model(base, adapter=adapter, device="cpu")
    states = last_token_states(adapted, ROWS, max_length=256)
    np.testing.assert_array_equal(states[0], plain[0])
    assert np.abs(states[1:] - plain[1:]).max() > 1e-3


def test_long_rows_lose_their_beginning(lm):
    long_row = [{"role": "user", "content": "why " * 60}, *TURNS[1:3]]
    states = last_token_states(lm, [long_row, TURNS], max_length=24)
    assert np.isfinite(states).all()
    whole = last_token_states(lm, [long_row], max_length=256)
    assert not np.allclose(states[1:, 0], whole[1:, 0])


def test_where_memory_runs_out_smaller_batches_give_the_same(lm, monkeypatch):
    whole = last_token_states(lm, ROWS, max_length=256)
    batch_states, sizes = hidden_states._batch_states, []

    def narrow(decoder, token_ids, layers):
        sizes.append(len(token_ids))
        if len(token_ids) > 3:
            raise torch.OutOfMemoryError
        return batch_states(decoder, token_ids, layers)

    monkeypatch.setattr(hidden_states, "_batch_states", narrow)
    np.testing.assert_allclose(last_token_states(lm, ROWS, max_length=256), whole, atol=1e-4)
    assert max(sizes) == 10


def test_progress_counts_rows(lm):
    calls = []
    last_token_states(
        lm, ROWS, max_length=256, batch_tokens=60, progress=lambda *call: calls.append(call)
    )
    assert calls == sorted(calls)
    assert len(calls) > 2
    assert calls[-1] == (10, 10)


@pytest.mark.parametrize("layers", [[4], [-5], []])
def test_layers_that_the_model_does_not_have_are_refused(lm, layers):
    with pytest.raises(InputError, match=r"has the layers 0 \(embeddings\) to 3"):
        last_token_states(lm, ROWS, max_length=256, layers=layers)


def test_states_that_are_no_numbers_are_refused(base):
    lm = load_language_model(base, device="cpu")
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[5:].fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        last_token_states(lm, ROWS, max_length=256)
