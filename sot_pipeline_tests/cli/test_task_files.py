"""What becomes of a task's file when flags change it."""

import json
import random

import pytest

from sot_pipeline.cli.task_files import prepare_task, save_settings
from sot_pipeline.defs.home import EvaluationFiles, ExperimentFiles, Home
from sot_pipeline_tests.small_project import HARMLESS, row


@pytest.fixture
def project(tmp_path, monkeypatch) -> tuple[Home, list[str]]:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row(random.Random(0), HARMLESS)) + "\n")
    return Home(tmp_path / "data"), [str(path)]


def test_what_a_task_knows_of_its_rows_outlives_a_new_purification(project, tmp_path):
    home, rows = project
    name = prepare_task(home, None, rows, rows, rows, {}, [])
    told = {
        "labels": tmp_path / "rows.jsonl",
        "custom_clean": tmp_path / "rows.jsonl",
        "evaluation": EvaluationFiles(harmful=tmp_path / "rows.jsonl"),
        "experiments": ExperimentFiles(contamination=tmp_path / "rows.jsonl"),
        "settings": {
            "rivals": {"guard_labels": ["unsafe"]},
            "experiments": {"seeds": [1]},
            "comparison": {"methods": ["sft"]},
            "transport": {"lambda_push": 0.2},
        },
    }
    home.write_task(name, home.read_task(name).model_copy(update=told))
    prepare_task(home, None, rows, rows, rows, {}, [])
    kept = home.read_task(name)
    for field in ("labels", "custom_clean", "evaluation", "experiments"):
        assert getattr(kept, field) == told[field], field
    assert set(kept.settings) == {"rivals", "experiments", "comparison"}


@pytest.mark.parametrize(
    "key",
    [
        "evaluation.judge_labelled", "evaluation.judge_classifier", "evaluation.judge_encoder",
        "rivals.guard_model", "embedding.encoder", "base_model.name",
    ],
)  # fmt: skip
def test_local_paths_of_settings_are_stored_whole(project, tmp_path, key):
    home, rows = project
    name = prepare_task(home, None, rows, rows, rows, {}, [])
    (tmp_path / "model").mkdir()
    given = "rows.jsonl" if key == "evaluation.judge_labelled" else "model"
    block, field = key.split(".")
    for value, stored in ((given, str(tmp_path / given)), ("org/name", "org/name")):
        save_settings(home, name, home.read_task(name), {key: value}, [])
        assert home.read_task(name).settings[block][field] == stored


def test_encoders_of_an_experiment_are_stored_whole_but_for_those_by_name(project, tmp_path):
    home, rows = project
    name = prepare_task(home, None, rows, rows, rows, {}, [])
    for folder in ("model", "base"):
        (tmp_path / folder).mkdir()
    assignment = "experiments.encoders=[base, model, org/name]"
    save_settings(home, name, home.read_task(name), {}, [assignment])
    stored = home.read_task(name).settings["experiments"]["encoders"]
    assert stored == ["base", str(tmp_path / "model"), "org/name"]
