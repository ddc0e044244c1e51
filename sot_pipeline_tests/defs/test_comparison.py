"""Rivals in the graph: what each reads, how all are cut alike, measured and trained side by side."""

import json

import numpy as np
import polars as pl
import pytest

from sot_pipeline.defs.assets.rivals import RIVAL_ASSETS, load_token_scores
from sot_pipeline.defs.home import EvaluationFiles
from sot_pipeline.defs.methods import RIVALS, SELECTIONS, weights_asset
from sot_pipeline.defs.rivals import known_options, what_lacks
from sot_pipeline.defs.settings import Settings, resolve_settings
from sot_pipeline.errors import InputError
from sot_pipeline_tests.small_home import SmallProject
from sot_pipeline_tests.small_project import write_jsonl

SCORED = ("knn", "centroid", "dsir", "sot_balanced", "sot_pull", "saft", "seal", "toss")
ALSO = ("sft", "random", "sot_cut", "sot_reweight")


def choose(project: SmallProject, *methods: str, **files) -> None:
    """Write the task with these methods and files."""
    project.settings["comparison"] = {"methods": methods}
    project.write_task("small")
    task = project.home.read_task("small")
    project.home.write_task("small", task.model_copy(update=files))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    """Purified, with labels, and compared by every method that runs without a judge."""
    project = SmallProject(tmp_path_factory.mktemp("comparison"))
    small = {"batch_size": 8, "micro_batch_size": 8, "num_epochs": 1}
    project.settings["finetuning"]["num_steps"] = 1
    project.settings["evaluation"] = {"max_new_tokens": 3, "num_resamples": 100}
    project.settings["rivals"] = {"larf_layer": 1, "options": {"seal": small, "toss": small}}
    texts = project.files["custom"].parent
    ids = [json.loads(line)["id"] for line in project.files["custom"].read_text().splitlines()]
    labels = [
        {"id": i, "label": "harmful" if i.startswith("h") else "benign", "source": i[:2]}
        for i in ids
    ]
    project.labels = write_jsonl(texts / "labels.jsonl", labels)
    project.evaluation = EvaluationFiles(harmful=project.files["eval_harmful"])
    choose(project, *SCORED, "larf", *ALSO, labels=project.labels, evaluation=project.evaluation)
    project.run(job="compare_selections")
    return project


def selections(project: SmallProject) -> dict[str, pl.DataFrame]:
    table = project.current("compared_selections").table()
    return {str(name): rows for (name,), rows in table.group_by(["method"], maintain_order=True)}


def test_every_rival_has_an_asset():
    assert set(RIVAL_ASSETS) == {weights_asset(name) for name in RIVALS}


def test_a_rival_reads_what_its_method_reads_and_nothing_else(project):
    read = {name: set(project.current(weights_asset(name)).manifest["inputs"]) for name in SCORED}
    vectors = {"custom_embeddings", "safe_embeddings", "harmful_embeddings"}
    costs = {"pull_cost", "push_cost"}
    assert {name: inputs - {"custom_texts"} for name, inputs in read.items()} == {
        "knn": vectors,
        "centroid": vectors,
        "dsir": {"safe_texts"},
        "sot_balanced": costs,
        "sot_pull": costs,
        "saft": {"safe_texts", "harmful_texts", "aligned_base_model"},
        "seal": {"safe_texts", "aligned_base_model"},
        "toss": {"safe_texts", "harmful_texts", "aligned_base_model"},
    }


def test_a_rival_that_nobody_asks_for_reads_and_computes_nothing(project):
    stored = project.current("logistic_regression_weights")
    assert stored.table().is_empty()
    assert stored.manifest["inputs"] == {}


def test_rivals_say_what_they_took(project):
    for name in SCORED:
        document = project.current(weights_asset(name)).document
        assert document["asked"]
        assert document["seconds"] >= 0


def test_every_method_keeps_as_many_rows_as_the_tasks_own_cut(project):
    own = project.current("selected_samples").manifest["rows"]
    whole = project.current("custom_texts").manifest["rows"]
    kept = {name: int(rows["kept"].sum()) for name, rows in selections(project).items()}
    everything = {"sft", "sot_reweight"}
    assert kept == {name: whole if name in everything else own for name in kept}
    assert set(kept) == {*SCORED, "larf", *ALSO, "sot"}


def test_rows_that_go_have_no_weight_and_only_learned_weights_differ(project):
    for name, rows in selections(project).items():
        if name == "toss":  # drops tokens of rows
            continue
        weights = rows["sample_weight"].to_numpy()
        assert ((weights > 0) == rows["kept"].to_numpy()).all()
        learned = name in ("sot", "sot_reweight")
        assert (len(set(weights[weights > 0])) > 1) == learned
        assert weights[weights > 0].mean() == pytest.approx(1)


def test_quality_is_measured_against_the_labels_by_source(project):
    table = project.current("selection_quality").table()
    auroc = table.filter(measure="auroc", source="all")
    values = dict(auroc.select("method", "value").iter_rows())
    assert values["sft"] == 0.5
    assert values["sot"] > 0.9  # harmful rows have words of their own
    assert values["knn"] > 0.9
    assert set(table["source"]) == {"all", "h0", "h1", "h2", "h3", "h4", "h5"}
    assert auroc.filter(method="sot")["difference"].item() == 0


