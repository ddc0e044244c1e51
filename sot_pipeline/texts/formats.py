"""Which format a row has, and the conversation it holds.

Only the columns named here are ever read; others, labels among them, are left alone.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from sot_pipeline.texts.conversation import Conversation, last_answer
from sot_pipeline.texts.json_row import parse_json
from sot_pipeline.texts.rejection import RowRejected, column_names, kind_of

SIGNATURES: dict[str, tuple[str, ...]] = {
    "openai": ("messages",),
    "alpaca": ("instruction", "output"),
    "sharegpt": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "prompt_response": ("prompt", "response"),
}
FORMATS = tuple(SIGNATURES)
LICENCE_COLUMNS = ("licence", "license")
CATEGORY_COLUMNS = (  # what kind of row it is; the first with a value counts
    "category", "harm_category", "semantic_category", "risk_category", "Category",
    "SemanticCategory",
)  # fmt: skip
OPTIONAL_COLUMNS = ("input", "system", "history", "id", *LICENCE_COLUMNS, *CATEGORY_COLUMNS)
READ_COLUMNS = (*dict.fromkeys(c for s in SIGNATURES.values() for c in s), *OPTIONAL_COLUMNS)
PROMPT_ONLY = "prompt_only"  # a prompt with no answer column: goes with either prompt format
_QUESTIONS = {"instruction": "alpaca", "prompt": PROMPT_ONLY}

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
_TEXT_PARTS = ("text", "input_text", "output_text")


def known_columns(names: Collection[str]) -> list[str]:
    """The columns among `names` that can hold a question or an answer."""
    return [c for c in READ_COLUMNS if c in names and c not in OPTIONAL_COLUMNS]


def detect_format(row: dict[str, Any]) -> str:
    """The format of a row, by which columns hold a value.

    Raises:
        RowRejected: "ambiguous_row" (two formats at once) or "unknown_format".
    """
    full = [f for f, columns in SIGNATURES.items() if all(row.get(c) is not None for c in columns)]
    if len(full) > 1:
        raise RowRejected(
            "ambiguous_row",
            f"the row holds {' and '.join(full)} at once; expected one. Remove the columns of the "
            "other, or name the format to read.",
        )
    if full:
        return full[0]
    for column, format in _QUESTIONS.items():
        if row.get(column) is not None:
            return format
    given = [name for name, value in row.items() if value is not None]
    expected = "; ".join(" + ".join(columns) for columns in SIGNATURES.values())
    raise RowRejected(
        "unknown_format",
        f"the columns with a value are {column_names(given)}; expected one of: {expected}.",
    )


def to_conversation(
    row: dict[str, Any], format: str, *, require_response: bool, counts: Counter[str]
) -> Conversation:
    """The conversation of a row, checked.

    Args:
        row: a parsed row; None counts as absent.
        format: one of `FORMATS`, or `PROMPT_ONLY`.
        require_response: whether a row without an answer to learn from is rejected.
        counts: gains "non_text_parts" (read over), "tool_calls" (read as text) and
            "turns_after_last_answer".

    Raises:
        RowRejected: wrong types, unknown roles, missing or empty turns, NUL characters.
    """
    if format in SIGNATURES and row.get(SIGNATURES[format][0]) is None:
        raise RowRejected(
            "other_format",
            f"found the columns {column_names(row)}; expected {' + '.join(SIGNATURES[format])}.",
        )
    conversation = _READERS[format](row, counts)
    if not require_response and conversation and _is_blank_answer(conversation[-1]):
        conversation.pop()
    _check(conversation, require_response, counts)
    return conversation


def _is_blank_answer(turn: dict[str, Any]) -> bool:
    return turn["role"] == "assistant" and not turn["content"].strip()


def _check(conversation: Conversation, require_response: bool, counts: Counter[str]) -> None:
    answer = last_answer(conversation)
    if answer is not None and answer < len(conversation) - 1:
        counts["turns_after_last_answer"] += len(conversation) - 1 - answer
    if answer is None and require_response:
        raise RowRejected(
            "missing_answer", "no answer (null, or no assistant turn); expected a text to learn."
        )
    if answer is not None and not conversation[answer]["content"].strip():
        raise RowRejected("empty_answer", "the last answer is empty; expected a text to learn.")
    for number, turn in enumerate(conversation, 1):
        if "\0" in turn["content"]:
            raise RowRejected("nul_character", f"turn {number} holds a NUL character. Remove it.")
        if turn["role"] in ("user", "assistant") and not turn["content"].strip():
            raise RowRejected("empty_turn", f"turn {number} ({turn['role']}) is empty.")
    if not any(turn["role"] == "user" for turn in conversation[:answer]):
        raise RowRejected("missing_prompt", "no user turn before the answer; expected a prompt.")
    answers = [turn for turn in conversation if turn["role"] == "assistant"]
    if require_response and not any(turn.get("train", True) for turn in answers):
        raise RowRejected(
            "nothing_to_learn", "every assistant turn has weight 0; expected one with weight 1."
        )


def _read_messages(row: dict[str, Any], counts: Counter[str]) -> Conversation:
    return _turns(row.get("messages"), "messages", counts)


def _read_conversations(row: dict[str, Any], counts: Counter[str]) -> Conversation:
    turns = _turns(row.get("conversations"), "conversations", counts)
    return _system_turn(row) + turns


def _read_alpaca(row: dict[str, Any], counts: Counter[str]) -> Conversation:
    question = [_text(row.get(c), c) for c in ("instruction", "input")]
    turns = _system_turn(row)
    history = _parsed(row.get("history"), "history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not (isinstance(pair, list) and len(pair) == 2):
            raise RowRejected("wrong_type", "`history` must be a list of [question, answer] pairs.")
        turns += _pair(_text(pair[0], "history"), _text(pair[1], "history"))
    prompt = "\n\n".join(part for part in question if part and part.strip())
    return turns + _pair(prompt, _text(row.get("output"), "output"))


def _read_prompt_completion(row: dict[str, Any], counts: Counter[str]) -> Conversation:
    return _prompt_and("completion", row, counts)


def _read_prompt_response(row: dict[str, Any], counts: Counter[str]) -> Conversation:
    return _prompt_and("response", row, counts)


def _prompt_and(answer: str, row: dict[str, Any], counts: Counter[str]) -> Conversation:
    """A prompt and an answer column, each a text or a list of turns."""
    turns = _system_turn(row)
    for column, role in (("prompt", "user"), (answer, "assistant")):
        value = row.get(column)
        if isinstance(value, list):
            turns += _turns(value, column, counts)
        elif (text := _text(value, column)) is not None:
            turns.append({"role": role, "content": text})
    return turns


_READERS: dict[str, Callable[[dict[str, Any], Counter[str]], Conversation]] = {
    "openai": _read_messages,
    "alpaca": _read_alpaca,
    "sharegpt": _read_conversations,
    "prompt_completion": _read_prompt_completion,
    "prompt_response": _read_prompt_response,
    PROMPT_ONLY: _read_prompt_response,
}


def _pair(prompt: str | None, answer: str | None) -> Conversation:
    turns = [{"role": "user", "content": prompt or ""}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": answer}]


def _system_turn(row: dict[str, Any]) -> Conversation:
    system = _text(row.get("system"), "system")
    return [{"role": "system", "content": system}] if system and system.strip() else []


def _text(value: Any, column: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise RowRejected("wrong_type", f"`{column}` is {kind_of(value)}; expected a text.")


def _parsed(value: Any, column: str) -> Any:
    """Lists come as JSON text where the file type has no lists (CSV)."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except RowRejected as error:
        raise RowRejected(
            "wrong_type", f"`{column}` is a text that is not JSON ({error.detail})"
        ) from None


