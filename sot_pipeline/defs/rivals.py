"""Which rivals a task compares, with which options, and what those that cannot run lack."""

import dataclasses
import inspect
from collections.abc import Mapping
from importlib import import_module
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sot_pipeline.defs.home import TaskFile
from sot_pipeline.defs.methods import RIVALS, Method
from sot_pipeline.defs.settings import Settings
from sot_pipeline.errors import InputError, nearest


def asked(settings: Settings, rival: str) -> bool:
    """Whether the task's comparison names this rival."""
    return rival in compared(settings)


def compared(settings: Settings) -> list[str]:
    """The selections that the task compares, those that it only scores among them."""
    trained = [Method.parse(method).selection for method in settings.comparison.methods]
    return list(dict.fromkeys([*trained, *settings.comparison.selections]))


def options_of(settings: Settings, rival: str) -> dict[str, Any]:
    """The rival's options that the settings name."""
    return dict(settings.rivals.options.get(rival, {}))


def what_lacks(selection: str, settings: Settings, files: TaskFile) -> str | None:
    """Why a selection cannot be compared for this task, and what to set; None if it can."""
    if selection == "sft_clean" and files.custom_clean is None:
        return "the task's file names no custom_clean, the rows without their harmful ones"
    if selection in ("seal", "toss") and settings.base_model.name is None:
        return "it trains the base model: set base_model.name"
    if selection == "larf" and settings.base_model.name is None:
        return "it looks into the base model's layers: set base_model.name"
    if selection == "alpagasus" and not _grades_help(settings):
        return (
            f"the judge {settings.evaluation.judge!r} grades no helpfulness: set evaluation.judge "
            "to openai, with judge_base_url and judge_model"
        )
    if selection == "guard" and not (settings.rivals.guard_model and settings.rivals.guard_labels):
        return (
            "no guard model is set: rivals.guard_model (a Hugging Face sequence classifier) and "
            "rivals.guard_labels (its labels that mean harm)"
        )
    return None


def _grades_help(settings: Settings) -> bool:
    return settings.evaluation.judge in ("openai", "demo")


class Option(NamedTuple):
    default: Any
    annotation: Any


# Where the options of a rival are: keyword arguments of a function, or fields of a dataclass.
# Imported only when they are asked for: the trained ones need torch.
_OPTIONS_OF = {
    "logistic_regression": ("on_references", "logistic_regression"),
    "knn": ("on_references", "nearest_neighbours"),
    "dsir": ("dsir", "dsir"),
    "saft": ("saft", "saft"),
    "seal": ("seal", "SealRecipe"),
    "toss": ("toss", "TossRecipe"),
}


def known_options(rival: str) -> Mapping[str, Option]:
    """Options of a rival with their defaults and types.

    Raises:
        InputError: no rival is called so.
    """
    if rival not in RIVALS:
        raise InputError(f"no rival is called {rival!r}; {nearest(rival, RIVALS)}")
    if rival not in _OPTIONS_OF:
        return {}
    found = _holder(rival)
    if dataclasses.is_dataclass(found):
        hints = get_type_hints(found)
        return {
            field.name: Option(field.default, hints[field.name])
            for field in dataclasses.fields(found)
        }
    parameters = inspect.signature(found).parameters.values()
    return {p.name: Option(p.default, p.annotation) for p in parameters if p.kind is p.KEYWORD_ONLY}


def _holder(rival: str) -> Any:
    module, name = _OPTIONS_OF[rival]
    return getattr(import_module(f"sot_pipeline.selectors.{module}"), name)


def check_options(rival: str, options: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: an option that the rival does not have, naming the nearest one; a value of
            another type, or one that the rival refuses.
    """
    if rival in RIVALS and not options:
        return
    known = known_options(rival)
    for name, value in options.items():
        if name not in known:
            there = nearest(name, list(known)) if known else "it has none"
            raise InputError(f"{rival} has no option {name!r}; {there}")
        _check_type(f"{rival}: {name}", value, known[name].annotation)
    if dataclasses.is_dataclass(_holder(rival)):
        try:
            _holder(rival)(**options)
        except InputError as error:
            raise InputError(f"{rival}: {error}") from None


def _check_type(name: str, value: Any, annotation: Any) -> None:
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    try:
        TypeAdapter(annotation, config=strict).validate_python(value)
    except ValidationError:
        raise InputError(f"{name} is {value!r}; expected {_in_words(annotation)}") from None


def _in_words(annotation: Any) -> str:
    """What values of a type are, to someone who writes YAML."""
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(map(_in_words, get_args(annotation)))
    if get_origin(annotation) is tuple:
        return "a list of texts"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words.get(annotation, "null")
