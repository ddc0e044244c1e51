"""Turn conversations into a model's tokens, and say which of them are answers to learn.

Everything that must agree between embedding, fine-tuning and evaluation about how a
conversation looks to the model: `render` for what the model reads, `render_with_answer_mask`
for which of those tokens it should learn to write.

* The tokenizer's own chat template is used where there is one. Its text is encoded with
  `add_special_tokens=False`, because the template writes the special tokens itself.
* Without a template, turns are written `role: content`, one per line, an answer closed by
  the end-of-sequence token (`_plain_text`).
* A special token spelled out inside a turn (`<|im_end|>` in an uploaded row) is taken apart
  with one space, so that no row can forge a turn, end an answer or move the answer mask.
* Generation prompts ask models that can think to answer at once (`enable_thinking=False`),
  which is also how an answer without reasoning is rendered for training.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import TemplateError

from sot_pipeline.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Conversation = Sequence[Mapping[str, Any]]


class RenderedConversation(NamedTuple):
    """Token ids, which of them belong to answers to learn, and how many tokens were cut."""

    token_ids: list[int]
    is_answer: list[bool]
    num_cut: int


def render(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Conversation,
    *,
    add_generation_prompt: bool = False,
) -> list[int]:
    """Token ids of a conversation as the model reads it.

    Args:
        tokenizer: Its chat template is used where it has one, else the plain form.
        messages: At least one turn; keys other than `train` reach the template.
        add_generation_prompt: End with the header of the assistant's next turn.

    Raises:
        InputError: The template refuses the conversation (no system role, wrong order).
    """
    return _encode(tokenizer, render_text(tokenizer, messages, add_generation_prompt))


def render_text(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Conversation,
    add_generation_prompt: bool = False,
) -> str:
    """The text behind `render`."""
    options = {"enable_thinking": False} if add_generation_prompt else {}
    turns = _safe_turns(tokenizer, messages)
    return _template_text(tokenizer, turns, add_generation_prompt, **options)


def render_with_answer_mask(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Conversation,
    *,
    max_length: int | None = None,
) -> RenderedConversation:
    """Token ids of a conversation, and which of them the model should learn to write.

    Learnt are the tokens of each assistant turn's content and the end token behind it; not
    the turn's header, not what the template adds by itself (an empty think block), and no
    turn with `"train": False`. The borders come from rendering prefixes of the conversation,
    never from `{% generation %}` marks, pad ids or trailing pads.

    Args:
        tokenizer: As in `render`.
        messages: A conversation with at least one assistant turn to learn.
        max_length: Longest result, in tokens, >= 2. What follows the last answer goes first,
            then the oldest tokens (a beginning-of-sequence token stays), and only then the
            end of an answer that is itself too long.

    Raises:
        InputError: Nothing to learn, nothing but answers, or a template that drops or
            rewrites turns so that the answer cannot be found in the rendered text.
    """
    turns = _safe_turns(tokenizer, messages)
    learnt = [
        k
        for k, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("train", True)
    ]
    if not learnt:
        raise InputError(
            "The conversation has no assistant turn to learn (none at all, or all carry "
            '"train": false). Remove it from the training set.'
        )
    text = _template_text(tokenizer, turns, False)
    _check_nothing_dropped(text, turns)
    spans = [_answer_span(tokenizer, turns, k, text) for k in learnt]
    token_ids = _encode(tokenizer, text)
    is_answer = [False] * len(token_ids)
    for start, end in spans:
        for i in _answer_positions(tokenizer, text, token_ids, start, end):
            is_answer[i] = True
    if not any(is_answer) or all(is_answer):
        raise InputError(
            f"{'All' if token_ids and all(is_answer) else 'None'} of the {len(token_ids)} tokens "
            "of the conversation belong to an answer to learn. It needs a prompt and a "
            "non-empty answer."
        )
    return _cut(token_ids, is_answer, max_length, bos=tokenizer.bos_token_id)


def _template_text(tokenizer, turns: list[dict], add_generation_prompt: bool, **options) -> str:
    if not turns:
        raise InputError("The conversation is empty: it needs at least one turn.")
    if not tokenizer.chat_template:
        return _plain_text(tokenizer, turns, add_generation_prompt)
    try:
        return tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt, **options
        )
    except (TemplateError, TypeError, KeyError) as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise InputError(
            f"The model's chat template refuses a conversation with the roles {roles}: {error}. "
            "Change the turns to what the model knows, or choose another model."
        ) from error


def _plain_text(tokenizer, turns: list[dict], add_generation_prompt: bool) -> str:
    """`role: content` lines; the form of models that were never given a chat template."""
    end = {"assistant": tokenizer.eos_token or ""}
    lines = [f"{turn['role']}: {turn['content']}{end.get(turn['role'], '')}\n" for turn in turns]
    prompt = "assistant:" if add_generation_prompt else ""
    return (tokenizer.bos_token or "") + "".join(lines) + prompt


def _encode(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _safe_turns(tokenizer, messages: Conversation) -> list[dict]:
    """Turns without our own `train` key, special tokens in their content taken apart."""
    special = _special_tokens_pattern(tokenizer, len(tokenizer))
    turns = []
    for message in messages:
        turn = {key: value for key, value in message.items() if key != "train"}
        turn["content"] = special.sub(
            lambda found: found[0][0] + " " + found[0][1:], turn["content"]
        )
        turns.append(turn)
    return turns


@lru_cache(maxsize=8)  # the size tells a tokenizer to which tokens were added meanwhile
def _special_tokens_pattern(tokenizer, size: int) -> re.Pattern:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens = added | set(tokenizer.all_special_tokens)
    # A one-character or blank special token cannot be taken apart; it stays as it is.
    spelled = [re.escape(token) for token in tokens if len(token.strip()) > 1]
    return re.compile("|".join(sorted(spelled, key=len, reverse=True)) or r"(?!)")


# Stands in for an answer, to learn what a template writes around it. Letters only, so that
# no tokenizer or template rewrites it.
_PROBE = "qzjxanswerprobexjzq"


def _answer_span(tokenizer, turns: list[dict], k: int, text: str) -> tuple[int, int]:
    """Character span in `text` of the answer of turn `k` and its end token.

    A probe in the answer's place shows what the template writes before and after it. The
    part before may differ between a last and an earlier turn (think blocks), so the
    generation prompt is tried as well. A blank between that prompt and the answer is the
    model's to write, a think block that the template put there is not.
    """
    probed = _template_text(tokenizer, [*turns[:k], {**turns[k], "content": _PROBE}], False)
    before, found, after = probed.partition(_PROBE)
    if not found:
        raise _changed(k, "leaves out the assistant's answer")
    prompt = _template_text(tokenizer, turns[:k], True) if k else ""
    content = turns[k]["content"]
    for head in (before, prompt):
        for answer in (content, content.strip(), content.rstrip(), content.lstrip()):
            if text.startswith(head + answer):
                start, end = len(head), len(head + answer)
                if text.startswith(prompt) and not text[len(prompt) : start].strip():
                    start = min(start, len(prompt))  # generation begins before the blank
                return start, end + _end_token_length(after, text[end:])
    # The template reshaped the answer itself (split off its reasoning, for one): learn all
    # of the turn, provided that no word was lost and nothing before it changed.
    whole_turn = _template_text(tokenizer, turns[: k + 1], False)
    if prompt and text.startswith(whole_turn) and whole_turn.startswith(prompt):
        rendered = whole_turn[len(prompt) :]
        if _without_spaces(content) in _without_spaces(rendered):
            return len(prompt), len(prompt) + len(rendered.rstrip() or rendered)
    raise _changed(k, "rewrites this turn, or an earlier one, when later turns follow")


def _end_token_length(after: str, rest: str) -> int:
    """How much of what follows an answer is its end mark: up to white space behind the token."""
    length = 0
    while length < min(len(after), len(rest)) and after[length] == rest[length]:
        length += 1
    end = after[:length]
    return len(end.rstrip()) or length


def _check_nothing_dropped(text: str, turns: list[dict]) -> None:
    """Every instruction must reach the model; answers are checked one by one.

    Tool results are left out: templates write them as JSON.
    """
    for k, turn in enumerate(turns):
        content = turn["content"].strip()
        if turn["role"] not in ("system", "user") or content in text:
            continue
        if _without_spaces(content) not in _without_spaces(text):
            raise _changed(k, f"leaves out or rewrites the {turn['role']} turn")


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def _changed(k: int, what: str) -> InputError:
    return InputError(
        f"The model's chat template {what} (turn {k + 1} of the conversation), so the tokens to "
        "learn cannot be told apart. Split the conversation so that each part ends with one "
        'answer, mark earlier answers "train": false, or use a model with a plainer template.'
    )


def _answer_positions(
    tokenizer, text: str, token_ids: list[int], start: int, end: int
) -> Sequence[int]:
    """Positions of the tokens of a character span: by token prefixes, else by offsets.

    Prefixes are what generation will see. Where tokenisation merges characters across the
    border, a token counts as answer when any of its characters does.
    """
    offsets = None
    if tokenizer.is_fast:
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        offsets = tokenizer(text, **options)["offset_mapping"]
    first = _prefix_length(tokenizer, text[:start], token_ids, offsets)
    last = _prefix_length(tokenizer, text[:end], token_ids, offsets)
    if first is not None and last is not None:
        return range(first, last)
    if offsets is None:
        raise InputError(
            "The tokenizer merges characters of the prompt and the answer into one token and "
            "gives no character offsets. Use a model that comes with a tokenizer.json."
        )
    return [i for i, (a, b) in enumerate(offsets) if a < end and b > start and b > a]


def _prefix_length(tokenizer, prefix: str, token_ids: list[int], offsets) -> int | None:
    """How many of the tokens write `prefix`, or None where one of them reaches beyond it."""
    ids = _encode(tokenizer, prefix)
    count = len(ids)
    if token_ids[:count] != ids:
        return None
    # Equal ids are not enough: two different words may both be unknown to the vocabulary.
    reaches_beyond = offsets is not None and count and offsets[count - 1][1] > len(prefix)
    return None if reaches_beyond else count


def _cut(token_ids: list[int], is_answer: list[bool], max_length: int | None, *, bos):
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
