"""Presets: they resolve, hold what the paper states, and say whose each value is."""

import shutil
import socket
import tomllib
from pathlib import Path

import pytest
import yaml

from sot_pipeline.defs.hardware import DEVICES
from sot_pipeline.defs.hardware import device as find_device
from sot_pipeline.defs.home import Home
from sot_pipeline.defs.paper import (
    FIXED,
    FOLDER,
    OURS,
    PAPER,
    assumed_workload,
    load_preset,
    make_draw,
    preset_names,
    resolve_preset,
)
from sot_pipeline.defs.paper_plan import PAPER_COST, make_plan
from sot_pipeline.defs.paper_texts import (
    prepare_preset,
    prepared_draw,
    preset_workload,
    task_layer,
)
from sot_pipeline.defs.settings import Settings
from sot_pipeline.errors import InputError
from sot_pipeline.texts.file_systems import place_of
from sot_pipeline.texts.labels import read_labels
from sot_pipeline.texts.originals import layout_of
from sot_pipeline.texts.read import read_text_files
from sot_pipeline_tests.published import write_published

# What is known of the paper (arXiv 2601.07200 v1) and is a setting here.
STATED = {
    "transport.lambda_push": 0.5,  # App. A.8
    "transport.reference_relaxation": 0.0,  # both marginals enforced
    "transport.centre": False,  # cosine distance of the representations
    "embedding.encoder": "meta-llama/Meta-Llama-3-8B-Instruct",  # its example
    "embedding.view": "whole",  # last token of the full (x, y) text
    "selection.method": "top_k",
    "selection.keep_count": 4000,
    "finetuning.num_epochs": 2.0,  # App. A1
    "finetuning.target_modules": ("q_proj", "v_proj"),
    "finetuning.rank": 16,
    "finetuning.lora_alpha": 16,
    "finetuning.weighted": True,  # Eq. 7
    "evaluation.judge": "openai",
    "evaluation.judge_model": "deepseek-ai/DeepSeek-V3",
}
STATED_DRAW = {
    "num_custom": 5000,
    "contamination": 0.1,
    "num_safe": 50,
    "num_harmful": 5000,
    "num_harmful_prompts": 1000,
    "num_task_prompts": 1000,
}
BACKBONES = {
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-8B",
    "meta-llama/Meta-Llama-3-8B-Instruct",
    "google/gemma-3-4b-it",
}
SMALL = {
    "num_custom": 20, "num_safe": 5, "num_harmful": 30, "num_harmful_prompts": 10,
    "num_task_prompts": 10,
}  # fmt: skip


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def value(settings: Settings, key: str):
    block, _, field = key.partition(".")
    return getattr(getattr(settings, block), field)


def test_there_are_four_backbones_times_three_custom_sets():
    presets = [load_preset(name) for name in preset_names()]
    assert {preset.settings["base_model.name"].value for preset in presets} == BACKBONES
    assert {preset.custom_set for preset in presets} == {"slimorca", "agnews", "metamathqa"}
    assert len(presets) == 12


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_holds_what_the_paper_states(name):
    preset = load_preset(name)
    settings, origin = resolve_preset(preset)
    assert {key: value(settings, key) for key in STATED} == STATED
    assert {origin[key] for key in STATED} == {PAPER}
    draw = make_draw(preset, {})._asdict()
    assert {key: draw[key] for key in STATED_DRAW} == STATED_DRAW
    assert {preset.draw[key].origin for key in STATED_DRAW} == {PAPER}
    assert draw["references"] == (preset.custom_set == "agnews")  # accuracy of AG News


@pytest.mark.parametrize("name", preset_names())
def test_what_the_paper_does_not_state_is_ours_and_says_why(name):
    preset = load_preset(name)
    _, origin = resolve_preset(preset)
    not_stated = ("finetuning.learning_rate", "finetuning.batch_size", "finetuning.max_length",
                  "finetuning.schedule", "transport.epsilon_in_spreads", "transport.optimizer",
                  "comparison.seeds")  # fmt: skip
    assert {origin[key] for key in not_stated} == {OURS}
    ours = [m for m in preset.settings.values() if m.origin == OURS]
    assert all(marked.note for marked in ours)
    assert set(origin.values()) == {PAPER, OURS, "default"}


def test_every_source_is_a_layout_and_files_at_a_commit(no_network):
    for name in preset_names():
        for source in load_preset(name).sources.values():
            layout_of(source.layout)
            assert source.licence
            assert place_of(source.files).pinned is not None


