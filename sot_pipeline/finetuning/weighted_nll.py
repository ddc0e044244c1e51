"""The training loss: one weight per sample.

With w the samples' weights and n their numbers of answer tokens, the loss of the whole set is

    sample_mean   sum_i w_i * (mean_t nll_it) / sum_i w_i          each sample counts alike
    token_mean    sum_i w_i * (sum_t nll_it) / sum_i w_i n_i       each answer token counts alike
    sample_sum    sum_i w_i * (sum_t nll_it) / sum_i w_i           log-likelihood of whole answers

and a step estimates it from its samples S: the plain loss of S with each sample multiplied by
its weight, weights scaled to mean one over the *set* (`scaled`), never over the step. Dividing
by the step's own weights would make the loss of a batch of one sample forget its weight, and
bias every small batch toward equal weights. So

* ones give plain fine-tuning at any batch size;
* a sample of weight zero is as if it were not there;
* 2 : 1 is duplication: exactly in a step that holds all samples, in the mean of an epoch's
  gradients otherwise (`sample_mean` and `sample_sum`; `token_mean` divides by the step's tokens,
  as plain token-mean training does).
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Normalisation = Literal["sample_mean", "token_mean", "sample_sum"]


def scaled(
    weights: Float[np.ndarray, " rows"],
    num_answer_tokens: Int[np.ndarray, " rows"],
    normalisation: Normalisation = "sample_mean",
) -> Float[np.ndarray, " rows"]:
    """Weights at the scale at which a step's denominator does not depend on them.

    Mean one over the rows; for `token_mean` over the answer tokens.
    """
    counts = num_answer_tokens if normalisation == "token_mean" else np.ones(len(weights))
    return weights * (counts.sum() / np.sum(weights * counts))


def token_weights(
    weights: Float[np.ndarray, " batch"],
    num_answer_tokens: Int[np.ndarray, " batch"],
    step_rows: int,
    step_tokens: int,
    normalisation: Normalisation = "sample_mean",
) -> Float[np.ndarray, " batch"]:
    """What each answer token of a sample adds to the loss of a step, per nat.

    Args:
        weights: As `scaled` gives them.
        step_rows, step_tokens: Samples and answer tokens of the whole step, over all parts and
            devices, so that adding up the parts gives the loss of the whole.
    """
    if normalisation == "sample_mean":
        return weights / num_answer_tokens / step_rows
    return weights / (step_tokens if normalisation == "token_mean" else step_rows)


def weighted_nll(
    logits: Float[Tensor, "*tokens vocabulary"],
    targets: Int[Tensor, "*tokens"],
    token_weights: Float[Tensor, "*tokens"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """sum_t token_weights_t * nll_t, nats, in float32.

    Args:
        logits: Of the token after each position.
        targets: The token after each position; anything where the weight is zero.
        label_smoothing: Share of the target mass that is spread over the vocabulary.
    """
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, -2).float(),
        targets.flatten(),
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return (token_weights.flatten() * nll).sum()
