"""The prefixes of a conversation as the template writes them, mostly without rendering each.

Rendering is what masks cost most, once texts are encoded only once. What a template writes
around the contents of a sequence of roles, its outline, is the same in each row. It is
learnt from a conversation of made-up words and filled in. A filled outline stands for the
rendered text only where the template treats the contents of the row as it treats those words:

* the whole conversation, which is rendered, is its filled outline to the letter;
* no content holds a text that the template looks for (`</think>`, `<tool_response>`);
* no content is empty or there twice, and no turn has keys besides role and content.

Every other conversation has its prefixes rendered.
"""

import re
from functools import lru_cache

import jinja2
from jinja2 import nodes

from sot_pipeline.errors import InputError
from sot_pipeline.rendering.template import PROBE, conversation_text, template_text

_TELL_ONLY = ("raise_exception", "strftime_now")  # functions that look at no content
_WORD = re.compile(r"(qzjxturn[a-z]{4}probexjzq)")


class Prefixes:
    """The text of a conversation, and what the template writes for its beginnings."""

    def __init__(self, tokenizer, turns: list[dict], *, thinks: bool):
        self.turns, self._tokenizer, self._thinks = turns, tokenizer, thinks
        self.text = conversation_text(tokenizer, turns, thinks=thinks)
        self._contents = self._filled_in() if isinstance(tokenizer.chat_template, str) else None

    def prompt(self, k: int) -> str:
        """The generation prompt for turn `k`, of a model that is not told whether to think."""
        if k == 0:
            return ""
        filled = self._fill(k, add_generation_prompt=True, last=[])
        return filled or template_text(self._tokenizer, self.turns[:k], True)

    def probed(self, k: int) -> str:
        """The conversation up to turn `k`, with the probe in the place of its content."""
        filled = self._fill(k + 1, add_generation_prompt=False, last=[PROBE])
        probe = {**self.turns[k], "content": PROBE}
        turns = [*self.turns[:k], probe]
        return filled or conversation_text(self._tokenizer, turns, thinks=self._thinks)

    def whole(self, k: int) -> str:
        """The conversation up to turn `k` and with it."""
        return conversation_text(self._tokenizer, self.turns[: k + 1], thinks=self._thinks)

    def _filled_in(self) -> list[str] | None:
        """The contents with which the outline is the text, or None."""
        contents = [turn["content"] for turn in self.turns]
        if any(turn.keys() != {"role", "content"} for turn in self.turns):
            return None
        if len(set(contents)) < len(contents) or not all(map(str.strip, contents)):
            return None
        looked_for = _texts_looked_for(self._tokenizer.chat_template)
        if looked_for is None or any(map(looked_for.search, contents)):
            return None
        for written in (contents, [content.strip() for content in contents]):
            self._contents = written
            if self._fill(len(written), add_generation_prompt=False, last=[]) == self.text:
                return written
        return None

    def _fill(self, num_turns: int, *, add_generation_prompt: bool, last: list[str]) -> str | None:
        if self._contents is None:
            return None
        tokenizer = self._tokenizer
        roles = tuple(turn["role"] for turn in self.turns[:num_turns])
        key = (tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token, len(tokenizer))
        pieces = _outline(tokenizer, key, roles, add_generation_prompt, self._thinks)
        if pieces is None:
            return None
        contents = [*self._contents[: num_turns - len(last)], *last]
        return "".join(contents[p] if isinstance(p, int) else p for p in pieces)


@lru_cache(maxsize=1024)
def _outline(tokenizer, key, roles: tuple[str, ...], add_generation_prompt: bool, thinks: bool):
    """What the template writes for these roles: texts, and the numbers of turns in their place."""
    words = [f"qzjxturn{_letters(i)}probexjzq" for i in range(len(roles))]
    turns = [{"role": r, "content": word} for r, word in zip(roles, words, strict=True)]
    try:
        if add_generation_prompt:
            text = template_text(tokenizer, turns, True)
        else:
            text = conversation_text(tokenizer, turns, thinks=thinks)
    except InputError:
        return None
    numbers = {word: i for i, word in enumerate(words)}
    return tuple(numbers.get(piece, piece) for piece in _WORD.split(text) if piece)


def _letters(i: int) -> str:
    return "".join(chr(ord("a") + i // 26**power % 26) for power in range(4))


@lru_cache(maxsize=8)
def _texts_looked_for(template: str) -> re.Pattern | None:
    """What the template compares texts with, roles aside; None where it cannot be told."""
    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)  # a tag of transformers
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(plain)
    except jinja2.TemplateSyntaxError:
        return None
    words = "|".join(re.escape(text) for text in sorted(_looked_for(tree)))
    return re.compile(words or r"(?!)", re.IGNORECASE)


def _looked_for(node: nodes.Node) -> set[str]:
    if isinstance(node, nodes.Compare) and _is_role(node.expr):
        return set()
    if isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Name) and node.node.name in _TELL_ONLY:
            return set()
        # strip and split are told white space too, which changes nothing that is not seen
        found = {text for text in _constants(node) if text.strip()}
    else:
        found = _constants(node) if isinstance(node, nodes.Compare | nodes.Test) else set()
    return found.union(*map(_looked_for, node.iter_child_nodes()))


def _constants(node: nodes.Node) -> set[str]:
    """The texts that a comparison, test or call holds itself, lists of them included."""
    parts = list(node.iter_child_nodes())
    found = set()
    while parts:
        part = parts.pop()
        if isinstance(part, nodes.Const) and isinstance(part.value, str) and part.value:
            found.add(part.value)
        if isinstance(part, nodes.Operand | nodes.List | nodes.Tuple | nodes.Concat | nodes.Add):
            parts += part.iter_child_nodes()
    return found


def _is_role(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Getattr):
        return node.attr == "role"
    key = node.arg if isinstance(node, nodes.Getitem) else None
    return isinstance(key, nodes.Const) and key.value == "role"
