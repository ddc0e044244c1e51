"""The exported folders in the hands of the trainers themselves; each test skips without its trainer.

TRL trains for real. axolotl and LLaMA-Factory need accelerators or older libraries to train; their
own code reads the configuration and turns the rows into tokens and labels.
"""

import dataclasses
import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from sot_pipeline.publishing.chat_rows import (
    alternating_rows,
    marked_row,
    prompt_completion_rows,
    tokenizer_facts,
)
from sot_pipeline.publishing.trainer_configs import TrainerRecipe
from sot_pipeline.publishing.trainers import TRAINERS, TrainerRows, write_trainer_folder
from sot_pipeline.rendering import render_with_answer_mask
from sot_pipeline_tests.tiny_models import TEMPLATES, make_tokenizer, save_tiny_model

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("default")]

CONVERSATION = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "what is two"},
    {"role": "assistant", "content": "five", "train": False},
    {"role": "user", "content": "why"},
    {"role": "assistant", "content": "because six"},
    {"role": "user", "content": "and"},
    {"role": "assistant", "content": "so"},
]
TEMPLATE_NAMES = ["llama3", "qwen3"]


@pytest.fixture
def folder(tmp_path):
    """Writes the folder of a trainer for a tiny model."""
    model = save_tiny_model(tmp_path / "model")

    def write(trainer):
        recipe = TrainerRecipe(
            base_model=str(model), base_revision="main", rank=4, lora_alpha=8,
            target_modules=("q_proj", "v_proj"), learning_rate=0.01, schedule="cosine",
            warmup_fraction=0.1, num_epochs=2.0, num_steps=None, batch_size=4, micro_batch_size=2,
            max_length=256, seed=3, betas=(0.9, 0.95), max_gradient_norm=1.0,
        )  # fmt: skip
        rows = TrainerRows([f"row{i}" for i in range(8)], [CONVERSATION] * 8, [1] * 8)
        facts = tokenizer_facts(make_tokenizer(TEMPLATES["llama3"]))
        write_trainer_folder(trainer, tmp_path / trainer, recipe, rows, facts)
        return tmp_path / trainer

    return write


def tokenizer_of(template):
    tokenizer = make_tokenizer(TEMPLATES[template])
    tokenizer.pad_token = "<pad>"
    if template == "qwen3":
        tokenizer.eos_token = "<|im_end|>"  # as Qwen's own
    return tokenizer


def only_last_learnt(messages):
    last = len(messages) - 1
    return [
        {**turn, "train": i == last} if turn["role"] == "assistant" else turn
        for i, turn in enumerate(messages)
    ]


def learnt_tokens(token_ids, labels):
    return [token for token, label in zip(token_ids, labels, strict=True) if label != -100]


def our_tokens(tokenizer, conversation):
    rendered = render_with_answer_mask(tokenizer, conversation)
    learnt = [t for t, m in zip(rendered.token_ids, rendered.is_answer, strict=True) if m]
    return rendered.token_ids, learnt


