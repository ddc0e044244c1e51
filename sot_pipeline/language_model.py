"""Load a frozen language model: weights, tokenizer, adapter, and the fingerprint of it all.

How conversations become tokens is `sot_pipeline.rendering`; its functions are exported here,
since whoever has a model wants them.
"""

import hashlib
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import errors as hub_errors
from huggingface_hub import hf_hub_download
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from sot_pipeline.errors import InputError
from sot_pipeline.rendering import (
    Conversation,
    RenderedConversation,
    render,
    render_text,
    render_with_answer_mask,
)

__all__ = [
    "Conversation",
    "LanguageModel",
    "RenderedConversation",
    "directory_fingerprint",
    "is_out_of_memory",
    "load_language_model",
    "render",
    "render_text",
    "render_with_answer_mask",
    "resolve_device",
    "resolve_dtype",
    "resolve_model",
]

# peft 0.21 asks transformers 5.23 in its old words, for every adapter
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# What else than the weights decides what a model directory computes and writes.
_CONFIG_FILES = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "special_tokens_map.json",
    "chat_template.jinja",
)


class LanguageModel(NamedTuple):
    """A frozen causal language model with its tokenizer.

    `model` is in evaluation mode and takes no gradients; it is a `PeftModel` where an
    adapter was given. `revision` is the resolved commit of a hub model, None for a
    directory. `fingerprint` changes whenever weights, configuration, tokenizer or chat
    template do; it does not depend on where the directory lies.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str | None
    fingerprint: str

    @property
    def device(self) -> torch.device:
        return self.model.device


def load_language_model(
    name: str | Path,
    *,
    revision: str | None = None,
    adapter: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a causal language model from a directory or from the Hugging Face hub.

    Args:
        name: A local directory, or a hub id such as `Qwen/Qwen3-0.6B`.
        revision: Branch, tag or commit of a hub model; every file comes from the one
            commit it resolves to. Has no meaning for a directory.
        adapter: A peft adapter directory (safetensors) put on top. Where it holds a
            tokenizer, that one is used: it carries the template the adapter was trained with.
        device: "auto" (CUDA where there is one, else CPU) or a torch device.
        dtype: "auto" (bfloat16 on CUDA, float32 on CPU), "float32", "bfloat16", "float16".
        attn_implementation: Attention kernel, as transformers names it; None: its own choice.
        trust_remote_code: Run Python code that comes with the model. Leave it off.

    Raises:
        InputError: No such directory or hub model, no network and not in the cache, no
            safetensors weights, a model that needs remote code, an adapter that does not fit.
    """
    source, commit = resolve_model(name, revision=revision)
    torch_device = resolve_device(device)
    transformers_logging.disable_progress_bar()  # "Loading weights" would tear other bars apart
    options = {"trust_remote_code": trust_remote_code} | ({"revision": commit} if commit else {})
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=resolve_dtype(dtype, torch_device),
            use_safetensors=True,
            attn_implementation=attn_implementation,
            **options,
        )
        if adapter is not None and (Path(adapter) / "tokenizer_config.json").exists():
            tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=trust_remote_code)
        else:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise _cannot_load(name, error) from error
    fingerprint = f"{name}@{commit}" if commit is not None else directory_fingerprint(Path(source))
    if adapter is not None:
        model = _with_adapter(model, Path(adapter))
        fingerprint += "+" + directory_fingerprint(Path(adapter))
    model = model.to(device=torch_device).eval().requires_grad_(False)  # type: ignore[call-arg]
    return LanguageModel(model, tokenizer, str(name), commit, fingerprint)


def resolve_model(name: str | Path, *, revision: str | None = None) -> tuple[str, str | None]:
    """Where a model's files are: (directory, None) or (hub id, commit).

    Raises:
        InputError: As `load_language_model`.
    """
    directory = Path(name).expanduser()
    if directory.is_dir():
        if not (directory / "config.json").exists():
            raise InputError(
                f"{directory} holds no config.json, so it is not a model directory. Give the "
                "directory that save_pretrained wrote, or a Hugging Face id."
            )
        return str(directory), None
    if isinstance(name, Path) or re.match(r"[./~]", name) or name.count("/") > 1:
        raise InputError(f"There is no model directory {name}. Give an existing directory.")
    try:
        config = hf_hub_download(name, "config.json", revision=revision)
    except (hub_errors.HFValidationError, hub_errors.HfHubHTTPError, OSError) as error:
        raise _cannot_reach(name, revision, error) from error
    return name, Path(config).parent.name  # <cache>/snapshots/<commit>/config.json


