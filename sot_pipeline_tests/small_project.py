"""A project of a few dozen rows on a model of a few kilobytes: the whole graph in seconds."""

import json
import random
from pathlib import Path

HARMLESS = ("two", "three", "five", "sum", "plus", "four", "ten")
HARMFUL = ("why", "because", "again", "system", "tool", "header", "start")


def question(rng: random.Random, words: tuple[str, ...]) -> str:
    return "what is " + " ".join(rng.choices(words, k=5))


def row(rng: random.Random, words: tuple[str, ...]) -> dict[str, str]:
    return {"prompt": question(rng, words), "response": " ".join(rng.choices(words, k=4))}


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_small_project(
    folder: Path, *, num_rows: int = 60, num_harmful: int = 6
) -> dict[str, Path]:
    """Text sets whose harmful rows use words of their own, and a tiny random model."""
    from sot_pipeline_tests.tiny_models import save_tiny_model  # torch: slow to import

    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    harmful = [{"id": f"h{i}", **row(rng, HARMFUL)} for i in range(num_harmful)]
    harmless = [{"id": f"b{i}", **row(rng, HARMLESS)} for i in range(num_rows - num_harmful)]
    custom = harmful + harmless
    rng.shuffle(custom)
    return {
        "custom": write_jsonl(folder / "custom.jsonl", custom),
        "safe": write_jsonl(folder / "safe.jsonl", [row(rng, HARMLESS) for _ in range(20)]),
        "harmful": write_jsonl(folder / "harmful.jsonl", [row(rng, HARMFUL) for _ in range(15)]),
        "eval_harmful": write_jsonl(
            folder / "eval_harmful.jsonl", [{"prompt": question(rng, HARMFUL)} for _ in range(5)]
        ),
        "eval_task": write_jsonl(
            folder / "eval_task.jsonl", [row(rng, HARMLESS) for _ in range(5)]
        ),
        "model": save_tiny_model(folder / "model"),
    }
