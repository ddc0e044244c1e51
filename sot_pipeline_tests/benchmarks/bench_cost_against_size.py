"""What does purifying cost, next to the fine-tuning it comes before, as the custom set grows?

    SOT_BENCH_CACHE=~/.cache/sot-bench python -m sot_pipeline_tests.benchmarks.bench_cost_against_size FOLDER

100 to 100,000 custom rows against 1,650 safe and 1,242 harmful ones. Beyond the 5,722 rows of the
shared set, rows repeat, with vectors moved a little so that no two are equal. Every part of every
size is timed in a process of its own; time and memory of a part are from its call to its return,
compilation included, imports not. Embedding and training are timed on fewer rows, as a rate. FOLDER
holds the trained models of `bench_defences` (made where they are missing) and the results,
`sizes.jsonl`, one line each: a command that was stopped goes on. The tables are in `SIZE.md`.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sot_pipeline_tests.benchmarks.bench_scale import resident

SIZES = (100, 1_000, 10_000, 100_000)
NUM_EMBEDDED, NUM_TRAINED, NUM_EPOCHS = 1_000, 256, 2
JITTER = 0.01  # of a vector's length
MODELS = ("demo", "large")
ENCODERS = ("minilm", *MODELS)
PURIFYING = ("costs", "solve", "cut")
OTHERS = ("solve without costs", "logistic regression", "20 nearest neighbours", "centroids",
          "SAFT", "DSIR")  # fmt: skip
KEEP = 0.8
NUM_SAFE, NUM_HARMFUL = 1_650, 1_242
GPU = "h100"


class Watch:
    """Seconds of a block, and the memory that it added at its highest."""

    def __enter__(self) -> "Watch":
        gc.collect()
        self._before = self._peak = resident()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._look)
        self._watcher.start()
        self._start, self._cpu = time.perf_counter(), time.process_time()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.005):
            self._peak = max(self._peak, resident())

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = time.process_time() - self._cpu
        self._done.set()
        self._watcher.join()
        self._peak = max(self._peak, resident())

    @property
    def result(self) -> dict[str, float]:
        memory = (self._peak - self._before) / 1e6
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "megabytes": memory}


def repeated(num_have: int, num_rows: int) -> np.ndarray:
    """Row numbers that go round and round through what there is, in a fixed random order."""
    order = np.random.default_rng(0).permutation(num_have)
    return np.resize(order, num_rows)


def jittered(vectors: np.ndarray, num_rows: int, jitter: float = JITTER) -> np.ndarray:
    """As many rows as wanted, no two equal: repeats are moved by `jitter` of their length.

    `[num_rows, d]` float32; the first pass through the rows is left as it is.
    """
    rows = repeated(len(vectors), num_rows)
    taken = vectors[rows].astype(np.float32)
    rng = np.random.default_rng(1)
    for start in range(len(vectors), num_rows, len(vectors)):
        part = taken[start : start + len(vectors)]
        noise = rng.standard_normal(part.shape, dtype=np.float32)
        noise *= jitter / np.linalg.norm(noise, axis=1, keepdims=True)
        part += noise * np.linalg.norm(part, axis=1, keepdims=True)
    return taken


def shared_data() -> Path:
    default = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return Path(os.environ.get("SOT_SHARED_DATA", default))


def conversations(name: str) -> list[list[dict[str, str]]]:
    table = pl.read_parquet(shared_data() / f"{name}.parquet", columns=["prompt", "response"])
    return [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        for prompt, response in table.iter_rows()
    ]


def vectors(folder: Path, name: str) -> np.ndarray:
    """Of a shared set, view "apart"; from the cache of the other benchmarks where they are."""
    path = folder / f"vectors-{name}.npy"
    if not path.exists():
        from sot_pipeline.embedding.embed import embed
        from sot_pipeline.embedding.load import load_encoder
        from sot_pipeline.embedding.views import compose

        cache = Path(os.environ.get("SOT_BENCH_CACHE", folder / "embeddings"))
        encoder, rows = load_encoder("minilm"), conversations(name)
        turns = [[{"role": "user", "content": row[k]["content"]} for row in rows] for k in (0, 1)]
        parts = [embed([[t] for t in turn], encoder, cache=cache).vectors for turn in turns]
        np.save(path, compose(*parts))
    return np.load(path)


def measure(folder: Path, part: str, num_rows: int) -> dict[str, float]:
    """Seconds and memory of one part at one size."""
    if part.startswith("embedding"):
        return embedding(folder, part.split()[1])
    if part.startswith("training"):
        return training(folder, part.split()[1])
    custom = jittered(vectors(folder, "custom_alpaca_p10"), num_rows)
    safe, harmful = vectors(folder, "safe_alpaca"), vectors(folder, "harmful_reference")
    if part in PURIFYING:
        return purifying(part, custom, safe, harmful)
    work = rival(part, custom, safe, harmful)
    with Watch() as watch:
        scores = work()
    assert np.isfinite(scores).all()
    return watch.result


def purifying(
    part: str, custom: np.ndarray, safe: np.ndarray, harmful: np.ndarray
) -> dict[str, float]:
    from sot_pipeline.selection import top_k, training_weights
    from sot_pipeline.transport.cost import cosine_cost, pooled_mean
    from sot_pipeline.transport.push_pull import learn_weights

    if part == "cut":
        scores = np.random.default_rng(0).standard_normal(len(custom))
        with Watch() as watch:
            training_weights(scores, top_k(scores, keep_fraction=KEEP))
        return watch.result
    with Watch() as watch:
        center = pooled_mean(safe)
        costs = [cosine_cost(custom, reference, center=center) for reference in (safe, harmful)]
    if part == "costs":
        return watch.result
    with Watch() as watch:
        fit = learn_weights(*costs)
    assert fit.converged
    return watch.result


def rival(
    name: str, custom: np.ndarray, safe: np.ndarray, harmful: np.ndarray
) -> Callable[[], np.ndarray]:
    from sot_pipeline.selectors import on_references
    from sot_pipeline.selectors.dsir import dsir, plain_text
    from sot_pipeline.selectors.saft import saft
    from sot_pipeline.transport.push_pull import learn_weights_from_embeddings

    if name == "DSIR":
        have = [plain_text(row) for row in conversations("custom_alpaca_p10")]
        texts = [have[i] for i in repeated(len(have), len(custom))]
        target = [plain_text(row) for row in conversations("safe_alpaca")]
        return lambda: dsir(texts, target)
    if name == "SAFT":
        states = np.concatenate([safe[:50], harmful[:50]])[None]
        return lambda: saft(custom[None], states, np.arange(100) >= 50).log_weights
    work = {
        "solve without costs": lambda *sets: learn_weights_from_embeddings(*sets).log_weights,
        "logistic regression": on_references.logistic_regression,
        "20 nearest neighbours": on_references.nearest_neighbours,
        "centroids": on_references.centroid,
    }[name]
    return lambda: work(custom, safe, harmful)


def embedding(folder: Path, name: str) -> dict[str, float]:
    """A thousand rows, as the encoder's own view embeds them, without a cache."""
    from sot_pipeline.embedding.load import load_encoder
    from sot_pipeline.embedding.views import embed_rows

    rows = conversations("custom_alpaca_p10")
    rows = [rows[i] for i in repeated(len(rows), NUM_EMBEDDED)]
    encoder = load_encoder(name if name == "minilm" else aligned(folder, name), device="cpu")
    embed_rows(rows[:8], encoder, view=encoder.view)
    with Watch() as watch:
        result = embed_rows(rows, encoder, view=encoder.view)
    return watch.result | {"rows": len(rows), "tokens": result.num_tokens}


