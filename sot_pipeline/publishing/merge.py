"""Base model and adapter as one model: for tools that load no adapters."""

import gc
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sot_pipeline.errors import InputError
from sot_pipeline.language_model import DTYPES, load_language_model, resolve_model

NUM_PROBES, PROBE_LENGTH = 4, 32
EXACT = 1e-4  # of the largest logit: what summation in another order changes in float32
LARGEST_ROUNDING = 0.5  # of the adapter's own effect on the logits


class MergeResult(NamedTuple):
    """How near the merged model is to base + adapter, measured on fixed random token sequences.

    Attributes:
        dtype: Of the stored weights, such as "bfloat16".
        largest_difference: Largest |merged - adapted| over the largest |adapted|, of logits.
        rounding_share: Root mean square of (merged - adapted) over that of (adapted - base);
            0 where the adapter changes nothing. In float32 next to nothing, in bfloat16 what
            rounding the weights costs of what the adapter learnt.
    """

    dtype: str
    largest_difference: float
    rounding_share: float


def merge_adapter(
    base: str | Path,
    adapter: Path,
    directory: Path,
    *,
    base_revision: str | None = None,
    dtype: str = "stored",
) -> MergeResult:
    """Write base + adapter as a model folder: safetensors, tokenizer, generation config.

    The sum is formed in float32 and rounded once to the dtype that the base is stored in; what
    was written is read again and its logits, computed in float32, are compared with those of
    base + adapter. Needs 4 bytes of memory per parameter, on the CPU.

    Args:
        base: Directory or Hugging Face id.
        adapter: A peft adapter directory; its tokenizer is used where it holds one.
        directory: Must not exist yet; appears whole or not at all.
        base_revision: Commit of a hub model.
        dtype: "stored", or one of "float32", "bfloat16", "float16".

    Raises:
        InputError: a quantised base, an adapter that does not fit, or a merged model that is
            not base + adapter to the stated limits; then nothing is written.
    """
    source, commit = resolve_model(base, revision=base_revision)
    options: dict[str, Any] = {"revision": commit} if commit else {}
    target = _target_dtype(AutoConfig.from_pretrained(source, **options), str(base), dtype)
    building = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    try:
        before, adapted = _write_merged(source, commit, adapter, building, target)
        merged = AutoModelForCausalLM.from_pretrained(
            building, dtype=torch.float32, use_safetensors=True
        )
        result = compared(before, adapted, _probe_logits(merged.eval()), target)
        del merged
        os.rename(building, directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return result


def compared(
    base: Float[Tensor, "rows tokens vocabulary"],
    adapted: Float[Tensor, "rows tokens vocabulary"],
    merged: Float[Tensor, "rows tokens vocabulary"],
    dtype: torch.dtype,
) -> MergeResult:
    """Hold the logits of a merged model against those of base + adapter.

    Raises:
        InputError: they differ by more than the dtype explains, or rounding the weights loses
            more than half of the adapter's effect.
    """
    error, effect = merged - adapted, adapted - base
    largest = float(error.abs().max() / adapted.abs().max())
    size = float(effect.square().mean().sqrt())
    share = float(error.square().mean().sqrt()) / size if size else 0.0
    name = str(dtype).removeprefix("torch.")
    rounded = dtype != torch.float32
    if not (largest <= EXACT or (rounded and 0 < share <= LARGEST_ROUNDING)):
        raise InputError(
            f"the model merged in {name} is not base + adapter: its logits differ by "
            f"{largest:.1e} of the largest, {share:.0%} of what the adapter changes. "
            + (
                "Rounding the weights loses it: merge in float32, or serve the adapter itself."
                if rounded
                else "Serve the adapter itself."
            )
        )
    return MergeResult(name, largest, share)


def _write_merged(
    source: str, commit: str | None, adapter: Path, directory: Path, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns the logits of base, and of base + adapter."""
    lm = load_language_model(
        source, revision=commit, adapter=adapter, device="cpu", dtype="float32"
    )
    peft_model: Any = lm.model
    adapted = _probe_logits(peft_model)
    with peft_model.disable_adapter():
        before = _probe_logits(peft_model)
    merged = peft_model.merge_and_unload(safe_merge=True).to(dtype)
    merged.save_pretrained(directory, safe_serialization=True)
    lm.tokenizer.save_pretrained(directory)
    AutoTokenizer.from_pretrained(directory)  # what was written can be read
    del lm, peft_model, merged
    gc.collect()
    return before, adapted


@torch.inference_mode()
def _probe_logits(model: PreTrainedModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = model.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr]
    ids = torch.randint(0, int(size), (NUM_PROBES, PROBE_LENGTH), generator=generator)
    return model(input_ids=ids, use_cache=False).logits.float()


def _target_dtype(config: Any, base: str, dtype: str) -> torch.dtype:
    if getattr(config, "quantization_config", None):
        method = json.dumps(config.quantization_config, default=str)
        raise InputError(
            f"the base model {base} is stored quantised ({method[:80]}), and an adapter cannot "
            "be added to quantised weights without loss: serve the adapter beside it, or "
            "fine-tune on the unquantised model"
        )
    if dtype != "stored":
        if dtype not in DTYPES:
            raise InputError(f"dtype is {dtype!r}; expected stored or one of {', '.join(DTYPES)}")
        return DTYPES[dtype]
    stored = getattr(config, "dtype", None) or torch.float32
    return getattr(torch, stored) if isinstance(stored, str) else stored
