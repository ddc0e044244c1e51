"""The weighted loss: its three laws, for any lengths, weights and split into parts."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sot_pipeline.finetuning.batching import (
    micro_batches,
    num_steps_for,
    packed,
    padded,
    plan_steps,
)
from sot_pipeline.finetuning.rows import Rows
from sot_pipeline.finetuning.weighted_nll import scaled, token_weights, weighted_nll

lengths = st.lists(st.integers(1, 9), min_size=1, max_size=6)
normalisations = st.sampled_from(["sample_mean", "token_mean", "sample_sum"])
VOCABULARY = 5


def logits_of(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets of the answer tokens of samples, one sample behind the other."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    logits = torch.randn(count, VOCABULARY, generator=generator, dtype=torch.float64)
    return logits, torch.randint(VOCABULARY, (count,), generator=generator)


def loss_of(lengths, weights, normalisation, logits, targets, step=None):
    """Loss of a step (all samples if None) of a set with these weights."""
    counts, weights = np.array(lengths), np.asarray(weights, float)
    step = np.arange(len(counts)) if step is None else np.asarray(step)
    w = scaled(weights, counts, normalisation)
    each = token_weights(w[step], counts[step], len(step), int(counts[step].sum()), normalisation)
    starts = np.concatenate([[0], np.cumsum(counts)])
    chosen = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in step])
    per_token = torch.as_tensor(np.repeat(each, counts[step]), dtype=torch.float32)
    return weighted_nll(logits[chosen], targets[chosen], per_token).item()


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        ("sample_mean", (1 * (1 + 3) / 2 + 3 * 5) / (1 + 3)),
        ("token_mean", (1 * (1 + 3) + 3 * 5) / (1 * 2 + 3 * 1)),
        ("sample_sum", (1 * (1 + 3) + 3 * 5) / (1 + 3)),
    ],
)
def test_a_known_answer(normalisation, expected):
    """Token losses 1 and 3 in a sample of weight 1, 5 in a sample of weight 3."""
    nll = torch.tensor([1.0, 3.0, 5.0])
    # of two classes the wrong one's logit is chosen so that the loss is log(1 + e^x)
    logits = torch.stack([torch.zeros(3), torch.log(torch.expm1(nll))], dim=1)
    loss = loss_of([2, 1], [1.0, 3.0], normalisation, logits, torch.zeros(3, dtype=torch.long))
    assert loss == pytest.approx(expected, rel=1e-5)


@given(lengths)
def test_ones_are_plain_fine_tuning_with_per_sample_means(lengths):
    logits, targets = logits_of(lengths)
    nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    means = torch.stack([part.mean() for part in nll.split(lengths)])
    loss = loss_of(lengths, np.ones(len(lengths)), "sample_mean", logits, targets)
    assert loss == pytest.approx(means.mean().item(), rel=1e-5)


@given(lengths)
def test_ones_are_plain_fine_tuning_with_token_means(lengths):
    logits, targets = logits_of(lengths)
    loss = loss_of(lengths, np.ones(len(lengths)), "token_mean", logits, targets)
    plain = torch.nn.functional.cross_entropy(logits, targets).item()
    assert loss == pytest.approx(plain, rel=1e-5)


@given(lengths, st.floats(0.1, 10), normalisations)
def test_weight_zero_removes_a_sample(lengths, weight, normalisation):
    logits, targets = logits_of([*lengths, 4])
    weights = [weight] * len(lengths)
    loss = loss_of([*lengths, 4], [*weights, 0.0], normalisation, logits, targets)
    without = loss_of(lengths, weights, normalisation, logits[:-4], targets[:-4])
    assert loss == pytest.approx(without, rel=1e-5)


@given(lengths, st.integers(0, 5), normalisations)
def test_weights_two_to_one_duplicate_a_sample(lengths, which, normalisation):
    which %= len(lengths)
    logits, targets = logits_of(lengths)
    weights = np.ones(len(lengths))
    weights[which] = 2
    begin = sum(lengths[:which])
    twice = slice(begin, begin + lengths[which])
    duplicated = loss_of(
        [*lengths, lengths[which]],
        np.ones(len(lengths) + 1),
        normalisation,
        torch.cat([logits, logits[twice]]),
        torch.cat([targets, targets[twice]]),
    )
    loss = loss_of(lengths, weights, normalisation, logits, targets)
    assert loss == pytest.approx(duplicated, rel=1e-5)


@given(lengths, st.data())
def test_steps_of_one_row_add_up_to_the_whole(lengths, data):
    """The mean over an epoch is the loss of the set, whatever the weights."""
    weights = data.draw(st.lists(st.floats(0.1, 5), min_size=len(lengths), max_size=len(lengths)))
    logits, targets = logits_of(lengths)
    for normalisation in ("sample_mean", "sample_sum"):
        whole = loss_of(lengths, weights, normalisation, logits, targets)
        steps = [
            loss_of(lengths, weights, normalisation, logits, targets, step=[i])
            for i in range(len(lengths))
        ]
        assert np.mean(steps) == pytest.approx(whole, rel=1e-5)


@given(lengths)
def test_label_smoothing_is_that_of_cross_entropy(lengths):
    logits, targets = logits_of(lengths)
    even = torch.full((len(targets),), 1 / len(targets))
    smooth = weighted_nll(logits, targets, even, label_smoothing=0.1).item()
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1).item()
    assert smooth == pytest.approx(expected, rel=1e-5)


def rows_of(lengths: list[int], num_prompt: int = 2) -> Rows:
    """Rows of distinct tokens: so many to read, then the answer."""
    starts = np.concatenate([[0], np.cumsum(np.array(lengths) + num_prompt)])
    ids = [torch.arange(a, b) for a, b in itertools.pairwise(starts.tolist())]
    answers = [torch.arange(len(i)) >= num_prompt for i in ids]
    return Rows(
        ids, answers, np.ones(len(lengths)), np.array(lengths) + num_prompt, np.array(lengths), 0
    )


@given(lengths, st.sampled_from([padded, packed]))
def test_a_batch_predicts_each_answer_token_once_and_for_its_own_row(lengths, lay):
    rows = rows_of(lengths)
    batch = lay(rows, np.arange(len(lengths)))
    values = torch.arange(1.0, len(lengths) + 1)
    spread = batch.spread(values)
    for i, ids in enumerate(rows.token_ids):
        learnt = batch.targets[spread == values[i]]
        assert sorted(learnt.tolist()) == ids[rows.is_answer[i]].tolist()
    predicting = batch.token_ids[:, batch.kept][batch.row_of >= 0]
    assert torch.equal(predicting + 1, batch.targets[batch.row_of >= 0])


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


@given(st.lists(st.integers(2, 500), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 4))
def test_packed_parts_hold_about_equally_many_tokens(lengths, size, num_processes):
    rows, lengths = np.arange(len(lengths)), np.array(lengths)
    parts = micro_batches(rows, lengths, size, num_processes=num_processes, packing=True)
    assert sorted(np.concatenate(parts)) == rows.tolist()
    assert all(len(part) for part in parts)
    assert len(parts) == max(-(-len(rows) // size), min(num_processes, len(rows)))
    # Graham's bound: no part is further above the mean than the longest row
    tokens = [lengths[part].sum() for part in parts]
    assert max(tokens) <= lengths.sum() / len(parts) + lengths.max()


def test_steps_follow_from_epochs():
    assert num_steps_for(100, 32, 2) == 7
    assert num_steps_for(64, 32, 1.0) == 2
    assert num_steps_for(3, 64, 0.5) == 1
