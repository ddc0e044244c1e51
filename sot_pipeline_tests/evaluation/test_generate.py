"""Greedy answers: the same as transformers' own, whatever the batch."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sot_pipeline.errors import InputError
from sot_pipeline.evaluation import generate as module
from sot_pipeline.evaluation.generate import end_tokens, generate_answers
from sot_pipeline.language_model import LanguageModel, load_language_model, render
from sot_pipeline_tests.tiny_models import (
    LLAMA3,
    WORDS,
    make_llama,
    make_tokenizer,
    save_adapter,
    save_tiny_model,
)


def make_gpt2(vocabulary_size):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary_size, n_embd=32, n_layer=2, n_head=4, n_positions=128,
        initializer_range=0.3, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def make_lm(make_model=make_llama, template=LLAMA3):
    tokenizer = make_tokenizer(template)
    return LanguageModel(make_model(len(tokenizer)), tokenizer, "tiny", None, "0")


def asked(num_prompts, seed=0):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(1, 15))) for _ in range(num_prompts)]
    return [[{"role": "user", "content": text}] for text in texts]


def by_transformers(lm, conversation, max_new_tokens):
    ids = torch.tensor([render(lm.tokenizer, conversation, add_generation_prompt=True)])
    out = lm.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(end_tokens(lm)),
        pad_token_id=0,
    )
    return lm.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("make_model", [make_llama, make_gpt2])
def test_answers_are_those_of_transformers_one_by_one(make_model):
    lm, conversations = make_lm(make_model), asked(12)
    answers = generate_answers(lm, conversations, max_new_tokens=20, batch_size=5)
    assert answers == [by_transformers(lm, turns, 20) for turns in conversations]
    assert len(set(answers)) > 6  # they do differ, so their order is tested too


@pytest.mark.parametrize("batch_size", [2, 7, 100])
def test_the_batch_size_changes_no_answer(batch_size):
    lm, conversations = make_lm(), asked(20, seed=1)
    one_by_one = generate_answers(lm, conversations, max_new_tokens=15, batch_size=1)
    assert (
        generate_answers(lm, conversations, max_new_tokens=15, batch_size=batch_size) == one_by_one
    )


def scripted(lm, script):
    """Make the model say the script's tokens, whatever it reads."""
    vocabulary = len(lm.tokenizer)

    class Scripted(torch.nn.Module):
        config, generation_config, device = (
            lm.model.config,
            lm.model.generation_config,
            lm.model.device,
        )

        def forward(self, input_ids, attention_mask, past_key_values, use_cache):
            step = self.step if input_ids.shape[1] == 1 else 0
            self.step = step + 1
            logits = torch.zeros(len(input_ids), 1, vocabulary)
            logits[:, 0, script[step]] = 1
            return type("Output", (), {"logits": logits})

    return lm._replace(model=Scripted())


@pytest.mark.parametrize("end", ["</s>", "<|eot_id|>"])
def test_an_answer_ends_at_the_end_token_of_model_or_template(end):
    lm = make_lm()
    two, end_id, six = lm.tokenizer.convert_tokens_to_ids(["two", end, "six"])
    answers = generate_answers(
        scripted(lm, [two, two, end_id, six]), asked(3), max_new_tokens=9, batch_size=3
    )
    assert answers == ["twotwo"] * 3


def test_an_answer_that_does_not_end_stops_at_the_limit():
    lm = make_lm()
    two = lm.tokenizer.convert_tokens_to_ids("two")
    assert generate_answers(scripted(lm, [two] * 9), asked(1), max_new_tokens=4, batch_size=1) == [
        "two" * 4
    ]


def test_special_tokens_within_an_answer_are_not_text():
    lm = make_lm()
    script = lm.tokenizer.convert_tokens_to_ids(["two", "<|im_start|>", "six", "</s>"])
    assert generate_answers(scripted(lm, script), asked(1), max_new_tokens=9, batch_size=1) == [
        "twosix"
    ]


def test_without_a_template_a_line_break_is_no_end_token():
    lm = make_lm(template=None)
    assert end_tokens(lm) == {lm.tokenizer.eos_token_id}


def test_each_answer_stops_where_the_context_ends():
    lm = make_lm(lambda size: make_llama(size, max_position_embeddings=40))
    conversations = [[{"role": "user", "content": "two " * n}] for n in (1, 12)]
    lengths = [len(render(lm.tokenizer, c, add_generation_prompt=True)) for c in conversations]
    assert 40 - max(lengths) < 20
    endless = scripted(lm, lm.tokenizer.convert_tokens_to_ids(["two"] * 40))
    answers = generate_answers(endless, conversations, max_new_tokens=20, batch_size=2)
    assert answers == ["two" * min(20, 40 - length) for length in lengths]


def test_a_prompt_that_fills_the_context_is_an_error():
    lm = make_lm(lambda size: make_llama(size, max_position_embeddings=20))
    conversations = [[{"role": "user", "content": text}] for text in ("why", "two " * 30)]
    with pytest.raises(InputError, match=r"prompt 2 has \d+ tokens, the model reads 20"):
        generate_answers(lm, conversations, max_new_tokens=5, batch_size=2)


def test_no_room_for_an_answer_is_an_error():
    with pytest.raises(InputError, match="max_new_tokens is 0"):
        generate_answers(make_lm(), asked(1), max_new_tokens=0, batch_size=1)


def test_progress_counts_prompts_up_to_the_total():
    seen = []
    generate_answers(
        make_lm(),
        asked(7),
        max_new_tokens=3,
        batch_size=3,
        progress=lambda *step: seen.append(step),
    )
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_no_prompts_have_no_answers():
    assert generate_answers(make_lm(), [], max_new_tokens=3, batch_size=3) == []


def test_running_out_of_memory_halves_the_batch(monkeypatch):
    lm, conversations, sizes = make_lm(), asked(9), []
    generate = module._generate

    def small_memory(lm, prompts, room):
        if len(prompts) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        sizes.append(len(prompts))
        return generate(lm, prompts, room)

    expected = generate_answers(lm, conversations, max_new_tokens=6, batch_size=9)
    monkeypatch.setattr(module, "_generate", small_memory)
    assert generate_answers(lm, conversations, max_new_tokens=6, batch_size=9) == expected
    assert sum(sizes) == 9


def test_an_error_of_the_model_is_not_taken_for_a_full_memory(monkeypatch):
    def broken(lm, prompts, room):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(module, "_generate", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        generate_answers(make_lm(), asked(4), max_new_tokens=6, batch_size=4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_an_adapter_answers_for_itself(tmp_path):
    base = save_tiny_model(tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter", lora_alpha=64)
    lm, conversations = load_language_model(base, adapter=adapter), asked(4)
    answers = generate_answers(lm, conversations, max_new_tokens=10, batch_size=2)
    assert answers == [by_transformers(lm, turns, 10) for turns in conversations]
    plain = generate_answers(
        load_language_model(base), conversations, max_new_tokens=10, batch_size=2
    )
    assert answers != plain
