"""The small project with a home of its own, materialised without Dagster."""

import json
from collections.abc import Callable
from pathlib import Path

from sot_pipeline.definitions import ASSETS, JOBS
from sot_pipeline.defs.home import Home, TaskFile
from sot_pipeline.defs.materialise import Materialised, materialise
from sot_pipeline.defs.store import Store, Stored
from sot_pipeline_tests.small_project import write_small_project


class SmallProject:
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
