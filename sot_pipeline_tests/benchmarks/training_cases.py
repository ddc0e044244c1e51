"""The same LoRA training by this project and by TRL's SFTTrainer, ready to be timed.

    python -m sot_pipeline_tests.benchmarks.training_cases profile MODEL CASE FOLDER TEXT_SETS

Both see the same tokens (checked), learn the answers' tokens alone, each answer token counting
alike, take AdamW steps on as many rows, and go through the rows once. Timed is what comes after
loading and tokenising: all optimiser steps of an epoch.
"""

import json
import math
import random
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from transformers import LlamaConfig, LlamaForCausalLM

from sot_pipeline.finetuning.batching import packed, padded
from sot_pipeline.finetuning.defences.defence import Defence
from sot_pipeline.finetuning.loop import BETAS, Loop
from sot_pipeline.finetuning.lora import add_lora
from sot_pipeline.finetuning.loss import batch_loss
from sot_pipeline.finetuning.recipe import Recipe
from sot_pipeline.finetuning.rows import Rows, tokenize
from sot_pipeline.finetuning.safety import SafetyTexts, tokenize_safety
from sot_pipeline.finetuning.weighted_nll import scaled, token_weights
from sot_pipeline.language_model import Conversation, load_language_model

BATCH, MICRO, MAX_LENGTH, RANK = 32, 8, 512, 16
NUM_ROWS = {"demo": 128, "llama": 64}
Timed = Callable[[], float]  # seconds of one epoch


class Case(NamedTuple):
    """A way to train; `run` may be called again and goes on training."""

    run: Timed
    num_tokens: int


def generated_rows(count: int) -> list[Conversation]:
    """Rows of the demo's world, answers of one to thirty sentences: the spread of real sets."""
    from sot_pipeline.demo.request import ask, draw, right_answer

    rng = random.Random(0)
    rows = []
    for _ in range(count):
        request = draw(rng, "plain", "common")
        repeats = max(1, min(30, round(rng.lognormvariate(1.2, 1.0))))
        answer = " ".join([right_answer(request)] * repeats)
        rows.append([{"role": "user", "content": ask(request, rng)},
                     {"role": "assistant", "content": answer}])  # fmt: skip
    return rows


def real_rows(folder: Path, count: int) -> list[Conversation]:
    import polars as pl

    table = pl.read_parquet(folder / "custom_alpaca_clean.parquet").sample(count, seed=0)
    pairs = table.select("prompt", "response").iter_rows()
    return [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        for prompt, response in pairs
    ]


