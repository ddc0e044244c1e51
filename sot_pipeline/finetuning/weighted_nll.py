"""The training loss: one weight per sample."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def token_nll(
    logits: Float[Tensor, "batch tokens vocabulary"], token_ids: Int[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens"]:
    """Negative log-likelihood of each token given those before it, nats, in float32.

    Position t holds the loss of token t, so it is aligned with an answer mask over the tokens
    themselves; the first token has no prediction and gets 0.
    """
    predicted = logits[:, :-1].float().transpose(1, 2)
    nll = torch.nn.functional.cross_entropy(predicted, token_ids[:, 1:], reduction="none")
    return torch.nn.functional.pad(nll, (1, 0))


def weighted_nll(
    token_nll: Float[Tensor, "batch tokens"],
    is_answer: Bool[Tensor, "batch tokens"],
    weights: Float[Tensor, " batch"],
    *,
    total_weight: float | None = None,
) -> Float[Tensor, ""]:
    """sum_i w_i * (mean over the answer tokens of sample i) / sum_i w_i, nats.

    With weights one this is plain fine-tuning with per-sample means; weight zero removes a
    sample; weights in the ratio 2 : 1 equal duplicating the first sample.

    Args:
        token_nll: Aligned with the tokens, as `token_nll` gives it.
        is_answer: True on the tokens to learn; every sample needs one.
        weights: >= 0.
        total_weight: The denominator. Where this batch is part of a larger one (accumulation,
            several devices) it is the sum over the whole, so that adding up the parts gives the
            loss of the whole exactly. None: the sum of these weights.
    """
    answers = is_answer.to(token_nll.dtype)
    per_sample = (token_nll * answers).sum(dim=1) / answers.sum(dim=1)
    total = weights.sum() if total_weight is None else total_weight
    return (weights * per_sample).sum() / total
