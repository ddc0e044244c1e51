"""Training on some of the answer tokens: laws, alignment, the way through a job file."""

import json

import numpy as np
import pytest
import torch

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.batching import packed, padded
from sot_pipeline.finetuning.job import read_rows, train, write_rows
from sot_pipeline.finetuning.lora import add_lora
from sot_pipeline.finetuning.loss import mean_loss
from sot_pipeline.finetuning.recipe import Recipe
from sot_pipeline.finetuning.rows import identity, tokenize
from sot_pipeline.finetuning.train import finetune_lora
from sot_pipeline.language_model import load_language_model, render_with_answer_mask
from sot_pipeline_tests.finetuning.jobs import adapter_of, make_job
from sot_pipeline_tests.finetuning.test_train import assert_close, assert_same, conversations, tune
from sot_pipeline_tests.tiny_models import save_tiny_model

TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "what is two plus three"},
    {"role": "assistant", "content": "five"},
    {"role": "user", "content": "and again"},
    {"role": "assistant", "content": "five is the sum"},
]
ROWS = [*conversations(6), TURNS]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def lm(base):
    return load_language_model(base, device="cpu")


@pytest.fixture(scope="module")
def counts(lm):
    return tokenize(lm.tokenizer, ROWS, np.ones(7), 2048).num_answer_tokens


def all_true(counts):
    return [np.ones(count, dtype=bool) for count in counts]


def some(counts, seed=0):
    """At least one and not all of each row's."""
    rng = np.random.default_rng(seed)
    masks = [rng.random(count) < 0.6 for count in counts]
    for mask in masks:
        mask[0], mask[-1] = True, False
    return masks


def test_all_true_is_no_argument_bit_by_bit(base, tmp_path, counts):
    plain, first = tune(base, tmp_path, rows=ROWS, batch_size=3)
    kept, second = tune(base, tmp_path, rows=ROWS, batch_size=3, kept_tokens=all_true(counts))
    assert first.loss_trace == second.loss_trace
    assert all(torch.equal(plain[name], kept[name]) for name in plain)


@pytest.mark.parametrize("lay", [padded, packed])
def test_the_gradient_is_that_of_the_loss_masked_by_hand(lm, base, counts, lay, monkeypatch):
    from sot_pipeline.finetuning import loss

    masks = some(counts)
    model = add_lora(
        load_language_model(base, device="cpu").model,
        rank=4, lora_alpha=8, target_modules=("q_proj", "v_proj"), seed=0,
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    learnt = [p for p in model.parameters() if p.requires_grad]
    monkeypatch.setattr(loss, "padded", lay)
    rows = tokenize(lm.tokenizer, ROWS, np.ones(7), 2048, masks)
    ours = torch.autograd.grad(mean_loss(model, rows, np.arange(7)), learnt)
    by_hand = []
    for row, mask in zip(ROWS, masks, strict=True):
        ids, is_answer, _ = render_with_answer_mask(lm.tokenizer, row)
        labels = torch.full((len(ids),), -100)
        positions = torch.tensor(is_answer).nonzero()[:, 0][torch.tensor(mask)]
        labels[positions] = torch.tensor(ids)[positions]
        by_hand.append(model(input_ids=torch.tensor([ids]), labels=labels[None]).loss)
    theirs = torch.autograd.grad(torch.stack(by_hand).mean(), learnt)
    assert_close(torch.cat([g.flatten() for g in ours]), torch.cat([g.flatten() for g in theirs]))


def test_a_row_that_keeps_nothing_is_as_if_absent(base, tmp_path, counts):
    masks = some(counts)
    masks[2] = np.zeros(counts[2], dtype=bool)
    left = [i for i in range(7) if i != 2]
    with_it, _ = tune(base, tmp_path, rows=ROWS, kept_tokens=masks)
    without, _ = tune(
        base, tmp_path, rows=[ROWS[i] for i in left], kept_tokens=[masks[i] for i in left]
    )
    assert_same(with_it, without)


def test_a_row_without_an_answer_may_keep_nothing(base, tmp_path, counts):
    rows, masks = [ROWS[0][:1], *ROWS], [np.zeros(0, dtype=bool), *some(counts)]
    with_it, _ = tune(base, tmp_path, rows=rows, kept_tokens=masks)
    without, _ = tune(base, tmp_path, rows=ROWS, kept_tokens=masks[1:])
    assert_same(with_it, without)


def test_weights_and_kept_tokens_go_together(base, tmp_path, counts):
    masks, weights = some(counts), np.array([1, 0, 2, 1, 1, 0, 1.0])
    left = np.flatnonzero(weights)
    with_zeros, _ = tune(base, tmp_path, rows=ROWS, weights=weights, kept_tokens=masks)
    without, _ = tune(
        base, tmp_path, rows=[ROWS[i] for i in left], weights=weights[left],
        kept_tokens=[masks[i] for i in left],
    )  # fmt: skip
    assert_same(with_zeros, without)


def test_other_kept_tokens_are_another_training(lm, base, tmp_path, counts):
    plain = tokenize(lm.tokenizer, ROWS, np.ones(7), 2048)
    kept = tokenize(lm.tokenizer, ROWS, np.ones(7), 2048, some(counts))
    assert identity(plain) != identity(kept)
    options = {"rows": ROWS, "checkpoint_dir": tmp_path / "checkpoints", "checkpoint_every": 2}
    tune(base, tmp_path, kept_tokens=some(counts), **options)
    _, same = tune(base, tmp_path, kept_tokens=some(counts), **options)
    _, other = tune(base, tmp_path, kept_tokens=some(counts, seed=1), **options)
    assert (same.num_resumed, other.num_resumed) == (2, 0)


def test_a_job_file_carries_them(base, tmp_path, counts):
    masks = some(counts)
    job = make_job(base, tmp_path, ROWS)
    write_rows(job.rows, ROWS, np.ones(7), masks)
    read = read_rows(job.rows)
    assert read.kept_tokens is not None
    for mask, found in zip(masks, read.kept_tokens, strict=True):
        np.testing.assert_array_equal(found, mask)
        assert found.dtype == bool
    train(job)
    from_file = adapter_of(job)
    recipe = Recipe(**job.recipe)
    finetune_lora(base, ROWS, np.ones(7), job.output_dir, recipe, kept_tokens=masks)
    assert all(torch.equal(from_file[name], value) for name, value in adapter_of(job).items())


def test_a_job_without_them_learns_all(tmp_path):
    write_rows(tmp_path / "rows.parquet", ROWS, np.ones(7))
    assert read_rows(tmp_path / "rows.parquet").kept_tokens is None


def test_json_lines_carry_them_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": ROWS[0], "kept_tokens": [True, False]}))
    [mask] = read_rows(path).kept_tokens or []
    assert mask.tolist() == [True, False]
    path.write_text(json.dumps({"messages": ROWS[0], "kept_tokens": ["no"]}))
    with pytest.raises(InputError, match="something else than true and false"):
        read_rows(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks[:-1], "7 conversations and kept_tokens for 6 of them"),
        (lambda masks: [masks[0][:-1], *masks[1:]], r"row 0: kept_tokens speaks of \d+ answer"),
        (lambda masks: [masks[0].astype(int), *masks[1:]], "of row 0 are int64"),
        (lambda masks: [masks[0][None], *masks[1:]], "of row 0 are bool of shape"),
        (lambda masks: [mask & False for mask in masks], "and a token that is kept"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(base, tmp_path, counts, change, message):
    with pytest.raises(InputError, match=message):
        tune(base, tmp_path, rows=ROWS, kept_tokens=change(all_true(counts)))
