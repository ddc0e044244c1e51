"""A model's loss on rows: the one way from tokens to a number with a gradient."""

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.batching import Batch, packed, padded
from sot_pipeline.finetuning.rows import Rows
from sot_pipeline.finetuning.weighted_nll import weighted_nll


def kept_logits(model: torch.nn.Module, batch: Batch) -> Float[Tensor, "lines kept vocabulary"]:
    """Logits at the positions that predict a token to learn.

    The output layer is the largest matrix of a small model and its result the largest array of
    a large one; prompts need neither.
    """
    device = next(model.parameters()).device
    inputs = {
        "input_ids": batch.token_ids,
        "attention_mask": batch.attention_mask,
        "position_ids": batch.position_ids,
    }
    inputs = {name: value.to(device) for name, value in inputs.items() if value is not None}
    kept = batch.kept.to(device)
    if _keeps_logits(model):
        return model(**inputs, logits_to_keep=kept, use_cache=False).logits
    return model(**inputs, use_cache=False).logits[:, kept]


def _keeps_logits(model: torch.nn.Module) -> bool:
    model = getattr(model, "_orig_mod", model)  # as torch.compile wraps it
    forward = getattr(model, "get_base_model", lambda: model)().forward
    return "logits_to_keep" in inspect.signature(forward).parameters


def batch_loss(
    model: torch.nn.Module,
    batch: Batch,
    token_weights: Float[np.ndarray, " rows"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Weighted loss of a batch, nats, as its share of a step.

    Args:
        token_weights: Of each row's answer tokens, as `weighted_nll.token_weights` gives them.
    """
    logits = kept_logits(model, batch)
    per_row = torch.as_tensor(token_weights, dtype=torch.float32)
    return weighted_nll(
        logits,
        batch.targets.to(logits.device),
        batch.spread(per_row).to(logits.device),
        label_smoothing=label_smoothing,
    )


def mean_loss(
    model: torch.nn.Module, rows: Rows, chosen: Sequence[int] | np.ndarray
) -> Float[Tensor, ""]:
    """Mean over these rows of the mean answer-token loss, nats; weights are not looked at."""
    index = np.asarray(chosen)
    token_weights = 1.0 / rows.num_answer_tokens[index] / len(index)
    return batch_loss(model, padded(rows, index), token_weights)


def mean_loss_gradients(
    model: torch.nn.Module,
    rows: Rows,
    tensors: Sequence[Tensor],
    *,
    size: int,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[float, list[Tensor]]:
    """Mean of `mean_loss` over all rows, nats, and its gradient in each tensor, float32.

    Args:
        size: Rows per forward pass; only memory depends on it.
    """
    ordered = np.argsort(rows.lengths, kind="stable")
    value, sums = 0.0, [torch.zeros(()) for _ in tensors]
    for part in np.array_split(ordered, math.ceil(len(ordered) / size)):
        with precision():
            loss = mean_loss(model, rows, part) * (len(part) / len(ordered))
        gradients = list(
            torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
        )
        value += float(loss.detach())
        for k in range(len(sums)):
            gradient, gradients[k] = gradients[k], torch.zeros(())  # frees each as it is added
            sums[k] = gradient.float() + sums[k].to(gradient.device)
    return value, sums


def require_exact_packing(model: torch.nn.Module, rows: Rows) -> None:
    """See that in this model no packed row sees another.

    transformers draws the borders from `position_ids`; a model or an attention kernel that
    does not would train on rows that read each other, without an error.

    Raises:
        InputError: two rows have other logits packed than alone.
    """
    shortest = np.argsort(rows.lengths, kind="stable")[:2]
    if len(shortest) < 2:
        return
    with torch.no_grad():
        together = kept_logits(model, packed(rows, shortest))[0]
        alone = torch.cat([kept_logits(model, packed(rows, shortest[[i]]))[0] for i in (0, 1)])
    # bfloat16 keeps 8 bits; a row that sees another differs by far more
    tolerance = 1e-3 if alone.dtype == torch.float32 else 0.1
    apart = (together - alone).abs().max().item() / alone.abs().max().item()
    if not apart <= tolerance:
        raise InputError(
            f"packed rows see each other in this model ({type(model).__name__}: logits differ by "
            f"{apart:.1%}): set finetuning.packing to false"
        )
