"""A training under Dagster, here and in a process of its own."""

import json
import shutil
import signal
from types import SimpleNamespace

import dagster as dg
import numpy as np
import polars as pl
import psutil
import pytest

from sot_pipeline.defs.cached_asset import Stage, cached_asset
from sot_pipeline.defs.dagster_assets import HomeResource, NoReturnValues, dagster_asset
from sot_pipeline.defs.defended import Defended
from sot_pipeline.defs.home import Home, TrainingRuntime
from sot_pipeline.defs.store import Artifact, Store
from sot_pipeline.defs.training import loss_plots, train_adapter
from sot_pipeline.errors import InputError
from sot_pipeline.progress import Listener, listening
from sot_pipeline_tests.finetuning.test_train import conversations
from sot_pipeline_tests.tiny_models import save_tiny_model

ROWS = pl.DataFrame({"messages": [json.dumps(row) for row in conversations(9)]})


@cached_asset(group="adapter", kinds={"torch"}, settings=("finetuning", "defence"))
def trained(stage: Stage) -> Artifact:
    """An adapter on the rows of this test."""
    document = {"source": "directory", "name": str(stage.row_cache.parent / "base")}
    base = SimpleNamespace(document={**document, "revision": None})
    training = train_adapter(
        stage,
        base,  # type: ignore[arg-type]
        ROWS,
        np.linspace(0.5, 2, 9),
        0,
        stage.directory / "adapter",
    )
    return Artifact(table=training.log, document=training.info)


class Heard(Listener):
    """Hears of each step, and may kill the trainer once."""

    def __init__(self, *, kills: bool = False) -> None:
        self.steps: list[tuple[int, int]] = []
        self.kills = kills

    def advanced(self, label: str, unit: str, done: int, total: int) -> None:
        assert (label, unit) == ("trained", "steps")
        self.steps.append((done, total))
        if self.kills:
            self.kills = False
            (trainer,) = psutil.Process().children()
            trainer.send_signal(signal.SIGKILL)


@pytest.fixture
def home(home) -> Home:
    task = home.read_task("small")
    finetuning = {"num_epochs": None, "num_steps": 60, "batch_size": 4}
    home.write_task("small", task.model_copy(update={"settings": {"finetuning": finetuning}}))
    save_tiny_model(home.store / "base")
    return home


def materialised(home: Home, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    resources = {"home": HomeResource(root=str(home.root)), "io_manager": NoReturnValues()}
    return dg.materialize(
        [dagster_asset(trained)], partition_key="small", resources=resources, instance=instance
    )


def weights_of(home: Home) -> bytes:
    stored = Store(home.store).current("small", "trained")
    assert stored is not None
    return (stored.directory / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_process_of_its_own_changes_no_number_and_reports_to_the_event_log(
    home, instance, monkeypatch
):
    heard = Heard()
    monkeypatch.setenv("SOT_TRAINING_APART", "1")
    with listening(heard):
        result = materialised(home, instance)
    assert heard.steps == [(step, 60) for step in range(1, 61)]
    log = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert any("external process successfully opened dagster pipes" in line for line in log)
    (last,) = [line for line in log if "step 60 of 60 (100%)" in line]
    assert "tokens/s" in last
    assert "effective rows" in last

    apart, fingerprints = weights_of(home), set((home.store / "trained").iterdir())
    shutil.rmtree(home.store / "trained")
    monkeypatch.setenv("SOT_TRAINING_APART", "0")
    result = materialised(home, instance)
    assert set((home.store / "trained").iterdir()) == fingerprints
    assert weights_of(home) == apart
    log = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert any("trained: step 60 of 60 (100%)" in line for line in log)


@pytest.mark.slow
def test_a_killed_trainer_is_a_failed_step_that_is_tried_again(home, instance, monkeypatch):
    monkeypatch.setenv("SOT_TRAINING_APART", "1")
    monkeypatch.setattr("sot_pipeline.defs.dagster_assets.RETRY_SECONDS", 0)
    with listening(Heard(kills=True)):
        result = materialised(home, instance)
    assert result.success
    (retry,) = [
        entry.dagster_event
        for entry in instance.all_logs(result.run_id)
        if entry.dagster_event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY
    ]
    assert "killed by signal 9 (SIGKILL)" in str(retry)


def test_the_runtime_is_read_from_the_environment(monkeypatch, tmp_path):
    assert Home(tmp_path).training == TrainingRuntime(None, None, None)
    monkeypatch.setenv("SOT_TRAINING_PROCESSES", "2")
    monkeypatch.setenv("SOT_TRAINING_APART", "0")
    monkeypatch.setenv("SOT_TRACKING", "wandb")
    assert Home(tmp_path).training == TrainingRuntime(2, False, "wandb")


@pytest.mark.parametrize(
    ("name", "value"),
    [("SOT_TRAINING_PROCESSES", "0"), ("SOT_TRAINING_PROCESSES", "two"),
     ("SOT_TRAINING_APART", "yes")],
)  # fmt: skip
def test_a_wrong_value_is_refused(monkeypatch, tmp_path, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{name} is '{value}'"):
        Home(tmp_path)


def test_the_log_has_a_row_per_step_and_a_figure(tmp_path):
    from sot_pipeline.defs.training import _told
    from sot_pipeline.finetuning.train import FinetuneResult

    values = {"loss": 2.0, "tokens": 10.0, "effective_rows": 3.5, "seconds": 0.5,
              "defence_seconds": 0.125}  # fmt: skip
    trace = [values, {**values, "loss": 1.0}]
    result = FinetuneResult(trace, 20, 0, 1, 1.5, 2_000_000)
    lesson = Defended([[]] * 7, np.ones(7), 2, "none", {}, [], [])
    training = _told(result, "safe_instr", lesson)
    assert (training.info["num_rows"], training.info["num_safety_rows"]) == (7, 2)
    assert training.info["defence_seconds_per_step"] == 0.125
    assert training.log["step"].to_list() == [1, 2]
    assert training.log["loss"].to_list() == [2.0, 1.0]
    assert training.info["tokens_per_second"] == 20
    assert (training.info["loss_first"], training.info["loss_last"]) == (2.0, 1.0)
    assert training.info["effective_rows"] == 3.5
    assert json.dumps(training.info)
    assert loss_plots(training.log)["loss"].startswith(b"\x89PNG")
