"""Which prompts safety is learnt from, and what becomes of the answers to them."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from sot_pipeline.rendering import Conversation

_CLOSING = "[\"'”’)\\]*]*"
_WHOLE_SENTENCES = re.compile(rf".*(?:[.!?…](?={_CLOSING}(?:\s|$))|[。！？]){_CLOSING}", re.DOTALL)


class Drawn(NamedTuple):
    """Places of the prompts that were drawn, and how many were no candidates.

    Attributes:
        num_left_out: Because they ask what must be left out.
        num_repeated: Because an earlier prompt is the same.
    """

    places: list[int]
    num_left_out: int
    num_repeated: int


def asked(conversations: Iterable[Conversation]) -> set[str]:
    """All that users say in conversations, without regard to case and white space."""
    return {
        " ".join(turn["content"].casefold().split())
        for conversation in conversations
        for turn in conversation
        if turn["role"] == "user"
    }


def draw_prompts(
    prompts: Sequence[Conversation],
    count: int,
    *,
    seed: int,
    leave_out: AbstractSet[str] = frozenset(),
) -> Drawn:
    """Prompts at random, by a hash of seed and content: an edit of one leaves the others drawn.

    Args:
        prompts: Each up to where the answer begins.
        count: How many, at most.
        leave_out: As `asked` gives it; a prompt with a user turn among them is no candidate.
    """
    ranked: dict[bytes, int] = {}
    num_left_out = num_repeated = 0
    for place, prompt in enumerate(prompts):
        text = json.dumps([seed, *([turn["role"], turn["content"]] for turn in prompt)])
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if asked([prompt]) & leave_out:
            num_left_out += 1
        elif key in ranked:
            num_repeated += 1
        else:
            ranked[key] = place
    return Drawn([ranked[key] for key in sorted(ranked)[:count]], num_left_out, num_repeated)


def whole_sentences(answer: str) -> str:
    """An answer without the sentence that was cut off at its end; all of it if it has no other."""
    found = _WHOLE_SENTENCES.match(answer)
    return found[0] if found else answer
