"""The training loop on a model of a few kilobytes: laws, resuming, output, errors."""

import dataclasses
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.batching import packed, padded
from sot_pipeline.finetuning.lora import add_lora
from sot_pipeline.finetuning.loss import batch_loss
from sot_pipeline.finetuning.recipe import Recipe
from sot_pipeline.finetuning.rows import tokenize
from sot_pipeline.finetuning.train import finetune_lora
from sot_pipeline.finetuning.weighted_nll import scaled, token_weights
from sot_pipeline.language_model import load_language_model, render_with_answer_mask
from sot_pipeline_tests.tiny_models import WORDS, save_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def conversations(count: int, seed: int = 0) -> list[list[dict[str, str]]]:
    rng = random.Random(seed)
    return [
        [
            {"role": "user", "content": " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))},
            {"role": "assistant", "content": " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))},
        ]
        for _ in range(count)
    ]


ROWS = conversations(7)
RECIPE = {field.name for field in dataclasses.fields(Recipe)}
_numbers = itertools.count()


def tune(base: Path, folder: Path, rows=ROWS, weights=None, **options):
    """Adapter tensors and result of a short training; by default every step sees every row."""
    recipe = {"rank": 4, "lora_alpha": 8, "learning_rate": 1e-2, "num_epochs": None,
              "num_steps": 4, "batch_size": 1000}  # fmt: skip
    recipe |= {name: options.pop(name) for name in RECIPE & options.keys()}
    out = folder / f"adapter{next(_numbers)}"
    weights = np.ones(len(rows)) if weights is None else np.asarray(weights)
    result = finetune_lora(base, rows, weights, out, Recipe(**recipe), **options)
    return load_file(out / "adapter_model.safetensors"), result


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    """Equal to 1e-4 in norm: where a single gradient is near zero, Adam magnifies its rounding."""
    assert left.keys() == right.keys()
    for name in left:
        assert (left[name] - right[name]).norm() <= 1e-4 * right[name].norm()


def test_the_first_loss_is_the_mean_of_transformers_own_losses(base, tmp_path):
    lm = load_language_model(base)
    losses = []
    for row in ROWS:
        ids, is_answer, _ = render_with_answer_mask(lm.tokenizer, row)
        labels = [token if learn else -100 for token, learn in zip(ids, is_answer, strict=True)]
        with torch.no_grad():
            out = lm.model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
        losses.append(out.loss.item())
    _, result = tune(base, tmp_path, num_steps=1)
    assert result.loss_trace[0] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("micro", [1, 3, 1000])
def test_weight_zero_is_removal_after_several_steps(base, tmp_path, micro):
    weights = np.ones(7)
    weights[[1, 4]] = 0
    kept = [row for row, weight in zip(ROWS, weights, strict=True) if weight]
    with_zeros, _ = tune(base, tmp_path, weights=weights, micro_batch_size=micro)
    without, _ = tune(base, tmp_path, rows=kept)
    assert_same(with_zeros, without)


@pytest.mark.parametrize("micro", [1, 3, 1000])
def test_two_to_one_is_duplication_after_several_steps(base, tmp_path, micro):
    weights = np.ones(7)
    weights[2] = 2
    weighted, _ = tune(base, tmp_path, weights=weights, micro_batch_size=micro)
    duplicated, _ = tune(base, tmp_path, rows=[*ROWS, ROWS[2]])
    assert_same(weighted, duplicated)


def test_weights_cost_no_operation(base, tmp_path):
    """What ones and weights compute is the same, number for number."""

    def operations(weights):
        with torch.profiler.profile() as profile:
            tune(base, tmp_path, weights=weights, batch_size=4, micro_batch_size=2, num_steps=2)
        return {e.key: e.count for e in profile.key_averages() if e.key.startswith("aten::")}

    assert operations(np.linspace(0.5, 2, 7)) == operations(np.ones(7))


def test_only_ratios_of_weights_count(base, tmp_path):
    weights = np.linspace(0.5, 2, 7)
    once, _ = tune(base, tmp_path, weights=weights)
    scaled, _ = tune(base, tmp_path, weights=100 * weights)
    assert_same(once, scaled)


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_accumulation_changes_memory_not_the_result(base, tmp_path, micro):
    weights = np.linspace(0.5, 2, 7)
    whole, _ = tune(base, tmp_path, weights=weights, batch_size=4, micro_batch_size=1000)
    parts, _ = tune(base, tmp_path, weights=weights, batch_size=4, micro_batch_size=micro)
    assert_same(whole, parts)


def gradients(base: Path):
    """`gradient(rows, weights, step)`: of the adapter, on the rows of a step of these rows."""
    lm = load_language_model(base)
    model = add_lora(lm.model, rank=4, lora_alpha=8, target_modules=("q_proj", "v_proj"), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at the start, which would leave the gradient of A zero
            torch.nn.init.normal_(parameter, std=0.1)

    def gradient(rows, weights, step=None, *, normalisation: Any = "sample_mean", lay=padded):
        data = tokenize(lm.tokenizer, rows, np.asarray(weights, float), 512)
        counts = data.num_answer_tokens
        weights = scaled(data.weights, counts, normalisation)
        step = np.arange(len(rows)) if step is None else step
        tokens = int(counts[step].sum())
        per_token = token_weights(weights[step], counts[step], len(step), tokens, normalisation)
        model.zero_grad()
        batch_loss(model, lay(data, step), per_token).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    return gradient


def assert_close(left: torch.Tensor, right: torch.Tensor) -> None:
    assert right.abs().max() > 1e-3
    torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lay", [padded, packed])
@pytest.mark.parametrize("normalisation", ["sample_mean", "token_mean", "sample_sum"])
def test_the_gradients_of_a_step_obey_the_laws(base, normalisation, lay):
    """To 1e-5 in the gradient itself, where Adam's normalisation cannot hide a factor."""
    plain = gradients(base)

    def gradient(rows, weights):
        return plain(rows, weights, normalisation=normalisation, lay=lay)

    ones, twice = np.ones(7), np.array([1, 1, 2, 1, 1, 1, 1])
    assert_close(gradient(ROWS, twice), gradient([*ROWS, ROWS[2]], np.ones(8)))
    zero = np.array([1, 1, 0, 1, 1, 1, 1])
    assert_close(gradient(ROWS, zero), gradient([*ROWS[:2], *ROWS[3:]], np.ones(6)))
    assert_close(gradient(ROWS, 3 * ones), gradient(ROWS, ones))


@pytest.mark.parametrize("normalisation", ["sample_mean", "sample_sum"])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_at_any_batch_size_an_epoch_of_weights_is_an_epoch_of_duplicates(base, size, normalisation):
    """A batch of one row, divided by its own weight, would not know it has one."""
    gradient = gradients(base)
    rows, weights = ROWS[:4], np.array([1.0, 3.0, 2.0, 2.0])
    duplicated = [rows[i] for i in (0, 1, 1, 1, 2, 2, 3, 3)]

    def epoch(rows, weights, size):
        steps = np.arange(len(rows)).reshape(-1, size)
        each = [gradient(rows, weights, step, normalisation=normalisation) for step in steps]
        return torch.stack(each).mean(dim=0)

    weighted = epoch(rows, weights, min(size, 4))
    assert_close(weighted, epoch(duplicated, np.ones(8), size))
    assert not torch.allclose(weighted, epoch(rows, np.ones(4), min(size, 4)), atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"packing": True}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("micro", [1, 3, 1000])
def test_how_rows_lie_in_memory_changes_nothing(base, tmp_path, micro, options):
    weights = np.linspace(0.5, 2, 7)
    whole, _ = tune(base, tmp_path, weights=weights, batch_size=4)
    other, _ = tune(
        base, tmp_path, weights=weights, batch_size=4, micro_batch_size=micro, **options
    )
    assert_same(whole, other)


def test_packed_rows_that_see_each_other_are_refused(base, tmp_path, monkeypatch):
    from sot_pipeline.finetuning import loss as loss_module

    def without_borders(rows, chosen):
        batch = packed(rows, chosen)
        return batch._replace(position_ids=torch.arange(batch.token_ids.shape[1])[None])

    monkeypatch.setattr(loss_module, "packed", without_borders)
    with pytest.raises(InputError, match=r"packed rows see each other.*packing to false"):
        tune(base, tmp_path, packing=True)


@pytest.mark.parametrize("normalisation", ["sample_mean", "token_mean", "sample_sum"])
def test_the_loss_of_a_first_step_is_the_loss_by_hand(base, tmp_path, normalisation):
    weights = np.linspace(0.5, 2, 7)
    lm = load_language_model(base)
    sums, counts = [], []
    for row in ROWS:
        ids, is_answer, _ = render_with_answer_mask(lm.tokenizer, row)
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([ids])).logits[0]
        nll = -torch.log_softmax(logits[:-1], dim=-1)[range(len(ids) - 1), ids[1:]].numpy()
        sums.append(nll[is_answer[1:]].sum())
        counts.append(sum(is_answer))
    sums, counts = np.array(sums), np.array(counts)
    expected = {
        "sample_mean": (weights * sums / counts).sum() / weights.sum(),
        "token_mean": (weights * sums).sum() / (weights * counts).sum(),
        "sample_sum": (weights * sums).sum() / weights.sum(),
    }[normalisation]
    _, result = tune(base, tmp_path, weights=weights, num_steps=1, normalisation=normalisation)
    assert result.loss_trace[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("device", "packing", "installed", "kernel"),
    [
        ("cuda", True, True, "flash_attention_2"),
        ("cuda", True, False, None),
        ("cuda", False, True, None),
        ("cpu", True, True, None),
    ],
)
def test_flash_attention_is_for_packed_rows_on_a_gpu(
    monkeypatch, device, packing, installed, kernel
):
    from sot_pipeline.finetuning import train

    monkeypatch.setattr(train, "is_flash_attn_2_available", lambda: installed)
    assert train.attention_kernel(torch.device(device), packing=packing) == kernel


def test_the_model_is_loaded_with_the_kernel_that_was_chosen(base, tmp_path, monkeypatch):
    from sot_pipeline.finetuning import train

    loaded = []
    load = train.load_language_model
    monkeypatch.setattr(train, "attention_kernel", lambda device, *, packing: "eager")
    monkeypatch.setattr(
        train, "load_language_model", lambda *a, **o: loaded.append(load(*a, **o)) or loaded[-1]
    )
    tune(base, tmp_path, num_steps=1)
    assert loaded[0].model.config._attn_implementation == "eager"


def test_label_smoothing_is_off_unless_asked_for(base, tmp_path):
    _, plain = tune(base, tmp_path, num_steps=1)
    _, zero = tune(base, tmp_path, num_steps=1, label_smoothing=0.0)
    _, smooth = tune(base, tmp_path, num_steps=1, label_smoothing=0.2)
    assert plain.loss_trace == zero.loss_trace != smooth.loss_trace


def test_each_step_tells_what_it_did(base, tmp_path):
    reports = []
    weights = np.linspace(0.5, 2, 7)
    _, result = tune(base, tmp_path, weights=weights, on_step=reports.append)
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert [dict(report.values) for report in reports] == result.trace
    told = result.trace[0]
    assert told["effective_rows"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert told["tokens"] * 4 == result.num_tokens
    assert told["gradient_norm"] > 0
    assert 0 <= told["defence_seconds"] < told["seconds"]


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(base, tmp_path):
    first, _ = tune(base, tmp_path, batch_size=3)
    again, _ = tune(base, tmp_path, batch_size=3)
    other, _ = tune(base, tmp_path, batch_size=3, seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_learns(base, tmp_path):
    _, result = tune(base, tmp_path, num_steps=30, schedule="cosine")
    assert result.loss_trace[-1] < 0.8 * result.loss_trace[0]
    assert len(result.loss_trace) == result.num_steps == 30
    assert result.trace[-1]["learning_rate"] < 0.1 * result.trace[3]["learning_rate"]


class Killed(Exception):
    pass


def test_training_goes_on_from_a_checkpoint_exactly(base, tmp_path):
    whole, result = tune(base, tmp_path, num_steps=9, batch_size=3)

    def kill(report):
        if report.step == 5:
            raise Killed

    options = {"num_steps": 9, "batch_size": 3, "checkpoint_dir": tmp_path / "checkpoints",
               "checkpoint_every": 2}  # fmt: skip
    with pytest.raises(Killed):
        tune(base, tmp_path, on_step=kill, **options)
    resumed, second = tune(base, tmp_path, **options)
    assert second.num_resumed == 4
    assert second.loss_trace == result.loss_trace
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_half_written_checkpoint_is_never_used(base, tmp_path):
    checkpoints = tmp_path / "checkpoints"

    def kill(report):
        if report.step == 5:
            raise Killed

    options = {"num_steps": 9, "batch_size": 3, "checkpoint_dir": checkpoints,
               "checkpoint_every": 2}  # fmt: skip
    with pytest.raises(Killed):
        tune(base, tmp_path, on_step=kill, **options)
    half = checkpoints / "building-0123"
    half.mkdir()
    (half / "parameters.safetensors").write_bytes(b"half")
    _, result = tune(base, tmp_path, **options)
    assert result.num_resumed == 4


def test_a_checkpoint_of_another_plan_is_not_used(base, tmp_path):
    options = {"num_steps": 4, "checkpoint_dir": tmp_path / "checkpoints", "checkpoint_every": 2}
    tune(base, tmp_path, **options)
    _, same = tune(base, tmp_path, **options)
    _, other = tune(base, tmp_path, **{**options, "learning_rate": 0.5})
    assert (same.num_resumed, other.num_resumed) == (2, 0)


def test_the_adapter_loads_with_peft_and_changes_the_answers(base, tmp_path):
    out = tmp_path / "adapter"
    recipe = Recipe(num_epochs=None, num_steps=3, learning_rate=0.05)
    finetune_lora(base, ROWS, np.ones(7), out, recipe)
    plain = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        before = plain(input_ids=ids).logits
        tuned = PeftModel.from_pretrained(plain, out).eval()
        after = tuned(input_ids=ids).logits
    assert (before - after).abs().max() > 1e-3
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert not config["modules_to_save"]
    assert "base_model" in (out / "README.md").read_text()
    assert load_language_model(base, adapter=out).tokenizer.chat_template


def test_long_rows_are_cut_and_counted(base, tmp_path):
    long_row = [
        {"role": "user", "content": " ".join(WORDS * 3)},
        {"role": "assistant", "content": "two three"},
    ]
    _, result = tune(base, tmp_path, rows=[*ROWS, long_row], max_length=64)
    assert result.num_truncated == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": np.ones(3)}, "one weight per conversation"),
        ({"weights": np.array([1, -1, 1, 1, 1, 1, 1.0])}, "row 1 is -1.0"),
        ({"weights": np.full(7, np.nan)}, "finite numbers"),
        ({"weights": np.zeros(7)}, "nothing to learn"),
        ({"target_modules": ("q_proj", "w_proj")}, "no linear module called w_proj.*q_proj"),
        ({"num_steps": None}, "either num_epochs or num_steps"),
        ({"schedule": "linear"}, "'constant' or 'cosine'"),
        ({"normalisation": "mean"}, "expected 'sample_mean', 'token_mean'"),
        ({"rows": [*ROWS[:6], ROWS[6][:1]]}, "row 6: .*no assistant turn"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_reason(base, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        tune(base, tmp_path, **options)
