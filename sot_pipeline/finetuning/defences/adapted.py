"""The weight matrices that an adapter changes, and gradients with respect to them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.loss import mean_loss
from sot_pipeline.finetuning.rows import Rows


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
        if isinstance(module, LoraLinear):
            (adapter,) = module.active_adapters
            found.append(
                Adapted(
                    name,
                    module.get_base_layer().weight,  # type: ignore[arg-type]
                    module.lora_A[adapter].weight,  # type: ignore[arg-type]
                    module.lora_B[adapter].weight,  # type: ignore[arg-type]
                    module.scaling[adapter],
                    module.fan_in_fan_out,
                )
            )
    return found


def weight_gradients(
    model: PeftModel, matrices: Sequence[Adapted], rows: Rows, chosen: Sequence[int]
) -> tuple[float, Mapping[str, Float[Tensor, "outputs inputs"]]]:
    """Mean answer-token loss of rows, nats, and its gradient in each effective matrix.

    The gradient in `weight + scaling * B @ A` as if it were trained whole, float32.

    Raises:
        InputError: weights that have no gradient, as of a quantised model.
    """
    weights = [matrix.weight for matrix in matrices]
    if not all(weight.is_floating_point() for weight in weights):
        raise InputError(
            "the model's weights are quantised and have no gradient: set the defence's space to "
            "'parameter', or load the model unquantised"
        )
    for weight in weights:
        weight.requires_grad_(True)
    try:
        loss = mean_loss(model, rows, chosen)
        gradients = torch.autograd.grad(loss, weights)
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    found = {
        matrix.name: (gradient.T if matrix.transposed else gradient).float()
        for matrix, gradient in zip(matrices, gradients, strict=True)
    }
    return float(loss.detach()), found
