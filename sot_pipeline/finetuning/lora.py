"""LoRA adapters: put one on a model, write one that others can load."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sot_pipeline.errors import InputError


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    lora_alpha: int,
    target_modules: tuple[str, ...],
    seed: int,
    base_revision: str | None = None,
) -> PeftModel:
    """A fresh adapter on a frozen model; the adapter's own parameters are float32.

    Raises:
        InputError: no module of the model is called as `target_modules` says.
    """
    linear = _linear_module_names(model)
    unknown = sorted(set(target_modules) - linear)
    if unknown:
        raise InputError(
            f"the model has no linear module called {', '.join(unknown)}; it has "
            f"{', '.join(sorted(linear))}. Set finetuning.target_modules to some of these."
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=lora_alpha,
        target_modules=list(target_modules),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        revision=base_revision,
    )
    torch.manual_seed(seed)  # the adapter begins at random
    return get_peft_model(model, config)


def save_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, directory: Path, card: dict[str, Any]
) -> None:
    """Write what `PeftModel.from_pretrained` and vLLM load: safetensors, configuration,
    tokenizer with its chat template, and a model card."""
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)
    tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(_model_card(card), encoding="utf-8")


def _linear_module_names(model: PreTrainedModel) -> set[str]:
    head = model.get_output_embeddings()
    return {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def _model_card(card: dict[str, Any]) -> str:
    """What is known when training ends; `sot export` writes the whole card.

    Values are shown as JSON in a code block, where nothing in them is read as markup.
    """
    facts = json.dumps(card, indent=1, ensure_ascii=False, default=str)
    fence = "`" * (2 + max(map(len, re.findall("`+", facts + "`"))))
    return f"""---
library_name: peft
pipeline_tag: text-generation
tags: [lora, safety, sot_pipeline]
---

# LoRA adapter on purified rows

Fine-tuned by sot_pipeline on a subset of a fine-tuning set, each row with a weight of its own; the
rows were chosen by push-pull optimal transport. `sot export` writes a card with data, method and
measured scores.

{fence}json
{facts}
{fence}
"""
