"""Exports of a task: made from exactly the versions that belong together."""

import json
import shutil

import polars as pl
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from sot_pipeline.defs.home import EvaluationFiles, Home
from sot_pipeline.defs.publishing import ExportOptions, export_task
from sot_pipeline.defs.store import Store
from sot_pipeline.defs.verification import verify_folder
from sot_pipeline.errors import InputError
from sot_pipeline.publishing.provenance import read_provenance
from sot_pipeline_tests.small_home import SmallProject

DATA = {
    "purified.jsonl", "ledger.parquet", "rejected.jsonl", "README.md", "croissant.json",
    "TRAINING_CONTENT.md", "provenance.json", "provenance.json.sha256",
}  # fmt: skip
ALL = ExportOptions(
    merge_dtype="stored", trainers=("axolotl", "llamafactory", "trl"), resample_factor=2.0
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> SmallProject:
    """The small project, fine-tuned and evaluated; tests here only read it."""
    project = SmallProject(tmp_path_factory.mktemp("project"))
    evaluation = EvaluationFiles(
        harmful=project.files["eval_harmful"], task=project.files["eval_task"]
    )
    project.settings["evaluation"] = {"max_new_tokens": 4}
    project.settings["finetuning"]["learning_rate"] = 0.01
    project.write_task("small")
    task = project.home.read_task("small").model_copy(update={"evaluation": evaluation})
    project.home.write_task("small", task)
    project.run(job="finetune")
    project.run_only("evaluation")
    return project


@pytest.fixture
def changing(project, tmp_path) -> SmallProject:
    """A copy of the same that a test may change."""
    copy = object.__new__(SmallProject)
    copy.__dict__.update(project.__dict__)
    copy.home = Home(tmp_path / "data")
    copy.store = Store(copy.home.store)
    shutil.copytree(project.home.root, copy.home.root)
    return copy


def change(project: SmallProject, **blocks) -> None:
    """Change settings of the task."""
    task = project.home.read_task("small")
    settings = {name: task.settings.get(name, {}) | block for name, block in blocks.items()}
    changed = task.model_copy(update={"settings": task.settings | settings})
    project.home.write_task("small", changed)


def forget(project: SmallProject, *assets: str) -> None:
    """As if the task had never had them."""
    for asset in assets:
        (project.home.store / "current" / "small" / asset).unlink()


@pytest.fixture(scope="module")
def exported(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    return out, export_task(project.home, "small", out, ALL)


def logits(model):
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        return model(input_ids=ids).logits


def test_peft_loads_the_adapter_and_the_merged_model_answers_the_same(project, exported):
    out, _ = exported
    base = AutoModelForCausalLM.from_pretrained(project.files["model"])
    alone = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, out / "adapter"))
    merged = logits(AutoModelForCausalLM.from_pretrained(out / "merged"))
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(alone, adapted, atol=1e-3)


def test_the_tokenizer_and_its_template_survive(project, exported):
    out, _ = exported
    turns = [{"role": "user", "content": "what is two plus three"}]
    expected = AutoTokenizer.from_pretrained(project.files["model"])
    for folder in ("adapter", "merged"):
        tokenizer = AutoTokenizer.from_pretrained(out / folder)
        assert tokenizer.chat_template == expected.chat_template
        assert tokenizer.apply_chat_template(turns) == expected.apply_chat_template(turns)


def test_the_card_holds_the_scores_of_this_adapter(project, exported):
    out, _ = exported
    card = (out / "adapter" / "README.md").read_text()
    table = project.current("evaluation").table().filter(method="sot")
    row = table.row(by_predicate=pl.col("score") == "harmfulness_score", named=True)
    shown = f"{row['value']:.3f} | {row['low']:.3f} … {row['high']:.3f} | {row['num_judged']}"
    assert shown in card
    assert "keyword judge knows refusals by their words" in card


def test_the_card_tells_rows_hashes_and_settings(project, exported):
    out, manifest = exported
    card = (out / "adapter" / "README.md").read_text()
    custom = project.current("custom_texts")
    assert custom.document["sha256"] in card
    assert "| rows learnt from | 48 |" in card
    assert "| rows removed | 12 |" in card
    assert "| learning rate | 0.01 |" in card
    assert manifest["data_fingerprint"] in card
    assert manifest["adapter"] == project.current("adapter").data_version


def test_trainers_get_the_purified_rows_in_proportion_to_their_weights(project, exported):
    out, manifest = exported
    samples = project.current("training_samples").table()
    weights = dict(samples.select("sample_id", "sample_weight").iter_rows())
    note = manifest["resampling"]
    for trainer in ("axolotl", "llamafactory", "trl"):
        lines = (out / trainer / "train.jsonl").read_text().splitlines()
        counts = pl.Series([json.loads(line)["sample_id"] for line in lines]).value_counts()
        assert len(lines) == note["num_copies"] == 96
        assert counts.height == 48 - note["num_lost"]
        for sample_id, count in counts.iter_rows():
            assert abs(count - 2 * weights[sample_id]) < 1
    assert 1 < note["effective_after"] <= 48