def aligned(folder: Path, model: str) -> Path:
    from sot_pipeline_tests.benchmarks.bench_defences import aligned

    return aligned(folder, model)


def training(folder: Path, model: str) -> dict[str, float]:
    """One epoch of weighted LoRA, package defaults, longest row as the encoder's; the steps alone."""
    from sot_pipeline.finetuning.recipe import Recipe
    from sot_pipeline.finetuning.train import finetune_lora

    rows = conversations("custom_alpaca_p10")
    rows = [rows[i] for i in repeated(len(rows), NUM_TRAINED)]
    recipe = Recipe(num_epochs=1.0, max_length=256, batch_size=32)
    with tempfile.TemporaryDirectory() as out, Watch() as watch:
        result = finetune_lora(aligned(folder, model), rows, np.ones(len(rows)), Path(out), recipe)
    steps = float(sum(step["seconds"] for step in result.trace))
    return watch.result | {
        "steps": steps, "rows": len(rows), "tokens": result.num_tokens,
        "truncated": result.num_truncated,
    }  # fmt: skip


def done(folder: Path) -> dict[tuple[str, int], dict[str, float]]:
    log = folder / "sizes.jsonl"
    lines = map(json.loads, log.read_text().splitlines() if log.exists() else [])
    return {(line["part"], line["rows"]): line["result"] for line in lines}


