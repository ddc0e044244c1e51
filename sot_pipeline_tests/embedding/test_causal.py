"""A causal language model's vector: last layer, last real token, whatever the padding."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sot_pipeline.embedding.causal import CausalEncoder
from sot_pipeline.embedding.embed import embed
from sot_pipeline.embedding.load import load_encoder
from sot_pipeline.errors import InputError
from sot_pipeline.language_model import LanguageModel, render
from sot_pipeline_tests.tiny_models import (
    GEMMA,
    LLAMA3,
    make_llama,
    make_tokenizer,
    save_tiny_model,
)

CONVERSATIONS = [
    [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello there"}],
    [
        {"role": "user", "content": "what is two plus three " * 4},
        {"role": "assistant", "content": "five"},
    ],
    [{"role": "user", "content": "why"}],
]


def make_gpt2(vocabulary_size):
    """Learnt absolute positions: a wrong position id shows at once."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary_size, n_embd=32, n_layer=2, n_head=4, n_positions=128,
        initializer_range=0.3, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def make_encoder(make_model=make_llama, *, max_length=512, template=LLAMA3):
    tokenizer = make_tokenizer(template)
    lm = LanguageModel(make_model(len(tokenizer)), tokenizer, "tiny", None, "0")
    return CausalEncoder(lm, max_length=max_length)


def alone(encoder, token_ids):
    """The definition, straight from the model and without padding."""
    with torch.inference_mode():
        out = encoder.lm.model(torch.tensor([token_ids]), output_hidden_states=True)
    return out.hidden_states[-1][0, -1].numpy()


@pytest.mark.parametrize("make_model", [make_llama, make_gpt2])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_on_either_side_or_none_gives_the_same_vector(make_model, side):
    encoder = make_encoder(make_model)
    rows = encoder.tokenize(CONVERSATIONS).token_ids
    assert len({len(row) for row in rows}) == 3
    expected = np.stack([alone(encoder, row) for row in rows])
    vectors = encoder.embed_batch(rows, padding_side=side)
    np.testing.assert_allclose(vectors, expected, atol=1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 0.1  # the law is not empty


def test_a_row_that_ends_with_the_filler_token_keeps_its_last_token():
    encoder = make_encoder()
    rows = [[1, 20, 0, 0], [1, 20, 21, 22, 23, 24]]  # 0 fills up shorter rows
    expected = np.stack([alone(encoder, row) for row in rows])
    np.testing.assert_allclose(encoder.embed_batch(rows), expected, atol=1e-4)


def test_half_precision_weights_still_give_float32_vectors():
    encoder = make_encoder()
    rows = encoder.tokenize(CONVERSATIONS).token_ids
    full = encoder.embed_batch(rows)
    encoder.lm.model.to(torch.bfloat16)
    half = encoder.embed_batch(rows)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.2)


def test_a_long_row_keeps_its_end_and_its_first_token():
    encoder = make_encoder(max_length=10)
    whole = render(encoder.lm.tokenizer, CONVERSATIONS[1])
    tokens = encoder.tokenize(CONVERSATIONS)
    assert tokens.token_ids[1] == whole[:1] + whole[-9:]
    assert tokens.was_cut == [True, True, False]


def test_a_row_is_never_longer_than_the_model_reads():
    encoder = make_encoder(make_gpt2, max_length=100_000)
    long = [[{"role": "user", "content": "two " * 500}]]
    assert [len(row) for row in encoder.tokenize(long).token_ids] == [128]
    assert embed(long, encoder).num_truncated == 1


def test_a_directory_loads_as_encoder_and_embeds(tmp_path):
    encoder = load_encoder(save_tiny_model(tmp_path / "model"))
    result = embed(CONVERSATIONS, encoder, cache=tmp_path / "cache")
    expected = [alone(encoder, row) for row in encoder.tokenize(CONVERSATIONS).token_ids]
    np.testing.assert_allclose(result.vectors, np.stack(expected), atol=1e-4)
    again = embed(CONVERSATIONS, encoder, cache=tmp_path / "cache")
    np.testing.assert_array_equal(again.vectors, result.vectors)
    assert again.num_cached == 3


def test_the_fingerprint_covers_all_that_changes_a_vector(tmp_path):
    plain = save_tiny_model(tmp_path / "plain")
    encoders = [
        load_encoder(plain),
        load_encoder(plain, max_length=100),
        load_encoder(plain, dtype="bfloat16"),
        load_encoder(save_tiny_model(tmp_path / "weights", seed=1)),
        load_encoder(save_tiny_model(tmp_path / "template", GEMMA)),
    ]
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)
    assert load_encoder(plain, batch_tokens=7).fingerprint == encoders[0].fingerprint


def test_a_length_that_holds_nothing_is_an_error(tmp_path):
    with pytest.raises(InputError, match="max_length is 1"):
        load_encoder(tmp_path, max_length=1)


def test_a_conversation_without_a_token_is_an_error():
    with pytest.raises(InputError, match="no token"):
        make_encoder(template="{{ messages[0]['content'] }}").embed_batch([[]])


def test_a_template_that_writes_the_date_is_known_by_the_day_it_is_told():
    from sot_pipeline.embedding.causal import _rendering
    from sot_pipeline.rendering import TODAY
    from sot_pipeline_tests.chat_templates import LLAMA31
    from sot_pipeline_tests.tiny_models import LLAMA3, make_tokenizer

    assert _rendering(make_tokenizer(LLAMA3)) == LLAMA3
    assert _rendering(make_tokenizer(None)) == "plain"
    assert _rendering(make_tokenizer(LLAMA31)) == f"{LLAMA31} {TODAY}"