def test_trl_trains_on_the_folder_and_peft_loads_the_result(folder):
    pytest.importorskip("trl", exc_type=ImportError)
    assert version("trl") == TRAINERS["trl"].version
    where = folder("trl")
    command = "from trl.cli import main; main()"
    arguments = ["sft", "--config", "trl.yaml", "--dtype", "float32", "--bf16", "false"]
    result = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        cwd=where,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(where.parent / "cache")},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    # 8 rows of two answers each, 4 a step, 2 epochs
    assert result.stdout.count("'grad_norm'") == 8, result.stdout
    base = AutoModelForCausalLM.from_pretrained(where.parent / "model")
    adapter = PeftModel.from_pretrained(base, where / "output")
    config = adapter.peft_config["default"]
    assert (config.r, config.lora_alpha, config.target_modules) == (4, 8, {"q_proj", "v_proj"})
    moved = [p.abs().max() for n, p in adapter.named_parameters() if "lora_B" in n]
    assert min(moved) > 0


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_trl_learns_the_tokens_that_are_learnt_here(template, tmp_path):
    pytest.importorskip("trl", exc_type=ImportError)
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = tokenizer_of(template)
    rows = list(prompt_completion_rows(CONVERSATION))
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "model")),
        args=SFTConfig(
            output_dir=str(tmp_path), completion_only_loss=True, max_length=256, bf16=False,
            truncation_mode="keep_end", report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    for row, given in zip(rows, trainer.train_dataset, strict=True):
        ids, learnt = our_tokens(tokenizer, only_last_learnt(row["prompt"] + row["completion"]))
        assert given["input_ids"] == ids
        theirs = learnt_tokens(given["input_ids"], given["labels"])
        assert theirs[: len(learnt)] == learnt
        # at most the template's white space behind the end of the turn is learnt too
        assert tokenizer.decode(theirs[len(learnt) :]).strip() == ""


def test_axolotl_knows_every_key_and_accepts_the_values(folder):
    config_module = pytest.importorskip("axolotl.utils.schemas.config", exc_type=ImportError)
    assert version("axolotl") == TRAINERS["axolotl"].version
    from axolotl.utils.schemas.datasets import SFTDataset

    where = folder("axolotl")
    config = yaml.safe_load((where / "axolotl.yaml").read_text())
    schema = config_module.AxolotlInputConfig
    known = {name for n, f in schema.model_fields.items() for name in (n, f.alias)}
    assert set(config) <= known  # the schema itself lets unknown keys pass
    assert set(config["datasets"][0]) <= set(SFTDataset.model_fields)
    read = schema(**config)
    assert (read.lora_r, read.lora_alpha, read.adam_beta2) == (4, 8, 0.95)
    assert read.revision_of_model == "main"
    assert read.datasets[0].message_field_training == "train"


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_axolotl_learns_the_tokens_that_are_learnt_here(template):
    strategies = pytest.importorskip(
        "axolotl.prompt_strategies.chat_template", exc_type=ImportError
    )
    tokenizer = tokenizer_of(template)
    facts = tokenizer_facts(tokenizer)
    other_end = facts.end_of_turn not in (None, facts.end_of_sequence)
    prompter = strategies.ChatTemplatePrompter(
        tokenizer,
        chat_template=tokenizer.chat_template,
        message_property_mappings={"role": "role", "content": "content"},
        message_field_training="train",
    )
    strategy = strategies.ChatTemplateStrategy(
        prompter, tokenizer=tokenizer, train_on_inputs=False, sequence_len=256,
        roles_to_train=["assistant"], train_on_eos="turn",
        eot_tokens=[facts.end_of_turn] if other_end else None,
    )  # fmt: skip
    read = strategy.tokenize_prompt(marked_row(CONVERSATION))
    ids, learnt = our_tokens(tokenizer, CONVERSATION)
    assert read["input_ids"] == ids
    assert learnt_tokens(ids, read["labels"]) == learnt


def test_llamafactory_knows_every_key_and_accepts_the_values(folder, monkeypatch):
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    parser = pytest.importorskip("llamafactory.hparams.parser", exc_type=ImportError)
    assert version("llamafactory") == TRAINERS["llamafactory"].version
    from transformers import HfArgumentParser

    where = folder("llamafactory")
    monkeypatch.chdir(where)
    config = yaml.safe_load((where / "llamafactory.yaml").read_text())
    config["bf16"] = False  # needs a GPU
    # raises on a key that no dataclass has
    read = HfArgumentParser(parser._TRAIN_ARGS).parse_dict(config)
    values = {k: v for part in read for k, v in dataclasses.asdict(part).items()}
    assert (values["lora_rank"], values["lora_alpha"], values["adam_beta2"]) == (4, 8, 0.95)
    assert values["model_revision"] == "main"
    assert values["lora_target"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_llamafactory_learns_the_tokens_that_are_learnt_here(template, folder, monkeypatch):
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    templates = pytest.importorskip("llamafactory.data.template", exc_type=ImportError)
    from llamafactory.data.converter import SharegptDatasetConverter
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
    from llamafactory.hparams import DataArguments

    where = folder("llamafactory")
    arguments = DataArguments(
        dataset="purified", dataset_dir=str(where), cutoff_len=256, mask_history=True,
        enable_thinking=False,
    )  # fmt: skip
    tokenizer = tokenizer_of(template)
    read_from_examples = templates.get_template_and_fix_tokenizer(tokenizer, arguments)
    (attributes,) = get_dataset_list(arguments.dataset, str(where))
    convert = SharegptDatasetConverter(attributes, arguments)
    processor = SupervisedDatasetProcessor(read_from_examples, tokenizer, None, arguments)
    for row in alternating_rows(CONVERSATION):
        turns = convert(json.loads(json.dumps(row)))
        ids, labels = processor._encode_data_example(
            turns["_prompt"], turns["_response"], turns["_system"], turns["_tools"], [], [], []
        )
        ours, learnt = our_tokens(tokenizer, only_last_learnt(row["messages"]))
        theirs = learnt_tokens(ids, labels)
        assert theirs[: len(learnt)] == learnt
        assert tokenizer.decode(theirs[len(learnt) :]).strip() == ""
        if tokenizer_facts(tokenizer).repeats_start:  # what the README warns of
            assert ids.count(tokenizer.bos_token_id) > 1
            ids = [i for i in ids if i != tokenizer.bos_token_id]
            ours = [i for i in ours if i != tokenizer.bos_token_id]
        assert ids == ours