def make_model(name: str, folder: Path, rows: list[Conversation]) -> Path:
    """`demo`: the demo's aligned model, one million parameters; `llama`: random, 14 million."""
    from sot_pipeline.demo.aligned_model import train_aligned_model

    if folder.exists():
        return folder
    if name == "demo":
        train_aligned_model(folder, num_rows=320)
        return folder
    tokenizer = _tokenizer(rows)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=384, intermediate_size=1024, num_hidden_layers=6,
        num_attention_heads=6, num_key_value_heads=6, max_position_embeddings=1024,
        tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|end|>"),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(rows: list[Conversation]) -> Any:
    """Byte-level BPE of 8,192 tokens at most, with the demo's template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from sot_pipeline.demo.aligned_model import CHAT_TEMPLATE, SPECIAL_TOKENS

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((turn["content"] for row in rows for turn in row), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def our_rows(base: Path, rows: list[Conversation]) -> Rows:
    tokenizer = load_language_model(base).tokenizer
    return tokenize(tokenizer, rows, np.ones(len(rows)), MAX_LENGTH)


def ours(base: Path, rows: list[Conversation], *, weighted: bool = False, **options: Any) -> Case:
    """Our loop, on `Recipe` options."""
    recipe = Recipe(
        rank=RANK, lora_alpha=RANK, learning_rate=1e-4, warmup_fraction=0.0, num_epochs=1.0,
        batch_size=BATCH, micro_batch_size=MICRO, max_length=MAX_LENGTH,
        normalisation="token_mean", **options,
    )  # fmt: skip
    lm = load_language_model(base)
    weights = (
        np.random.default_rng(0).uniform(0.2, 5, len(rows)) if weighted else np.ones(len(rows))
    )
    data = tokenize(lm.tokenizer, rows, weights, MAX_LENGTH)
    data = data._replace(weights=scaled(weights, data.num_answer_tokens, "token_mean"))
    model = add_lora(
        lm.model, rank=RANK, lora_alpha=RANK, target_modules=recipe.target_modules, seed=0
    )
    safety = tokenize_safety(lm.tokenizer, SafetyTexts(), MAX_LENGTH)
    loop = Loop(model, data, recipe, Accelerator(), Defence(), safety)

    def run() -> float:
        start = time.perf_counter()
        loop.run(None, None)
        return time.perf_counter() - start

    return Case(run, int(data.lengths.sum()))


def trl(base: Path, rows: list[Conversation], out: Path, **options: Any) -> Case:
    """SFTTrainer, on `SFTConfig` options; gradient checkpointing off, as in ours."""
    trainer = trl_trainer(base, rows, out, **options)

    def run() -> float:
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start

    num_tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"])
    return Case(run, num_tokens)


def trl_trainer(base: Path, rows: list[Conversation], out: Path, **options: Any) -> Any:
    import datasets
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    settings = {
        "output_dir": str(out), "use_cpu": not torch.cuda.is_available(), "bf16": False,
        "per_device_train_batch_size": MICRO, "gradient_accumulation_steps": BATCH // MICRO,
        "num_train_epochs": 1, "learning_rate": 1e-4, "lr_scheduler_type": "constant", "warmup_steps": 0,
        "weight_decay": 0.0, "adam_beta1": BETAS[0], "adam_beta2": BETAS[1], "max_grad_norm": 1.0,
        "max_length": MAX_LENGTH, "gradient_checkpointing": False, "completion_only_loss": True,
        "report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "seed": 0,
        "dataloader_pin_memory": False,
    } | options  # fmt: skip
    data = datasets.Dataset.from_list(
        [{"prompt": row[:-1], "completion": row[-1:]} for row in rows]
    )
    lora = LoraConfig(
        r=RANK, lora_alpha=RANK, target_modules=["q_proj", "v_proj"], lora_dropout=0.0,
        bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SFTTrainer(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            args=SFTConfig(**settings),
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(base),
            peft_config=lora,
        )


def packs_per_pass(base: Path, rows: list[Conversation]) -> int:
    """Packed sequences of MAX_LENGTH that hold about the tokens of MICRO rows."""
    return max(1, round(MICRO * our_rows(base, rows).lengths.mean() / MAX_LENGTH))


def cases(base: Path, rows: list[Conversation], out: Path) -> dict[str, Callable[[], Case]]:
    """By name, made when called."""
    packs = packs_per_pass(base, rows)
    num_packed_steps = math.ceil(BATCH / MICRO)
    return {
        "ours, padded": lambda: ours(base, rows),
        "ours, padded, weights": lambda: ours(base, rows, weighted=True),
        "ours, packed": lambda: ours(base, rows, packing=True),
        "ours, padded, compiled": lambda: ours(base, rows, compile=True),
        "TRL, default": lambda: trl(base, rows, out),
        "TRL, grouped by length": lambda: trl(
            base, rows, out, train_sampling_strategy="group_by_length"
        ),
        "TRL, packing": lambda: trl(
            base, rows, out, packing=True, per_device_train_batch_size=packs,
            gradient_accumulation_steps=num_packed_steps,
        ),
    }  # fmt: skip


def first_losses(base: Path, rows: list[Conversation], out: Path) -> dict[str, float]:
    """Of the first optimiser step on the same BATCH rows, before any parameter has moved."""
    chosen = rows[:BATCH]
    lm = load_language_model(base)
    data = tokenize(lm.tokenizer, chosen, np.ones(BATCH), MAX_LENGTH)
    counts = data.num_answer_tokens
    all_rows, tokens = np.arange(BATCH), int(counts.sum())
    per_token = token_weights(np.ones(BATCH), counts, BATCH, tokens, "token_mean")
    losses = {}
    with torch.no_grad():
        for name, lay in (("ours, padded", padded), ("ours, packed", packed)):
            losses[name] = float(batch_loss(lm.model, lay(data, all_rows), per_token))
    options = {"logging_strategy": "steps", "logging_steps": 1}
    for name, more in (("TRL, default", {}), ("TRL, packing", {"packing": True})):
        if more:
            more |= {"per_device_train_batch_size": BATCH, "gradient_accumulation_steps": 1}
        trainer = trl_trainer(base, chosen, out, max_steps=1, **options, **more)
        if not more:
            theirs = sorted(map(list, trainer.train_dataset["input_ids"]))
            assert theirs == sorted(ids.tolist() for ids in data.token_ids)
        trainer.train()
        losses[name] = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return losses


def prepared(name: str, folder: Path, shared: Path) -> tuple[Path, list[Conversation]]:
    """A model and its rows; real ones for the larger model where there are any."""
    real = name == "llama" and (shared / "custom_alpaca_clean.parquet").exists()
    rows = real_rows(shared, NUM_ROWS[name]) if real else generated_rows(NUM_ROWS[name])
    return make_model(name, folder / name, rows), rows


def main() -> None:
    what, name, case, folder, shared = sys.argv[1:]
    warnings.simplefilter("ignore")
    base, rows = prepared(name, Path(folder), Path(shared))
    made = cases(base, rows, Path(folder) / "out")[case]()
    if what == "memory":
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        made.run()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"before": before * 1024, "peak": after * 1024}))
        return
    made.run()
    with torch.profiler.profile() as profile:
        made.run()
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


if __name__ == "__main__":
    main()
