"""How far are estimates of a task from what it then takes?

    OMP_NUM_THREADS=1 python -m sot_pipeline_tests.benchmarks.bench_estimate FOLDER --model DIR
    OMP_NUM_THREADS=1 python -m sot_pipeline_tests.benchmarks.bench_estimate FOLDER --model DIR --large

The demo's task with the demo's trained model (DIR, `aligned_base_model/*/model` in the store of a
demo), estimated before it runs, in a home below FOLDER. `--large`: a random Llama of 45 million
parameters and a vocabulary of 32,000 that reads the same tokens, ten steps. Measured seconds are
those of each asset's manifest, memory is the highest of the process until then.
"""

import argparse
from pathlib import Path

from sot_pipeline.cli.runs import run_job
from sot_pipeline.defs.dry_run import estimate_of
from sot_pipeline.defs.estimate import StageEstimate
from sot_pipeline.defs.hardware import this_cpu
from sot_pipeline.defs.home import EvaluationFiles, Home, TaskFile
from sot_pipeline.defs.store import Store
from sot_pipeline.demo.settings import DEMO_SETTINGS
from sot_pipeline.demo.world import build_world, write_world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    if options.large:
        model = larger_model(options.model, options.folder / "model")
        home = demo_task(options.folder, model, num_steps=10)
    else:
        home = demo_task(options.folder, options.model)
    estimates = estimate_of(home, "demo", this_cpu())  # before anything runs
    outcome = run_job(home, "demo", "purify_and_finetune")
    assert outcome.success, outcome.error
    print(this_cpu().source)
    for line in compared(home, estimates):
        print(line)


def larger_model(small: Path, folder: Path) -> Path:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32_000, hidden_size=512, intermediate_size=1536, num_hidden_layers=9,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=256,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=5, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(small).save_pretrained(folder)
    return folder


def demo_task(folder: Path, model: Path, *, num_steps: int = 100) -> Home:
    home = Home(folder)
    files = write_world(build_world(0), home.root / "demo")
    finetuning = {**DEMO_SETTINGS["finetuning"], "num_steps": num_steps}
    home.write_task(
        "demo",
        TaskFile(
            custom=(str(files["custom"]),),
            safe=(str(files["safe"]),),
            harmful=(str(files["harmful"]),),
            evaluation=EvaluationFiles(
                harmful=files["eval_harmful"],
                over_refusal=files["eval_over_refusal"],
                task=files["eval_task"],
            ),
            settings={
                **DEMO_SETTINGS,
                "base_model": {"name": str(model.resolve())},
                "finetuning": finetuning,
                "comparison": {"methods": ["sft"], "seeds": [0]},
            },
        ),
    )
    return home


def compared(home: Home, estimates: list[StageEstimate]) -> list[str]:
    """Lines of a Markdown table: estimate, measurement, ratio of the nearer end of the interval."""
    titles = ["asset", "seconds, estimated", "measured", "off by", "memory, estimated", "measured",
              "disk, estimated", "measured"]  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for one in estimates:
        stored = Store(home.store).current("demo", one.asset)
        assert stored is not None
        low, high = one.seconds
        seconds = stored.manifest["seconds"]
        off = max(seconds / high, low / seconds, 1.0)
        disk = sum(path.stat().st_size for path in stored.directory.rglob("*") if path.is_file())
        lines.append(
            f"| {one.asset} | {low:.2f} to {high:.2f} | {seconds:.2f} | "
            f"{'inside' if off == 1 else f'{off:.1f}'} | {one.memory / 1e6:,.0f} MB | "
            f"{stored.manifest['peak_memory_bytes'] / 1e6:,.0f} MB | {one.disk / 1e6:.2f} MB | "
            f"{disk / 1e6:.2f} MB |"
        )
    return lines


if __name__ == "__main__":
    main()
