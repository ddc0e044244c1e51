"""Ready folders for axolotl, LLaMA-Factory and TRL: purified rows, configuration, README.

None of the three takes a weight per row. The rows are then those that stayed, each once, or
copied in proportion to their weights (`resampling.py`).
"""

import json
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
from sot_pipeline.publishing.trainer_configs import (
    DATASET_INFO,
    ROWS_FILE,
    Length,
    TrainerRecipe,
    axolotl_config,
    length_of,
    llamafactory_config,
    trl_config,
)

TrainerName = Literal["axolotl", "llamafactory", "trl"]


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


class _Trainer(NamedTuple):
    title: str
    version: str
    command: str
    config_file: str
    rows_of: Callable[[Conversation], Iterable[dict[str, Any]]]
    config_of: Callable[[TrainerRecipe, Length, TokenizerFacts | None, bool], dict[str, Any]]


def write_trainer_folder(
    trainer: TrainerName,
    folder: Path,
    recipe: TrainerRecipe,
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
    length = length_of(recipe, written.num_rows, rows.factor)
    config = known.config_of(recipe, length, tokenizer, thinks)
    (folder / known.config_file).write_text(yaml_text(config), encoding="utf-8")
    if trainer == "llamafactory":
        info = json.dumps(DATASET_INFO, indent=1) + "\n"
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


def _marked_rows(conversation: Conversation) -> Iterator[dict[str, Any]]:
    yield marked_row(conversation)


TRAINERS: dict[str, _Trainer] = {
    "axolotl": _Trainer(
        "axolotl", "0.19.0", "axolotl train axolotl.yaml", "axolotl.yaml", _marked_rows, axolotl_config
    ),
    "llamafactory": _Trainer(
        "LLaMA-Factory", "0.9.5", "llamafactory-cli train llamafactory.yaml",
        "llamafactory.yaml", alternating_rows, llamafactory_config,
    ),
    "trl": _Trainer(
        "TRL", "1.16.0", "trl sft --config trl.yaml", "trl.yaml", prompt_completion_rows, trl_config
    ),
}  # fmt: skip
