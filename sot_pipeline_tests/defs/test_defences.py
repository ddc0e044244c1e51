"""Defences in the graph: what they learn from, what is trained again, how they are compared."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sot_pipeline.defs.defended import Safety, defended
from sot_pipeline.defs.home import EvaluationFiles
from sot_pipeline.errors import InputError
from sot_pipeline.evaluation.judge import is_refusal
from sot_pipeline_tests.small_home import SmallProject
from sot_pipeline_tests.small_project import write_jsonl

SAFETY = ("safety_demonstrations", "harmless_prompts")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    """Purified, with an evaluation set that holds three prompts of each reference."""
    project = SmallProject(tmp_path_factory.mktemp("defences"))
    project.settings["evaluation"] = {"max_new_tokens": 3}
    project.settings["finetuning"]["num_steps"] = 1
    texts = project.files["harmful"].parent
    overlap = [
        {"prompt": json.loads(line)["prompt"].upper()}
        for name in ("harmful", "safe")
        for line in project.files[name].read_text().splitlines()[:3]
    ]
    project.evaluation = EvaluationFiles(harmful=write_jsonl(texts / "overlap.jsonl", overlap))
    project.run()
    return project


def choose(project: SmallProject, defence: dict, methods: tuple[str, ...] = ()) -> None:
    """Write the task with these settings."""
    project.settings |= {"defence": defence, "comparison": {"methods": methods}}
    project.write_task("small")
    task = project.home.read_task("small")
    project.home.write_task("small", task.model_copy(update={"evaluation": project.evaluation}))


def train(project: SmallProject, *more: str) -> dict[str, bool]:
    """Bring the adapter up to date; whether each asset was computed."""
    names = ("aligned_base_model", "training_samples", *SAFETY, "adapter", *more)
    return {name: not project.run_only(name).hit for name in names}


def questions(table: pl.DataFrame) -> set[str]:
    return {json.loads(messages)[0]["content"] for messages in table["messages"]}


def test_without_a_defence_nothing_is_demonstrated_and_the_adapter_reads_nothing_of_it(project):
    choose(project, {})
    train(project)
    for name in SAFETY:
        assert project.current(name).table().is_empty()
        assert project.current(name).manifest["inputs"] == {}
    assert set(project.current("adapter").manifest["inputs"]) == {
        "training_samples", "aligned_base_model",
    }  # fmt: skip
    assert project.current("adapter").document["num_safety_rows"] == 0


def test_a_plain_adapter_does_not_follow_what_only_defences_read(project):
    choose(project, {})
    train(project)
    choose(project, {"mix_share": 0.5, "num_demonstrations": 3, "refusal": "No."})
    assert not any(train(project).values())
    choose(project, {}, methods=("sft+safe_instr",))  # demonstrations now exist
    computed = train(project)
    assert computed["safety_demonstrations"]
    assert not computed["adapter"]


def test_demonstrations_refuse_prompts_of_the_harmful_reference_that_are_not_evaluated(project):
    choose(project, {"name": "safe_instr", "max_answer_tokens": 4})
    train(project)
    made = project.current("safety_demonstrations")
    table = made.table()
    reference = [json.loads(t) for t in project.files["harmful"].read_text().splitlines()]
    assert questions(table) == {row["prompt"] for row in reference[3:]}
    assert made.document["num_evaluation_prompts_left_out"] == 3
    for messages, source in table.select("messages", "source").iter_rows():
        answer = json.loads(messages)[-1]
        assert answer["role"] == "assistant"
        assert is_refusal(answer["content"])
        assert source == "generic"  # a random model refuses nothing
    (told,) = made.checks()
    assert not told.passed
    assert "refused 0 of 12 prompts" in told.description


def test_demonstrations_make_up_their_share_of_the_rows(project):
    choose(project, {"name": "safe_instr", "mix_share": 0.25})
    train(project)
    document = project.current("adapter").document
    assert document["num_rows"] == 64  # 48 stay after the cut
    assert document["num_safety_rows"] == 16
    assert document["defence"] == "safe_instr"
    choose(project, {"name": "safe_instr", "mix_share": 0.2})
    assert train(project) == {
        "aligned_base_model": False, "training_samples": False, "safety_demonstrations": False,
        "harmless_prompts": False, "adapter": True,
    }  # fmt: skip


def test_a_defended_adapter_stays_while_its_demonstrations_are_the_same(project):
    choose(project, {"name": "safe_instr"})
    train(project)
    choose(project, {"name": "safe_instr", "num_demonstrations": 500})  # there are 12
    computed = train(project)
    assert computed["safety_demonstrations"]
    assert not computed["adapter"]


def test_the_control_learns_the_whole_safe_reference(project):
    choose(project, {"name": "safe_reference"})
    train(project)
    assert project.current("adapter").document["num_safety_rows"] == 20
    assert project.current("safety_demonstrations").table().is_empty()


def test_harmless_prompts_are_the_safe_references_first_and_never_evaluated(project):
    choose(project, {"num_harmless_prompts": 30}, methods=("sot+refusalguard_reimpl",))
    train(project)
    table = project.current("harmless_prompts").table()
    assert table["source"].to_list() == ["safe reference"] * 17 + ["kept row"] * 13
    safe = [json.loads(t) for t in project.files["safe"].read_text().splitlines()]
    trusted = table.filter(source="safe reference")
    assert questions(trusted) == {row["prompt"] for row in safe[3:]}
    assert all(len(json.loads(messages)) == 1 for messages in table["messages"]), "no answers"


def test_methods_are_compared_by_selection_and_defence(project):
    methods = ("sft", "sft+safe_instr", "sot_cut", "sot+safe_reference")
    choose(project, {"name": "safe_instr", "mix_share": 0.1}, methods=methods)
    train(project, "evaluation", "compared_selections", "comparison")
    comparison = project.current("comparison")
    own = "sot+safe_instr"
    assert comparison.document["own_method"] == own
    table = comparison.table()
    assert table["method"].unique(maintain_order=True).to_list() == ["base", own, *methods]
    trained = table.filter(pl.col("method") != "base")
    for cost in ("seconds_per_step", "defence_seconds_per_step", "peak_memory_bytes"):
        # the peak of a process that did much else says nothing about a training
        assert trained[cost].null_count() == (trained.height if "memory" in cost else 0)
        assert table.filter(method="base")[cost].null_count() == table.filter(method="base").height
    assert (trained["seconds_per_step"] > trained["defence_seconds_per_step"]).all()
    # a setting that no compared method reads leaves every training as it is
    before = set(comparison.manifest["parts"]["trained_methods"])
    choose(project, {"name": "safe_instr", "mix_share": 0.1}, methods=(*methods, "random"))
    train(project, "evaluation", "compared_selections", "comparison")
    after = set(project.current("comparison").manifest["parts"]["trained_methods"])
    assert before < after
    assert len(after) == 5


def test_a_task_whose_harmful_reference_is_all_evaluated_is_told_so(project, tmp_path: Path):
    choose(project, {"name": "sbr"})
    task = project.home.read_task("small")
    all_of_it = EvaluationFiles(harmful=project.files["harmful"])
    project.home.write_task("small", task.model_copy(update={"evaluation": all_of_it}))
    with pytest.raises(InputError, match="15 rows, of which 15 are evaluation prompts"):
        project.run_only("safety_demonstrations")


def test_a_defence_of_the_loop_gets_its_options_and_what_it_learns_from(project):
    choose(project, {"num_harmless_prompts": 5}, methods=("sot+refusalguard_reimpl",))
    train(project)
    settings, _ = project.home.settings("small")
    chosen = settings.defence.model_copy(update={"options": {"spf": {"rank": 3}}})
    rows = project.current("training_samples").table()
    weights = np.ones(rows.height)
    safety = Safety(*(project.current(name) for name in SAFETY))

    spf = defended(chosen, "spf", rows, weights, 0, safety)
    assert (spf.defence, spf.options, spf.num_added) == ("spf", {"rank": 3}, 0)
    assert len(spf.demonstrations) == 12
    assert spf.harmless_prompts == []
    guard = defended(chosen, "refusalguard_reimpl", rows, weights, 0, safety)
    assert guard.options == {}
    assert len(guard.harmless_prompts) == 5
    plain = defended(chosen, "none", rows, weights, 0, Safety())
    assert (plain.defence, plain.demonstrations, plain.num_added) == ("none", [], 0)
    assert len(plain.conversations) == rows.height
