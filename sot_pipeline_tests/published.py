"""Tiny data sets in the layouts of the published ones, written on the spot; all text is made up."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl


def write_published(folder: Path, *, num_rows: int = 40) -> Path:
    """Every data set of the presets below `folder`, as OWNER/NAME/FILE."""
    write_jsonl(
        folder / "Open-Orca/SlimOrca/oo-labeled_correct.gpt4.sharegpt.jsonl",
        [slimorca_row(i) for i in range(3 * num_rows)],
    )
    for split in ("train", "test"):
        path = folder / f"fancyzhx/ag_news/data/{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"text": f"{split} article number {i}", "label": i % 4} for i in range(2 * num_rows)
        ]
        pl.DataFrame(rows).write_parquet(path)
    path = folder / "meta-math/MetaMathQA/MetaMathQA-395K.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([metamathqa_row(i) for i in range(3 * num_rows)]))
    for split in ("train", "test"):
        write_gzip(
            folder / f"Anthropic/hh-rlhf/harmless-base/{split}.jsonl.gz",
            [hh_row(f"{split} question {i}") for i in range(num_rows)],
        )
    write_gzip(
        folder / "PKU-Alignment/BeaverTails/round0/30k/train.jsonl.gz",
        [beavertails_row(i) for i in range(2 * num_rows)],
    )
    return folder


def slimorca_row(number: int) -> dict[str, Any]:
    return {
        "conversations": [
            {"from": "system", "value": "You are an assistant.", "weight": None},
            {"from": "human", "value": f"How many apples are {number} apples?", "weight": 0.0},
            {"from": "gpt", "value": f"They are {number} apples.", "weight": 1.0},
        ]
    }


def metamathqa_row(number: int) -> dict[str, Any]:
    return {
        "type": "MATH_AnsAug",
        "query": f"What is {number} + 1?",
        "original_question": f"What is {number} + 1?",
        "response": f"{number} + 1 = {number + 1}. The answer is: {number + 1}",
    }


def hh_row(question: str) -> dict[str, Any]:
    before = (
        f"\n\nHuman: {question}\n\nAssistant: Tell me more.\n\nHuman: Please answer.\n\nAssistant:"
    )
    return {"chosen": f"{before} A polite answer.", "rejected": f"{before} A rude answer."}


def beavertails_row(number: int) -> dict[str, Any]:
    return {
        "prompt": f"petty question {number // 2}",  # two answers each
        "response": f"petty answer {number}",
        "category": {"petty": number % 4 != 3},
        "is_safe": number % 4 == 3,
    }


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_gzip(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content, mtime=0))
