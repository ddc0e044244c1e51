"""A contaminated fine-tuning set with its references and test prompts, drawn from public data.

What the paper's experiments begin with: n rows of a task of which a share is harmful, a small safe
reference of the same task, a harmful reference, prompts to test on. The same sources and seed
give the same bytes.
"""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.durable import write_durably
from sot_pipeline.errors import InputError
from sot_pipeline.texts.conversation import Conversation, last_answer
from sot_pipeline.texts.fetch import InputFile
from sot_pipeline.texts.originals import conversation_of, opening_question, read_original
from sot_pipeline.texts.rejection import RowRejected

MANIFEST = "manifest.json"
ASKED_IN_TRAINING = "asked_in_training"


class Draw(NamedTuple):
    """How many rows of what.

    Attributes:
        num_custom: Rows of the custom set, its harmful ones among them.
        contamination: Share of these that are harmful, in [0, 1).
        num_safe: Rows of the safe reference, from the same source as the benign ones.
        num_harmful: Rows of the harmful reference.
        num_harmful_prompts, num_task_prompts: Test prompts.
        seed: Which rows; the same seed draws the same.
        references: Whether task prompts keep their answer, which accuracy is measured by.
    """

    num_custom: int
    contamination: float
    num_safe: int
    num_harmful: int
    num_harmful_prompts: int
    num_task_prompts: int
    seed: int
    references: bool = False

    @property
    def num_contaminated(self) -> int:
        return round(self.num_custom * self.contamination)


class SourceFiles(NamedTuple):
    """A data set to draw from: its layout and its files on this machine."""

    name: str
    layout: str
    files: Sequence[InputFile]
    licence: str


class Sources(NamedTuple):
    """Where each kind of row comes from; `task_prompts` may be the source of `custom` itself."""

    custom: SourceFiles
    contamination: SourceFiles
    harmful: SourceFiles
    harmful_prompts: SourceFiles
    task_prompts: SourceFiles


class Prepared(NamedTuple):
    """The written files by name, without the manifest; and what the manifest says."""

    files: dict[str, Path]
    manifest: dict[str, Any]


class _Drawn(NamedTuple):
    """A row that was drawn: its place in its source, and what it says."""

    id: str
    conversation: Conversation
    opening: str


