"""Which tokens of a conversation are answers to learn."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from sot_pipeline.errors import InputError
from sot_pipeline.rendering.cut import RenderedConversation, cut
from sot_pipeline.rendering.outline import Prefixes
from sot_pipeline.rendering.template import (
    PROBE,
    Conversation,
    conversation_text,
    hold_reasoning,
    safe_turns,
    template_text,
    without_opened_thinking,
)
from sot_pipeline.rendering.tokens import Encoded, answer_positions, encode_with_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROWS_AT_ONCE = 256  # enough to keep the cores busy; the texts of more would only take memory


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
    answers = _find_answers(tokenizer, messages)
    [encoded] = encode_with_offsets(tokenizer, [answers.text])
    return _masked(tokenizer, encoded, answers, max_length)


def render_rows_with_answer_masks(
    tokenizer: "PreTrainedTokenizerBase",
    conversations: Iterable[Conversation],
    *,
    max_length: int | None = None,
) -> Iterator[RenderedConversation]:
    """`render_with_answer_mask` of many conversations, in their order; faster.

    Raises:
        InputError: As there; the message begins with the row's number, from 0.
    """
    rows = enumerate(conversations)
    while chunk := list(islice(rows, _ROWS_AT_ONCE)):
        answers = [_of_row(i, _find_answers, tokenizer, messages) for i, messages in chunk]
        encoded = encode_with_offsets(tokenizer, [row.text for row in answers])
        for (i, _), tokens, row in zip(chunk, encoded, answers, strict=True):
            yield _of_row(i, _masked, tokenizer, tokens, row, max_length)


def _of_row(index: int, function, *arguments):
    try:
        return function(*arguments)
    except InputError as error:
        raise InputError(f"row {index}: {error}") from None


class _Answers(NamedTuple):
    """The text of a conversation, and where in it the answers are, in characters."""

    text: str
    spans: list[tuple[int, int]]


def _find_answers(tokenizer, messages: Conversation) -> _Answers:
    turns = safe_turns(tokenizer, messages)
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
    thinks = hold_reasoning(turns)
    prefixes = Prefixes(tokenizer, turns, thinks=thinks)
    text = prefixes.text
    dropped = _first_dropped(text, turns)
    if dropped is None:
        spans = [_answer_span(prefixes, k) for k in learnt]
        dropped = _first_dropped(text[: spans[0][0]], turns[:1])  # or written too late
        if dropped is None:
            return _Answers(text, spans)
    if dropped == 0 and turns[0]["role"] == "system" and len(learnt) == 1:
        answers = _as_generated(tokenizer, turns[: learnt[0] + 1], thinks)
        if answers is not None and _first_dropped(answers.text, turns[: learnt[0]]) is None:
            return answers
    raise _changed(dropped, f"leaves out or rewrites the {turns[dropped]['role']} turn")


def _as_generated(tokenizer, turns: list[dict], thinks: bool) -> _Answers | None:
    """What the model reads when it is asked for the last answer, and that answer.

    For templates that write the system turn into the last user turn, and nowhere when an
    answer follows (Mistral 7B v0.3, Nemo).
    """
    *asked, _ = turns
    prefixes = Prefixes(tokenizer, turns[1:], thinks=thinks)
    without_system = prefixes.text
    bare_prompt = template_text(tokenizer, asked[1:], True) if asked[1:] else ""
    if not bare_prompt or not without_system.startswith(bare_prompt):
        return None
    if conversation_text(tokenizer, turns, thinks=thinks) != without_system:
        return None
    prompt = template_text(tokenizer, asked, True)
    start, end = _answer_span(prefixes, len(turns) - 2)
    longer = len(prompt) - len(bare_prompt)
    text = prompt + without_system[len(bare_prompt) :]
    return _Answers(text, [(start + longer, end + longer)])


def _masked(tokenizer, encoded: Encoded, answers: _Answers, max_length: int | None):
    token_ids = encoded.token_ids
    is_answer = [False] * len(token_ids)
    for positions in answer_positions(tokenizer, encoded, answers.spans):
        for i in positions:
            is_answer[i] = True
    if not any(is_answer) or all(is_answer):
        raise InputError(
            f"{'All' if token_ids and all(is_answer) else 'None'} of the {len(token_ids)} tokens "
            "of the conversation belong to an answer to learn. It needs a prompt and a "
            "non-empty answer."
        )
    return cut(token_ids, is_answer, max_length, bos=tokenizer.bos_token_id)


def _answer_span(prefixes: Prefixes, k: int) -> tuple[int, int]:
    """Character span, in the whole text, of the answer of turn `k` and its end token.

    A probe in the answer's place shows what the template writes before and after it. The
    part before may differ between a last and an earlier turn (think blocks), so the
    generation prompt is tried as well, and what stands in it before `<think>`. A blank between that prompt and the answer is the
    model's to write, a think block that the template put there is not, unless the row
    brought the reasoning in it.
    """
    before, found, after = prefixes.probed(k).partition(PROBE)
    if not found:
        raise _changed(k, "leaves out the assistant's answer")
    prompt, text = prefixes.prompt(k), prefixes.text
    content = prefixes.turns[k]["content"]
    header = without_opened_thinking(prompt)
    for head in (before, prompt, header):
        for answer in (content, content.strip(), content.rstrip(), content.lstrip()):
            if text.startswith(head + answer):
                start, end = len(head), len(head + answer)
                if reasoning := prefixes.turns[k].get("reasoning_content"):
                    start = _reasoning_start(text[:start], prompt, reasoning, k)
                elif text.startswith(prompt) and not text[len(prompt) : start].strip():
                    start = len(prompt)  # generation begins there
                return start, end + _end_token_length(after, text[end:])
    # The template reshaped the answer itself (split off its reasoning, for one): learn all
    # of the turn, provided that no word was lost and nothing before it changed.
    whole_turn = prefixes.whole(k)
    kept = _without_spaces(content) in _without_spaces(whole_turn[len(header) :])
    if prompt and kept and text.startswith(whole_turn) and whole_turn.startswith(prompt):
        rendered = whole_turn[len(prompt) :]
        return len(prompt), len(prompt) + len(rendered.rstrip() or rendered)
    raise _changed(k, "rewrites this turn, or an earlier one, when later turns follow")


def _reasoning_start(head: str, prompt: str, reasoning: str, k: int) -> int:
    """Where a model begins to write its reasoning, given what stands before the answer."""
    written = head[len(prompt) :] if head.startswith(prompt) else ""
    if _without_spaces(reasoning) not in _without_spaces(written):
        raise _changed(k, "leaves out the reasoning of this turn")
    return len(prompt)


def _end_token_length(after: str, rest: str) -> int:
    """How much of what follows an answer is its end mark: up to white space behind the token."""
    length = 0
    while length < min(len(after), len(rest)) and after[length] == rest[length]:
        length += 1
    end = after[:length]
    return len(end.rstrip()) or length


def _first_dropped(text: str, turns: list[dict]) -> int | None:
    """The first instruction that does not reach the model; answers are checked one by one.

    Tool results are left out: templates write them as JSON.
    """
    for k, turn in enumerate(turns):
        content = turn["content"].strip()
        if turn["role"] not in ("system", "user") or content in text:
            continue
        if _without_spaces(content) not in _without_spaces(text):
            return k
    return None


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def _changed(k: int, what: str) -> InputError:
    return InputError(
        f"The model's chat template {what} (turn {k + 1} of the conversation), so the tokens to "
        "learn cannot be told apart. Split the conversation so that each part ends with one "
        'answer, mark earlier answers "train": false, or use a model with a plainer template.'
    )
