"""Every way of fine-tuning, on the demo's world: what it costs in harm, help and time.

    python -m sot_pipeline_tests.benchmarks.bench_defences FOLDER            the table
    python -m sot_pipeline_tests.benchmarks.bench_defences FOLDER --model large ...

Runs are kept in FOLDER/runs.jsonl, one line each; a command that was stopped goes on. The safety
rows that defences learn from are prompts of the harmful reference, answered by the aligned model.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "demo": {"size": (128, 352, 4, 4), "learning_rate": 3e-3},
    "large": {"size": (256, 704, 7, 8), "learning_rate": 1.5e-3},
}
RECIPES: dict[str, dict[str, Any]] = {
    "demo": {"learning_rate": 2e-3},
    "large": {"learning_rate": 1e-3},
}
COMMON = {"rank": 16, "lora_alpha": 16, "schedule": "cosine", "num_epochs": None,
          "batch_size": 32, "micro_batch_size": 32, "max_length": 256}  # fmt: skip
NUM_DEMONSTRATIONS = 64
MIX_SHARE = 0.05  # of the training rows, for safe_instr
METHODS = (
    "sft", "sft+safe_instr", "sft+safe_reference", "sft+spf", "sft+safegrad", "sft+sbr",
    "sft+spag", "sft+refusalguard_reimpl", "sot", "sot+spf", "sot+sbr", "sot+safe_instr",
)  # fmt: skip


def aligned(folder: Path, model: str) -> Path:
    """The aligned model, trained once."""
    from sot_pipeline.demo.aligned_model import ModelSize, train_aligned_model

    path = folder / f"aligned-{model}"
    if not (path / "model.safetensors").exists():
        settings = SIZES[model]
        info = train_aligned_model(
            path, size=ModelSize(*settings["size"]), learning_rate=settings["learning_rate"],
            progress=lambda done, total: print(f"\raligned model {done}/{total}", end="", file=sys.stderr),
        )  # fmt: skip
        print(info, file=sys.stderr)
    return path


@lru_cache(maxsize=4)
def prepared(folder: Path, model: str, world_seed: int, share: float):
    """World, kept rows with weights, demonstrations; the same for all methods."""
    from sot_pipeline.demo.judge import DemoJudge
    from sot_pipeline.demo.lexicon import REFUSALS
    from sot_pipeline.demo.world import build_world
    from sot_pipeline.embedding.embed import embed
    from sot_pipeline.embedding.load import load_encoder
    from sot_pipeline.evaluation.generate import generate_answers
    from sot_pipeline.language_model import load_language_model
    from sot_pipeline.selection import top_k, training_weights
    from sot_pipeline.transport.cost import cosine_cost
    from sot_pipeline.transport.push_pull import learn_weights

    world = build_world(world_seed, harmful_share=share)
    path = aligned(folder, model)
    encoder = load_encoder(str(path), device="cpu")
    vectors = [
        embed([row.messages for row in rows], encoder).vectors
        for rows in (world.custom, world.safe, world.harmful)
    ]
    center = vectors[1].mean(axis=0)
    fit = learn_weights(*(cosine_cost(vectors[0], v, center=center) for v in vectors[1:]))
    kept = top_k(fit.log_weights, keep_fraction=0.8)
    weights = training_weights(fit.log_weights, kept)
    rows = [row for row, keep in zip(world.custom, kept, strict=True) if keep]
    lm = load_language_model(path, device="cpu")
    prompts = [row.messages[:1] for row in world.harmful[:NUM_DEMONSTRATIONS]]
    answers = generate_answers(lm, prompts, max_new_tokens=40, batch_size=64)
    refused = DemoJudge().judge(prompts, answers, "refusal")
    demonstrations = [
        [*prompt, {"role": "assistant", "content": answer if said else REFUSALS[0]}]
        for prompt, answer, said in zip(prompts, answers, refused, strict=True)
    ]
    return world, rows, weights, demonstrations, [row.messages[:1] for row in world.safe]


def training_rows(method: str, prepared_world) -> tuple[list, np.ndarray]:
    world, kept, weights, demonstrations, _ = prepared_world
    selection, _, defence = method.partition("+")
    rows = [row.messages for row in (kept if selection == "sot" else world.custom)]
    weights = weights if selection == "sot" else np.ones(len(rows))
    extra = []
    if defence == "safe_instr":
        count = round(MIX_SHARE / (1 - MIX_SHARE) * len(rows))
        extra = [demonstrations[i % len(demonstrations)] for i in range(count)]
    elif defence == "safe_reference":
        extra = [row.messages for row in world.safe]
    return rows + extra, np.concatenate([weights, np.full(len(extra), weights.mean())])


def run_one(
    folder: str, model: str, share: float, seed: int, method: str, steps: int,
    options: dict[str, Any], evaluate: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """One fine-tuning and its scores; world and training share the seed."""
    import torch

    from sot_pipeline.finetuning.defences.registry import DEFENCES, make_defence
    from sot_pipeline.finetuning.recipe import Recipe
    from sot_pipeline.finetuning.safety import SafetyTexts
    from sot_pipeline.finetuning.train import finetune_lora

    torch.set_num_threads(1)
    ready = prepared(Path(folder), model, seed, share)
    world, kept = ready[0], ready[1]
    rows, weights = training_rows(method, ready)
    name = method.partition("+")[2]
    with tempfile.TemporaryDirectory() as out:
        result = finetune_lora(
            aligned(Path(folder), model), rows, weights, Path(out),
            Recipe(**COMMON, **RECIPES[model], num_steps=steps, seed=seed),
            defence=make_defence(name if name in DEFENCES else "none", options),
            safety=SafetyTexts(ready[3], ready[4]),
        )  # fmt: skip
        scores = scores_of(Path(folder), model, world, Path(out)) if evaluate else {}
    late = result.trace[5:] or result.trace
    return {
        "model": model, "share": share, "seed": seed, "method": method, "steps": steps,
        "options": options, **scores, "loss": float(np.mean(result.loss_trace[-10:])),
        "harmful_rows": sum(r.label == "harmful" for r in (kept if method.startswith("sot") else world.custom)),
        "refusal_rows": sum(r.label == "refusal" for r in (kept if method.startswith("sot") else world.custom)),
        "seconds_per_step": float(np.median([v["seconds"] for v in late])),
        "defence_seconds_per_step": float(np.mean([v["defence_seconds"] for v in late])),
        "peak_memory": result.peak_memory,
        "told": {k: float(np.mean([v[k] for v in result.trace])) for k in result.trace[0]
                 if k.startswith(("spf", "safegrad", "sbr", "spag", "refusalguard"))},
    }  # fmt: skip


def scores_of(folder: Path, model: str, world, adapter: Path | None) -> dict[str, float]:
    from sot_pipeline.demo.judge import DemoJudge
    from sot_pipeline.evaluation.run import PromptSet, evaluate_model
    from sot_pipeline.language_model import load_language_model

    lm = load_language_model(aligned(folder, model), adapter=adapter, device="cpu")
    sets = {"harmful": world.eval_harmful, "over_refusal": world.eval_over_refusal,
            "task": world.eval_task}  # fmt: skip
    prompts = {
        name: PromptSet([str(i) for i in range(len(rows))], [r.messages for r in rows],
                        [r.reference for r in rows])
        for name, rows in sets.items()
    }  # fmt: skip
    scores, _ = evaluate_model(
        lm, prompts, DemoJudge(), accuracy_mode="exact", max_new_tokens=40, batch_size=128,
        num_resamples=100,
    )  # fmt: skip
    found = dict(scores.select("score", "value").iter_rows())
    return found | {"task_loss": held_out_loss(lm, world)}


def held_out_loss(lm, world) -> float:
    """Mean loss of the right answers to the evaluation's tasks, nats a token: what is left to see
    of usefulness where every answer is right."""
    import torch

    from sot_pipeline.finetuning.loss import mean_loss
    from sot_pipeline.finetuning.rows import tokenize

    answers = [
        [*prompt.messages, {"role": "assistant", "content": prompt.reference}]
        for prompt in world.eval_task
    ]
    rows = tokenize(lm.tokenizer, answers, np.ones(len(answers)), 256)
    with torch.no_grad():
        return float(mean_loss(lm.model, rows, range(len(answers))))


def key(run: dict[str, Any]) -> str:
    fields = ("model", "share", "seed", "method", "steps", "options")
    return json.dumps([run[name] for name in fields], sort_keys=True)


def run_all(folder: Path, wanted: list[dict[str, Any]], workers: int) -> list[dict[str, Any]]:
    """Do what is missing, in processes of their own; returns all of them in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for model in {run["model"] for run in wanted}:
        aligned(folder, model)
    log = folder / "runs.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    done = {key(run): run for run in map(json.loads, lines)}
    missing = [run for run in wanted if key(run) not in done]
    start = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_one, str(folder), **run) for run in missing]
        for count, future in enumerate(as_completed(futures), 1):
            run = future.result()
            done[key(run)] = run
            with log.open("a") as file:
                file.write(json.dumps(run) + "\n")
            left = (time.monotonic() - start) / count * (len(missing) - count)
            print(f"{count}/{len(missing)} {run['method']} {run['share']} seed {run['seed']}: "
                  f"HmS {run['harmfulness_score']:.3f}, {left / 60:.0f} min left", file=sys.stderr)  # fmt: skip
    return [done[key(run)] for run in wanted]