def _turns(value: Any, column: str, counts: Counter[str]) -> Conversation:
    turns = _parsed(value, column)
    if not isinstance(turns, list):
        raise RowRejected("wrong_type", f"`{column}` is {kind_of(turns)}; expected a list.")
    if not turns:
        raise RowRejected("empty_conversation", f"`{column}` is an empty list; expected turns.")
    return [_turn(turn, number, counts) for number, turn in enumerate(turns, 1)]


def _turn(turn: Any, number: int, counts: Counter[str]) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise RowRejected("wrong_type", f"turn {number} is {kind_of(turn)}; expected an object.")
    named, content = ("role", "content") if turn.get("role") is not None else ("from", "value")
    role = turn.get(named)
    if not isinstance(role, str) or role not in _ROLES:
        raise RowRejected(
            "unknown_role", f"turn {number} has no known role; expected one of {', '.join(_ROLES)}."
        )
    text = _content(turn.get(content), number, counts)
    if _ROLES[role] != "assistant":
        if text is None:
            raise RowRejected("missing_content", f"turn {number} has no text; expected one.")
        return {"role": _ROLES[role], "content": text}
    parts = [part for part in (text, _tool_calls(turn, counts)) if part]
    answer = {"role": "assistant", "content": "\n".join(parts)}
    return answer if _is_trained(turn, number) else {**answer, "train": False}


def _content(value: Any, number: int, counts: Counter[str]) -> str | None:
    """A text, or the text parts of a list of parts; other parts are counted, not read."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RowRejected("wrong_type", f"turn {number} holds {kind_of(value)}; expected a text.")
    texts: list[str] = []
    for part in value:
        text = _part_text(part)
        if isinstance(text, str):
            texts.append(text)
        else:
            counts["non_text_parts"] += 1
    if not texts:
        raise RowRejected(
            "non_text_content", f"turn {number} holds {len(value)} parts and no text among them."
        )
    return "\n".join(texts)


def _part_text(part: Any) -> Any:
    """The text of a content part, or None if it is an image or the like."""
    if not isinstance(part, dict):
        return part
    if part.get("type") == "refusal":
        return part.get("refusal")
    return part.get("text") if part.get("type") in _TEXT_PARTS else None


def _tool_calls(turn: dict[str, Any], counts: Counter[str]) -> str | None:
    """Calls of tools are what the assistant says in that turn: their JSON is its text."""
    given = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    if not isinstance(given, list):
        raise RowRejected("wrong_type", f"`tool_calls` is {kind_of(given)}; expected a list.")
    if not given:
        return None
    calls = [call.get("function") or call if isinstance(call, dict) else call for call in given]
    counts["tool_calls"] += len(calls)
    return json.dumps(
        [
            {key: call.get(key) for key in ("name", "arguments")}
            if isinstance(call, dict)
            else call
            for call in calls
        ],
        ensure_ascii=False,
    )


def _is_trained(turn: dict[str, Any], number: int) -> bool:
    """OpenAI's `weight` 0 or 1 is a mask, and so is our own `train`; absent means learn."""
    flags = [turn.get(key) for key in ("weight", "train") if turn.get(key) is not None]
    if any(flag not in (0, 1) for flag in flags):  # True == 1, 1.0 == 1
        raise RowRejected(
            "bad_weight",
            f"turn {number} has a `weight` other than 0 and 1; expected 1 (learn this answer) or 0 "
            "(do not). How much a whole row counts is `sample_weight`, which is computed, not read.",
        )
    return all(flags)
