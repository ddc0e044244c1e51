"""Text of unknown origin, made harmless to the eye.

Escaping keeps a row from being executed; this keeps it from lying: characters that hide,
reorder or cannot be shown appear as their code points.
"""

import unicodedata

_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_ALLOWED = {"\n", "\t"}


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


def excerpt(text: str, length: int) -> str:
    """The first `length` characters; says how many are left out."""
    if len(text) <= length:
        return text
    return f"{text[:length]} … ({len(text) - length:,} more characters)"
