"""Version of the code behind an asset: a hash of whatever can change its numbers.

Followed by itself, so that no list has to be kept by hand: the functions, classes and constants
that an asset's function refers to, and every module of the project that any of them imports.
Comments, docstrings and formatting do not count, nor do an asset's group and kinds.
"""

import ast
import hashlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path

PACKAGE = "sot_pipeline"
# These say what happens and where things lie; they do not decide what is computed
IGNORED = (
    f"{PACKAGE}.defs.cached_asset",
    f"{PACKAGE}.defs.materialise",
    f"{PACKAGE}.defs.retention",
    f"{PACKAGE}.defs.catalogue",
    f"{PACKAGE}.defs.store",
    f"{PACKAGE}.defs.home",
    f"{PACKAGE}.defs.settings",
    f"{PACKAGE}.defs.sources",
    f"{PACKAGE}.defs.pipes",
    f"{PACKAGE}.finetuning.launch",
    f"{PACKAGE}.finetuning.tracking",
    f"{PACKAGE}.durable",
    f"{PACKAGE}.progress",
    f"{PACKAGE}.errors",
)


def code_version(function: Callable, *, only_shows: tuple[str, ...] = ()) -> str:
    """16 hex digits that change when the function, or project code behind it, changes.

    Args:
        only_shows: Modules that draw what is shown beside the result; they do not count.
    """
    parts: dict[str, str] = {}
    _add(function, parts, (*IGNORED, *only_shows))
    text = "\n".join(f"{name}={parts[name]}" for name in sorted(parts))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


Named = Callable | type


def _add(named: Named, parts: dict[str, str], ignored: tuple[str, ...]) -> None:
    """A function or a class, and whatever it refers to."""
    name = f"{named.__module__}.{named.__qualname__}"
    if name in parts or named.__module__.startswith(ignored):
        return
    tree = ast.parse(textwrap.dedent(inspect.getsource(named)))
    _drop_what_is_shown(tree)
    parts[name] = _normal_form(tree)
    for module in _project_imports(tree):
        _add_module(module, parts, ignored)
    known = vars(sys.modules[named.__module__])
    for used in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
        value = inspect.unwrap(known[used]) if callable(known.get(used)) else known.get(used)
        if inspect.isfunction(value) or inspect.isclass(value):
            if value.__module__.startswith(PACKAGE):
                _add(value, parts, ignored)
        elif isinstance(value, str | int | float | tuple):
            parts[f"{name}.{used}"] = repr(value)


def _add_module(name: str, parts: dict[str, str], ignored: tuple[str, ...]) -> None:
    if name not in parts and not name.startswith(ignored):
        parts[name], imports = _module(name)
        for imported in imports:
            _add_module(imported, parts, ignored)


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    path = _file_of(name)
    if path is None:
        return "", ()
    tree = ast.parse(path.read_bytes())
    return _normal_form(tree), _project_imports(tree)


def _project_imports(tree: ast.AST) -> tuple[str, ...]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` may name a module too
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return tuple(sorted(n for n in names if n.startswith(f"{PACKAGE}.") and _file_of(n)))


@cache
def _file_of(name: str) -> Path | None:
    """Source file of a module of the project, found without importing anything."""
    package, *parts = name.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], *parts)
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def _drop_what_is_shown(tree: ast.AST) -> None:
    """Take out of an asset's declaration where the UI lists it, and under which icons."""
    for node in ast.walk(tree):
        for decorator in getattr(node, "decorator_list", ()):
            if isinstance(decorator, ast.Call):
                kept = [word for word in decorator.keywords if word.arg not in ("group", "kinds")]
                decorator.keywords = kept


def _normal_form(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.Module):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
