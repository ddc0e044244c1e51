"""Shorten a conversation so that its last answer stays."""

from typing import NamedTuple

from sot_pipeline.errors import InputError


class RenderedConversation(NamedTuple):
    """Token ids, which of them belong to answers to learn, and how many tokens were cut."""

    token_ids: list[int]
    is_answer: list[bool]
    num_cut: int


def cut(
    token_ids: list[int], is_answer: list[bool], max_length: int | None, *, bos: int | None
) -> RenderedConversation:
    """At most `max_length` tokens, one of them learnt, with one before it.

    Raises:
        InputError: `max_length` is below 2.
    """
    if max_length is None or len(token_ids) <= max_length:
        return RenderedConversation(token_ids, is_answer, 0)
    if max_length < 2:
        raise InputError(f"max_length is {max_length}: at least 2 tokens are needed.")
    end = max(i for i, learnt in enumerate(is_answer) if learnt) + 1
    answer_start = end
    while answer_start > 0 and is_answer[answer_start - 1]:
        answer_start -= 1
    keep_bos = max_length > 2 and bos is not None and token_ids[0] == bos
    room = max_length - keep_bos
    # A model learns each token from those before it: some prompt stays even where the
    # answer alone would fill the window.
    context = room - (end - answer_start)
    context = min(answer_start - keep_bos, context if context > 0 else max(1, room // 4))
    start = answer_start - context
    kept = slice(start, min(end, start + room))
    head = [token_ids[0]] if keep_bos else []
    cut_ids = head + token_ids[kept]
    cut_mask = is_answer[kept]
    if start < answer_start and cut_mask[0]:
        # an older answer, cut off from its prompt or in its midst: only read
        rest = cut_mask.index(False)
        cut_mask[:rest] = [False] * rest
    cut_mask = [False] * len(head) + cut_mask
    return RenderedConversation(cut_ids, cut_mask, len(token_ids) - len(cut_ids))
