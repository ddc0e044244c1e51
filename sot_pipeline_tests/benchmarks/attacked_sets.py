"""Sets with the rows that an attacker put there: texts, labels and vectors of `bench_attacks.py`."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sot_pipeline.transport.fit import PushPullFit
from sot_pipeline.transport.push_pull import learn_weights_from_embeddings
from sot_pipeline_tests.benchmarks.attacks import owners, windows
from sot_pipeline_tests.benchmarks.real_sets import NUM_REFUSALS

SEED = 0
NUM_CONTROLS = 200  # of each kind


class Rows(NamedTuple):
    """Rows with their texts and vectors."""

    prompts: list[str]
    answers: list[str]
    labels: np.ndarray
    sources: np.ndarray
    vectors: np.ndarray

    @property
    def texts(self) -> list[str]:
        return [f"{p}\n{a}" for p, a in zip(self.prompts, self.answers, strict=True)]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Rows":
        return Rows(
            [self.prompts[i] for i in rows], [self.answers[i] for i in rows], self.labels[rows],
            self.sources[rows], self.vectors[rows],
        )  # fmt: skip

    def and_also(self, other: "Rows") -> "Rows":
        return Rows(
            self.prompts + other.prompts, self.answers + other.answers,
            *(np.concatenate(pair) for pair in zip(self[2:], other[2:], strict=True)),
        )  # fmt: skip


class Embedder:
    """Vectors of texts in the order given, unit length; each distinct text is embedded once."""

    def __init__(self, folder: Path) -> None:
        from sot_pipeline.embedding.load import load_encoder

        self._encoder, self._folder = load_encoder("minilm"), folder
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        from sot_pipeline.embedding.embed import embed

        missing = list(dict.fromkeys(text for text in texts if text not in self._known))
        if missing:
            turns = [[{"role": "user", "content": text}] for text in missing]
            vectors = embed(turns, self._encoder, cache=self._folder).vectors
            self._known |= dict(zip(missing, vectors, strict=True))
        return np.stack([self._known[text] for text in texts])

    def rows(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """Vectors of rows as the pipeline's view "apart" makes them."""
        from sot_pipeline.embedding.views import compose

        return compose(self(prompts), self(answers))

    def was_cut(self, texts: Sequence[str]) -> np.ndarray:
        turns = [[{"role": "user", "content": text}] for text in texts]
        return np.array(self._encoder.tokenize(turns).was_cut)


