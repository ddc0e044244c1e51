"""The weight matrices that an adapter changes, and gradients with respect to them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.loss import mean_loss_gradients
from sot_pipeline.finetuning.rows import Rows

TRAINABLE = (torch.float32, torch.bfloat16, torch.float16)


class Adapted(NamedTuple):
    """One matrix: what the model multiplies with is `weight + scaling * B @ A`.

    Attributes:
        name: Of the module.
        weight: (outputs, inputs) or, where `transposed`, (inputs, outputs); frozen.
        a: (rank, inputs), trained.
        b: (outputs, rank), trained.
    """

    name: str
    weight: torch.nn.Parameter
    a: torch.nn.Parameter
    b: torch.nn.Parameter
    scaling: float
    transposed: bool


def adapted_matrices(model: PeftModel) -> list[Adapted]:
    """Every matrix with a LoRA adapter, in the model's order."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            (adapter,) = module.active_adapters
            found.append(
                Adapted(
                    name,
                    module.get_base_layer().weight,  # type: ignore[arg-type]
                    module.lora_A[adapter].weight,  # type: ignore[arg-type]
                    module.lora_B[adapter].weight,  # type: ignore[arg-type]
                    module.scaling[adapter],
                    getattr(module, "fan_in_fan_out", False),
                )
            )
    return found


def weight_gradients(
    model: PeftModel,
    matrices: Sequence[Adapted],
    rows: Rows,
    *,
    size: int,
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[float, dict[str, Float[Tensor, "outputs inputs"]]]:
    """Mean answer-token loss of rows, nats, and its gradient in each effective matrix.

    The gradient in `weight + scaling * B @ A` as if it were trained whole, float32.

    Args:
        size: Rows per forward pass.

    Raises:
        InputError: weights that have no gradient, as of a quantised model.
    """
    weights = [matrix.weight for matrix in matrices]
    if not all(weight.dtype in TRAINABLE for weight in weights):
        raise InputError(
            "the model's weights are quantised and have no gradient: set the defence's space to "
            "'parameter', or load the model unquantised"
        )
    for weight in weights:
        weight.requires_grad_(True)
    try:
        loss, gradients = mean_loss_gradients(model, rows, weights, size=size, precision=precision)
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    found = {
        matrix.name: gradient.T if matrix.transposed else gradient
        for matrix, gradient in zip(matrices, gradients, strict=True)
    }
    return loss, found
