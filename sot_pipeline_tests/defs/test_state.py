"""Current, stale and because of what, missing, running: what `sot status` says."""

from pathlib import Path

import pytest

from sot_pipeline.definitions import ASSETS, COMPARISON, EXPERIMENTS, RIVALS
from sot_pipeline.defs.retention import in_use
from sot_pipeline.defs.state import AssetState, asset_states
from sot_pipeline_tests.small_home import SmallProject

NOT_ASKED_FOR = {
    "training_samples", "safety_demonstrations", "harmless_prompts", "adapter", "evaluation",
    "safety_report", *(asset.name for asset in (*RIVALS, *COMPARISON, *EXPERIMENTS.values())),
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    project = SmallProject(tmp_path)
    project.run()
    return project


def states(project: SmallProject) -> dict[str, AssetState]:
    found = asset_states(ASSETS, project.home, project.store, "small")
    return {state.asset: state for state in found}


def by_state(project: SmallProject, wanted: str) -> set[str]:
    return {name for name, state in states(project).items() if state.state == wanted}


def test_nothing_is_there_before_the_first_run(tmp_path: Path):
    project = SmallProject(tmp_path)
    assert by_state(project, "missing") == {asset.name for asset in ASSETS}


def test_after_a_run_its_assets_are_current_and_the_rest_is_missing(project: SmallProject):
    assert by_state(project, "missing") == NOT_ASKED_FOR
    assert by_state(project, "stale") == by_state(project, "running") == set()


def test_a_changed_file_makes_its_asset_stale_and_all_that_follows(project: SmallProject):
    project.edit("harmful", lambda rows: rows[1:])
    found = states(project)
    assert found["harmful_texts"].because == ("its source changed",)
    for name in ("harmful_embeddings", "push_cost", "sample_weights", "purified_export"):
        assert (found[name].state, found[name].because) == ("stale", ())
        assert "harmful_texts" in found[name].after
    for name in ("custom_embeddings", "safe_embeddings", "cost_center", "pull_cost"):
        assert found[name].state == "current"


def test_what_is_stale_is_what_a_run_computes(project: SmallProject):
    project.edit("harmful", lambda rows: rows[1:])
    stale = by_state(project, "stale")
    assert {name for name, result in project.run().items() if not result.hit} == stale
    assert by_state(project, "stale") == set()


def test_a_changed_setting_is_named(project: SmallProject):
    project.settings["selection"] = {"keep_fraction": 0.5}
    project.write_task("small")
    found = states(project)
    assert found["selected_samples"].because == ("setting selection.keep_fraction changed",)
    assert found["sample_weights"].state == "current"
    assert found["removed_samples"].after == ("selected_samples",)


def test_an_input_made_anew_is_named(project: SmallProject):
    project.settings["transport"] = {"lambda_push": 0.3}
    project.write_task("small")
    project.run_only("sample_weights")
    found = states(project)
    assert found["sample_weights"].state == "current"
    assert found["selected_samples"].because == ("sample_weights changed",)


def test_an_asset_being_made_by_a_living_process_is_running(project: SmallProject):
    with in_use(project.store, "small", "adapter", "0" * 32, {}):
        assert by_state(project, "running") == {"adapter"}
        with in_use(project.store, "another", "evaluation", "0" * 32, {}):
            assert by_state(project, "running") == {"adapter"}
    assert by_state(project, "running") == set()


def test_what_a_dead_process_left_is_not_running(project: SmallProject):
    folder = project.store.root / "in_use"
    folder.mkdir(exist_ok=True)
    (folder / "dead.json").write_text('{"task": "small", "asset": "adapter", "needs": []}')
    assert by_state(project, "running") == set()


def test_a_source_that_is_gone_is_said_with_its_name(project: SmallProject):
    project.files["harmful"].unlink()
    found = states(project)["harmful_texts"]
    assert found.state == "stale"
    assert "harmful.jsonl" in found.because[0]
