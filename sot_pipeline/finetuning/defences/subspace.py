"""Directions of a gradient that carry safety, and how a step is kept from undoing them.

A safety gradient G = sum_i s_i u_i v_i^T (singular values s_1 >= s_2 >= ..., the first k kept):
a step along -u_i v_i^T makes the model safer, one along +u_i v_i^T less safe. A task gradient
conflicts with direction i where its component along u_i v_i^T is negative, for then descending it
ascends the safety loss.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

EXACT_SIZE = 512  # above it, singular vectors come from a randomised range finder
NOTHING = 1e-7  # of the largest singular value: rounding, not a direction


class Subspace(NamedTuple):
    """The leading singular triples; directions of rounding have `s` zero."""

    u: Float[Tensor, "outputs k"]
    s: Float[Tensor, " k"]
    v: Float[Tensor, "inputs k"]


def leading_subspace(gradient: Float[Tensor, "outputs inputs"], rank: int) -> Subspace:
    """The first `rank` singular triples, fewer where the matrix is smaller."""
    if gradient.dtype in (torch.float16, torch.bfloat16):
        gradient = gradient.float()
    rank = min(rank, *gradient.shape)
    if min(gradient.shape) <= EXACT_SIZE:
        u, s, vh = torch.linalg.svd(gradient, full_matrices=False)
        u, s, v = u[:, :rank], s[:rank], vh[:rank].T
    else:
        with torch.random.fork_rng(devices=[gradient.device] if gradient.is_cuda else []):
            torch.manual_seed(0)
            u, s, v = torch.svd_lowrank(gradient, q=min(rank + 8, *gradient.shape), niter=4)
        u, s, v = u[:, :rank], s[:rank], v[:, :rank]
    s = torch.where(s > NOTHING * s[:1].clamp(min=torch.finfo(s.dtype).tiny), s, 0.0)
    return Subspace(u.contiguous(), s, v.contiguous())


def components(gradient: Float[Tensor, "outputs inputs"], space: Subspace) -> Float[Tensor, " k"]:
    """u_i^T G v_i; zero for directions of rounding."""
    return ((space.u.T @ gradient) * space.v.T).sum(dim=1) * (space.s > 0)


def without_conflicts(
    gradient: Float[Tensor, "outputs inputs"], space: Subspace
) -> tuple[Float[Tensor, "outputs inputs"], int]:
    """The gradient less each component that points against safety, and how many there were."""
    c = components(gradient, space).clamp(max=0)
    return gradient - (space.u * c) @ space.v.T, int((c < 0).sum())


def without_subspace(
    gradient: Float[Tensor, "outputs inputs"], space: Subspace
) -> tuple[Float[Tensor, "outputs inputs"], int]:
    """Where the gradient as a whole points against safety: less all it has in U x V ("two-sided")."""
    if float((components(gradient, space) * space.s).sum()) >= 0:
        return gradient, 0
    u, v = space.u * (space.s > 0), space.v * (space.s > 0)
    return gradient - u @ (u.T @ gradient @ v) @ v.T, 1


def without_conflicts_in_product(
    grad_a: Float[Tensor, "rank inputs"],
    grad_b: Float[Tensor, "outputs rank"],
    a: Float[Tensor, "rank inputs"],
    b: Float[Tensor, "outputs rank"],
    scaling: float,
    space: Subspace,
) -> tuple[Float[Tensor, "rank inputs"], Float[Tensor, "outputs rank"], int]:
    """Gradients of LoRA factors whose step does not move `scaling * B @ A` against safety.

    To first order a step along (grad_A, grad_B) moves the product along
    scaling * (grad_B A + B grad_A). Its component on u_i v_i^T is linear in the two gradients,
    with the coefficients scaling * (B^T u_i) v_i^T and scaling * u_i (A v_i)^T; for different i
    these are orthogonal, so each conflicting one is taken away by itself and nothing else is
    touched: the nearest pair of gradients without a conflict.
    """
    p, q = a @ space.v, b.T @ space.u  # (rank, k) each
    c = scaling * ((space.u.T @ grad_b * p.T).sum(dim=1) + (q.T @ grad_a * space.v.T).sum(dim=1))
    length = scaling**2 * ((p**2).sum(dim=0) + (q**2).sum(dim=0))
    against = (c < 0) & (space.s > 0) & (length > 0)
    factor = torch.where(against, scaling * c / length.clamp(min=1e-30), 0.0)
    grad_a = grad_a - (q * factor) @ space.v.T
    grad_b = grad_b - (space.u * factor) @ p.T
    return grad_a, grad_b, int(against.sum())
