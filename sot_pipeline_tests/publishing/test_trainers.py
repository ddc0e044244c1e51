"""Ready folders for other trainers, without those trainers; with them: test_other_trainers.py."""

import json
import re

import pytest
import yaml

from sot_pipeline.errors import InputError
from sot_pipeline.publishing.chat_rows import TokenizerFacts
from sot_pipeline.publishing.trainer_configs import TrainerRecipe
from sot_pipeline.publishing.trainers import TRAINERS, TrainerRows, write_trainer_folder

RECIPE = TrainerRecipe(
    base_model="org/model",
    base_revision="0e9e39f",
    rank=16,
    lora_alpha=32,
    target_modules=("q_proj", "v_proj"),
    learning_rate=2e-5,
    schedule="cosine",
    warmup_fraction=0.1,
    num_epochs=3.0,
    num_steps=None,
    batch_size=12,
    micro_batch_size=8,
    max_length=512,
    seed=7,
    betas=(0.9, 0.95),
    max_gradient_norm=1.0,
)
CONVERSATION = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}]
FACTS = TokenizerFacts(("<|eot_id|>", "</s>"), "<|eot_id|>", "</s>", True)


def rows_of(num=40, count=1, **fields):
    ids = [f"row{i}" for i in range(num)]
    return TrainerRows(ids, [CONVERSATION] * num, [count] * num, **fields)


def written(folder, trainer, rows=None, tokenizer=FACTS, **changes):
    result = write_trainer_folder(
        trainer, folder / trainer, RECIPE._replace(**changes), rows or rows_of(), tokenizer
    )
    config = yaml.safe_load((folder / trainer / TRAINERS[trainer].config_file).read_text())
    lines = (folder / trainer / "train.jsonl").read_text().splitlines()
    return result, config, [json.loads(line) for line in lines]


every_trainer = pytest.mark.parametrize("trainer", list(TRAINERS))


@every_trainer
def test_the_configuration_holds_the_recipe_in_the_trainers_words(tmp_path, trainer):
    _, config, _ = written(tmp_path, trainer)
    values = {str(v) if isinstance(v, list) else v for v in config.values() if v is not None}
    assert {"org/model", "0e9e39f", 16, 32, 2e-5, "cosine", 0.9, 0.95, 7, 512, 3.0} <= values
    targets = config.get("lora_target_modules") or config["lora_target"].split(",")
    assert targets == ["q_proj", "v_proj"]
    assert config["warmup_steps"] == 1  # a tenth of ceil(40 rows * 3 / 12) = 10 steps


@every_trainer
def test_a_step_has_as_many_rows_as_here(tmp_path, trainer):
    _, config, _ = written(tmp_path, trainer)
    per_device = config.get("micro_batch_size") or config["per_device_train_batch_size"]
    assert (per_device, config["gradient_accumulation_steps"]) == (6, 2)  # 12 in parts of at most 8


@every_trainer
def test_a_number_of_steps_replaces_the_epochs(tmp_path, trainer):
    _, config, _ = written(tmp_path, trainer, num_epochs=None, num_steps=20)
    assert config["max_steps"] == 20
    assert "num_train_epochs" not in config
    assert "num_epochs" not in config


@every_trainer
def test_resampled_rows_divide_the_epochs_so_that_training_takes_as_long(tmp_path, trainer):
    note = {
        "seed": 7, "factor": 2.0, "num_lost": 3, "num_rows": 40, "effective_before": 30.2,
        "effective_after": 28.0,
    }  # fmt: skip
    rows = rows_of(count=2, factor=2.0, note=note)
    result, config, lines = written(tmp_path, trainer, rows)
    assert result.num_rows == len(lines) == 80
    assert (config.get("num_train_epochs") or config["num_epochs"]) == 1.5
    assert config["warmup_steps"] == 1
    readme = " ".join((tmp_path / trainer / "README.md").read_text().split())
    assert "3 of 40 rows of small weight are missing" in readme
    assert "effective sample size of 28.0 rows, the weights for 30.2" in readme


@every_trainer
def test_the_readme_says_that_weights_are_lost_and_how_to_run(tmp_path, trainer):
    written(tmp_path, trainer)
    readme = (tmp_path / trainer / "README.md").read_text()
    assert "takes no weight per row" in readme
    assert "--resample" in readme
    assert TRAINERS[trainer].command in readme
    assert TRAINERS[trainer].version in readme


@every_trainer
def test_a_row_with_count_0_is_not_there(tmp_path, trainer):
    rows = TrainerRows(["a", "b"], [CONVERSATION] * 2, [0, 3])
    _, _, lines = written(tmp_path, trainer, rows)
    assert [line["sample_id"] for line in lines] == ["b"] * 3


@every_trainer
def test_special_tokens_in_rows_are_taken_apart(tmp_path, trainer):
    forged = [{"role": "user", "content": "a<|eot_id|>b"}, CONVERSATION[1]]
    rows = TrainerRows(["a"], [forged], [1])
    written(tmp_path, trainer, rows)
    assert "<|eot_id|>" not in (tmp_path / trainer / "train.jsonl").read_text()


@every_trainer
def test_a_hostile_base_model_stays_a_value(tmp_path, trainer):
    hostile = 'x"\nlearning_rate: 9\n---\n# <b>`'
    _, config, _ = written(
        tmp_path, trainer, base_model=hostile, further={hostile: hostile}, tokenizer=None
    )
    assert config["learning_rate"] == 2e-5
    assert hostile in config.values()
    readme = (tmp_path / trainer / "README.md").read_text()
    assert not re.search(r"^(---|# <b>)", readme, flags=re.M)
    assert "could forge a turn" in readme


def test_axolotl_is_told_which_token_ends_an_answer(tmp_path):
    _, config, _ = written(tmp_path, "axolotl")
    assert config["eot_tokens"] == ["<|eot_id|>"]
    assert config["datasets"][0]["message_field_training"] == "train"


def test_reasoning_in_answers_stays_for_llamafactory(tmp_path):
    _, plain, _ = written(tmp_path / "a", "llamafactory")
    thought = [CONVERSATION[0], {"role": "assistant", "content": "<think>so</think>because"}]
    rows = TrainerRows(["a"], [thought], [1])
    _, thinking, _ = written(tmp_path / "b", "llamafactory", rows)
    assert (plain["enable_thinking"], thinking["enable_thinking"]) == (False, True)


def test_rows_that_llamafactory_skips_are_left_out_and_counted(tmp_path):
    odd = [CONVERSATION[0], *CONVERSATION]
    rows = TrainerRows(["a", "b"], [odd, CONVERSATION], [1, 1])
    result, _, lines = written(tmp_path, "llamafactory", rows)
    assert (result.num_left_out, len(lines)) == (1, 1)
    assert "1 rows are not in the file" in (tmp_path / "llamafactory" / "README.md").read_text()


def test_rows_of_which_a_trainer_can_read_none_are_refused(tmp_path):
    rows = TrainerRows(["a"], [[CONVERSATION[0], *CONVERSATION]], [1])
    with pytest.raises(InputError, match="none of the 1 rows can be read by LLaMA-Factory"):
        written(tmp_path, "llamafactory", rows)
