"""A project of a few dozen rows on a model of a few kilobytes: the whole graph in seconds."""

import json
import random
from collections.abc import Callable
from pathlib import Path

from sot_pipeline.definitions import ASSETS, JOBS
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.materialise import Materialised, materialise
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline_tests.tiny_models import save_tiny_model

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


class SmallProject:
    """The small project with a home, whose assets are materialised without Dagster."""

    def __init__(self, folder: Path) -> None:
        self.files = write_small_project(folder / "texts")
        self.home = Home(folder / "data")
        self.store = Store(self.home.store)
        self.settings = {
            "embedding": {"encoder": str(self.files["model"])},
            "base_model": {"name": str(self.files["model"])},
            "finetuning": {"num_epochs": None, "num_steps": 2, "batch_size": 8},
        }
        self.write_task("small")

    def write_task(self, name: str, **files) -> None:
        sets = {key: files.get(key, self.files[key]) for key in ("custom", "safe", "harmful")}
        self.home.write_task(name, TaskFile(**sets, settings=self.settings))

    def edit(self, name: str, change: Callable[[list[dict]], list[dict]]) -> None:
        """Apply a function to the rows of a text set."""
        rows = [json.loads(line) for line in self.files[name].read_text().splitlines()]
        self.files[name].write_text("".join(json.dumps(row) + "\n" for row in change(rows)))

    def run(self, task: str = "small", job: str = "purify") -> dict[str, Materialised]:
        """Materialise a job's assets, each after its inputs."""
        waiting = {asset.name: asset for asset in ASSETS if asset.name in JOBS[job]}
        results: dict[str, Materialised] = {}
        while waiting:
            ready = next(a for a in waiting.values() if not a.inputs.keys() & waiting.keys())
            asset = waiting.pop(ready.name)
            results[asset.name] = materialise(asset, self.home, task, lambda line: None)
        return results

    def run_only(self, name: str, task: str = "small") -> Materialised:
        asset = next(asset for asset in ASSETS if asset.name == name)
        return materialise(asset, self.home, task, lambda line: None)

    def current(self, asset: str, task: str = "small") -> Stored:
        stored = self.store.current(task, asset)
        assert stored is not None
        return stored


def computed(results: dict[str, Materialised]) -> set[str]:
    return {name for name, result in results.items() if not result.hit}
