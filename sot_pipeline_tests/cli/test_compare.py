"""`sot compare` and `sot experiment`: one command, one table, nothing left out in silence."""

import json
from pathlib import Path

import polars as pl
import pytest

from sot_pipeline.cli.compare import run_compare
from sot_pipeline.cli.experiment import run_experiment
from sot_pipeline.errors import InputError
from sot_pipeline_tests.cli.test_commands import purify_arguments, sot, sot_json
from sot_pipeline_tests.small_project import write_jsonl, write_small_project

WITHOUT = "sft_clean,larf,seal,toss,alpagasus,guard"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A purified task whose rows' labels are known, and no base model."""
    folder = tmp_path_factory.mktemp("compare")
    files = write_small_project(folder / "texts")
    ids = [json.loads(line)["id"] for line in files["custom"].read_text().splitlines()]
    labels = [{"id": i, "label": "harmful" if i[0] == "h" else "benign"} for i in ids]
    write_jsonl(folder / "labels.jsonl", labels)
    assert sot(*purify_arguments(files), cwd=folder).returncode in (0, 3)
    return folder


def compare(folder: Path, *, methods=None, without=None, selections_only=True) -> int:
    return run_compare(
        folder / "data", "small", methods, without, None, selections_only, None, [], None, True
    )


def test_what_cannot_run_is_an_error_that_gives_the_flag_to_leave_it_out(folder):
    with pytest.raises(InputError) as told:
        compare(folder)
    message = str(told.value)
    for method, lacks in (("seal", "set base_model.name"), ("guard", "rivals.guard_model")):
        assert f"  {method}: " in message
        assert lacks in message
    flag = message.rsplit("--without ", 1)[1]
    assert set(flag.split(",")) == set(WITHOUT.split(","))


@pytest.mark.parametrize("given", [{"methods": "sott"}, {"without": "gard"}])
def test_a_misspelt_method_is_told_wherever_it_stands(folder, given):
    with pytest.raises(InputError, match="did you mean"):
        compare(folder, **given)


def test_wrong_labels_and_wrong_names_leave_the_task_as_it_was(folder, tmp_path):
    task = folder / "data" / "tasks" / "small.yaml"
    before = task.read_text()
    good = write_jsonl(tmp_path / "good.jsonl", [{"id": "h0", "label": "harmful"}])
    for labels, methods in ((tmp_path / "gone.jsonl", "knn"), (good, "knnn")):
        with pytest.raises(InputError):
            run_compare(folder / "data", "small", methods, None, None, True, labels, [], None, True)
    assert task.read_text() == before


def test_everything_left_out_is_no_comparison(folder):
    with pytest.raises(InputError, match="no method is left"):
        compare(folder, methods="knn", without="knn")


def test_training_needs_a_model(folder):
    with pytest.raises(InputError, match="--selections-only"):
        compare(folder, methods="knn", selections_only=False)


def test_an_experiment_needs_a_model_and_prompts(folder):
    with pytest.raises(InputError, match="needs a model to fine-tune"):
        run_experiment(folder / "data", "keep", "small", None, [], None, True)
    with pytest.raises(InputError, match="did you mean 'lambda'"):
        run_experiment(folder / "data", "lamda", "small", None, [], None, True)


def test_one_table_and_files_of_every_selection(folder):
    document = sot_json(
        "compare", "small", "--without", WITHOUT, "--selections-only", "--labels", "labels.jsonl",
        "--out", "out", cwd=folder, code=3,
    )  # fmt: skip
    found = {line["method"]: line for line in document["methods"]}
    assert {"sot", "sft", "random", "knn", "dsir", "saft", "sot_balanced"} <= set(found)
    task = (folder / "data" / "tasks" / "small.yaml").read_text()
    assert "methods:" not in task  # another command trains what it trained before
    assert found["sot"]["quality"]["auroc"]["value"] > 0.9
    assert found["sft"]["quality"]["harmful_left"]["value"] == 1
    assert found["knn"]["difference_to_sot"]["auroc"].keys() == {"value", "low", "high"}
    assert found["knn"]["costs"]["select_seconds"] >= 0
    assert {Path(path).name for path in document["out"]} == {
        "comparison.md", "selection_quality.parquet", "scores.parquet", "pareto_harmful_left_auroc.png",
    }  # fmt: skip
    text = (folder / "out" / "comparison.md").read_text()
    assert "| method | AUROC ↑ |" in text
    assert "## Paired differences to sot" in text
    assert pl.read_parquet(folder / "out" / "selection_quality.parquet").height > 0


def test_people_see_the_table(folder):
    shown = sot("compare", "small", "--methods", "knn,sot", "--selections-only", cwd=folder)
    assert "48 of 60 rows kept (80%)" in shown.stdout
    assert "harmful left" in shown.stdout