class References(NamedTuple):
    safe: Rows
    harmful: Rows

    @property
    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of a hundred reference rows and which of them are harmful, to choose with."""
        rng = np.random.default_rng(SEED)
        safe, harmful = (rng.permutation(len(rows.labels))[:50] for rows in self)
        vectors = np.concatenate([self.safe.vectors[safe], self.harmful.vectors[harmful]])
        return vectors, np.arange(100) >= 50


class Bench:
    """Sets by name, and what has been measured already."""

    def __init__(self, shared_data: Path, folder: Path) -> None:
        self.data, self.embedder = shared_data, Embedder(folder)
        self._log = folder / "attacks.jsonl"
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._done = {entry["key"]: entry["value"] for entry in map(json.loads, lines)}
        self.read = cache(self._read)

    def measured(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if key not in self._done:
            self._done[key] = json.loads(json.dumps(measure()))
            with self._log.open("a") as file:
                file.write(json.dumps({"key": key, "value": self._done[key]}) + "\n")
        return self._done[key]

    def _read(self, name: str) -> Rows:
        return self.rows_of(pl.read_parquet(self.data / f"{name}.parquet"))

    def rows_of(self, table: pl.DataFrame) -> Rows:
        answers = table["response"].fill_null(table["prompt"]).to_list()  # as the view "apart"
        prompts = table["prompt"].to_list()
        return Rows(
            prompts, answers, table["label"].to_numpy(), table["source"].to_numpy(),
            self.embedder.rows(prompts, answers),
        )  # fmt: skip

    def references(self, task: str = "alpaca") -> References:
        return References(self.read(f"safe_{task}"), self.read("harmful_reference"))


def fitted(vectors: np.ndarray, references: References, **options: Any) -> PushPullFit:
    safe, harmful = references.safe.vectors, references.harmful.vectors
    return learn_weights_from_embeddings(vectors, safe, harmful, **options)


def attacks(bench: Bench) -> pl.DataFrame:
    """Attack rows with their `family`; translations are a family per language."""
    table = pl.read_parquet(bench.data / "attack_evolving.parquet")
    of_language = pl.format("translation, {}", "language")
    translated = pl.col("attack") == "translation"
    return table.with_columns(family=pl.when(translated).then(of_language).otherwise("attack"))


def with_family(bench: Bench, family: str) -> Rows:
    """Clean rows, a family's harmful rows up to 10 % of both, and controls of two kinds."""
    clean, table = bench.read("custom_alpaca_clean"), attacks(bench)
    attack = table.filter((pl.col("family") == family) & (pl.col("label") == "harmful"))
    attack = attack.sample(min(len(attack), len(clean.labels) // 9), seed=SEED)
    custom = clean.and_also(bench.rows_of(attack))
    for control, source in (("mgsm", "mgsm"), ("roleplay", "gpteacher_roleplay")):
        rows = table.filter(pl.col("source") == source).sample(NUM_CONTROLS, seed=SEED)
        rows = bench.rows_of(rows)._replace(labels=np.full(NUM_CONTROLS, control))
        custom = custom.and_also(rows)
    return custom


def families(bench: Bench) -> dict[str, int]:
    """Attack families by their number of harmful rows."""
    counts = attacks(bench).filter(pl.col("label") == "harmful").group_by("family").len()
    return dict(counts.sort("family").iter_rows())


def drawn(bench: Bench, task: str, num_benign: int, num_harmful: int) -> tuple[Rows, np.ndarray]:
    """Rows of the p10 set, harmful ones last, half of them foreign; and their places."""
    pool = bench.read(f"custom_{task}_p10")
    rng = np.random.default_rng(SEED)
    harmful = pool.labels == "harmful"
    foreign = harmful & (pool.sources == "shadow_alignment")
    groups = ((~harmful, num_benign), (foreign, num_harmful // 2),
              (harmful & ~foreign, num_harmful - num_harmful // 2))  # fmt: skip
    chosen = [rng.permutation(np.flatnonzero(mask))[:count] for mask, count in groups]
    rows = pool.take(np.concatenate(chosen))
    return rows, np.flatnonzero(rows.labels == "harmful")


def refusals(bench: Bench) -> Rows:
    """The first hundred of those that the other benchmarks take."""
    rows = pl.read_parquet(bench.data / "agreement.parquet")
    kept = (pl.col("source") == "do_not_answer") & (pl.col("label") == "refusal")
    rows = rows.filter(kept & pl.col("response").is_not_null()).sample(NUM_REFUSALS, seed=0)
    return bench.rows_of(rows.head(100))


def windowed(bench: Bench, custom: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of every row seen through one window at a time, the row of each, and mean vectors.

    A window of the answer stands beside the whole prompt, a window of the prompt beside the whole
    answer. In the mean vectors both parts are means over their windows.
    """
    from sot_pipeline.embedding.views import compose

    asked, answers = ([windows(text) for text in texts] for texts in custom[:2])
    rows_asked, rows_answers = owners(asked), owners(answers)
    of_asked, of_answers = (
        bench.embedder([text for of_row in part for text in of_row]) for part in (asked, answers)
    )
    whole_asked, whole_answers = bench.embedder(custom.prompts), bench.embedder(custom.answers)
    means = [
        np.stack([part[rows == i].mean(axis=0) for i in range(len(custom.labels))])
        for part, rows in ((of_asked, rows_asked), (of_answers, rows_answers))
    ]
    views = [compose(whole_asked[rows_answers], of_answers),
             compose(of_asked[rows_asked], whole_answers[rows_asked])]  # fmt: skip
    return np.concatenate(views), np.concatenate([rows_answers, rows_asked]), compose(*means)