def measure_all(folder: Path) -> dict[tuple[str, int], dict[str, float]]:
    """Do what is missing, each in a process of its own."""
    wanted = [(f"embedding {name}", NUM_EMBEDDED) for name in ENCODERS]
    wanted += [(f"training {model}", NUM_TRAINED) for model in MODELS]
    wanted += [(part, n) for n in SIZES for part in (*PURIFYING, *OTHERS)]
    for name in ("custom_alpaca_p10", "safe_alpaca", "harmful_reference"):
        vectors(folder, name)
    for part, num_rows in wanted:
        if (part, num_rows) in done(folder):
            continue
        command = [sys.executable, "-m", __spec__.name, str(folder), "--part", part]
        command += ["--rows", str(num_rows)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(run.stdout.splitlines()[-1])
        with (folder / "sizes.jsonl").open("a") as log:
            log.write(json.dumps({"part": part, "rows": num_rows, "result": result}) + "\n")
        print(f"{part}, {num_rows:,}: {result}", file=sys.stderr)
    return done(folder)


def estimates(num_rows: int, gpu: str) -> dict[str, tuple[float, float]]:
    """Seconds, low to high, by `defs.estimate`: "training" an 8B model for two epochs on a GPU,
    and "purification" with MiniLM there and the solve on a CPU. Nothing of it was run."""
    from sot_pipeline.defs import estimate
    from sot_pipeline.defs.hardware import GPUS
    from sot_pipeline.defs.model_shape import PUBLISHED
    from sot_pipeline.defs.settings import FinetuningSettings
    from sot_pipeline.defs.workload import (
        CHARACTERS_PER_TOKEN,
        LONGEST_OVER_MEAN,
        TEMPLATE_TOKENS,
        TextLengths,
    )

    table = pl.read_parquet(shared_data() / "custom_alpaca_p10.parquet")
    prompt, answer = (
        table[name].str.len_chars().cast(pl.Float64).to_numpy().mean() / CHARACTERS_PER_TOKEN
        for name in ("prompt", "response")
    )
    longest = LONGEST_OVER_MEAN * (prompt + answer)
    texts = TextLengths(num_rows, prompt + TEMPLATE_TOKENS, answer, longest, "characters / 4")
    shape, encoder = PUBLISHED["meta-llama/Llama-3.1-8B-Instruct"], PUBLISHED["minilm"]
    training = estimate.estimate_training(
        "adapter", texts, FinetuningSettings(), shape, GPUS[gpu]
    ).seconds
    parts = (
        estimate.estimate_embedding("custom_embeddings", texts.cut(256), encoder, GPUS[gpu]),
        estimate.estimate_cost("pull_cost", num_rows, NUM_SAFE, 2 * encoder.hidden_size),
        estimate.estimate_cost("push_cost", num_rows, NUM_HARMFUL, 2 * encoder.hidden_size),
        estimate.estimate_weights(num_rows, NUM_SAFE, NUM_HARMFUL),
    )
    low, high = (float(sum(part.seconds[end] for part in parts)) for end in (0, 1))
    return {"training": (training.low, training.high), "purification": (low, high)}


def tables(results: dict[tuple[str, int], dict[str, float]]) -> str:
    """Markdown: rates, seconds and memory by size, and what purifying is of training."""
    sizes = [n for n in SIZES if all((part, n) in results for part in (*PURIFYING, *OTHERS))]
    head = f"{' | '.join(f'{n:,} rows' for n in sizes)} |\n" + "|---" * (len(sizes) + 1) + "|"
    lines = ["| rates | rows | tokens | seconds | CPU seconds | rows per CPU second | tokens per CPU second |",
             "|---" * 7 + "|"]  # fmt: skip
    for (part, _), r in results.items():
        if "tokens" in r:
            cpu = cpu_seconds(r)
            lines.append(
                f"| {part} | {r['rows']:,} | {r['tokens']:,} | {r.get('steps', r['seconds']):.1f} | "
                f"{cpu:.1f} | {r['rows'] / cpu:.1f} | {r['tokens'] / cpu:,.0f} |"
            )
    for key, unit, digits in (("seconds", "s", 3), ("cpu_seconds", "CPU s", 3), ("megabytes", "MB added", 0)):  # fmt: skip
        lines += ["", f"| {unit} | {head}"]
        for part in (*PURIFYING, *OTHERS):
            cells = [f"{results[part, n][key]:,.{digits}f}" for n in sizes]
            lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"| CPU seconds | {head}", *ratios(results, sizes)])


