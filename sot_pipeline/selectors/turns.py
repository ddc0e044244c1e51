"""What was asked in a row, and what was answered."""

from typing import NamedTuple

from sot_pipeline.rendering import Conversation


class Exchange(NamedTuple):
    """The turns before the last answer, system and earlier answers included, and that answer."""

    prompt: Conversation
    answer: str


def exchange(conversation: Conversation) -> Exchange | None:
    """None where no answer follows anything."""
    last = max((k for k, t in enumerate(conversation) if t["role"] == "assistant"), default=0)
    if last == 0:
        return None
    return Exchange(conversation[:last], conversation[last]["content"])
