"""Text of unknown origin, made harmless to the eye.

Escaping keeps a row from being executed; this keeps it from lying: characters that hide,
reorder or cannot be shown appear as their code points.
"""

import unicodedata
from collections.abc import Callable

_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_ALLOWED = {"\n", "\t"}
_SEEN = 8  # times the length of an excerpt


def visible(text: str) -> str:
    """The text with control, bidi, zero-width, private and lone surrogate characters written
    as ⟨U+202E⟩; line breaks and tabs stay, CRLF becomes LF."""
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"⟨U+{ord(char):04X}⟩"
        if unicodedata.category(char) in _HIDDEN_CATEGORIES and char not in _ALLOWED
        else char
        for char in text
    )


def excerpt(text: str, length: int, change: Callable[[str], str] | None = None) -> str:
    """The first `length` characters; says how many are left out.

    Args:
        change: What becomes of the text before it is cut; it sees the beginning of a long one.
    """
    shown = text if change is None else change(text[: _SEEN * length])
    whole = change is None or len(text) <= _SEEN * length
    if whole and len(shown) <= length:
        return shown
    return f"{shown[:length]} … ({max(len(text) - length, 1):,} more characters)"
