"""`--dry-run`: what a command would compute, and nothing happens."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sot_pipeline.cli.commands import run_finetune, run_purify
from sot_pipeline.defs.home import Home
from sot_pipeline_tests.small_project import write_small_project


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, Path]:
    return write_small_project(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def home(texts, tmp_path_factory) -> Path:
    """A home in which the task was purified, by a process of its own; tests only look."""
    root = tmp_path_factory.mktemp("home")
    sot = Path(sys.executable).with_name("sot")
    subprocess.run(
        [sot, "purify", texts["custom"], "--safe", texts["safe"], "--harmful", texts["harmful"],
         "--embedder", texts["model"], "--task", "small", "--home", root],
        capture_output=True, check=False,
    )  # fmt: skip
    return root


def estimate(root: Path, texts: dict[str, Path], **flags) -> int:
    sources = ([str(texts["custom"])], [str(texts["safe"])], [str(texts["harmful"])])
    chosen = {"embedding.encoder": str(texts["model"]), **flags}
    return run_purify(root, "small", sources, chosen, [], None, True, dry_on="cpu")


def tree(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}


def test_a_new_task_is_estimated_and_nothing_is_written(tmp_path, texts, capsys):
    assert estimate(tmp_path, texts) == 0
    document = json.loads(capsys.readouterr().out)
    assert tree(tmp_path) == {}
    assert document["dry_run"] is True
    states = {stage["asset"]: stage["state"] for stage in document["stages"]}
    assert set(states.values()) == {"missing"}
    assert {"custom_embeddings", "sample_weights", "purification_report"} <= states.keys()
    assert "adapter" not in states
    low, high = document["seconds"]
    assert 0 < low < high
    assert document["memory"] > 100_000_000
    assert document["disk"] > 0
    estimated = [stage for stage in document["stages"] if "seconds" in stage]
    assert sum(stage["disk"] for stage in estimated) == document["disk"]


def test_what_is_cached_takes_nothing_and_a_setting_redoes_what_depends_on_it(home, texts, capsys):
    before = tree(home)
    assert estimate(home, texts) == 0
    document = json.loads(capsys.readouterr().out)
    assert {stage["state"] for stage in document["stages"]} == {"current"}
    assert document["seconds"] == [0, 0]

    assert estimate(home, texts, **{"transport.lambda_push": 0.3}) == 0
    document = json.loads(capsys.readouterr().out)
    states = {stage["asset"]: stage for stage in document["stages"]}
    assert states["push_cost"]["state"] == "current"
    assert states["sample_weights"]["state"] == "stale"
    assert states["sample_weights"]["because"] == ["setting transport.lambda_push changed"]
    assert states["selected_samples"]["because"] == ["sample_weights is to be computed"]
    assert tree(home) == before
    assert Home(home).settings("small")[0].transport.lambda_push != 0.3


def test_a_model_that_does_not_fit_is_a_finding(home, texts, capsys, monkeypatch):
    from sot_pipeline.defs import hardware

    tiny = hardware.GPUS["l4"]._replace(memory=1000)
    monkeypatch.setitem(hardware.GPUS, "l4", tiny)
    flags = {"base_model.name": str(texts["model"])}
    assert run_finetune(home, "small", flags, [], [], None, True, dry_on="l4") == 3
    document = json.loads(capsys.readouterr().out)
    assert document["fits"] is False
    assert not next(s for s in document["stages"] if s["asset"] == "adapter")["fits"]
    assert Home(home).settings("small")[0].base_model.name is None
