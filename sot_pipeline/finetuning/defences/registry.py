"""Defences by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sot_pipeline.errors import InputError, nearest
from sot_pipeline.finetuning.defences.defence import Defence
from sot_pipeline.finetuning.defences.refusalguard import RefusalGuardReimpl
from sot_pipeline.finetuning.defences.safegrad import SafeGrad
from sot_pipeline.finetuning.defences.sbr import Sbr
from sot_pipeline.finetuning.defences.spag import Spag
from sot_pipeline.finetuning.defences.spf import Spf

DEFENCES: Mapping[str, type[Defence]] = {
    "none": Defence,
    "spf": Spf,
    "safegrad": SafeGrad,
    "sbr": Sbr,
    "spag": Spag,
    "refusalguard_reimpl": RefusalGuardReimpl,
}


def make_defence(name: str, options: Mapping[str, Any] | None = None) -> Defence:
    """A defence with some of its fields set.

    Raises:
        InputError: no such defence, no such field, a value it does not take.
    """
    if name not in DEFENCES:
        raise InputError(f"no defence is called {name!r}; {nearest(name, list(DEFENCES))}")
    cls = DEFENCES[name]
    known = {field.name: field for field in fields(cls)}
    for option, value in (options or {}).items():
        if option not in known:
            raise InputError(f"{name} has no option {option!r}; {nearest(option, list(known))}")
        kind = type(known[option].default)
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or isinstance(value, bool) != (kind is bool):
            raise InputError(f"{name}: {option} is {value!r}; expected a {kind.__name__}")
    return cls(**(options or {}))
