"""The text of a conversation, as the model's chat template writes it."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from sot_pipeline.errors import InputError
from sot_pipeline.rendering.tokens import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Conversation = Sequence[Mapping[str, Any]]

# The day that templates are told. With the real one, a run could not be taken up again after
# midnight, and training and evaluation would read different system turns. This day is what
# Llama 3.1's template falls back to.
TODAY = date(2024, 7, 26)

# Stands in for an answer, to learn what a template writes around it. Letters only, so that
# no tokenizer or template rewrites it.
PROBE = "qzjxanswerprobexjzq"

_DATE_CALL = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)""")
_OPENED_THINKING = re.compile(r"<think>\s*\Z")


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
        add_generation_prompt: End with the header of the assistant's next turn, and behind
            it what the template writes before an answer without reasoning.

    Raises:
        InputError: The template refuses the conversation (no system role, wrong order).
    """
    return encode(tokenizer, render_text(tokenizer, messages, add_generation_prompt))


def render_text(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Conversation,
    add_generation_prompt: bool = False,
) -> str:
    """The text behind `render`."""
    turns = safe_turns(tokenizer, messages)
    if not add_generation_prompt:
        return conversation_text(tokenizer, turns, thinks=hold_reasoning(turns))
    text = template_text(tokenizer, turns, True, enable_thinking=False)
    header = without_opened_thinking(text)
    if header == text:
        return text
    # The template makes the model think (DeepSeek-R1, Qwen3-Thinking), which an answer without
    # reasoning never follows in training: generation begins where such an answer does.
    answered = [*turns, {"role": "assistant", "content": PROBE}]
    answer_at_once, _, _ = conversation_text(tokenizer, answered, thinks=False).partition(PROBE)
    return answer_at_once if answer_at_once.startswith(header) else text


def conversation_text(tokenizer, turns: list[dict], *, thinks: bool) -> str:
    """A whole conversation; the model is told to answer at once unless it `thinks`."""
    return template_text(tokenizer, turns, False, **({} if thinks else {"enable_thinking": False}))


def without_opened_thinking(prompt: str) -> str:
    """A generation prompt without the think block that it opens, if it does."""
    return _OPENED_THINKING.sub("", prompt)


def hold_reasoning(turns: list[dict]) -> bool:
    """Whether an answer comes with its reasoning."""
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    return any(turn.get("reasoning_content") or "</think>" in turn["content"] for turn in answers)


def template_text(tokenizer, turns: list[dict], add_generation_prompt: bool, **options) -> str:
    """What the template writes for turns that are safe already."""
    if not turns:
        raise InputError("The conversation is empty: it needs at least one turn.")
    template = tokenizer.chat_template
    if not template:
        return _plain_text(tokenizer, turns, add_generation_prompt)
    if isinstance(template, str) and "strftime_now" in template:
        options["chat_template"] = _with_fixed_date(template)
    try:
        return tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt, **options
        )
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise InputError(
            f"The model's chat template refuses a conversation with the roles {roles}: {error}. "
            "Change the turns to what the model knows, or choose another model."
        ) from error


def safe_turns(tokenizer, messages: Conversation) -> list[dict]:
    """Turns without our own `train` key, special tokens in their texts taken apart."""
    special = _special_tokens_pattern(tokenizer, len(tokenizer))

    def safe(value: Any) -> Any:
        if isinstance(value, str):
            return special.sub(lambda found: found[0][0] + " " + found[0][1:], value)
        if isinstance(value, Mapping):
            return {key: safe(part) for key, part in value.items()}
        return [safe(part) for part in value] if isinstance(value, list | tuple) else value

    return [
        {key: safe(value) for key, value in message.items() if key != "train"}
        for message in messages
    ]


def _plain_text(tokenizer, turns: list[dict], add_generation_prompt: bool) -> str:
    """`role: content` lines; the form of models that were never given a chat template."""
    end = {"assistant": tokenizer.eos_token or ""}
    lines = [f"{turn['role']}: {turn['content']}{end.get(turn['role'], '')}\n" for turn in turns]
    prompt = "assistant:" if add_generation_prompt else ""
    return (tokenizer.bos_token or "") + "".join(lines) + prompt


@lru_cache(maxsize=8)
def _with_fixed_date(template: str) -> str:
    """The template with its calls of `strftime_now` answered: `TODAY` in their format.

    They are written into its text, because transformers lets no function into a template.
    """
    return _DATE_CALL.sub(lambda call: json.dumps(TODAY.strftime(call["format"])), template)


@lru_cache(maxsize=8)  # the size tells a tokenizer to which tokens were added meanwhile
def _special_tokens_pattern(tokenizer, size: int) -> re.Pattern:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens = added | set(tokenizer.all_special_tokens)
    # A one-character or blank special token cannot be taken apart; it stays as it is.
    spelled = [re.escape(token) for token in tokens if len(token.strip()) > 1]
    return re.compile("|".join(sorted(spelled, key=len, reverse=True)) or r"(?!)")