def resolve_device(device: str) -> torch.device:
    """A torch device from "auto" or a torch device name."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise InputError(f'Unknown device "{device}": give "auto", "cpu" or "cuda".') from error


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype of the weights: "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise InputError(f'Unknown dtype "{dtype}": give "auto" or one of {", ".join(DTYPES)}.')
    return DTYPES[dtype]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch might have worked."""
    # On the CPU torch raises a plain RuntimeError: "DefaultCPUAllocator: can't allocate memory".
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "allocate memory" in str(error)


def directory_fingerprint(directory: Path) -> str:
    """Hash (32 hex) of a model's or adapter's weights, configuration and tokenizer files.

    Names count, the location does not. Raises InputError where there are no safetensors.
    """
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise InputError(
            f"{directory} holds no .safetensors file. Other weight formats can run code when "
            "they are read; save the model with save_pretrained(..., safe_serialization=True)."
        )
    digest = hashlib.blake2b(digest_size=16)
    for path in [*(directory / name for name in _CONFIG_FILES), *weights]:
        if path.exists():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.name}={content};".encode())
    return digest.hexdigest()


def _with_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    from peft import PeftModel, get_peft_model_state_dict  # slow to import, rarely needed
    from safetensors import safe_open

    weights = adapter / "adapter_model.safetensors"
    if not weights.exists() or not (adapter / "adapter_config.json").exists():
        raise InputError(
            f"{adapter} is not a peft adapter directory: expected adapter_config.json and "
            "adapter_model.safetensors in it."
        )
    try:
        adapted = PeftModel.from_pretrained(model, adapter, is_trainable=False)
    except (RuntimeError, ValueError) as error:
        raise _adapter_does_not_fit(adapter, str(error)) from error
    with safe_open(weights, framework="pt") as file:
        stored = set(file.keys())
    wanted = set(get_peft_model_state_dict(adapted))
    if stored != wanted:  # peft only warns
        raise _adapter_does_not_fit(adapter, f"{len(stored ^ wanted)} tensors do not match")
    return adapted  # type: ignore[return-value]  # forwards all that a PreTrainedModel does


def _adapter_does_not_fit(adapter: Path, why: str) -> InputError:
    return InputError(
        f"The adapter {adapter} does not fit the base model: {why}. Give the base model that "
        "adapter_config.json names."
    )


def _cannot_load(name: str | Path, error: Exception) -> InputError:
    if "trust_remote_code" in str(error):
        remedy = "It runs code that comes with it; choose a model that transformers knows."
    elif "safetensors" in str(error):
        remedy = "Only safetensors weights are read; convert it with save_pretrained."
    else:
        remedy = "Expected a causal language model with config.json, tokenizer and weights."
    return InputError(f"Cannot load the model {name}: {error} {remedy}")


def _cannot_reach(name: str, revision: str | None, error: Exception) -> InputError:
    at = f" at revision {revision}" if revision else ""
    if isinstance(error, hub_errors.GatedRepoError):
        found, remedy = "asks for its licence to be accepted", "Accept it and set HF_TOKEN."
    elif isinstance(error, hub_errors.RevisionNotFoundError):
        found, remedy = "has no such revision", "Give a branch, tag or commit that it has."
    elif isinstance(error, hub_errors.EntryNotFoundError) and not isinstance(
        error, hub_errors.LocalEntryNotFoundError
    ):
        found, remedy = "has no config.json", "Give a transformers model."
    elif isinstance(error, hub_errors.RepositoryNotFoundError | hub_errors.HFValidationError):
        found = "is neither a directory here nor a model on the Hugging Face hub"
        remedy = "Check the spelling; a private model needs HF_TOKEN."
    else:
        found = "cannot be downloaded and is not in the local cache"
        remedy = (
            "Check the network, download it before on a machine that has one "
            "(`hf download ID`), give a local directory, or use the embedder minilm."
        )
    return InputError(f'The model "{name}"{at} {found}. {remedy} ({type(error).__name__})')