def ratios(results: dict[tuple[str, int], dict[str, float]], sizes: list[int]) -> list[str]:
    """Lines: purifying, training, and one over the other."""
    whole = {e: [purification(results, e, n) for n in sizes] for e in ENCODERS}
    lines = [f"| purification, {name} vectors | {cells_of(s)} |" for name, s in whole.items()]
    for model in MODELS:
        trained = [NUM_EPOCHS * rate(results, f"training {model}") * n for n in sizes]
        lines.append(f"| {NUM_EPOCHS} epochs of {model} | {cells_of(trained)} |")
        for encoder in ("minilm", model):
            shares = [a / b for a, b in zip(whole[encoder], trained, strict=True)]
            shown = " | ".join(f"{share:.0%}" for share in shares)
            lines.append(f"| ratio, {encoder} vectors / {model} | {shown} |")
    spans = [estimates(n, GPU) for n in sizes]
    for name, meaning in (
        ("training", f"{NUM_EPOCHS} epochs of 8B on one {GPU}"),
        ("purification", f"purification, minilm vectors on one {GPU}"),
    ):
        shown = [f"{low:,.0f} to {high:,.0f}" for low, high in (span[name] for span in spans)]
        lines.append(f"| *estimate*: {meaning}, s | {' | '.join(shown)} |")
    shares = [
        f"{seconds / span['training'][1]:.0%} to {seconds / span['training'][0]:.0%}"
        for seconds, span in zip(whole["minilm"], spans, strict=True)
    ]
    lines.append(f"| *estimate*: minilm vectors on one core here / 8B | {' | '.join(shares)} |")
    return lines


def cpu_seconds(result: dict[str, float]) -> float:
    """CPU time of what was measured; of a training, of its steps, as far as the call's time is."""
    return result["cpu_seconds"] * result.get("steps", result["seconds"]) / result["seconds"]


def rate(results: dict[tuple[str, int], dict[str, float]], part: str) -> float:
    """CPU seconds per row."""
    (found,) = [result for (name, _), result in results.items() if name == part]
    return cpu_seconds(found) / found["rows"]


def purification(
    results: dict[tuple[str, int], dict[str, float]], encoder: str, num_rows: int
) -> float:
    """CPU seconds: embedding the custom rows, costs, solve, cut. References are embedded once."""
    parts = sum(results[part, num_rows]["cpu_seconds"] for part in PURIFYING)
    return parts + num_rows * rate(results, f"embedding {encoder}")


def cells_of(seconds: list[float]) -> str:
    return " | ".join(f"{value:,.1f}" for value in seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part")
    parser.add_argument("--rows", type=int, default=0)
    options: Any = parser.parse_args()
    if options.part:
        print(json.dumps(measure(options.folder, options.part, options.rows)))
    else:
        print(tables(measure_all(options.folder)))


if __name__ == "__main__":
    main()
