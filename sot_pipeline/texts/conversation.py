"""A conversation as the rest of the pipeline sees it: canonical text, identity, prompt, answer."""

import hashlib
import json
from typing import Any

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

Conversation = list[dict[str, Any]]
"""Turns {"role": "system" | "user" | "assistant" | "tool", "content": str}; an assistant turn
may hold "train": False, which means: do not learn this turn."""


def canonical_text(conversation: Conversation) -> str:
    """One JSON text per conversation, the same whatever format the row was written in."""
    return _ENCODER.encode(conversation)


def content_hash(canonical: str) -> str:
    """16 hex digits (blake2b, 64 bits) of a canonical text.

    Raises:
        UnicodeEncodeError: the text holds a lone surrogate.
    """
    return hashlib.blake2b(canonical.encode("utf-8"), digest_size=8).hexdigest()


def last_answer(conversation: Conversation) -> int | None:
    """The index of the last assistant turn, or None."""
    for index in range(len(conversation) - 1, -1, -1):
        if conversation[index]["role"] == "assistant":
            return index
    return None


def prompt_turns(conversation: Conversation, *, has_response: bool) -> Conversation:
    """The turns that come before the response; all of them where there is no response."""
    answer = last_answer(conversation) if has_response else None
    return conversation if answer is None else conversation[:answer]


def joined_text(conversation: Conversation) -> str:
    """The contents of the turns, joined by blank lines."""
    return "\n\n".join(turn["content"] for turn in conversation)
