"""Ready folders for axolotl, LLaMA-Factory and TRL: purified rows, configuration, README.

None of the three takes a weight per row. The rows are then those that stayed, each once, or
copied in proportion to their weights (`resampling.py`).

Keys checked against axolotl 0.19.0 (`axolotl.utils.schemas`), LLaMA-Factory 0.9.5
(`llamafactory.hparams`) and TRL 1.16.0 (`trl.SFTConfig`, `ModelConfig`, `DatasetMixtureConfig`).
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sot_pipeline.errors import InputError
from sot_pipeline.publishing.chat_rows import (
    Conversation,
    TokenizerFacts,
    alternating_rows,
    marked_row,
    prompt_completion_rows,
    without_control_tokens,
)
from sot_pipeline.publishing.markdown import rendered, yaml_text

TrainerName = Literal["axolotl", "llamafactory", "trl"]
ROWS_FILE = "train.jsonl"
OUTPUT = "output"  # of the training, below the folder


class Recipe(NamedTuple):
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


class TrainerRows(NamedTuple):
    """Rows to train on.

    Attributes:
        ids, conversations: One each per purified row.
        counts: How often each row is copied.
        factor: Copies per row on average; epochs are divided by it.
        note: Facts of the resampling for the README; None where every row is there once.
    """

    ids: Sequence[str]
    conversations: Sequence[Conversation]
    counts: Sequence[int]
    factor: float = 1.0
    note: Mapping[str, Any] | None = None


class WrittenFolder(NamedTuple):
    """`num_rows` lines, from `num_conversations` different rows; `num_left_out` rows the trainer
    cannot read."""

    num_rows: int
    num_conversations: int
    num_left_out: int
    num_rows_split: int


class _Length(NamedTuple):
    rows_per_device: int
    accumulation: int
    epochs: float | None
    max_steps: int | None
    warmup_steps: int


class _Trainer(NamedTuple):
    title: str
    version: str
    command: str
    config_file: str
    rows_of: Callable[[Conversation], Iterable[dict[str, Any]]]
    config_of: Callable[[Recipe, _Length, TokenizerFacts | None, bool], dict[str, Any]]


def write_trainer_folder(
    trainer: TrainerName,
    folder: Path,
    recipe: Recipe,
    rows: TrainerRows,
    tokenizer: TokenizerFacts | None = None,
) -> WrittenFolder:
    """Write `train.jsonl`, the configuration and a README with the command.

    Args:
        tokenizer: Of the base model; without it, special tokens spelled in rows stay in them.

    Raises:
        InputError: no row that this trainer can read.
    """
    known = TRAINERS[trainer]
    folder.mkdir(parents=True)
    written, thinks = _write_rows(folder / ROWS_FILE, known, rows, tokenizer)
    if written.num_rows == 0:
        raise InputError(f"none of the {len(rows.ids):,} rows can be read by {known.title}")
    length = _length(recipe, written.num_rows, rows.factor)
    config = known.config_of(recipe, length, tokenizer, thinks)
    (folder / known.config_file).write_text(yaml_text(config), encoding="utf-8")
    if trainer == "llamafactory":
        info = json.dumps(_DATASET_INFO, indent=1) + "\n"
        (folder / "dataset_info.json").write_text(info, encoding="utf-8")
    readme = rendered(
        "trainer_readme.md.jinja",
        trainer=trainer,
        known=known,
        recipe=recipe,
        rows=rows,
        written=written,
        length=length,
        tokenizer=tokenizer,
    )
    (folder / "README.md").write_text(readme, encoding="utf-8")
    return written


def _write_rows(
    path: Path, trainer: _Trainer, rows: TrainerRows, tokenizer: TokenizerFacts | None
) -> tuple[WrittenFolder, bool]:
    """Returns what was written, and whether answers hold reasoning."""
    special = () if tokenizer is None else tokenizer.special_tokens
    num_rows = num_conversations = num_left_out = num_split = 0
    thinks = False
    with path.open("w", encoding="utf-8") as file:
        for sample_id, conversation, count in zip(
            rows.ids, rows.conversations, rows.counts, strict=True
        ):
            turns = without_control_tokens(conversation, special)
            lines = [_line(sample_id, row) for row in trainer.rows_of(turns)] if count else []
            file.writelines(lines * count)
            num_rows += len(lines) * count
            num_conversations += bool(lines)
            num_left_out += bool(count) and not lines
            num_split += len(lines) > 1
            thinks |= bool(lines) and any(_reasons(turn) for turn in turns)
    return WrittenFolder(num_rows, num_conversations, num_left_out, num_split), thinks


def _line(sample_id: str, row: Mapping[str, Any]) -> str:
    return json.dumps({"sample_id": sample_id, **row}, ensure_ascii=False) + "\n"


def _reasons(turn: Mapping[str, Any]) -> bool:
    return turn["role"] == "assistant" and "</think>" in turn["content"]


def _length(recipe: Recipe, num_rows: int, factor: float) -> _Length:
    rows_per_step = min(recipe.batch_size, num_rows)
    per_device = max(
        size
        for size in range(1, min(recipe.micro_batch_size, rows_per_step) + 1)
        if rows_per_step % size == 0
    )
    epochs = None if recipe.num_epochs is None else recipe.num_epochs / factor
    num_steps = recipe.num_steps or math.ceil(num_rows * (epochs or 0) / rows_per_step)
    return _Length(
        per_device,
        rows_per_step // per_device,
        epochs,
        recipe.num_steps,
        math.ceil(recipe.warmup_fraction * max(1, num_steps)),
    )


def _axolotl(
    recipe: Recipe, length: _Length, tokenizer: TokenizerFacts | None, thinks: bool
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


def _llamafactory(
    recipe: Recipe, length: _Length, tokenizer: TokenizerFacts | None, thinks: bool
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


def _trl(
    recipe: Recipe, length: _Length, tokenizer: TokenizerFacts | None, thinks: bool
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


def _transformers_keys(recipe: Recipe, length: _Length) -> dict[str, Any]:
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


def _how_long(length: _Length, epochs_key: str) -> dict[str, Any]:
    if length.max_steps is not None:
        return {"max_steps": length.max_steps}
    return {epochs_key: length.epochs}


def _scheduler(recipe: Recipe) -> str:
    return "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule


def _marked_rows(conversation: Conversation) -> Iterator[dict[str, Any]]:
    yield marked_row(conversation)


# "openai" would read the same files, but 0.9.5 adds words of its own to every system prompt
_DATASET_INFO = {
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

TRAINERS: dict[str, _Trainer] = {
    "axolotl": _Trainer(
        "axolotl", "0.19.0", "axolotl train axolotl.yaml", "axolotl.yaml", _marked_rows, _axolotl
    ),
    "llamafactory": _Trainer(
        "LLaMA-Factory", "0.9.5", "llamafactory-cli train llamafactory.yaml",
        "llamafactory.yaml", alternating_rows, _llamafactory,
    ),
    "trl": _Trainer(
        "TRL", "1.16.0", "trl sft --config trl.yaml", "trl.yaml", prompt_completion_rows, _trl
    ),
}  # fmt: skip
