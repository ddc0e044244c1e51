"""What training survives: little memory, damaged checkpoints."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM

from sot_pipeline.finetuning import loop as loop_module
from sot_pipeline.finetuning.loop import BETAS
from sot_pipeline.finetuning.recipe import Recipe
from sot_pipeline.language_model import load_language_model, render_with_answer_mask
from sot_pipeline_tests.finetuning.test_train import Killed, assert_same, conversations, tune
from sot_pipeline_tests.tiny_models import save_tiny_model

ROWS = conversations(7)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("micro", [2, 1000])
def test_ones_are_plain_fine_tuning_after_several_steps(base, tmp_path, micro):
    """Against a loop of its own: transformers' loss of each row alone, without any padding."""
    ours, _ = tune(base, tmp_path, micro_batch_size=micro, num_steps=4, warmup_fraction=0.0)

    tokenizer = load_language_model(base).tokenizer
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(model, lora)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-2, betas=BETAS, weight_decay=0.0)
    for _ in range(4):
        losses = []
        for row in ROWS:
            ids, is_answer, _ = render_with_answer_mask(tokenizer, row)
            labels = [t if learn else -100 for t, learn in zip(ids, is_answer, strict=True)]
            out = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
            losses.append(out.loss)
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(learnt, Recipe.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(tmp_path / "theirs")
    assert_same(ours, load_file(tmp_path / "theirs" / "adapter_model.safetensors"))


@pytest.mark.parametrize("fitting", [1, 2])
def test_where_memory_runs_out_smaller_parts_give_the_same(base, tmp_path, monkeypatch, fitting):
    weights = np.linspace(0.5, 2, 7)
    roomy, _ = tune(base, tmp_path, weights=weights, batch_size=5)
    sizes = []
    batch_loss = loop_module.batch_loss

    def cramped(model, batch, *arguments, **options):
        sizes.append(len(batch.token_ids))
        if len(batch.token_ids) > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return batch_loss(model, batch, *arguments, **options)

    monkeypatch.setattr(loop_module, "batch_loss", cramped)
    small, _ = tune(base, tmp_path, weights=weights, batch_size=5, micro_batch_size=1000)
    assert_same(roomy, small)
    assert sum(size > fitting for size in sizes) <= 3  # once it has learnt, it does not try again


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("none left"), RuntimeError("a bug")])
def test_what_smaller_parts_cannot_mend_is_raised(base, tmp_path, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(loop_module, "batch_loss", fail)
    with pytest.raises(type(error), match=str(error)):
        tune(base, tmp_path)


def killed_at(base, folder, step, **options):
    def kill(report):
        if report.step == step:
            raise Killed

    with pytest.raises(Killed):
        tune(base, folder, on_step=kill, **options)


@pytest.mark.parametrize("damage", ["parameters.safetensors", "moments.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over(base, tmp_path, damage):
    checkpoints = tmp_path / "checkpoints"
    options = {"num_steps": 7, "batch_size": 3, "checkpoint_every": 2}
    whole, _ = tune(base, tmp_path, **options)
    options["checkpoint_dir"] = checkpoints
    killed_at(base, tmp_path, 3, **options)
    (older,) = checkpoints.iterdir()
    shutil.copytree(older, tmp_path / "saved")
    killed_at(base, tmp_path, 5, **options)
    (newer,) = checkpoints.iterdir()
    shutil.copytree(tmp_path / "saved", checkpoints / older.name)  # as if killed before dropping it
    (newer / damage).write_bytes(b"\0" * 10)
    resumed, result = tune(base, tmp_path, **options)
    assert result.num_resumed == 2
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("file", ["parameters.safetensors", "moments.safetensors", "state.json"])
def test_a_crash_while_writing_leaves_the_older_checkpoint(base, tmp_path, monkeypatch, file):
    from sot_pipeline.finetuning import checkpoint as checkpoint_module

    options = {"num_steps": 7, "batch_size": 3, "checkpoint_dir": tmp_path / "checkpoints",
               "checkpoint_every": 2}  # fmt: skip
    killed_at(base, tmp_path, 3, **options)
    to_disk = checkpoint_module.to_disk

    def crash(path):
        if path.name == file:
            raise Killed
        to_disk(path)

    monkeypatch.setattr(checkpoint_module, "to_disk", crash)
    with pytest.raises(Killed):
        tune(base, tmp_path, **options)
    assert len(list((tmp_path / "checkpoints").glob("building-*"))) == 1
    monkeypatch.undo()
    _, result = tune(base, tmp_path, **options)
    assert result.num_resumed == 2
    assert not list((tmp_path / "checkpoints").glob("building-*"))


def test_checkpoints_hold_nothing_that_runs_code(base, tmp_path):
    tune(base, tmp_path, num_steps=3, checkpoint_dir=tmp_path / "checkpoints", checkpoint_every=2)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert {path.suffix for path in checkpoint.iterdir()} == {".safetensors", ".json"}


def test_a_checkpoint_is_due_after_some_seconds_and_changes_nothing(base, tmp_path, monkeypatch):
    from sot_pipeline.finetuning import loop

    clock = iter(range(0, 1000, 20))
    whole, _ = tune(base, tmp_path, num_steps=9, batch_size=3)
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    written = []
    save = loop.save_checkpoint
    monkeypatch.setattr(
        loop, "save_checkpoint", lambda *a, **o: written.append(o["step"]) or save(*a, **o)
    )
    options = {"num_steps": 9, "batch_size": 3, "checkpoint_dir": tmp_path / "checkpoints"}
    timed, _ = tune(base, tmp_path, checkpoint_seconds=60, **options)
    # the clock is read once a step, and once more when a checkpoint is written
    assert written == [3, 6]
    assert all(torch.equal(whole[name], timed[name]) for name in whole)
    resumed, result = tune(base, tmp_path, checkpoint_seconds=1e9, **options)
    assert result.num_resumed == 6
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_base_model_with_dropout_trains_the_same_every_time(tmp_path, checkpointing):
    """Dropout would depend on how a step is cut and where training was taken up again."""
    from sot_pipeline_tests.tiny_models import LLAMA3, make_tokenizer

    tokenizer = make_tokenizer(LLAMA3)
    torch.manual_seed(0)
    config = OPTConfig(vocab_size=len(tokenizer), hidden_size=32, ffn_dim=64, num_hidden_layers=2,
                       num_attention_heads=4, max_position_embeddings=512, word_embed_proj_dim=32,
                       dropout=0.3, attention_dropout=0.3, layerdrop=0.3)  # fmt: skip
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    tokenizer.save_pretrained(tmp_path / "opt")
    options = {"num_steps": 5, "batch_size": 4, "gradient_checkpointing": checkpointing}
    whole, _ = tune(tmp_path / "opt", tmp_path, **options)
    parts, _ = tune(tmp_path / "opt", tmp_path, micro_batch_size=2, **options)
    assert_same(whole, parts)
    options |= {"checkpoint_dir": tmp_path / "c", "checkpoint_every": 2}
    killed_at(tmp_path / "opt", tmp_path, 3, **options)
    resumed, _ = tune(tmp_path / "opt", tmp_path, **options)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
