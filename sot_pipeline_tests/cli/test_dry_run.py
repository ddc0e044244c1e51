"""`--dry-run`: what a command would compute, and nothing happens."""

import json
from pathlib import Path

import pytest

from sot_pipeline.cli.commands import run_finetune, run_purify
from sot_pipeline.defs.home import Home
from sot_pipeline_tests.small_project import write_small_project


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, Path]:
    return write_small_project(tmp_path_factory.mktemp("texts"))


def purify(root: Path, texts: dict[str, Path], *, dry_on: str | None = None, **flags) -> int:
    sources = ([str(texts["custom"])], [str(texts["safe"])], [str(texts["harmful"])])
    chosen = {"embedding.encoder": str(texts["model"]), **flags}
    return run_purify(root, "small", sources, chosen, [], None, True, dry_on=dry_on)


def tree(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}


def test_a_new_task_is_estimated_and_nothing_is_written(tmp_path, texts, capsys):
    assert purify(tmp_path, texts, dry_on="cpu") == 0
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


def test_what_is_cached_takes_nothing_and_a_setting_redoes_what_depends_on_it(
    tmp_path, texts, capsys
):
    assert purify(tmp_path, texts) in (0, 3)
    capsys.readouterr()
    before = tree(tmp_path)
    assert purify(tmp_path, texts, dry_on="cpu") == 0
    document = json.loads(capsys.readouterr().out)
    assert {stage["state"] for stage in document["stages"]} == {"current"}
    assert document["seconds"] == [0, 0]

    assert purify(tmp_path, texts, dry_on="cpu", **{"transport.lambda_push": 0.3}) == 0
    document = json.loads(capsys.readouterr().out)
    states = {stage["asset"]: stage for stage in document["stages"]}
    assert states["push_cost"]["state"] == "current"
    assert states["sample_weights"]["state"] == "stale"
    assert states["sample_weights"]["because"] == ["setting transport.lambda_push changed"]
    assert states["selected_samples"]["because"] == ["sample_weights is to be computed"]
    assert tree(tmp_path) == before
    assert Home(tmp_path).settings("small")[0].transport.lambda_push != 0.3


def test_a_model_that_does_not_fit_is_a_finding(tmp_path, texts, capsys, monkeypatch):
    from sot_pipeline.defs import hardware

    purify(tmp_path, texts)
    capsys.readouterr()
    tiny = hardware.GPUS["l4"]._replace(memory=1000)
    monkeypatch.setitem(hardware.GPUS, "l4", tiny)
    flags = {"base_model.name": str(texts["model"])}
    assert run_finetune(tmp_path, "small", flags, [], [], None, True, dry_on="l4") == 3
    document = json.loads(capsys.readouterr().out)
    assert document["fits"] is False
    assert not next(s for s in document["stages"] if s["asset"] == "adapter")["fits"]
    assert Home(tmp_path).settings("small")[0].base_model.name is None
