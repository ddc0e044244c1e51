"""Values of any origin as parts of Markdown and YAML: shown as they are, never obeyed."""

import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&])")
_LIST_MARK = re.compile(r"^(\d+)([.)])(?=\s|$)|^([-+=])(?=\s|$)")


class Markdown(str):
    """Text that is Markdown already."""


def escaped(value: Any) -> Markdown:
    """A value as one line of Markdown that shows exactly its text.

    Characters with a meaning in Markdown or HTML are taken by their letter; line ends and hidden
    characters (controls, right-to-left marks) are written as their code.
    """
    if isinstance(value, Markdown):
        return value
    text = _SPECIAL.sub(r"\\\1", visible(str(value)))
    return Markdown(_LIST_MARK.sub(lambda m: f"{m[1] or ''}\\{m[2] or m[3]}", text))


def fenced(code: str, language: str = "") -> Markdown:
    """A code block whose fence is longer than any in the code."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}{language}\n{code}\n{fence}")


def front_matter(fields: dict[str, Any]) -> Markdown:
    """The YAML block at the head of a card; fields that are None are left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    return Markdown(f"---\n{yaml_text(given)}---\n")


def yaml_text(fields: dict[str, Any]) -> str:
    """A mapping as YAML, in the given order; every value is quoted where it has to be."""
    # ASCII: readers of YAML differ on which other characters end a line
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=False, width=1000)


def rendered(template: str, **values: Any) -> str:
    """A template of this folder, filled in; values are escaped unless they are `Markdown`."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # of HTML; `finalize` escapes for Markdown
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["markdown"] = Markdown
    return environment


def visible(text: str) -> str:
    """Line ends and hidden characters (controls, right-to-left marks) as their code."""
    return "".join(_code(c) if _is_hidden(c) else c for c in text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"
