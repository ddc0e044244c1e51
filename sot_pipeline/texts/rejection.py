"""Why a row is not used: a short name for counting, and a sentence for the reader."""

import re

_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.-]{0,31}")
_MAX_NAMES = 8


class RowRejected(Exception):
    """One row cannot be used; the rest of the file can.

    Attributes:
        reason: code-like short name, the same for every row with this problem.
        detail: what was found, what was expected, what to do. Never holds the row's text:
            it ends up in logs and reports.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def kind_of(value: object) -> str:
    """The JSON word for a value's type, for use in a `detail`."""
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
        bytes: "raw bytes",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def column_names(names: object) -> str:
    """Column names for a message; a name that could be row text is counted, not shown."""
    given = [str(name) for name in names] if isinstance(names, (list, tuple, dict)) else []
    plain = [name for name in given if _PLAIN_NAME.fullmatch(name)][:_MAX_NAMES]
    hidden = len(given) - len(plain)
    return ", ".join(plain + ([f"{hidden} more"] if hidden else [])) or "no columns"
