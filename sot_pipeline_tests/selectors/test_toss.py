"""TOSS: scores of tokens, of rows, and what is kept for training."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.train import finetune_lora
from sot_pipeline.language_model import load_language_model, render_with_answer_mask
from sot_pipeline.selectors import toss as module
from sot_pipeline.selectors.toss import TossRecipe, kept_tokens, toss
from sot_pipeline_tests.selectors.test_answer_losses import NO_ANSWER, TURNS
from sot_pipeline_tests.tiny_models import save_tiny_model

RECIPE = TossRecipe(
    rank=4, lora_alpha=8, learning_rate=1e-2, num_epochs=6, batch_size=4, max_length=96
)


def say(*words):
    return [
        [{"role": "user", "content": f"{a} {b}"}, {"role": "assistant", "content": word}]
        for a, b, word in itertools.product(("why", "how"), ("one", "two"), words)
    ]


SAFE, HARMFUL = say("hello there", "please be brief"), say("seven eight nine")
LONG = [{"role": "user", "content": "why " * 60}, TURNS[2]]
CUSTOM = [*say("hello there"), *say("seven eight nine"), TURNS, LONG]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def result(base):
    return toss(base, CUSTOM, SAFE, HARMFUL, RECIPE)


def test_a_token_scores_its_loss_under_the_safe_model_less_that_under_the_harmful_one(
    base, result, tmp_path, monkeypatch
):
    def keep(base, rows, weights, output_dir, *rest, **options):
        trained = finetune_lora(base, rows, weights, output_dir, *rest, **options)
        shutil.copytree(output_dir, tmp_path / output_dir.name)
        return trained

    monkeypatch.setattr(module, "finetune_lora", keep)
    toss(base, CUSTOM[:1], SAFE, HARMFUL, RECIPE)
    nll = {}
    for name in ("safe", "harmful"):
        lm = load_language_model(base, adapter=tmp_path / name, device="cpu")
        ids, is_answer, _ = render_with_answer_mask(lm.tokenizer, TURNS)
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([ids])).logits[0]
        each = -torch.log_softmax(logits[:-1], dim=-1)[range(len(ids) - 1), ids[1:]].numpy()
        nll[name] = each[is_answer[1:]]
    found = result.token_scores[8]
    np.testing.assert_allclose(found, nll["safe"] - nll["harmful"], atol=1e-4)
    assert found.dtype == np.float32
    assert len(found) == sum(is_answer)
    assert result.log_weights[8] == pytest.approx(-found.mean(), abs=1e-6)


def test_rows_like_the_harmful_set_weigh_less(result):
    assert result.log_weights[4:8].max() < result.log_weights[:4].min()
    assert result.log_weights.dtype == np.float64
    assert result.num_truncated == 1


def test_with_the_sets_exchanged_all_scores_turn_round(base, result):
    other = toss(base, CUSTOM, HARMFUL, SAFE, RECIPE)
    for one, two in zip(result.token_scores, other.token_scores, strict=True):
        np.testing.assert_array_equal(one, -two)


def test_batches_change_memory_not_the_scores(base, result):
    small = toss(base, CUSTOM, SAFE, HARMFUL, replace(RECIPE, micro_batch_size=2))
    np.testing.assert_allclose(small.log_weights, result.log_weights, atol=2e-2)


def test_it_is_deterministic(base, result):
    again = toss(base, CUSTOM, SAFE, HARMFUL, RECIPE)
    np.testing.assert_array_equal(again.log_weights, result.log_weights)


def test_rows_without_an_answer_have_no_tokens_rank_last_and_move_nothing(base, result):
    bad = toss(base, [NO_ANSWER[1], *CUSTOM, NO_ANSWER[0]], SAFE, HARMFUL, RECIPE)
    np.testing.assert_array_equal(bad.log_weights[1:-1], result.log_weights)
    assert [len(bad.token_scores[i]) for i in (0, -1)] == [0, 0]
    assert bad.log_weights[0] == bad.log_weights[-1] < result.log_weights.min()
    assert bad.num_without_answer == 2


def test_what_is_kept_can_be_trained_on(base, result, tmp_path):
    """The masks fit the answers as fine-tuning tokenises them, those of cut rows too."""

    def losses(kept):
        recipe = RECIPE.training(len(CUSTOM))
        ones, out = np.ones(len(CUSTOM)), tmp_path / "out"
        return finetune_lora(base, CUSTOM, ones, out, recipe, kept_tokens=kept).loss_trace

    assert losses(kept_tokens(result.token_scores, 0.0)) == losses(None)
    assert losses(kept_tokens(result.token_scores, 0.3)) != losses(None)


def test_progress_ends_at_its_total(base):
    calls = []
    toss(base, CUSTOM, SAFE, HARMFUL, RECIPE, progress=lambda *call: calls.append(call))
    done, totals = zip(*calls, strict=True)
    assert list(done) == sorted(done)
    assert len(set(totals)) == 1
    assert done[-1] == totals[0]
    assert done[0] < 0.2 * totals[0]


def test_a_reference_smaller_than_a_step_is_seen_as_often_as_asked(base, monkeypatch):
    steps = []

    def count(*arguments, **options):
        trained = finetune_lora(*arguments, **options)
        steps.append(trained.num_steps)
        return trained

    monkeypatch.setattr(module, "finetune_lora", count)
    toss(base, CUSTOM[:2], SAFE[:3], HARMFUL[:1], replace(RECIPE, batch_size=100))
    assert steps == [6, 6]


@pytest.mark.parametrize("bad", ["safe", "harmful"])
def test_a_reference_row_without_an_answer_is_named(base, bad):
    sets = {"safe": SAFE, "harmful": HARMFUL}
    sets[bad] = [*sets[bad], TURNS[:2]]
    with pytest.raises(
        InputError, match=f"model of the {bad} reference .*row {len(sets[bad]) - 1}"
    ):
        toss(base, CUSTOM, sets["safe"], sets["harmful"], RECIPE)


def test_the_worst_tokens_of_the_whole_set_are_dropped_wherever_they_are():
    scores = [np.array([0.0, 5.0, 1.0]), np.array([]), np.array([9.0, 8.0]), np.array([-1.0])]
    masks = kept_tokens(scores, 0.5)
    assert [mask.tolist() for mask in masks] == [[True, False, True], [], [False, False], [True]]


@given(
    st.lists(
        arrays(np.float32, st.integers(0, 5), elements=st.sampled_from([0, 1, 2])), max_size=6
    ),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]),
)
def test_exactly_the_share_is_dropped_and_no_kept_token_scores_more_than_a_dropped_one(
    scores, share
):
    masks = kept_tokens(scores, share)
    assert [len(mask) for mask in masks] == [len(row) for row in scores]
    flat = np.concatenate([np.zeros(0), *scores])
    kept = np.concatenate([np.zeros(0, dtype=bool), *masks])
    assert (~kept).sum() == int(share * len(flat) + 1e-9)
    if kept.any() and not kept.all():
        assert flat[kept].max() <= flat[~kept].min()


@pytest.mark.parametrize(
    ("scores", "share", "message"),
    [
        ([np.zeros(3)], 1.0, "drop_fraction=1.0"),
        ([np.zeros(3)], -0.1, "drop_fraction=-0.1"),
        ([np.array([np.nan])], 0.1, "not finite"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, share, message):
    with pytest.raises(InputError, match=message):
        kept_tokens(scores, share)
