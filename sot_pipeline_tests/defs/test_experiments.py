"""The paper's experiments on the small project."""

import json

import pytest

from sot_pipeline.defs.home import EvaluationFiles, ExperimentFiles
from sot_pipeline.errors import InputError
from sot_pipeline_tests.small_home import SmallProject
from sot_pipeline_tests.small_project import write_jsonl


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    project = SmallProject(tmp_path_factory.mktemp("experiments"))
    project.settings["finetuning"]["num_steps"] = 1
    project.settings["evaluation"] = {"max_new_tokens": 3, "num_resamples": 100}
    project.settings["experiments"] = {
        "seeds": [0], "lambdas": [0.0, 0.5], "keep_fractions": [1.0, 0.5],
        "harmful_fractions": [0.0, 0.1], "encoders": ["base"],
    }  # fmt: skip
    project.run()
    files = project.files
    rows = [json.loads(line) for line in files["custom"].read_text().splitlines()]
    folder = files["custom"].parent
    harmful = [row for row in rows if row["id"].startswith("h")]
    project.extra = {
        "custom_clean": write_jsonl(folder / "clean.jsonl", [r for r in rows if r not in harmful]),
        "labels": write_jsonl(
            folder / "labels.jsonl",
            [{"id": r["id"], "label": "harmful" if r in harmful else "benign"} for r in rows],
        ),
        "evaluation": EvaluationFiles(harmful=files["eval_harmful"]),
        "experiments": ExperimentFiles(
            swapped_harmful=files["harmful"],
            general_safe=files["safe"],
            contamination=write_jsonl(folder / "pool.jsonl", harmful),
        ),
    }
    write(project)
    project.run_only("aligned_base_model")
    return project


def write(project: SmallProject, **changed) -> None:
    project.write_task("small")
    task = project.home.read_task("small")
    project.home.write_task("small", task.model_copy(update=project.extra | changed))


def variations(project: SmallProject, name: str) -> dict[str, dict]:
    project.run_only(name)
    table = project.current(name).table()
    return {row["variation"]: row for row in table.iter_rows(named=True)}


def test_the_ablation_varies_each_part(project):
    write(project)
    found = variations(project, "ablation")
    assert list(found) == [
        "sft", "top_k_only", "full", "pull_only", "push_only", "swapped_harmful", "general_safe"
    ]  # fmt: skip
    assert found["sft"]["num_rows"] == 60
    assert found["sft"]["harmful_left"] == 1
    assert found["full"]["num_rows"] == found["pull_only"]["num_rows"] == 48
    assert found["full"]["harmful_left"] == 0
    # the references are the task's own here: the same rows, and so one training for each
    assert found["swapped_harmful"]["value"] == found["full"]["value"]
    parts = project.current("ablation").manifest["parts"]["trained_methods"]
    assert len(set(parts)) < len(parts)


def test_what_the_task_does_not_name_is_left_out_and_told(project):
    write(project, experiments=ExperimentFiles())
    found = variations(project, "ablation")
    assert "swapped_harmful" not in found
    told = project.current("ablation").document["left_out"]
    assert [reason.split(":")[0] for reason in told] == ["swapped_harmful", "general_safe"]
    write(project)


def test_lambdas_and_cuts_are_swept(project):
    found = variations(project, "lambda_sweep")
    assert {name: row["parameter"] for name, row in found.items()} == {
        "lambda 0": 0.0, "lambda 0.5": 0.5
    }  # fmt: skip
    found = variations(project, "keep_sweep")
    assert {name: row["num_rows"] for name, row in found.items()} == {"keep 1": 60, "keep 0.5": 30}


def test_contamination_mixes_harmful_rows_into_as_many_rows(project):
    found = variations(project, "contamination_sweep")
    assert {name: row["num_rows"] for name, row in found.items()} == {
        "sft, 0 % harmful": 54, "sot, 0 % harmful": 43, "sot matched, 0 % harmful": 49,
        "sft, 10 % harmful": 54, "sot, 10 % harmful": 43, "sot matched, 10 % harmful": 43,
    }  # fmt: skip
    assert found["sot, 10 % harmful"]["harmful_left"] == 0
    assert found["sft, 0 % harmful"]["harmful_left"] is None


def test_contamination_needs_rows_to_mix(project):
    write(project, custom_clean=None)
    with pytest.raises(InputError, match=r"custom_clean and experiments\.contamination"):
        project.run_only("contamination_sweep")
    write(project)
    project.settings["experiments"]["harmful_fractions"] = [0.5]
    write(project)
    with pytest.raises(InputError, match=r"50% of 54 rows, 27 harmful ones, and .* holds 6"):
        project.run_only("contamination_sweep")
    project.settings["experiments"]["harmful_fractions"] = [0.0, 0.1]
    write(project)


def test_a_calibrated_cut_has_no_size_to_vary(project):
    project.settings["selection"] = {"method": "calibrated", "max_false_keep_rate": 0.3}
    write(project)
    with pytest.raises(InputError, match=r"with selection\.method top_k"):
        project.run_only("keep_sweep")
    del project.settings["selection"]
    write(project)


def test_a_value_that_is_varied_twice_is_refused(project):
    project.settings["experiments"]["lambdas"] = [0.5, 0.5]
    write(project)
    with pytest.raises(InputError, match=r"two variations are called lambda 0\.5"):
        project.run_only("lambda_sweep")
    project.settings["experiments"]["lambdas"] = [0.0, 0.5]
    write(project)


def test_encoders_are_swapped(project):
    found = variations(project, "embedder_swap")
    assert list(found) == ["sft", "base"]
    assert found["base"]["num_rows"] == 48


def test_an_experiment_done_is_not_done_again(project):
    assert project.run_only("keep_sweep").hit
