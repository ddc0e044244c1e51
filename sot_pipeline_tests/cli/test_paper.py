"""`sot paper`: list, prepare, plan."""

import json

import pytest

from sot_pipeline_tests.cli.test_commands import sot, sot_json
from sot_pipeline_tests.published import write_published

SMALL = [
    item
    for change in ("num_custom=20", "num_safe=5", "num_harmful=30", "num_harmful_prompts=10",
                   "num_task_prompts=10")
    for item in ("--set", f"draw.{change}")
]  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    write_published(folder / "published")
    arguments = ["paper", "prepare", "qwen3-8b-agnews", "--from", "published", *SMALL]
    return folder, sot_json(*arguments, cwd=folder)


def test_the_list_names_every_preset(tmp_path):
    listed = sot_json("paper", "list", cwd=tmp_path)["presets"]
    assert len(listed) == 12
    assert "llama-3.1-8b-slimorca" in sot("paper", "list", cwd=tmp_path).stdout


def test_preparing_writes_sets_manifest_and_task(prepared):
    folder, document = prepared
    assert document["counts"]["contaminated"] == 2
    assert document["files"]["custom.jsonl"]["rows"] == 20
    (manifest,) = folder.glob("data/paper/agnews-seed0-*/manifest.json")
    assert json.loads(manifest.read_text())["draw"]["num_custom"] == 20
    assert (folder / "data/tasks/qwen3-8b-agnews.yaml").exists()


def test_a_plan_counts_the_prepared_rows(prepared):
    folder, _ = prepared
    plan = sot_json("paper", "plan", "qwen3-8b-agnews", cwd=folder)
    assert plan["texts"]["custom"]["num_rows"] == 20
    assert plan["device"]["name"] == "h200"


def test_a_plan_for_people_names_settings_sources_cost_and_the_paper(tmp_path):
    result = sot("paper", "plan", "gemma-3-4b-metamathqa", "--device", "a100-80gb",
                 "--set", "finetuning.num_steps=10", cwd=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stderr
    for expected in ("finetuning.num_steps", "command line", "CC-BY-NC-4.0", "peak memory",
                     "11 min 08 s", "neither its hardware"):  # fmt: skip
        assert expected in result.stdout
    assert "requests" in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "qwen3-8b-agnew"], "did you mean 'qwen3-8b-agnews'"),
        (["plan", "qwen3-8b-agnews", "--device", "h20"], "did you mean 'h200'"),
        (["plan", "qwen3-8b-agnews", "--set", "finetuning.rnak=4"], "did you mean 'rank'"),
        (["plan", "qwen3-8b-agnews", "--set", "rank=4"], "expected block.field=value"),
        (["plan", "qwen3-8b-agnews", "--set", "draw.sed=4"], "did you mean 'seed'"),
        (["prepare", "qwen3-8b-agnews", "--from", "nowhere"], "hf download"),
    ],
)
def test_mistakes_end_with_one_sentence(tmp_path, arguments, message):
    result = sot("paper", *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
