"""Write conversations as rows of any format, in files of any type: what the reader must undo."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import zstandard

Conversation = list[dict[str, Any]]
FILE_TYPES = ("jsonl", "json", "csv", "tsv", "parquet")
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, **extra: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **extra}


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def single_turn_row(format: str, prompt: str, answer: str) -> dict[str, Any]:
    """A row with one question and one answer; every format can hold it."""
    turns = [user(prompt), assistant(answer)]
    if format == "alpaca":
        return {"instruction": prompt, "input": "", "output": answer}
    if format == "prompt_completion":
        return {"prompt": prompt, "completion": answer}
    if format == "prompt_response":
        return {"prompt": prompt, "response": answer}
    return chat_row(format, turns)


def chat_row(format: str, turns: Conversation) -> dict[str, Any]:
    """A row of any number of turns; for the formats that can hold one."""
    if format == "openai":
        return {"messages": turns}
    if format == "sharegpt":
        tags = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}
        return {"conversations": [{"from": tags[t["role"]], "value": t["content"]} for t in turns]}
    if format == "prompt_completion":
        return {"prompt": turns[:-1], "completion": turns[-1:]}
    assert format == "alpaca"
    return {
        "system": turns[0]["content"] if turns[0]["role"] == "system" else "",
        "instruction": turns[-2]["content"],
        "output": turns[-1]["content"],
        "history": [
            [turns[i]["content"], turns[i + 1]["content"]]
            for i in range(turns[0]["role"] == "system", len(turns) - 2, 2)
        ],
    }


def file_bytes(rows: list[dict[str, Any]], file_type: str) -> bytes:
    if file_type == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if file_type == "json":
        return json.dumps(rows, indent=1).encode()
    if file_type == "parquet":
        out = io.BytesIO()
        pl.DataFrame(rows, infer_schema_length=None, strict=False).write_parquet(out)
        return out.getvalue()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text, list(rows[0]), delimiter="\t" if file_type == "tsv" else ",", lineterminator="\r\n"
    )
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return text.getvalue().encode()


def write(folder: Path, rows: list[dict[str, Any]], file_type: str, compression: str = "") -> Path:
    path = folder / f"set.{file_type}{compression}"
    path.write_bytes(COMPRESSIONS[compression](file_bytes(rows, file_type)))
    return path


def write_text(folder: Path, content: str | bytes, name: str = "set.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