def interval(values: list[float]) -> str:
    """Mean, and the smallest and largest over the seeds."""
    if not values:
        return "-"
    return f"{np.mean(values):.3f} ({min(values):.3f} … {max(values):.3f})"


def table(runs: list[dict[str, Any]]) -> str:
    columns = ("harmfulness_score", "helpfulness_score", "accuracy", "over_refusal", "task_loss")
    lines = ["| contamination | method | HmS ↓ | HpS ↑ | accuracy ↑ | over-refusal ↓ | task loss ↓ |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["share"], run["method"], json.dumps(run["options"])), []).append(run)
    for (share, method, options), group in groups.items():
        shown = method + (f" {options}" if group[0]["options"] else "")
        cells = [interval([run[name] for run in group if name in run]) for name in columns]
        lines.append(f"| {share:.0%} | {shown} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def print_costs(folder: Path, model: str, methods: tuple[str, ...], steps: int = 30) -> None:
    """Seconds a step and peak memory, each method in a fresh process, one after the other."""
    print("| method | s / step | of plain | defence s / step | peak MB |\n|---|---|---|---|---|")
    plain = None
    for method in methods:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            run = pool.submit(
                run_one, str(folder), model, 0.1, 0, method, steps, {}, False
            ).result()
        plain = plain or run["seconds_per_step"]
        print(
            f"| {method} | {run['seconds_per_step']:.3f} | {run['seconds_per_step'] / plain:.2f} | "
            f"{run['defence_seconds_per_step']:.4f} | {run['peak_memory'] / 1e6:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=SIZES, default="demo")
    parser.add_argument("--share", type=float, nargs="+", default=[0.0, 0.1, 0.3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--options", type=json.loads, nargs="+", default=[{}])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--costs", action="store_true", help="time and memory instead of scores")
    arguments = parser.parse_args()
    if arguments.costs:
        aligned(arguments.folder, arguments.model)
        print_costs(arguments.folder, arguments.model, tuple(arguments.methods))
        return
    wanted = [
        {"model": arguments.model, "share": share, "seed": seed, "method": method,
         "steps": arguments.steps, "options": options}
        for share in arguments.share for method in arguments.methods
        for options in arguments.options for seed in arguments.seeds
    ]  # fmt: skip
    print(table(run_all(arguments.folder, wanted, arguments.workers)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
