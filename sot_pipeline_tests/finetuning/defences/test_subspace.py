"""Directions of a safety gradient, and what projecting a step on them does and leaves alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.finetuning.defences.subspace import (
    components,
    leading_subspace,
    without_conflicts,
    without_conflicts_in_product,
    without_subspace,
)

seeds = st.integers(0, 1000)
sizes = st.integers(1, 7)
ranks = st.integers(1, 4)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def space_of(seed: int, outputs: int, inputs: int, rank: int):
    return leading_subspace(normal(seed, outputs, inputs), rank)


def test_the_directions_of_a_diagonal_matrix_are_its_axes():
    u, s, v = leading_subspace(torch.diag(torch.tensor([1.0, 5.0, 3.0])), 2)
    assert s.tolist() == pytest.approx([5.0, 3.0])
    assert (u.abs() @ torch.ones(2)).tolist() == pytest.approx([0, 1, 1])
    torch.testing.assert_close((u * s) @ v.T, torch.diag(torch.tensor([0.0, 5.0, 3.0])))


@given(seeds, sizes, sizes)
def test_all_directions_give_the_gradient_back(seed, outputs, inputs):
    gradient = normal(seed, outputs, inputs).float()
    u, s, v = leading_subspace(gradient, 99)
    torch.testing.assert_close((u * s) @ v.T, gradient, atol=1e-5, rtol=1e-5)


def test_a_large_matrix_has_the_same_leading_directions_as_by_full_decomposition():
    u, v = normal(0, 700, 12).float(), normal(1, 600, 12).float()
    scales = 2.0 ** -torch.arange(12.0)
    gradient = (u * scales) @ v.T + 1e-3 * normal(2, 700, 600).float()
    u, s, v = leading_subspace(gradient, 6)
    full_u, full_s, full_v = torch.linalg.svd(gradient, full_matrices=False)
    torch.testing.assert_close(s, full_s[:6], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((u * s) @ v.T, (full_u[:, :6] * full_s[:6]) @ full_v[:6],
                               rtol=1e-2, atol=1e-2)  # fmt: skip
    again = leading_subspace(gradient, 6)
    assert all(torch.equal(x, y) for x, y in zip((u, s, v), again, strict=True))


def test_directions_that_are_only_rounding_constrain_nothing():
    gradient = torch.outer(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, -1.0]))
    space = leading_subspace(gradient, 2)
    assert (space.s > 0).tolist() == [True, False]
    assert torch.equal(components(normal(0, 3, 2).float(), space)[1:], torch.zeros(1))
    nothing = leading_subspace(torch.zeros(3, 2), 2)
    task = normal(1, 3, 2).float()
    assert torch.equal(without_conflicts(task, nothing)[0], task)


@given(seeds, sizes, sizes, ranks)
def test_what_conflicts_goes_and_the_rest_stays(seed, outputs, inputs, rank):
    space = space_of(seed, outputs, inputs, rank)
    task = normal(seed + 1, outputs, inputs)
    before = components(task, space)
    after, count = without_conflicts(task, space)
    torch.testing.assert_close(components(after, space), before.clamp(min=0))
    assert count == int((before < 0).sum())
    # what was taken away lies in the conflicting directions alone
    removed = task - after
    assert float((removed**2).sum()) == pytest.approx(float((before.clamp(max=0) ** 2).sum()))
    again, count = without_conflicts(after, space)
    torch.testing.assert_close(again, after)


@given(seeds, sizes, sizes, ranks)
def test_two_sided_removes_all_or_nothing_of_the_subspace(seed, outputs, inputs, rank):
    space = space_of(seed, outputs, inputs, rank)
    task = normal(seed + 1, outputs, inputs)
    safety = (space.u * space.s) @ space.v.T
    after, count = without_subspace(task, space)
    if (safety * task).sum() >= 0:
        assert torch.equal(after, task)
        assert count == 0
    else:
        assert torch.allclose(space.u.T @ after @ space.v, torch.zeros(()).double(), atol=1e-9)


def movement(grad_a, grad_b, a, b, scaling):
    """Of scaling * B A, to first order."""
    return scaling * (grad_b @ a + b @ grad_a)


@given(seeds, sizes, sizes, ranks, st.integers(1, 3))
def test_the_product_does_not_move_against_safety(seed, outputs, inputs, rank, lora_rank):
    space = space_of(seed, outputs, inputs, rank)
    a, grad_a = normal(seed + 1, lora_rank, inputs), normal(seed + 2, lora_rank, inputs)
    b, grad_b = normal(seed + 3, outputs, lora_rank), normal(seed + 4, outputs, lora_rank)
    before = components(movement(grad_a, grad_b, a, b, 0.5), space)
    new_a, new_b, _ = without_conflicts_in_product(grad_a, grad_b, a, b, 0.5, space)
    after = components(movement(new_a, new_b, a, b, 0.5), space)
    torch.testing.assert_close(after, before.clamp(min=0), atol=1e-8, rtol=1e-8)


@given(seeds, ranks)
def test_the_projected_pair_is_the_nearest_without_a_conflict(seed, rank):
    """Against least squares on the written-out linear map of the conflicting directions."""
    space = space_of(seed, 5, 6, rank)
    a, grad_a = normal(seed + 1, 2, 6), normal(seed + 2, 2, 6)
    b, grad_b = normal(seed + 3, 5, 2), normal(seed + 4, 5, 2)

    def linear(flat):
        return components(movement(flat[:12].view(2, 6), flat[12:].view(5, 2), a, b, 0.7), space)

    flat = torch.cat([grad_a.flatten(), grad_b.flatten()])
    jacobian = torch.func.jacrev(linear)(flat)
    against = jacobian @ flat < 0
    rows = jacobian[against]
    expected = flat - torch.linalg.pinv(rows) @ (rows @ flat) if len(rows) else flat
    new_a, new_b, count = without_conflicts_in_product(grad_a, grad_b, a, b, 0.7, space)
    assert count == int(against.sum())
    torch.testing.assert_close(torch.cat([new_a.flatten(), new_b.flatten()]), expected)
