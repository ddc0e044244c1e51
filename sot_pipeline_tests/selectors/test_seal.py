"""SEAL: known answers of the joint loop, and each trap of its public code."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sot_pipeline.errors import InputError
from sot_pipeline.language_model import load_language_model
from sot_pipeline.selectors import seal as module
from sot_pipeline.selectors.answer_losses import learnable_rows, row_losses
from sot_pipeline.selectors.seal import SealRecipe, seal
from sot_pipeline_tests.finetuning.test_train import conversations
from sot_pipeline_tests.selectors.test_answer_losses import NO_ANSWER, TURNS
from sot_pipeline_tests.tiny_models import save_tiny_model

CUSTOM, SAFE = [*conversations(8), TURNS], conversations(5, seed=1)
RECIPE = SealRecipe(
    rank=4, lora_alpha=8, learning_rate=1e-2, num_epochs=2, batch_size=4, max_length=128
)
STILL = replace(RECIPE, learning_rate=0.0, batch_size=100)  # one batch, a model that stays


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def losses(base):
    lm = load_language_model(base, device="cpu")
    rows = learnable_rows("custom", lm.tokenizer, CUSTOM, 128).rows
    return row_losses(lm.model, rows, np.arange(len(CUSTOM))).double().numpy()


def test_where_the_model_stays_mirror_descent_sums_up_the_losses(base, losses):
    result = seal(base, CUSTOM, SAFE, replace(STILL, weight_learning_rate=0.05))
    expected = 0.1 - 2 * 0.05 * (losses - losses.mean())
    np.testing.assert_allclose(result.log_weights, expected, rtol=1e-4)
    np.testing.assert_allclose(result.custom_losses, [losses, losses], rtol=1e-4)
    assert result.log_weights.dtype == np.float64


def test_where_the_model_stays_adam_is_torch_adam_on_the_weighted_loss(base, losses):
    result = seal(base, CUSTOM, SAFE, replace(STILL, optimizer="adam", num_epochs=5))
    omega = torch.full((len(CUSTOM),), 0.1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([omega], lr=5e-3, betas=(0.9, 0.95))
    for _ in range(5):
        optimizer.zero_grad()
        (len(CUSTOM) * torch.softmax(omega, 0) * torch.tensor(losses)).mean().backward()
        optimizer.step()
    np.testing.assert_allclose(result.log_weights, omega.detach().numpy(), atol=1e-6)


def test_a_row_that_is_filtered_does_not_move_the_weights_of_others(base):
    """Numbered after the filter and selected before it, all rows behind it would change places."""
    plain = seal(base, CUSTOM, SAFE, RECIPE)
    with_bad = seal(base, [*NO_ANSWER[:2], *CUSTOM, NO_ANSWER[2]], SAFE, RECIPE)
    np.testing.assert_array_equal(with_bad.log_weights[2:-1], plain.log_weights)
    np.testing.assert_array_equal(with_bad.custom_losses[:, 2:-1], plain.custom_losses)
    assert with_bad.num_without_answer == 3
    assert plain.num_without_answer == 0


def test_rows_without_an_answer_have_a_weight_and_rank_last(base):
    result = seal(base, [NO_ANSWER[1], *CUSTOM], SAFE, RECIPE)
    assert np.isfinite(result.log_weights).all()
    assert result.log_weights.argmin() == 0
    assert np.isnan(result.custom_losses[:, 0]).all()


def test_a_row_that_is_cut_keeps_its_place_and_is_counted(base):
    long_row = [{"role": "user", "content": "why " * 100}, TURNS[2]]
    result = seal(base, [CUSTOM[0], long_row, CUSTOM[1]], SAFE, RECIPE)
    assert result.log_weights.shape == (3,)
    assert result.num_truncated == 1


@pytest.mark.parametrize("num_safe", [1, 5])
def test_every_custom_row_is_seen_each_epoch_however_few_safe_rows_there_are(base, num_safe):
    """Two loaders side by side would end the epoch with the shorter one."""
    result = seal(base, CUSTOM, SAFE[:num_safe], RECIPE)
    assert result.custom_losses.shape == (2, 9)
    assert np.isfinite(result.custom_losses).all()
    assert len(result.safe_losses) == 2 * 3


def test_every_safe_row_is_seen_when_they_are_many(base, monkeypatch):
    seen = []
    backward = module._Learner._backward

    def watch(self, rows, chosen, per_row):
        if rows is self._safe:
            seen.extend(chosen.tolist())
        return backward(self, rows, chosen, per_row)

    monkeypatch.setattr(module._Learner, "_backward", watch)
    seal(base, CUSTOM, SAFE, RECIPE)
    assert set(seen) == set(range(5))
    assert max(map(seen.count, range(5))) - min(map(seen.count, range(5))) <= 2


def test_in_the_first_epoch_the_model_follows_the_safe_rows_alone(base):
    one = seal(base, CUSTOM, SAFE, RECIPE)
    other = seal(base, conversations(9, seed=3), SAFE, RECIPE)
    np.testing.assert_array_equal(one.safe_losses[:4], other.safe_losses[:4])
    assert one.safe_losses[5] != other.safe_losses[5]
    assert one.safe_losses[-1] < one.safe_losses[0]


def test_rows_unlike_the_safe_ones_lose_weight(base):
    def say(word):
        return [
            [{"role": "user", "content": f"{a} {b}"}, {"role": "assistant", "content": word}]
            for a in ("why", "how", "what")
            for b in ("one", "two", "three")
        ]

    custom = [*say("seven eight"), *say("hello there")]
    for optimizer in ("mirror", "adam"):
        recipe = replace(RECIPE, num_epochs=6, optimizer=optimizer)
        log_weights = seal(base, custom, say("hello there"), recipe).log_weights
        assert log_weights[:9].mean() < log_weights[9:].mean()
        if optimizer == "mirror":
            assert log_weights[:9].max() < log_weights[9:].min()


def test_mirror_descent_moves_the_rows_of_the_batch_only_and_adam_all(base):
    lm = load_language_model(base, device="cpu")
    rows = learnable_rows("custom", lm.tokenizer, CUSTOM, 128).rows
    for optimizer, moves in (("mirror", False), ("adam", True)):
        learner = module._Learner(
            torch.nn.Linear(1, 1), rows, rows, replace(RECIPE, optimizer=optimizer)
        )
        learner._update(np.array([0, 1]), np.array([1.0, 3.0]))
        before = learner.log_weights
        learner._update(np.array([2, 3]), np.array([1.0, 3.0]))
        assert (learner.log_weights[0] != before[0]) == moves
        # ... and adam moves both rows of a batch down, nearly alike whatever their losses
        down = 0.1 - before[:2]
        if optimizer == "adam":
            np.testing.assert_allclose(down, 5e-3, rtol=1e-3)
        else:
            np.testing.assert_allclose(down, [-0.1, 0.1])


def test_smaller_parts_change_memory_not_the_result(base):
    whole = seal(base, CUSTOM, SAFE, RECIPE)
    parts = seal(base, CUSTOM, SAFE, replace(RECIPE, micro_batch_size=1))
    np.testing.assert_allclose(parts.log_weights, whole.log_weights, atol=1e-3)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(base):
    first, again = seal(base, CUSTOM, SAFE, RECIPE), seal(base, CUSTOM, SAFE, RECIPE)
    np.testing.assert_array_equal(first.log_weights, again.log_weights)
    other = seal(base, CUSTOM, SAFE, replace(RECIPE, seed=1))
    assert not np.array_equal(first.log_weights, other.log_weights)


def test_progress_counts_steps(base):
    calls = []
    seal(base, CUSTOM, SAFE, RECIPE, progress=lambda *c: calls.append(c))
    assert calls == [(step, 6) for step in range(1, 7)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"safe": [TURNS[:2]]}, "none of the 1 safe rows"),
        ({"custom": NO_ANSWER}, "none of the 3 custom rows"),
        ({"recipe": replace(RECIPE, target_modules=("w",))}, "no linear module called w"),
    ],
)
def test_what_cannot_be_learnt_is_refused_with_a_reason(base, options, message):
    arguments = {"custom": CUSTOM, "safe": SAFE, "recipe": RECIPE} | options
    with pytest.raises(InputError, match=message):
        seal(base, **arguments)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"optimizer": "sgd"}, "expected 'mirror' or 'adam'"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"num_epochs": 0}, "num_epochs=0"),
    ],
)
def test_a_recipe_that_learns_nothing_is_refused(field, message):
    with pytest.raises(InputError, match=message):
        SealRecipe(**field)