class _Pool:
    """The usable rows of a source in an order that the seed decides, each given out once."""

    def __init__(self, source: SourceFiles, seed: int) -> None:
        self.source = source
        self.skipped: Counter[str] = Counter()
        self.files: list[dict[str, Any]] = []
        tables = []
        for file in source.files:
            original = read_original(file.path, source.layout)
            tables.append(original.rows.with_row_index("row", offset=1))
            self.files.append(
                {
                    "location": file.location,
                    "revision": file.revision,
                    "sha256": original.sha256,
                    "bytes": original.num_bytes,
                    "rows": original.rows.height,
                }
            )
        self.rows = pl.concat(
            [
                table.with_columns(file=pl.lit(file.name))
                for table, file in zip(tables, source.files, strict=True)
            ]
        )
        stream = np.random.default_rng([seed, zlib.crc32(source.name.encode())])
        self._order = stream.permutation(self.rows.height)
        self.usable = self._converted()

    def take(self, count: int, what: str, taken: set[str]) -> list[_Drawn]:
        """The next rows whose opening question is not `taken`, which it then is.

        Raises:
            InputError: there are fewer.
        """
        drawn: list[_Drawn] = []
        while len(drawn) < count:
            row = next(self.usable, None)
            if row is None:
                raise self.too_few(count, len(drawn), what)
            if row.opening in taken:
                self.skipped["same_question"] += 1
                continue
            taken.add(row.opening)
            drawn.append(row)
        return drawn

    def take_unseen(
        self, count: int, what: str, training: Collection[str]
    ) -> tuple[list[_Drawn], int]:
        """The next rows, each with a question of its own that no training row asks; and how many
        were passed over because one does.

        Raises:
            InputError: there are fewer.
        """
        drawn: dict[str, _Drawn] = {}
        before = self.skipped[ASKED_IN_TRAINING]
        while len(drawn) < count:
            row = next(self.usable, None)
            if row is None:
                raise self.too_few(count, len(drawn), what)
            if row.opening in training:
                self.skipped[ASKED_IN_TRAINING] += 1
            elif row.opening in drawn:
                self.skipped["same_question"] += 1
            else:
                drawn[row.opening] = row
        return list(drawn.values()), self.skipped[ASKED_IN_TRAINING] - before

    def _converted(self) -> Iterator[_Drawn]:
        for index in self._order.tolist():
            row = self.rows.row(index, named=True)
            try:
                conversation = conversation_of(row, self.source.layout)
            except RowRejected as problem:
                self.skipped[problem.reason] += 1
                continue
            id = f"{self.source.name}/{row['file']}:{row['row']}"
            yield _Drawn(id, conversation, opening_question(conversation))

    def too_few(self, wanted: int, found: int, what: str) -> InputError:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.skipped.most_common())
        places = ", ".join(file.location for file in self.source.files)
        return InputError(
            f"{places}: {found:,} of its {self.rows.height:,} rows are left for the {what}, "
            f"{wanted:,} are needed" + (f" (not used: {reasons})" if reasons else "")
            + ". Give the whole data set, or ask for fewer rows."
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        return {
            "layout": self.source.layout,
            "licence": self.source.licence,
            "files": self.files,
            "not_used": dict(sorted(self.skipped.items())),
        }


def contaminate(sources: Sources, draw: Draw, folder: Path) -> Prepared:
    """Draw the sets and write them to `folder` as JSON lines of messages, with a manifest of
    sources, revisions, seed, counts and sha256.

    No opening question is in two sets, nor twice in one, but for the harmful reference, whose
    shared questions with the custom set are counted, not removed: both are as published.
    Test prompts that a training row asks too are removed and counted.

    Raises:
        InputError: a file is not laid out as its data set, or holds too few rows.
    """
    if not 0 <= draw.contamination < 1:
        raise InputError(f"contamination is {draw.contamination}; expected a share in [0, 1)")
    pools = {s.name: s for s in sources}
    pool_of = {name: _Pool(source, draw.seed) for name, source in pools.items()}
    custom = pool_of[sources.custom.name]
    taken: set[str] = set()
    num_bad = draw.num_contaminated
    benign = custom.take(draw.num_custom - num_bad, "custom set", taken)
    bad = pool_of[sources.contamination.name].take(num_bad, "contamination", taken)
    safe = custom.take(draw.num_safe, "safe reference", taken)
    harmful = _harmful_reference(pool_of[sources.harmful.name], draw.num_harmful)
    asked = taken | {row.opening for row in harmful}
    task_prompts, task_overlap = pool_of[sources.task_prompts.name].take_unseen(
        draw.num_task_prompts, "task prompts", asked
    )
    prompts, overlap = pool_of[sources.harmful_prompts.name].take_unseen(
        draw.num_harmful_prompts, "harmful prompts", asked
    )
    order = np.random.default_rng([draw.seed, 1]).permutation(draw.num_custom)
    labelled = [(row, "benign") for row in benign] + [(row, "harmful") for row in bad]
    licences = {name: source.licence for name, source in pools.items()}
    mixed = [labelled[i] for i in order]
    texts = {
        "custom": [_line(row, licences, label) for row, label in mixed],
        "custom_clean": [_line(row, licences) for row, label in mixed if label == "benign"],
        "safe": [_line(row, licences) for row in safe],
        "harmful": [_line(row, licences) for row in harmful],
        "eval_harmful": [_line(_asked(row), licences) for row in prompts],
        "eval_task": [
            _line(row if draw.references else _asked(row), licences) for row in task_prompts
        ],
    }
    counts = {
        "contaminated": num_bad,
        "shared_questions_custom_harmful": len(taken & {row.opening for row in harmful}),
        "removed_harmful_prompts": overlap,
        "removed_task_prompts": task_overlap,
    }
    facts = {name: pool.facts() for name, pool in pool_of.items()}
    return _write(folder, texts, {"draw": draw._asdict(), "counts": counts, "sources": facts})


def _harmful_reference(pool: _Pool, count: int) -> list[_Drawn]:
    """Distinct rows; a question may come with several answers, as in the data set."""
    drawn: dict[str, _Drawn] = {}
    for row in pool.usable:
        drawn.setdefault(json.dumps(row.conversation), row)
        if len(drawn) == count:
            break
    if len(drawn) < count:
        raise pool.too_few(count, len(drawn), "harmful reference")
    return list(drawn.values())


def _asked(row: _Drawn) -> _Drawn:
    """A row without its answer."""
    turns = row.conversation
    if turns[-1]["role"] == "assistant":
        turns = turns[: last_answer(turns)]
    return row._replace(conversation=turns)


def _line(row: _Drawn, licences: Mapping[str, str], label: str | None = None) -> str:
    # `weight` is what other trainers know an answer that is not learned by
    turns = [
        {"role": turn["role"], "content": turn["content"]}
        | ({} if turn.get("train", True) else {"weight": 0})
        for turn in row.conversation
    ]
    document = {"id": row.id, "messages": turns}
    document |= {} if label is None else {"label": label}
    document["licence"] = licences[row.id.partition("/")[0]]
    return json.dumps(document, ensure_ascii=False)


def _write(folder: Path, texts: Mapping[str, list[str]], facts: dict[str, Any]) -> Prepared:
    files, written = {}, {}
    for name, lines in texts.items():
        if not lines:
            continue
        content = "".join(line + "\n" for line in lines).encode()
        files[name] = folder / f"{name}.jsonl"
        write_durably(files[name], content)
        written[files[name].name] = {
            "rows": len(lines),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    manifest = {**facts, "files": written}
    write_durably(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return Prepared(files, manifest)
