"""Facts of a small purified set, whose files can be written too."""

import dataclasses
import hashlib
import json
from pathlib import Path

from sot_pipeline.publishing.data_facts import (
    CategoryCount,
    Column,
    DataFacts,
    DataFile,
    PersonalData,
    SourceFile,
)

ROWS = [{"id": f"r{i}", "prompt": f"question {i}", "response": f"answer {i}"} for i in range(4)]
CONTENT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FACTS = DataFacts(
    task="support",
    version="0.1.0",
    created="2026-01-31",
    data_fingerprint="0123456789abcdef0123456789abcdef",
    files=[
        DataFile(
            "purified.jsonl", "jsonl", 4, len(CONTENT), hashlib.sha256(CONTENT).hexdigest(),
            (Column("id", "text"), Column("prompt", "text"), Column("response", "text")),
        )
    ],
    sources=[
        SourceFile(
            "custom", "rows.jsonl", "/home/somebody/rows.jsonl", "aa" * 32, 700, 7, 1,
            {"cc-by-4.0": 4, "not stated": 2}, "column",
        ),
        SourceFile(
            "safe", "safe.parquet", "hf://datasets/owner/safe@main/safe.parquet", "bb" * 32, 500, 30,
            0, {"apache-2.0": 30}, "dataset card", "0e9e39f249a16976918f6564b8830bc894c89659",
        ),
        SourceFile("harmful", "harm.csv", "/srv/harm.csv", "cc" * 32, 400, 20, 0, {"not stated": 20}),
    ],
    num_read=7,
    num_rejected=1,
    num_kept=4,
    num_removed=2,
    num_text_bytes=80,
    personal=PersonalData({"email": 3, "phone": 0}, 2, False, {"email": 3, "phone": 0}),
    encoder="minilm",
    method={"method": "top_k"},
    settings={"lambda push": "0.5"},
    rejected_reasons={"broken_json": 1},
    categories=[CategoryCount("billing", 4, 0), CategoryCount("other", 2, 2)],
    harmful_categories={"fraud": 2},
    decisions={"rows removed against the cut": 1},
    num_dropped_by_reviewers=1,
    findings=["the safe anchor does not match"],
    libraries={"torch": "2.13"},
)  # fmt: skip


def changed(**fields) -> DataFacts:
    return dataclasses.replace(FACTS, **fields)


def redacted() -> DataFacts:
    return changed(
        personal=PersonalData({"email": 3, "phone": 0}, 2, True, {"email": 0, "phone": 0})
    )


def write_rows(folder: Path) -> None:
    (folder / "purified.jsonl").write_bytes(CONTENT)
