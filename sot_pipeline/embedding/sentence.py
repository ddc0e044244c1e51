"""A sentence encoder in sentence-transformers' directory layout, run by transformers alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sot_pipeline.embedding.encoder import (
    Tokens,
    View,
    default_batch_tokens,
    encoder_fingerprint,
    pad,
    pool,
)
from sot_pipeline.errors import InputError
from sot_pipeline.language_model import (
    Conversation,
    directory_fingerprint,
    resolve_device,
    resolve_dtype,
)


class SentenceEncoder:
    """A sentence encoder in sentence-transformers' directory layout, run by transformers."""

    view: View = "apart"

    def __init__(
        self,
        directory: Path,
        *,
        max_length: int,
        device: str = "auto",
        dtype: str = "float32",
        batch_tokens: int | None = None,
    ):
        layout = read_layout(directory)
        self._pooling, self._normalise = layout.pooling, layout.normalise
        self._lower_case = layout.lower_case
        self._device = resolve_device(device)
        torch_dtype = resolve_dtype(dtype, self._device)
        transformers_logging.disable_progress_bar()
        try:
            model = AutoModel.from_pretrained(
                layout.transformer, dtype=torch_dtype, use_safetensors=True
            )
            self._tokenizer = AutoTokenizer.from_pretrained(layout.transformer)
        except (OSError, ValueError) as error:
            raise InputError(f"Cannot load the sentence encoder {directory}: {error}") from error
        self._model = model.to(self._device).eval().requires_grad_(False)
        context = getattr(model.config, "max_position_embeddings", None) or max_length
        own = layout.max_length or min(self._tokenizer.model_max_length, context)
        self.max_length = min(max_length, own)
        self.dimension = model.config.hidden_size
        self.batch_tokens = batch_tokens or default_batch_tokens(self._device)
        self.fingerprint = encoder_fingerprint(
            model=directory_fingerprint(layout.transformer),
            dtype=str(torch_dtype),
            pooling=[self._pooling, self._normalise],
            rendering=["contents", self._lower_case],
            max_length=self.max_length,
        )

    def tokenize(self, conversations: Sequence[Conversation]) -> Tokens:
        texts = ["\n\n".join(turn["content"] for turn in turns) for turns in conversations]
        if self._lower_case:
            texts = [text.lower() for text in texts]
        if not texts:
            return Tokens([], [])
        rows = self._tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
        was_cut = [len(row) > self.max_length for row in rows]
        for i, cut in enumerate(was_cut):
            if cut:  # once more, so that the closing special token stays
                rows[i] = self._tokenizer(
                    texts[i], truncation=True, max_length=self.max_length, padding=False
                )["input_ids"]
        return Tokens(rows, was_cut)

    @torch.inference_mode()
    def embed_batch(self, token_ids: list[list[int]]) -> np.ndarray:
        filler = self._tokenizer.pad_token_id or 0
        ids, mask = pad(token_ids, side="right", device=self._device, filler=filler)
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        vectors = pool(hidden, mask, self._pooling)
        if self._normalise:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors.cpu().numpy()


class Layout(NamedTuple):
    """What a sentence-transformers directory says about itself."""

    transformer: Path
    max_length: int | None
    lower_case: bool
    pooling: str
    normalise: bool


def read_layout(directory: Path) -> Layout:
    """Read modules.json and what it names.

    Raises:
        InputError: Modules, pooling or a default prompt that `SentenceEncoder` does not do.
    """
    modules = {
        module["type"].rsplit(".", 1)[-1]: directory / module["path"]
        for module in _read_json(directory / "modules.json", default=[])
    }
    if not {"Transformer", "Pooling"} <= set(modules) <= {"Transformer", "Pooling", "Normalize"}:
        raise InputError(
            f"{directory} is made of the modules {', '.join(modules)}; expected Transformer, "
            "Pooling and perhaps Normalize. Choose another sentence encoder."
        )
    if _read_json(directory / "config_sentence_transformers.json").get("default_prompt_name"):
        raise InputError(
            f"{directory} puts a default prompt before each text, which is not supported. "
            "Choose another sentence encoder."
        )
    settings = _read_json(modules["Transformer"] / "sentence_bert_config.json")
    return Layout(
        modules["Transformer"],
        settings.get("max_seq_length"),
        bool(settings.get("do_lower_case")),
        _pooling_mode(modules["Pooling"] / "config.json"),
        "Normalize" in modules,
    )


# Older directories hold one flag per mode, newer ones a single name.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def _pooling_mode(path: Path) -> str:
    config = _read_json(path)
    modes = config.get("pooling_mode") or [
        mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) != 1 or modes[0] not in ("mean", "cls", "max", "lasttoken"):
        raise InputError(
            f"{path} asks for the pooling {', '.join(modes) or 'nothing'}; expected one of mean, "
            "cls, max, lasttoken. Choose another sentence encoder."
        )
    return modes[0]


def _read_json(path: Path, default: Any = None) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {} if default is None else default
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}. Save the model again.") from error
