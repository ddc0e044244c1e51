"""This project's training in the keys of axolotl, LLaMA-Factory and TRL.

Checked against axolotl 0.19.0 (`axolotl.utils.schemas`), LLaMA-Factory 0.9.5
(`llamafactory.hparams`) and TRL 1.16.0 (`trl.SFTConfig`, `ModelConfig`, `DatasetMixtureConfig`).
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sot_pipeline.publishing.chat_rows import TokenizerFacts

ROWS_FILE = "train.jsonl"
OUTPUT = "output"  # of the training, below the folder


class TrainerRecipe(NamedTuple):
    """The training of this project, in its own words (`sot config`, block finetuning).

    Attributes:
        further: Settings that the trainers' configurations do not express, by name.
    """

    base_model: str
    base_revision: str | None
    rank: int
    lora_alpha: int
    target_modules: tuple[str, ...]
    learning_rate: float
    schedule: str
    warmup_fraction: float
    num_epochs: float | None
    num_steps: int | None
    batch_size: int
    micro_batch_size: int
    max_length: int
    seed: int
    betas: tuple[float, float]
    max_gradient_norm: float
    further: Mapping[str, Any] = {}


class Length(NamedTuple):
    """How the training is cut into steps; `epochs` or `max_steps` is None."""

    rows_per_device: int
    accumulation: int
    epochs: float | None
    max_steps: int | None
    warmup_steps: int


def length_of(recipe: TrainerRecipe, num_rows: int, factor: float) -> Length:
    rows_per_step = min(recipe.batch_size, num_rows)
    per_device = max(
        size
        for size in range(1, min(recipe.micro_batch_size, rows_per_step) + 1)
        if rows_per_step % size == 0
    )
    epochs = None if recipe.num_epochs is None else recipe.num_epochs / factor
    num_steps = recipe.num_steps or math.ceil(num_rows * (epochs or 0) / rows_per_step)
    return Length(
        per_device,
        rows_per_step // per_device,
        epochs,
        recipe.num_steps,
        math.ceil(recipe.warmup_fraction * max(1, num_steps)),
    )


def axolotl_config(
    recipe: TrainerRecipe, length: Length, tokenizer: TokenizerFacts | None, thinks: bool
) -> dict[str, Any]:
    revision = {"revision_of_model": recipe.base_revision} if recipe.base_revision else {}
    ends: dict[str, Any] = {}
    if tokenizer is not None and tokenizer.end_of_turn not in (None, tokenizer.end_of_sequence):
        ends = {"eot_tokens": [tokenizer.end_of_turn]}
    return {
        "base_model": recipe.base_model,
        **revision,
        "chat_template": "tokenizer_default",
        **ends,
        "datasets": [
            {
                "path": ROWS_FILE,
                "ds_type": "json",
                "type": "chat_template",
                "field_messages": "messages",
                "message_field_training": "train",
                "roles_to_train": ["assistant"],
                "train_on_eos": "turn",
            }
        ],
        "dataset_prepared_path": f"{OUTPUT}/prepared",
        "val_set_size": 0.0,
        "train_on_inputs": False,
        "sequence_len": recipe.max_length,
        "excess_length_strategy": "drop",
        "sample_packing": False,
        "adapter": "lora",
        "lora_r": recipe.rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": 0.0,
        "lora_target_modules": list(recipe.target_modules),
        "micro_batch_size": length.rows_per_device,
        "gradient_accumulation_steps": length.accumulation,
        **_how_long(length, "num_epochs"),
        "optimizer": "adamw_torch",
        "learning_rate": recipe.learning_rate,
        "lr_scheduler": _scheduler(recipe),
        "warmup_steps": length.warmup_steps,
        "weight_decay": 0.0,
        "adam_beta1": recipe.betas[0],
        "adam_beta2": recipe.betas[1],
        "max_grad_norm": recipe.max_gradient_norm,
        "seed": recipe.seed,
        "bf16": "auto",
        "attn_implementation": "sdpa",
        "logging_steps": 1,
        "save_strategy": "no",
        "output_dir": OUTPUT,
    }


def llamafactory_config(
    recipe: TrainerRecipe, length: Length, tokenizer: TokenizerFacts | None, thinks: bool
) -> dict[str, Any]:
    return {
        "model_name_or_path": recipe.base_model,
        **({"model_revision": recipe.base_revision} if recipe.base_revision else {}),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": recipe.rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": 0.0,
        "lora_target": ",".join(recipe.target_modules),
        "dataset": "purified",
        "dataset_dir": ".",
        "cutoff_len": recipe.max_length,
        "train_on_prompt": False,
        "mask_history": True,
        "enable_thinking": thinks,  # False takes reasoning out of answers
        **_transformers_keys(recipe, length),
    }


def trl_config(
    recipe: TrainerRecipe, length: Length, tokenizer: TokenizerFacts | None, thinks: bool
) -> dict[str, Any]:
    return {
        "model_name_or_path": recipe.base_model,
        **({"model_revision": recipe.base_revision} if recipe.base_revision else {}),
        "dtype": "bfloat16",
        "use_peft": True,
        "lora_r": recipe.rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": 0.0,
        "lora_target_modules": list(recipe.target_modules),
        "datasets": [{"path": "json", "data_files": ROWS_FILE, "split": "train"}],
        "completion_only_loss": True,
        "max_length": recipe.max_length,
        "truncation_mode": "keep_end",
        "packing": False,
        **_transformers_keys(recipe, length),
    }


def _transformers_keys(recipe: TrainerRecipe, length: Length) -> dict[str, Any]:
    """What both take from `transformers.TrainingArguments`."""
    return {
        "per_device_train_batch_size": length.rows_per_device,
        "gradient_accumulation_steps": length.accumulation,
        **_how_long(length, "num_train_epochs"),
        "optim": "adamw_torch",
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": _scheduler(recipe),
        "warmup_steps": length.warmup_steps,
        "weight_decay": 0.0,
        "adam_beta1": recipe.betas[0],
        "adam_beta2": recipe.betas[1],
        "max_grad_norm": recipe.max_gradient_norm,
        "seed": recipe.seed,
        "bf16": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "output_dir": OUTPUT,
    }


def _how_long(length: Length, epochs_key: str) -> dict[str, Any]:
    if length.max_steps is not None:
        return {"max_steps": length.max_steps}
    return {epochs_key: length.epochs}


def _scheduler(recipe: TrainerRecipe) -> str:
    return "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule


# "openai" would read the same files, but 0.9.5 adds words of its own to every system prompt
DATASET_INFO = {
    "purified": {
        "file_name": ROWS_FILE,
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "observation_tag": "tool",
            "function_tag": "function_call",
            "system_tag": "system",
        },
    }
}
