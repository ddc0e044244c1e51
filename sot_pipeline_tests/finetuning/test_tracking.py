"""The numbers of a training in log lines, and in MLflow or Weights & Biases where asked for.

The packages themselves are used where they are installed.
"""

import importlib.util
import os
import subprocess
import sys
from types import ModuleType

import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.loop import StepReport
from sot_pipeline.finetuning.tracking import describe_step, progress_lines, tracked

VALUES = {"loss": 1.25, "tokens": 100.0, "effective_rows": 3.5, "learning_rate": 1e-4}


def reports(count: int, *, first: int = 1) -> list[StepReport]:
    return [
        StepReport(step, count, VALUES | {"loss": float(step)}) for step in range(first, count + 1)
    ]


def test_a_line_tells_where_training_is():
    report = StepReport(30, 90, VALUES)
    assert describe_step(report, 20, 2_000, 10.0) == (
        "step 30 of 90 (33%), 200 tokens/s, 30 s left, loss 1.2500, 3.5 effective rows"
    )


def test_lines_come_at_the_first_step_now_and_then_and_at_the_last(monkeypatch):
    clock = iter([0.0, *range(1, 31)])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    said = []
    on_step = progress_lines(said.append)
    for report in reports(30):
        on_step(report)
    assert [line.split(" of ")[0] for line in said] == ["step 1", "step 11", "step 21", "step 30"]


def test_what_came_from_a_checkpoint_is_no_part_of_the_rate(monkeypatch):
    clock = iter([0.0, 2.0, 4.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    said = []
    on_step = progress_lines(said.append)
    for report in reports(30, first=21)[:2]:
        on_step(report)
    # one step in two seconds, nine to go
    assert "50 tokens/s, 18 s left" in said[0]


def test_without_a_tracker_the_listeners_alone_hear():
    heard = []
    with tracked(None, "run", {}, heard.append, heard.append) as on_step:
        on_step(reports(1)[0])
    assert heard == reports(1) * 2


@pytest.mark.parametrize("where", ["tensorboard", "wandb:somewhere", ""])
def test_an_unknown_tracker_is_refused(where):
    with (
        pytest.raises(InputError, match="expected 'mlflow', 'mlflow:URI' or 'wandb'"),
        tracked(where, "run", {}),
    ):
        pass


@pytest.mark.parametrize("where", ["mlflow", "mlflow:file:runs", "wandb"])
def test_a_tracker_that_is_not_installed_is_named(where, monkeypatch):
    monkeypatch.setitem(sys.modules, where.split(":")[0], None)
    with (
        pytest.raises(InputError, match=r"not installed.*pip install (mlflow|wandb)"),
        tracked(where, "run", {}),
    ):
        pass


class Recorded(ModuleType):
    """A package that writes down how it is called; its calls are context managers."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple] = []

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **options):
            self.calls.append((name, *args, options))
            return self

        return call

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.calls.append(("ended",))


def test_mlflow_gets_the_recipe_once_and_the_numbers_of_each_step(monkeypatch):
    mlflow = Recorded("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    with tracked("mlflow:sqlite:///runs.db", "run", {"rank": 4}) as on_step:
        for report in reports(2):
            on_step(report)
    assert mlflow.calls == [
        ("set_tracking_uri", "sqlite:///runs.db", {}),
        ("set_experiment", "sot_pipeline", {}),
        ("start_run", {"run_name": "run"}),
        ("log_params", {"rank": 4}, {}),
        ("log_metrics", VALUES | {"loss": 1.0}, {"step": 1}),
        ("log_metrics", VALUES | {"loss": 2.0}, {"step": 2}),
        ("ended",),
    ]


def test_wandb_gets_the_recipe_once_and_the_numbers_of_each_step(monkeypatch):
    wandb = Recorded("wandb")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with tracked("wandb", "run", {"rank": 4}) as on_step:
        on_step(reports(1)[0])
    assert wandb.calls == [
        ("init", {"project": "sot_pipeline", "name": "run", "config": {"rank": 4}}),
        ("log", VALUES | {"loss": 1.0}, {"step": 1}),
        ("ended",),
    ]


# In a process of its own: both packages leave threads and warnings behind

REAL = """
import json, sys
from sot_pipeline.finetuning.tracking import tracked
class Report:
    def __init__(self, step): self.step, self.num_steps, self.values = step, 3, {"loss": 3.0 - step}
with tracked(sys.argv[1], "run", {"rank": 4}) as on_step:
    for step in (1, 2, 3):
        on_step(Report(step))
"""


def in_a_process(where: str, folder, **environment: str) -> None:
    subprocess.run(
        [sys.executable, "-c", REAL, where], check=True, cwd=folder, env=os.environ | environment
    )


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="mlflow is not installed")
def test_mlflows_file_store_holds_every_step(tmp_path):
    in_a_process(f"mlflow:file:{tmp_path}/runs", tmp_path, MLFLOW_ALLOW_FILE_STORE="true")
    (losses,) = tmp_path.glob("runs/*/*/metrics/loss")
    assert [line.split()[1:] for line in losses.read_text().splitlines()] == [
        ["2.0", "1"], ["1.0", "2"], ["0.0", "3"],
    ]  # fmt: skip
    (rank,) = tmp_path.glob("runs/*/*/params/rank")
    assert rank.read_text() == "4"


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="wandb is not installed")
def test_wandb_writes_a_run_without_a_network(tmp_path):
    in_a_process("wandb", tmp_path, WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    (run,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"loss" in run.read_bytes()
