"""Defences by name."""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sot_pipeline.errors import InputError
from sot_pipeline.finetuning.defences.defence import Defence

DEFENCES: Mapping[str, type[Defence]] = {"none": Defence}


def make_defence(name: str, options: Mapping[str, Any] | None = None) -> Defence:
    """A defence with some of its fields set.

    Raises:
        InputError: no such defence, no such field, a value it does not take.
    """
    if name not in DEFENCES:
        raise InputError(f"no defence is called {name!r}; {_near(name, list(DEFENCES))}")
    cls = DEFENCES[name]
    known = {field.name: field for field in fields(cls)}
    for option, value in (options or {}).items():
        if option not in known:
            raise InputError(f"{name} has no option {option!r}; {_near(option, list(known))}")
        kind = type(known[option].default)
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or isinstance(value, bool) != (kind is bool):
            raise InputError(f"{name}: {option} is {value!r}; expected a {kind.__name__}")
    return cls(**(options or {}))


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
