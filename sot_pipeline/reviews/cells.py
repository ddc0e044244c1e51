"""Cells that no spreadsheet takes for a formula.

Source: OWASP, "CSV Injection". An apostrophe goes before a cell that begins with = + - @, a tab or
a line break, whatever quotes and blanks stand before it, full-width and other look-alikes included;
and before such a beginning after a semicolon, a tab or a line break inside a cell, where a program
that separates columns otherwise would begin a cell.
"""

import re

_DANGER = "=+@|%\\-" + "".join(
    chr(code)
    for code in (0xFF1D, 0xFF0B, 0xFF0D, 0xFF20, 0xFE66, 0xFE62, 0xFE63, 0xFE6B, 0x2212, 0x207A,
                 0x207B, 0x207C, 0x208A, 0x208B, 0x208C, 0x2010, 0x2011, 0x2012, 0x2013, 0x2014)
)  # fmt: skip
_BLANK = (
    r" \x0b\x0c\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff"
    r"\"'`´‘’‚‛“”„‟‹›«»＂＇"
)
_BREAK = ";\t\r\n"
_FIRST = f"(?=[{_BLANK}]*[{_DANGER}\\t\\r\\n])"
_INNER = f"(?=[{_BLANK}]*[{_DANGER}])"
_BEGINS, _BEGINS_AFTER = re.compile(_FIRST), re.compile(f"([{_BREAK}]){_INNER}")
_MARKED, _MARKED_AFTER = re.compile(f"'{_FIRST}"), re.compile(f"([{_BREAK}])'{_INNER}")


def protect(text: str) -> str:
    """The text as a cell; `unprotect` gives it back."""
    inner = _BEGINS_AFTER.sub(r"\1'", text)
    return f"'{inner}" if _BEGINS.match(text) else inner


def unprotect(cell: str) -> str:
    """The text of a protected cell; one that a person typed stays, but for an apostrophe that
    would have been put there."""
    inner = cell[1:] if _MARKED.match(cell) else cell
    return _MARKED_AFTER.sub(r"\1", inner)
