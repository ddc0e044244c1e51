"""Purified rows in the forms that trainers read, with loss on the same answers as here.

A turn with `"train": False` is read and not learnt. axolotl takes that mark with the turn. TRL and
LLaMA-Factory learn the end of a row, or all of its answers; for them a row becomes one row per
answer to learn, each ending there, so that every answer is learnt once and no other turn is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from sot_pipeline.errors import InputError
from sot_pipeline.language_model import render_text, render_with_answer_mask

Conversation = Sequence[Mapping[str, Any]]


class TokenizerFacts(NamedTuple):
    """What of a tokenizer decides how rows and configurations are written.

    Attributes:
        special_tokens: Texts that would be read as control tokens.
        end_of_turn: The token that closes an answer, if it is a special one.
        end_of_sequence: The tokenizer's own end token.
        has_template: Whether it has a chat template.
        repeats_start: Whether LLaMA-Factory 0.9.5, reading the template from examples of one
            turn, takes the start token for a part of every turn: where the template writes it and
            the tokenizer by itself does not.
    """

    special_tokens: tuple[str, ...]
    end_of_turn: str | None
    end_of_sequence: str | None
    has_template: bool
    repeats_start: bool = False


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> TokenizerFacts:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special = added | set(tokenizer.all_special_tokens)
    return TokenizerFacts(
        tuple(sorted(special)),
        _end_of_turn(tokenizer, special),
        None if tokenizer.eos_token is None else str(tokenizer.eos_token),
        bool(tokenizer.chat_template),
        _repeats_start(tokenizer),
    )


def _repeats_start(tokenizer: PreTrainedTokenizerBase) -> bool:
    start = tokenizer.bos_token
    if not tokenizer.chat_template or start is None or tokenizer.encode(""):
        return False
    return render_text(tokenizer, [{"role": "user", "content": "1"}]).startswith(str(start))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, special: set[str]) -> str | None:
    example = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    try:
        token_ids, is_answer, _ = render_with_answer_mask(tokenizer, example)
    except InputError:
        return None
    last = token_ids[max(i for i, learnt in enumerate(is_answer) if learnt)]
    token = tokenizer.convert_ids_to_tokens(last)
    return token if token in special else None


def without_control_tokens(conversation: Conversation, special: Sequence[str]) -> list[dict]:
    """The turns with special tokens that are spelled out in them taken apart by a space, as in
    the training here: a row must not be able to forge a turn.

    Args:
        special: As `TokenizerFacts.special_tokens`; one-character tokens stay.
    """
    spelled = sorted((t for t in special if len(t.strip()) > 1), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, spelled)) or r"(?!)")
    return [
        {**turn, "content": pattern.sub(lambda m: f"{m[0][0]} {m[0][1:]}", turn["content"])}
        for turn in conversation
    ]


def marked_row(conversation: Conversation) -> dict[str, Any]:
    """One row with a mark on every turn that says whether it is learnt (axolotl)."""
    turns = [{**_plain(turn), "train": _is_learnt(turn)} for turn in conversation]
    return {"messages": turns}


def prompt_completion_rows(conversation: Conversation) -> Iterator[dict[str, Any]]:
    """One row per answer to learn, what comes before it apart (TRL)."""
    for turns in _up_to_each_answer(conversation):
        # an answer without reasoning, as in training here; templates without thinking ignore it
        options = {"enable_thinking": False}
        yield {"prompt": turns[:-1], "completion": turns[-1:], "chat_template_kwargs": options}


def alternating_rows(conversation: Conversation) -> Iterator[dict[str, Any]]:
    """One row per answer to learn, to train on the last turn of (LLaMA-Factory).

    Nothing for a conversation whose turns do not alternate between user (or tool) and assistant
    after an optional system turn: LLaMA-Factory would skip it.
    """
    for turns in _up_to_each_answer(conversation):
        spoken = turns[1:] if turns[0]["role"] == "system" else turns
        asked, answered = spoken[::2], spoken[1::2]
        if len(asked) != len(answered) or not (
            all(turn["role"] in ("user", "tool") for turn in asked)
            and all(turn["role"] == "assistant" for turn in answered)
        ):
            continue
        yield {"messages": turns}


def _up_to_each_answer(conversation: Conversation) -> Iterator[list[dict[str, str]]]:
    for index, turn in enumerate(conversation):
        if _is_learnt(turn) and index:
            yield [_plain(earlier) for earlier in conversation[: index + 1]]


def _is_learnt(turn: Mapping[str, Any]) -> bool:
    return turn["role"] == "assistant" and turn.get("train", True)


def _plain(turn: Mapping[str, Any]) -> dict[str, str]:
    return {"role": turn["role"], "content": turn["content"]}
