"""When a reference or a custom set changes: what is done again, and that nothing else is."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from sot_pipeline.defs.assets.changes import evaluation_of
from sot_pipeline_tests.small_home import SmallProject, computed
from sot_pipeline_tests.small_project import HARMFUL, HARMLESS, row, write_small_project


@pytest.fixture
def project(tmp_path: Path) -> SmallProject:
    project = SmallProject(tmp_path)
    project.run()
    return project


AFTER_PUSH_COST = {
    "push_cost", "sample_weights", "selected_samples", "explanations", "removed_samples",
    "purified_export", "purification_changes", "purification_report", "reference_coverage",
}  # fmt: skip


def test_a_harmful_row_replaced(project: SmallProject):
    rng = random.Random(5)
    project.edit("harmful", lambda rows: [row(rng, HARMFUL), *rows[1:]])
    results = project.run()
    assert computed(results) == AFTER_PUSH_COST | {
        "harmful_texts", "harmful_embeddings", "rejected_rows", "embedding_map"
    }  # fmt: skip
    assert project.current("harmful_embeddings").document["num_embedded"] == 1
    num_custom = project.current("custom_texts").manifest["rows"]
    assert project.current("push_cost").document["num_computed"] == num_custom
    assert project.current("sample_weights").document["started"] == "warm"

    cold = SmallProject(project.home.root.parent / "cold")
    cold.files["harmful"].write_bytes(project.files["harmful"].read_bytes())
    cold.run()
    assert cold.current("sample_weights").document["started"] == "cold"
    warm = project.current("sample_weights").table()
    fresh = cold.current("sample_weights").table()
    assert warm["sample_id"].equals(fresh["sample_id"])
    assert (warm["weight"] - fresh["weight"]).abs().sum() / 2 < 1e-4
    best = fresh.sort("log_weight", descending=True).head(48)
    order = warm.join(best.select("sample_id", cold="log_weight"), on="sample_id").sort("rank")
    assert order["cold"].diff().drop_nulls().max() < 1e-4  # pyright: ignore


def test_a_row_added_to_the_safe_reference_moves_the_centre_of_a_small_one(project: SmallProject):
    project.edit("safe", lambda rows: [*rows, row(random.Random(6), HARMLESS)])
    results = project.run()
    assert {"cost_center", "pull_cost", "push_cost"} <= computed(results)
    assert project.current("safe_embeddings").document["num_embedded"] == 1
    # twenty rows: one more moves their mean by far more than a thousandth of their spread
    assert project.current("push_cost").document["num_kept"] == 0


def test_a_centre_within_its_tolerance_stays_and_with_it_every_known_cost(project: SmallProject):
    project.settings["repurification"] = {"centre_tolerance": 0.5}
    project.write_task("small")
    project.run()
    project.edit("safe", lambda rows: [*rows, row(random.Random(6), HARMLESS)])
    results = project.run()
    assert "cost_center" in computed(results)
    assert "push_cost" not in computed(results)
    num_custom = project.current("custom_texts").manifest["rows"]
    assert project.current("pull_cost").document["num_computed"] == num_custom
    assert project.current("cost_center").manifest["metadata"]["drift"] > 0.001


def test_an_edit_that_changes_no_row_costs_nothing(project: SmallProject):
    text = project.files["harmful"].read_text()
    project.files["harmful"].write_text(text.replace('", "', '",   "'))
    assert computed(project.run()) == {"harmful_texts", "rejected_rows"}
    project.files["harmful"].write_text(text)
    assert computed(project.run()) == set()


def test_a_changed_custom_set_embeds_and_compares_its_new_rows_alone(project: SmallProject):
    project.edit("custom", lambda rows: [*rows[3:], row(random.Random(7), HARMLESS)])
    project.run()
    assert project.current("custom_embeddings").document["num_embedded"] == 1
    num_harmful = project.current("harmful_texts").manifest["rows"]
    assert project.current("push_cost").document["num_computed"] == num_harmful
    assert project.current("sample_weights").document["started"] == "warm"


def test_a_new_task_shares_the_harmful_reference(project: SmallProject, tmp_path: Path):
    other = write_small_project(tmp_path / "other", num_rows=40)
    rng = random.Random(8)
    other["custom"].write_text("".join(json.dumps(row(rng, HARMLESS)) + "\n" for _ in range(40)))
    project.write_task("second", custom=other["custom"])
    results = project.run("second")
    assert not {"harmful_texts", "harmful_embeddings", "safe_embeddings"} & computed(results)
    assert project.current("custom_embeddings", "second").document["num_embedded"] == 40


def test_the_first_purification_has_nothing_to_compare_with(project: SmallProject):
    changes = project.current("purification_changes")
    assert changes.table().is_empty()
    assert changes.manifest["metadata"]["selection_moved"] is False


def test_what_changed_is_a_table_and_numbers(project: SmallProject):
    rng = random.Random(5)
    before = project.current("selected_samples")
    project.edit("harmful", lambda rows: [row(rng, HARMLESS), row(rng, HARMFUL), *rows[1:]])
    project.run()
    changes = project.current("purification_changes")
    table, numbers = changes.table(), changes.document
    added = table.filter(text_set="harmful", change="added")
    assert added["line"].to_list() == [1, 2]
    assert numbers["num_harmful_rows_added"] == numbers["num_reference_rows_added"] == 2
    assert numbers["num_reference_rows_removed"] == 1
    assert numbers["compared_with"] == before.fingerprint
    flips = table.filter(pl.col("change").is_in(["newly_removed", "newly_kept"]))
    kept = [set(v.table()["sample_id"]) for v in (before, project.current("selected_samples"))]
    assert set(flips["sample_id"]) == kept[0] ^ kept[1]
    assert numbers["moved"] > 0
    # a harmless sentence among the harmful rows takes some like it along
    removed = flips.filter(change="newly_removed", because="harmful row added")
    assert set(removed["because_of"]) <= set(added["sample_id"])
    assert removed.height > 0


def test_running_again_keeps_what_the_last_change_was(project: SmallProject):
    project.edit("harmful", lambda rows: rows[1:])
    project.run()
    changes = project.current("purification_changes")
    assert computed(project.run()) == set()
    assert project.current("purification_changes") == changes


def test_the_adapter_stays_while_the_selection_hardly_moves(project: SmallProject):
    project.settings["repurification"] = {"retrain_tolerance": 0.9}
    project.write_task("small")
    project.run(job="finetune")
    adapter = project.current("adapter")
    learnt = project.current("training_samples").table()
    project.edit("harmful", lambda rows: rows[1:])
    results = project.run(job="finetune")
    assert "selected_samples" in computed(results)
    assert not results["training_samples"].hit
    assert results["adapter"].hit
    assert project.current("adapter") == adapter
    training = project.current("training_samples")
    assert training.table().equals(learnt)
    assert training.document["kept"]
    assert "adapter kept" in training.checks()[0].description


def test_with_no_tolerance_any_movement_trains_again(project: SmallProject):
    project.settings["repurification"] = {"retrain_tolerance": 0.0}
    project.write_task("small")
    project.run(job="finetune")
    project.edit("harmful", lambda rows: rows[1:])
    results = project.run(job="finetune")
    assert "adapter" in computed(results)
    assert project.current("training_samples").document["moved"] > 0


def test_small_movements_add_up_until_the_adapter_follows(project: SmallProject):
    """Movement is measured from what the adapter learnt from, not from the selection before."""
    project.settings["repurification"] = {"retrain_tolerance": 0.0}
    project.write_task("small")
    project.run(job="finetune")
    learnt = project.current("training_samples").table()
    steps = []
    project.settings["repurification"] = {"retrain_tolerance": 1.0}
    project.write_task("small")
    for _ in range(3):
        project.edit("harmful", lambda rows: rows[2:])
        project.run(job="finetune")
        steps.append(project.current("training_samples").document["moved"])
    assert project.current("training_samples").table().equals(learnt)
    project.settings["repurification"] = {"retrain_tolerance": (steps[1] + steps[2]) / 2}
    project.write_task("small")
    results = project.run(job="finetune")
    assert ("adapter" in computed(results)) == (steps[2] > steps[1])


def test_a_row_that_left_the_custom_set_is_never_learnt_from_again(project: SmallProject):
    project.settings["repurification"] = {"retrain_tolerance": 1.0}
    project.write_task("small")
    project.run(job="finetune")
    learnt = set(project.current("training_samples").table()["sample_id"])
    lines = project.current("custom_texts").table().filter(pl.col("sample_id").is_in(learnt))
    gone = int(lines["line"][0]) - 1
    project.edit("custom", lambda rows: rows[:gone] + rows[gone + 1 :])
    project.run(job="finetune")
    now = project.current("training_samples")
    assert not now.document["kept"]
    assert "no longer in the custom set" in now.document["reason"]
    assert lines["sample_id"][0] not in set(now.table()["sample_id"])


def test_going_back_finds_the_earlier_results(project: SmallProject):
    first = {name: project.current(name) for name in ("sample_weights", "selected_samples")}
    text = project.files["harmful"].read_text()
    project.edit("harmful", lambda rows: rows[2:])
    project.run()
    project.files["harmful"].write_text(text)
    results = project.run()
    # these compare with what was in between
    assert computed(results) == {"purification_changes", "purification_report"}
    assert {name: project.current(name) for name in first} == first
    versions = project.store.history("small", "sample_weights")
    assert [v == first["sample_weights"] for v in versions] == [True, False, True]


def test_what_other_code_made_is_not_taken_over(project: SmallProject):
    """Costs of an earlier formula must not stand beside those of a new one."""
    for name in ("cost_center", "push_cost", "sample_weights"):
        path = project.current(name).directory / "manifest.json"
        path.write_text(path.read_text().replace('"code_version": "', '"code_version": "0'))
    project.edit("harmful", lambda rows: rows[1:])
    project.run()
    assert project.current("push_cost").document["num_kept"] == 0
    assert project.current("sample_weights").document["started"] == "cold"


def test_a_purification_of_earlier_code_can_still_be_compared(project: SmallProject):
    fit = project.current("sample_weights").directory / "fit" / "scalars.json"
    fit.write_text(fit.read_text().replace('"epsilon"', '"a field of then": 1, "epsilon"'))
    project.edit("harmful", lambda rows: rows[1:])
    path = project.current("sample_weights").directory / "manifest.json"
    path.write_text(path.read_text().replace('"code_version": "', '"code_version": "0'))
    project.run()
    assert project.current("purification_changes").document["num_harmful_rows_gone"] == 1


def test_a_purification_has_the_scores_of_the_adapter_that_learnt_from_it():
    """Also where two selections share an adapter, and where an earlier one was trained again."""

    def stored(version: str, **inputs: str) -> SimpleNamespace:
        return SimpleNamespace(data_version=version, manifest={"inputs": inputs})

    history = {
        "training_samples": [
            stored("rows1", selected_samples="first"), stored("rows1", selected_samples="second"),
            stored("rows2", selected_samples="third"), stored("rows3", selected_samples="fourth"),
        ],
        "adapter": [stored("a1", training_samples="rows1"), stored("a2", training_samples="rows2"),
                    stored("a3", training_samples="rows1")],
        "evaluation": [stored("e1", adapter="a1"), stored("e2", adapter="a2"),
                       stored("e3", adapter="a3")],
    }  # fmt: skip
    store: Any = SimpleNamespace(history=lambda task, name: history[name])

    def scores_of(selection: str) -> str | None:
        found = evaluation_of(store, "task", cast(Any, stored("", selected_samples=selection)))
        return None if found is None else found.data_version

    assert scores_of("first") == scores_of("second") == "e3"
    assert scores_of("third") == "e2"
    assert scores_of("fourth") is None  # not trained on yet
    assert scores_of("unheard of") is None
