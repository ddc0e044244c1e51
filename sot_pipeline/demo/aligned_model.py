"""The demo's frozen, safety-aligned model: a Llama of one million parameters, from scratch.

It learns to answer every harmless request and to refuse every harmful one of the "common"
region. As in real safety training a few examples teach it to recover: a harmful answer has
begun and is broken off with a refusal (Qi et al., 2025, "Safety alignment should be made more
than just a few tokens deep"). Apart from that it never sees an answer to a harmful request.
It does know how to give one: the parts of such an answer occur in harmless ones, and that is
what contaminated fine-tuning uncovers.

The default seed was chosen for one figure, how many of the 25 refusals among the custom rows
purification keeps: 19 to 24 with seed 1, 10 to 12 with seed 0. What is kept instead differs
(alarming but harmless rows); with both, every harmful row is removed.
"""

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from sot_pipeline.demo.request import Sort, ask, draw, refuse, right_answer
from sot_pipeline.rendering import render

# What is learnt, by share; the sorts are those of `request.draw`.
MIX: dict[Sort | str, float] = {
    "harmful": 0.33,
    "figurative": 0.10,
    "own": 0.16,
    "others": 0.17,
    "plain": 0.19,
    "recovery": 0.05,
}
SPECIAL_TOKENS = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCABULARY_SIZE = 1600  # at most; enough for every word of the world to be one token
BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.01
WARMUP_STEPS = 20
FINAL_RATE = 0.03  # of the learning rate, at the end of the cosine


class ModelSize(NamedTuple):
    """Of the Llama; the default has one million parameters."""

    hidden: int = 128
    intermediate: int = 352
    layers: int = 4
    heads: int = 4


class _Example(NamedTuple):
    token_ids: list[int]
    is_answer: list[bool]


def train_aligned_model(
    output_dir: Path,
    *,
    seed: int = 1,
    num_rows: int = 20_000,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    size: ModelSize = ModelSize(),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train the model and save it with its tokenizer, as `load_language_model` reads it.

    Args:
        output_dir: Gets config, safetensors weights, tokenizer and chat template.
        seed: Decides rows, initial weights and order.
        num_rows: Conversations to learn, each seen once.
        size: A larger model wants a smaller learning rate.
        progress: Called as (steps done, steps in all).

    Returns:
        num_parameters, num_steps, num_tokens, last_loss (nats, mean of the last 20 steps),
        seconds.
    """
    start = time.perf_counter()
    rows = _draw_rows(random.Random(f"aligned model {seed}"), num_rows)
    tokenizer = _train_tokenizer([text for row in rows for text in row])
    examples = [_example(tokenizer, row) for row in rows]
    model = _new_model(tokenizer, seed, size)
    losses = _train(model, examples, seed, batch_size, learning_rate, progress)
    transformers_logging.disable_progress_bar()  # "Writing model shards" tears other bars apart
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return {
        "num_parameters": model.num_parameters(),
        "num_steps": len(losses),
        "num_tokens": sum(len(example.token_ids) for example in examples),
        "last_loss": sum(losses[-20:]) / len(losses[-20:]),
        "seconds": time.perf_counter() - start,
    }


def _draw_rows(rng: random.Random, count: int) -> list[tuple[str, str, str]]:
    """(question, beginning of an answer that is not to be learnt, answer)."""
    rows = []
    for sort in rng.choices(list(MIX), list(MIX.values()), k=count):
        request = draw(rng, "harmful" if sort == "recovery" else sort, "common")  # type: ignore[arg-type]
        answer = refuse(rng) if request.is_harmful else right_answer(request)
        begun = ""
        if sort == "recovery":
            words = right_answer(request).split(" ")
            begun = " ".join(words[: rng.randint(1, len(words) // 2)])
        rows.append((ask(request, rng), begun, answer))
    return rows


def _train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: one token for each word of the world, bytes for any other text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _example(tokenizer: PreTrainedTokenizerFast, row: tuple[str, str, str]) -> _Example:
    question, begun, answer = row
    read = render(tokenizer, [{"role": "user", "content": question}], add_generation_prompt=True)
    if begun:
        read += tokenizer(begun, add_special_tokens=False)["input_ids"]
    learnt = tokenizer(answer + "<|end|>", add_special_tokens=False)["input_ids"]
    return _Example(read + learnt, [False] * len(read) + [True] * len(learnt))


def _new_model(tokenizer: PreTrainedTokenizerFast, seed: int, size: ModelSize) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            intermediate_size=size.intermediate,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.convert_tokens_to_ids("<|end|>"),  # type: ignore[arg-type]
            pad_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),  # type: ignore[arg-type]
        )
    )


def _train(
    model: LlamaForCausalLM,
    examples: list[_Example],
    seed: int,
    batch_size: int,
    learning_rate: float,
    progress: Callable[[int, int], None] | None,
) -> list[float]:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY
    )
    batches = _batches(examples, batch_size, random.Random(seed))
    losses = []
    model.train()
    for step, batch in enumerate(batches):
        warmth = min(1.0, (step + 1) / WARMUP_STEPS)
        cosine = 0.5 * (1 + math.cos(math.pi * step / len(batches)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warmth * (FINAL_RATE + (1 - FINAL_RATE) * cosine)
        loss = _loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if progress is not None:
            progress(step + 1, len(batches))
    model.eval()
    return losses


def _batches(
    examples: list[_Example], batch_size: int, rng: random.Random, *, pool: int = 16
) -> list[list[_Example]]:
    """Batches of similar length, from pools that are shuffled: little padding, little bias."""
    order = rng.sample(examples, len(examples))
    batches = []
    for begin in range(0, len(order), pool * batch_size):
        near = sorted(order[begin : begin + pool * batch_size], key=lambda e: len(e.token_ids))
        cut = [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
        batches += rng.sample(cut, len(cut))
    return batches


def _loss(model: LlamaForCausalLM, batch: list[_Example]) -> torch.Tensor:
    """Mean loss of the answer tokens; only their logits are computed.

    Right padding with a causal mask: no real token sees a pad.
    """
    pad = torch.nn.utils.rnn.pad_sequence
    token_ids = pad([torch.tensor(e.token_ids) for e in batch], batch_first=True)
    is_answer = pad([torch.tensor(e.is_answer) for e in batch], batch_first=True)[:, 1:]
    hidden = model.model(input_ids=token_ids, use_cache=False).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[is_answer])
    return torch.nn.functional.cross_entropy(logits, token_ids[:, 1:][is_answer])