def test_later_layers_override_a_preset_and_are_named():
    settings, origin = resolve_preset(
        load_preset("qwen3-8b-agnews"),
        before=[("file", {"transport": {"lambda_push": 0.1}, "report": {"max_rows": 9}})],
        after=[("command line", {"finetuning": {"rank": 8}})],
    )
    assert (settings.transport.lambda_push, origin["transport.lambda_push"]) == (0.5, PAPER)
    assert (settings.report.max_rows, origin["report.max_rows"]) == (9, "file")
    assert (settings.finetuning.rank, origin["finetuning.rank"]) == (8, "command line")


def broken(folder: Path, file: str, change) -> Path:
    copy = folder / "presets"
    shutil.copytree(FOLDER, copy)
    content = yaml.safe_load((copy / file).read_text())
    change(content)
    (copy / file).write_text(yaml.safe_dump(content))
    return copy


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "settings.yaml",
            lambda c: c["transport"].update(lamda_push={"paper": 0.5, "note": ""}),
            "did you mean 'lambda_push'",
        ),
        (
            "settings.yaml",
            lambda c: c["transport"].update(lambda_push={"paper": 5, "note": ""}),
            "paper: transport.lambda_push = 5",
        ),
        (
            "settings.yaml",
            lambda c: c["transport"].update(lambda_push=0.5),
            "expected {paper: VALUE, note: TEXT}",
        ),
        ("settings.yaml", lambda c: c.update(transport=3), "expected fields below it"),
        (
            "text_sets.yaml",
            lambda c: c["custom"]["agnews"].update(rows={"paper": "agnews", "note": ""}),
            "did you mean 'ag_news'",
        ),
        (
            "backbones.yaml",
            lambda c: c["qwen3-8b"].update(nmae={"paper": "x", "note": ""}),
            "did you mean 'name'",
        ),
    ],
)
def test_a_mistake_in_a_preset_is_a_settings_error(tmp_path, file, change, message):
    folder = broken(tmp_path, file, change)
    with pytest.raises(InputError, match=message):
        resolve_preset(load_preset("qwen3-8b-agnews", folder))


def test_a_wheel_carries_every_file_of_the_presets():
    pyproject = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text())
    patterns = pyproject["tool"]["setuptools"]["package-data"]["sot_pipeline"]
    carried = {path for pattern in patterns for path in FOLDER.parents[1].glob(pattern)}
    assert set(FOLDER.iterdir()) <= carried


def test_a_mistyped_preset_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'qwen3-8b-agnews'"):
        load_preset("qwen3-8b-agnew")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_costum": 3}, "did you mean 'num_custom'"),
        ({"num_custom": -1}, "from 0 on"),
        ({"num_custom": 2.5}, "expected a int"),
        ({"contamination": "much"}, "expected a float"),
        ({"references": 1}, "expected a bool"),
    ],
)
def test_a_wrong_draw_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        make_draw(load_preset("qwen3-8b-agnews"), change)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_planned_without_network_and_weights(name, no_network, tmp_path):
    preset = load_preset(name)
    settings, origin = resolve_preset(preset)
    draw = make_draw(preset, {})
    workload = preset_workload(Home(tmp_path), preset, draw, settings)
    assert workload == assumed_workload(preset, draw)
    for name_of_device in DEVICES:
        plan = make_plan(preset, settings, origin, draw, workload, find_device(name_of_device))
        assets = [stage["asset"] for stage in plan["stages"]]
        assert assets[-3:] == ["adapter", "evaluation", "comparison"]
        assert plan["total"]["seconds"][0] > 0
        assert len(plan["settings"]) == len(origin)
        assert {part["part"] for part in plan["paper_cost"]} == set(PAPER_COST)


def test_a_plan_says_what_does_not_fit():
    preset = load_preset("llama-3.1-8b-slimorca")
    settings, origin = resolve_preset(preset)
    draw = make_draw(preset, {})
    plan = make_plan(
        preset, settings, origin, draw, assumed_workload(preset, draw), find_device("l4")
    )
    fits = {stage["asset"]: stage["fits"] for stage in plan["stages"]}
    assert not fits["adapter"]  # rows of 2,048 tokens without gradient checkpointing
    assert fits["custom_embeddings"]


@pytest.mark.parametrize("custom_set", ["slimorca", "agnews", "metamathqa"])
def test_a_prepared_preset_is_a_task_that_a_run_can_read(tmp_path, custom_set):
    home = Home(tmp_path / "data")
    preset = load_preset(f"qwen3-8b-{custom_set}")
    source = write_published(tmp_path / "published")
    prepare_preset(home, preset, SMALL, {"finetuning": {"rank": 4}}, source)
    task = home.read_task(preset.name)
    settings, origin = home.settings(preset.name)
    assert settings.finetuning.rank == 4
    assert settings.selection.keep_count == 4000
    assert settings.base_model.name == "Qwen/Qwen3-8B"
    assert origin["transport.lambda_push"] == str(home.task_path(preset.name))
    assert task.custom_clean is not None
    draw = make_draw(preset, SMALL)
    workload = preset_workload(home, preset, draw, settings)
    assert workload.custom.num_rows == 20
    assert workload.eval_task.num_rows == 10
    assert workload.custom.basis.startswith("counted")
    assert (workload.eval_task.answer > 0) == (custom_set == "agnews")


