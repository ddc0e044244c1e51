"""What a pass through a language model takes: arithmetic, memory, seconds.

A pass of T tokens takes the longer of its arithmetic at a share of the device's peak and one
reading of the weights, and whatever Python and kernel launches take per layer. Arithmetic, N being
the parameters of the linear layers:

    forward        2 N a token, and 4 x width x context for attention, in every layer
    LoRA training  4 N: forward, and the backward pass to the activations. The other 2 N of
                   ordinary training are the weights' gradients, and frozen weights have none;
                   the adapter's own 6 N_adapter are added. Recomputed activations
                   (gradient checkpointing) are another 2 N.
    output layer   2 x width x vocabulary for each token to learn, as much again for its
                   gradient; embedding makes no logits
"""

from typing import NamedTuple

from sot_pipeline.defs.hardware import Device
from sot_pipeline.defs.model_shape import ModelShape
from sot_pipeline.defs.settings import FinetuningSettings
from sot_pipeline.defs.workload import TextLengths

# Python and dispatch of one transformers layer in one forward pass, seconds.
LAYER_SECONDS = (2e-4, 1e-3)
# Reading weights from disk to the device, bytes per second.
LOAD_RATE = (3e9, 3e8)


class Span(NamedTuple):
    """Low and high."""

    low: float
    high: float

    def __add__(self, other: "Span") -> "Span":  # type: ignore[override]
        return Span(self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> "Span":
        return Span(factor * self.low, factor * self.high)


NOTHING = Span(0.0, 0.0)


# Arithmetic


def forward_flops(shape: ModelShape, tokens: float, context: float, logits: float = 0.0) -> float:
    """Of a forward pass over `tokens` that each see `context` others; `logits` of them through
    the output layer. Masked attention is computed whole."""
    width = shape.num_heads * shape.head_dim
    attention = 4 * shape.num_layers * width * context
    output = 2 * shape.hidden_size * shape.vocabulary_size
    return tokens * (2 * shape.layer_parameters + attention) + logits * output


def training_flops(
    shape: ModelShape,
    tokens: float,
    context: float,
    answer_tokens: float,
    adapter_parameters: int,
    *,
    checkpointing: bool,
) -> float:
    """Of forward and backward with frozen weights and a LoRA adapter."""
    forward = forward_flops(shape, tokens, context)
    # attention has two operands that both need their gradient
    width = shape.num_heads * shape.head_dim
    attention = tokens * 4 * shape.num_layers * width * context
    layers = 2 * forward + attention + (forward if checkpointing else 0.0)
    return layers + 2 * forward_flops(shape, 0, 0, answer_tokens) + 6 * tokens * adapter_parameters


# Memory


def activation_bytes(shape: ModelShape, tokens: float, dtype_bytes: int) -> float:
    """That one layer keeps for the backward pass, counted from what autograd saves in a Llama
    layer with frozen weights: norms in float32, queries, keys, values and their repeated heads,
    the adapters' inputs, and three times the width of the MLP."""
    queries = shape.num_heads * shape.head_dim
    keys = shape.num_kv_heads * shape.head_dim
    half = 2 * shape.hidden_size + 4 * queries + 2 * keys + 3 * shape.intermediate_size
    return tokens * (16 * shape.hidden_size + dtype_bytes * half)


def logits_bytes(shape: ModelShape, answer_tokens: float, dtype_bytes: int) -> float:
    """Of the loss: logits as computed, in float32, their logarithm, and the gradients."""
    return answer_tokens * shape.vocabulary_size * (2 * dtype_bytes + 12)


def training_bytes(
    shape: ModelShape, texts: TextLengths, settings: FinetuningSettings, dtype_bytes: int
) -> int:
    """Peak of a training: weights, adapter with gradient and AdamW, and the longest rows'
    activations."""
    rows = min(settings.micro_batch_size, settings.batch_size, max(texts.num_rows, 1))
    tokens = rows * texts.longest
    if settings.packing:
        tokens = rows * texts.mean
    answers = tokens * (texts.answer / texts.mean if texts.mean else 0.0)
    one = activation_bytes(shape, tokens, dtype_bytes)
    if settings.gradient_checkpointing:
        kept = one + shape.num_layers * tokens * shape.hidden_size * dtype_bytes
    else:
        kept = one * shape.num_layers
    adapter = 16 * shape.adapter_parameters(settings.rank, settings.target_modules)
    weights = shape.num_parameters * dtype_bytes
    return int(weights + adapter + kept + logits_bytes(shape, answers, dtype_bytes))


def inference_bytes(shape: ModelShape, tokens: float, dtype_bytes: int) -> float:
    """What is alive in one layer of a pass without gradients."""
    return tokens * dtype_bytes * (8 * shape.hidden_size + 3 * shape.intermediate_size)


def cache_bytes(shape: ModelShape, tokens: float, dtype_bytes: int) -> float:
    """Of the keys and values of so many tokens."""
    return 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * tokens * dtype_bytes


# Seconds


def pass_seconds(
    shape: ModelShape, flops: float, passes: Span, device: Device, weights_read: float = 1.0
) -> Span:
    """Of passes that together take so much arithmetic.

    Args:
        weights_read: How often one pass reads the weights, and runs each layer.
    """
    if flops == 0:
        return NOTHING
    low_share, high_share = device.utilisation
    weights = shape.layer_parameters * device.dtype_bytes / device.bandwidth * weights_read

    def seconds(share: float, count: float, layer: float) -> float:
        arithmetic = flops / (device.flops * share)
        return max(arithmetic, count * weights) + count * weights_read * shape.num_layers * layer

    return Span(
        seconds(high_share, passes.low, LAYER_SECONDS[0]),
        seconds(low_share, passes.high, LAYER_SECONDS[1]),
    )


def load_seconds(shape: ModelShape, device: Device) -> Span:
    size = shape.num_parameters * device.dtype_bytes
    return Span(size / LOAD_RATE[0], size / LOAD_RATE[1])