def test_exporting_again_gives_the_same_files(project, exported, tmp_path):
    _, manifest = exported
    again = export_task(project.home, "small", tmp_path / "again", ALL)
    assert again["files"] == manifest["files"]


def test_a_task_that_was_only_purified_is_exported_for_trainers(changing, tmp_path):
    forget(changing, "training_samples", "adapter", "evaluation")
    out = tmp_path / "out"
    manifest = export_task(changing.home, "small", out, ExportOptions(trainers=("trl",)))
    assert manifest["findings"] == []
    assert {path.name for path in out.iterdir()} == {"trl", *DATA}
    lines = (out / "trl" / "train.jsonl").read_text().splitlines()
    kept = changing.current("selected_samples").table()["sample_id"].to_list()
    assert [json.loads(line)["sample_id"] for line in lines] == kept
    with pytest.raises(InputError, match="no adapter to merge"):
        export_task(changing.home, "small", out, ExportOptions(merge_dtype="stored"))


def test_every_export_holds_the_purified_rows_with_their_documents(project, exported):
    out, document = exported
    assert {path.name for path in out.iterdir()} == {
        "adapter", "merged", "axolotl", "llamafactory", "trl", *DATA
    }  # fmt: skip
    card = (out / "README.md").read_text()
    for name in ("adapter/", "merged/", "axolotl/"):
        assert f"| {name} |" in card
    assert "that an adapter in this folder learnt from" in (out / "TRAINING_CONTENT.md").read_text()
    assert document["data"]["rows_kept"] == 48
    verdict = verify_folder(out, home=project.home, require_inputs=True)
    assert verdict.problems == []


def test_the_model_card_leads_to_the_documents_of_its_data(exported):
    out, _ = exported
    for folder in ("adapter", "merged"):
        card = (out / folder / "README.md").read_text()
        for name in ("README.md", "TRAINING_CONTENT.md", "provenance.json"):
            assert f"`../{name}`" in card
            assert (out / folder / ".." / name).exists()
        assert "## Intended use" in card
        assert "can repeat personal data" in card


def test_the_graph_holds_the_adapter_and_its_evaluation(exported):
    out, _ = exported
    statement = read_provenance((out / "provenance.json").read_bytes())
    graph = statement.predicate.build_definition.internal_parameters.artefacts
    assert {name.split("/")[0] for name in graph} >= {"adapter", "evaluation", "purified_export"}


def test_a_task_that_was_not_purified_is_refused(changing, tmp_path):
    forget(changing, "selected_samples")
    with pytest.raises(InputError, match="has not been purified"):
        export_task(changing.home, "small", tmp_path / "out", ALL)
    assert not (tmp_path / "out").exists()


def test_an_adapter_without_scores_says_so(changing, tmp_path):
    forget(changing, "evaluation")
    manifest = export_task(changing.home, "small", tmp_path / "out", ExportOptions())
    assert manifest["findings"] == [
        "the card holds no scores: it has not been evaluated (run `sot evaluate small` with prompts)"
    ]


def test_scores_of_another_adapter_are_left_out(changing, tmp_path):
    change(changing, finetuning={"num_steps": 3})
    changing.run_only("adapter")
    manifest = export_task(changing.home, "small", tmp_path / "out", ExportOptions())
    assert "the last evaluation is of another adapter" in manifest["findings"][0]
    card = (tmp_path / "out" / "adapter" / "README.md").read_text()
    assert "Nothing was measured" in card
    assert "| num steps | 3 |" in card


def test_after_another_cut_the_card_tells_of_the_adapters_own_rows(changing, tmp_path):
    change(changing, selection={"keep_fraction": 0.5})
    changing.run_only("selected_samples")
    out = tmp_path / "out"
    manifest = export_task(changing.home, "small", out, ExportOptions(trainers=("axolotl",)))
    assert "the adapter was trained on an earlier selection" in " ".join(manifest["findings"])
    assert "| rows learnt from | 48 |" in (out / "adapter" / "README.md").read_text()
    assert len((out / "axolotl" / "train.jsonl").read_text().splitlines()) == 30


def test_changed_settings_do_not_change_what_the_card_says_of_the_training(changing, tmp_path):
    change(changing, finetuning={"rank": 99, "learning_rate": 0.5})
    out = tmp_path / "out"
    export_task(changing.home, "small", out, ExportOptions(trainers=("trl",)))
    assert "| rank | 16 |" in (out / "adapter" / "README.md").read_text()
    assert "learning_rate: 0.01" in (out / "trl" / "trl.yaml").read_text()


def test_a_base_model_of_another_name_is_refused_beside_an_adapter(project, tmp_path):
    options = ExportOptions(trainers=("trl",), base_model="org/other")
    with pytest.raises(InputError, match="for tasks without an adapter"):
        export_task(project.home, "small", tmp_path / "out", options)
