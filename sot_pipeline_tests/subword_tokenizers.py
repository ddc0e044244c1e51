"""Subword tokenizers of the two usual kinds, trained on the spot on a few sentences."""

import json
from collections.abc import Sequence
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

SPECIAL = [
    "<s>",
    "</s>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "<｜User｜>",
    "<｜Assistant｜>",
]
# Qwen3 counts these as ordinary text that is one token each.
ADDED = ["<think>", "</think>", "<tool_response>", "</tool_response>"]

SENTENCES = [
    "user: what is two plus three?\nassistant: two plus three is five.\n",
    "system\nPlease be brief.\n\nmodel\nThe sum is five, because two and three are five.\n\n",
    "Today Date: 26 Jul 2024\n\nThe current date is 2024-07-26.\n",
    "    return x + 1\n\n\n  # indented, with  double  blanks\n",
    "user\nwhat is the sum?\nassistant\nfive\n",
]

# As in Llama 3 and Qwen: words with the blank before them, line breaks with what precedes them.
_WORDS = Regex(
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def byte_level(template: str | None) -> PreTrainedTokenizerFast:
    """Byte-level BPE, the kind of Llama 3, Qwen and Mistral's tekken."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    _train(backend, SPECIAL, pre_tokenizers.ByteLevel.alphabet())
    return _wrapped(backend, template)


@cache
def sentence_piece(template: str | None) -> PreTrainedTokenizerFast:
    """BPE over text with `▁` for blanks and byte fallback, the kind of Mistral 7B v0.3.

    The first text of a sequence gets a blank before it; a line break is the byte `<0x0A>`.
    """
    return _with_byte_fallback(
        template,
        pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
    )


@cache
def gemma_piece(template: str | None) -> PreTrainedTokenizerFast:
    """As `sentence_piece`, but blanks are replaced by a normalizer, none is put before, and
    runs of line breaks are added tokens."""
    tokenizer = _with_byte_fallback(template, normalizer=normalizers.Replace(" ", "▁"))
    for n in range(1, 5):
        tokenizer.add_tokens(AddedToken("\n" * n, normalized=False))
    return tokenizer


KINDS = {"byte level": byte_level, "sentence piece": sentence_piece, "gemma": gemma_piece}


def _with_byte_fallback(template, *, pre_tokenizer=None, normalizer=None):
    """Trained word by word without line breaks, used on texts that are not split."""
    model = models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "removed"),
            pre_tokenizers.Metaspace(prepend_scheme="never", split=True),
        ]
    )
    _train(backend, ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *SPECIAL])
    # The trainer counts the bytes as special tokens, which they are not.
    state = json.loads(backend.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if not t["content"].startswith("<0x")]
    state["pre_tokenizer"] = None
    backend = Tokenizer.from_str(json.dumps(state))
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _wrapped(backend, template)


def _train(backend: Tokenizer, special: list[str], alphabet: Sequence[str] = ()) -> None:
    trainer = BpeTrainer(
        vocab_size=len(special) + len(alphabet) + 300,
        special_tokens=special,
        initial_alphabet=list(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator([text for text in SENTENCES for _ in range(20)], trainer)


def _wrapped(backend: Tokenizer, template: str | None) -> PreTrainedTokenizerFast:
    backend.add_tokens([AddedToken(token, normalized=False) for token in ADDED])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer
