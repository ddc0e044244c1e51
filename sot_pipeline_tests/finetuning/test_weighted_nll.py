"""The weighted loss: its three laws, for any lengths, weights and split into parts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sot_pipeline.finetuning.batching import micro_batches, num_steps_for, plan_steps
from sot_pipeline.finetuning.weighted_nll import token_nll, weighted_nll


def example(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Token losses and answer masks of rows with so many answer tokens."""
    generator = torch.Generator().manual_seed(seed)
    nll = torch.rand(len(lengths), max(lengths) + 2, generator=generator, dtype=torch.float64)
    position = torch.arange(nll.shape[1])[None]
    ends = torch.tensor(lengths)[:, None]
    return nll, (position >= 1) & (position < 1 + ends)


lengths = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def test_a_known_answer():
    nll = torch.tensor([[9.0, 1.0, 3.0], [9.0, 5.0, 9.0]])
    answers = torch.tensor([[False, True, True], [False, True, False]])
    weights = torch.tensor([1.0, 3.0])
    assert weighted_nll(nll, answers, weights).item() == pytest.approx((1 * 2 + 3 * 5) / 4)


@given(lengths)
def test_ones_are_plain_fine_tuning_with_per_sample_means(lengths):
    nll, answers = example(lengths)
    means = [row[mask].mean() for row, mask in zip(nll, answers, strict=True)]
    loss = weighted_nll(nll, answers, torch.ones(len(lengths), dtype=torch.float64))
    assert loss.item() == pytest.approx(torch.stack(means).mean().item())


@given(lengths, st.floats(0.1, 10))
def test_weight_zero_removes_a_sample(lengths, weight):
    nll, answers = example([*lengths, 4])
    weights = torch.tensor([weight] * len(lengths) + [0.0], dtype=torch.float64)
    without = weighted_nll(nll[:-1], answers[:-1], weights[:-1])
    assert weighted_nll(nll, answers, weights).item() == pytest.approx(without.item())


@given(lengths, st.integers(0, 5))
def test_weights_two_to_one_duplicate_a_sample(lengths, which):
    which %= len(lengths)
    nll, answers = example(lengths)
    weights = torch.ones(len(lengths), dtype=torch.float64)
    weights[which] = 2
    rows = [*range(len(lengths)), which]
    twice = weighted_nll(nll[rows], answers[rows], torch.ones(len(rows), dtype=torch.float64))
    assert weighted_nll(nll, answers, weights).item() == pytest.approx(twice.item())


@given(lengths, st.data())
def test_parts_add_up_to_the_whole(lengths, data):
    weights = data.draw(st.lists(st.floats(0.1, 5), min_size=len(lengths), max_size=len(lengths)))
    cut = data.draw(st.integers(0, len(lengths)))
    nll, answers = example(lengths)
    w = torch.tensor(weights, dtype=torch.float64)
    parts = [
        weighted_nll(nll[part], answers[part], w[part], total_weight=sum(weights)).item()
        for part in (slice(0, cut), slice(cut, None))
    ]
    assert sum(parts) == pytest.approx(weighted_nll(nll, answers, w).item())


def test_token_losses_are_aligned_with_their_tokens():
    logits = torch.tensor([[[0.0, 2.0], [1.0, 0.0], [5.0, 5.0]]])
    ids = torch.tensor([[0, 1, 0]])
    expected = [0.0, -torch.log_softmax(logits[0, 0], 0)[1], -torch.log_softmax(logits[0, 1], 0)[0]]
    torch.testing.assert_close(token_nll(logits, ids)[0], torch.tensor(expected))


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 12), st.integers(0, 3))
@settings(max_examples=50)
def test_each_epoch_of_a_plan_holds_every_row_once(num_rows, batch_size, num_steps, seed):
    steps = plan_steps(num_rows, batch_size, num_steps, seed)
    assert len(steps) == num_steps
    rows = np.concatenate(steps)
    whole = len(rows) // num_rows * num_rows
    for epoch in rows[:whole].reshape(-1, num_rows):
        assert sorted(epoch) == list(range(num_rows))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4))
def test_micro_batches_split_a_step_by_length(num_rows, size, num_processes):
    lengths = np.random.default_rng(0).integers(1, 50, num_rows)
    parts = micro_batches(np.arange(num_rows), lengths, size, num_processes=num_processes)
    assert sorted(np.concatenate(parts)) == list(range(num_rows))
    assert max(map(len, parts)) <= size
    assert len(parts) >= min(num_processes, num_rows)
    longest = [lengths[part].max() for part in parts]
    assert longest == sorted(longest)


def test_steps_follow_from_epochs():
    assert num_steps_for(100, 32, 2) == 7
    assert num_steps_for(64, 32, 1.0) == 2
    assert num_steps_for(3, 64, 0.5) == 1