def test_a_plan_of_a_prepared_task_takes_what_its_file_changed(tmp_path):
    home, source = Home(tmp_path / "data"), write_published(tmp_path / "published")
    preset = load_preset("qwen3-8b-agnews")
    assert prepared_draw(home, preset) is None
    prepare_preset(home, preset, SMALL, {"finetuning": {"rank": 4}}, source)
    layer = task_layer(home, preset)
    assert layer[1] == {"finetuning": {"rank": 4}}
    settings, origin = resolve_preset(preset, after=[layer])
    assert origin["finetuning.rank"] == str(home.task_path(preset.name))
    assert origin["finetuning.lora_alpha"] == PAPER
    draw = prepared_draw(home, preset)
    assert draw == make_draw(preset, SMALL)
    other = make_draw(preset, {**SMALL, "num_custom": 30})
    assert preset_workload(home, preset, other, settings).custom.num_rows == 30


def test_what_is_stated_as_done_in_code_is_done_there():
    import torch

    from sot_pipeline.finetuning.loop import BETAS
    from sot_pipeline.language_model import resolve_dtype

    assert resolve_dtype("auto", torch.device("cuda")) is torch.bfloat16
    assert FIXED["optimizer.betas"][0].startswith(", ".join(map(str, BETAS)))


def test_presets_that_share_a_custom_set_share_its_files(tmp_path):
    home, source = Home(tmp_path / "data"), write_published(tmp_path / "published")
    first, second = (
        prepare_preset(home, load_preset(name), SMALL, {}, source)
        for name in ("qwen3-8b-agnews", "gemma-3-4b-agnews")
    )
    assert first.folder == second.folder
    assert first.manifest == second.manifest


def test_another_draw_leaves_the_files_of_the_first_alone(tmp_path):
    home, source = Home(tmp_path / "data"), write_published(tmp_path / "published")
    first = prepare_preset(home, load_preset("qwen3-8b-agnews"), SMALL, {}, source)
    before = {path: path.read_bytes() for path in first.folder.iterdir()}
    fewer = {**SMALL, "num_custom": SMALL["num_custom"] - 5}
    second = prepare_preset(home, load_preset("gemma-3-4b-agnews"), fewer, {}, source)
    assert second.folder != first.folder
    assert {path: path.read_bytes() for path in first.folder.iterdir()} == before


def test_the_truth_about_the_custom_rows_is_named_in_the_task(tmp_path):
    home, source = Home(tmp_path / "data"), write_published(tmp_path / "published")
    prepare_preset(home, load_preset("qwen3-8b-agnews"), SMALL, {}, source)
    task = home.read_task("qwen3-8b-agnews")
    assert task.labels is not None
    labels = read_labels(task.labels)
    custom = read_text_files({"custom.jsonl": Path(task.custom[0])}).rows
    assert labels["source_id"].to_list() == custom["source_id"].to_list()
    assert labels["label"].value_counts().sort("count").rows() == [("harmful", 2), ("benign", 18)]


def test_the_papers_baselines_are_compared():
    settings, origin = resolve_preset(load_preset("qwen3-8b-agnews"))
    assert set(settings.comparison.methods) == {
        "sft", "sft+safe_instr", "alpagasus", "dsir", "seal", "saft", "sot", "sot_cut",
    }  # fmt: skip
    assert origin["comparison.methods"] == PAPER


def test_a_data_set_that_is_not_there_is_refused_with_the_command_that_fetches_it(tmp_path):
    home, source = Home(tmp_path / "data"), write_published(tmp_path / "published")
    shutil.rmtree(source / "PKU-Alignment")
    with pytest.raises(InputError, match="hf download --repo-type dataset PKU-Alignment/BeaverT"):
        prepare_preset(home, load_preset("qwen3-8b-agnews"), SMALL, {}, source)
    assert not home.task_path("qwen3-8b-agnews").exists()


def test_a_wrong_setting_stops_before_anything_is_written(tmp_path):
    home = Home(tmp_path / "data")
    with pytest.raises(InputError, match="did you mean 'rank'"):
        prepare_preset(
            home, load_preset("qwen3-8b-agnews"), SMALL, {"finetuning": {"rnak": 4}}, tmp_path
        )
    assert not home.root.exists()