def test_labels_of_other_rows_are_refused(project, tmp_path):
    labels = write_jsonl(tmp_path / "labels.jsonl", [{"id": "elsewhere", "label": "harmful"}])
    choose(project, "knn", labels=labels, evaluation=project.evaluation)
    project.run_only("compared_selections")
    with pytest.raises(InputError, match="none of its ids is one of the 60 custom rows"):
        project.run_only("selection_quality")
    choose(project, *SCORED, "larf", *ALSO, labels=project.labels, evaluation=project.evaluation)
    assert project.run_only("compared_selections").hit


def test_labels_without_harm_measure_nothing(project, tmp_path):
    ids = project.current("custom_texts").table()["source_id"].head(5)
    labels = write_jsonl(tmp_path / "labels.jsonl", [{"id": i, "label": "benign"} for i in ids])
    choose(project, *SCORED, "larf", *ALSO, labels=labels, evaluation=project.evaluation)
    assert project.run_only("selection_quality").stored.table().is_empty()


def test_selections_can_be_compared_without_being_trained_on(project):
    project.settings["comparison"] = {"methods": ("sft",), "selections": ("centroid",)}
    project.write_task("small")
    project.run_only("centroid_weights")
    project.run_only("compared_selections")
    assert set(selections(project)) == {"sft", "centroid", "sot"}
    choose(project, *SCORED, "larf", *ALSO, labels=project.labels, evaluation=project.evaluation)
    project.run_only("compared_selections")


def test_under_a_calibrated_cut_the_scores_are_those_that_decided(project):
    project.settings["selection"] = {"method": "calibrated", "max_false_keep_rate": 0.3}
    choose(project, "sot_cut", labels=project.labels, evaluation=project.evaluation)
    for name in ("calibration", "selected_samples", "compared_selections"):
        project.run_only(name)
    rows = selections(project)["sot"]
    kept, gone = (rows.filter(pl.col("kept") == stays)["log_weight"] for stays in (True, False))
    assert kept.min() > gone.max()
    del project.settings["selection"]
    choose(project, *SCORED, "larf", *ALSO, labels=project.labels, evaluation=project.evaluation)
    for name in ("selected_samples", "compared_selections"):
        project.run_only(name)


def test_without_labels_nothing_is_claimed(project):
    choose(project, *SCORED, "larf", *ALSO, evaluation=project.evaluation)
    project.run_only("selection_quality")
    assert project.current("selection_quality").table().is_empty()


def test_every_selection_can_be_trained_on_and_a_killed_comparison_keeps_what_is_done(project):
    methods = ("sft", "random", "toss", "dsir", "sot_reweight")
    choose(project, *methods, labels=project.labels, evaluation=project.evaluation)
    for name in ("training_samples", "safety_demonstrations", "harmless_prompts", "adapter",
                 "evaluation", "compared_selections", "selection_quality"):  # fmt: skip
        project.run_only(name)
    project.run_only("comparison")
    table = project.current("comparison").table()
    assert set(table["method"]) == {"base", "sot", *methods}
    parts = project.current("comparison").manifest["parts"]["trained_methods"]
    assert len(set(parts)) == len(methods)
    choose(project, *methods, "sot_cut", labels=project.labels, evaluation=project.evaluation)
    project.run_only("compared_selections")
    project.run_only("comparison")
    again = project.current("comparison").manifest["parts"]["trained_methods"]
    assert set(parts) < set(again)


def test_toss_learns_all_rows_without_the_tokens_that_it_drops(project):
    scores = load_token_scores(project.current("toss_weights"))
    table = project.current("toss_weights").table()
    assert len(scores) == table.height
    assert np.allclose([-s.mean() for s in scores if len(s)],
                       table["log_weight"].to_numpy()[[len(s) > 0 for s in scores]], atol=1e-5)  # fmt: skip


def test_methods_that_drop_tokens_and_defences_that_add_rows_are_not_mixed(project):
    choose(project, "toss+safe_reference", labels=project.labels, evaluation=project.evaluation)
    project.run_only("toss_weights")
    project.run_only("compared_selections")
    with pytest.raises(InputError, match=r"toss.* cannot be combined with safe_reference"):
        project.run_only("comparison")


def test_dsir_leaves_refusals_out_of_its_target(project):
    told = project.current("dsir_weights").document
    assert told["num_target_rows"] == 20  # none of the small reference's rows refuses


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        ("sft_clean", "names no custom_clean"),
        ("seal", "set base_model.name"),
        ("alpagasus", "grades no helpfulness"),
        ("guard", "no guard model is set"),
    ],
)
def test_what_a_method_lacks_is_told(project, selection, reason):
    told = what_lacks(selection, Settings(), project.home.read_task("small"))
    assert told is not None
    assert reason in told


def test_what_lacks_nothing_is_not_held_up(project):
    able = [
        name
        for name in SELECTIONS
        if what_lacks(name, Settings(), project.home.read_task("small")) is None
    ]
    assert {"sot", "sft", "dsir", "saft", "knn"} <= set(able)


def test_an_option_that_a_rival_does_not_have_is_refused_with_the_nearest():
    wrong = {"rivals": {"options": {"dsir": {"smooting": 1.0}}}}
    with pytest.raises(InputError, match="did you mean 'smoothing'"):
        resolve_settings([("flags", wrong)])


def test_a_rival_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'dsir'"):
        resolve_settings([("flags", {"rivals": {"options": {"disr": {}}}})])


@pytest.mark.parametrize("name", RIVALS)
def test_the_options_of_every_rival_have_defaults(name):
    assert all(isinstance(option, str) for option in known_options(name))
